"""Controls of a workdir: real images, changed, measured beside the image sets.

measures/control-jpeg/ serves every generated set; measures/control-crop-<set>/ and
measures/control-vae-<set>/ are of one generator's size and autoencoder. None of them is a generated
set: nothing compares or shows it as one.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import ml_collections

from bsjax.core.artifacts import CONTROL, read_manifest
from bsjax.core.config import controls_of
from bsjax.core.errors import UserError
from bsjax.core.paths import AnyPath
from bsjax.core.ranges import CONTROLS
from bsjax.experiment.inputs import generated_name
from bsjax.experiment.stored import EXPERIMENT
from bsjax.generators.protocol import Generator
from bsjax.generators.round_trip import round_trip_of

OF_ONE_SET = ("crop", "vae")  # depend on the generator


def name_of(kind: str, generated: str) -> str:
    """The folder's name of a control of a generated set."""
    return f"{CONTROL}{kind}-{generated}" if kind in OF_ONE_SET else f"{CONTROL}{kind}"


def n_images(config: ml_collections.ConfigDict, n_real: int) -> dict[str, int]:
    """Images of each control that a config asks for, by its folder's name."""
    generated = generated_name(config)
    return {name_of(kind, generated): n_real for kind in controls_of(config)}


def drawn(names: Iterable[str]) -> list[str]:
    """Those of the controls' folders whose images are drawn and kept."""
    return [name for name in names if name.startswith(f"{CONTROL}vae-")]


def check_generator(config: ml_collections.ConfigDict, generator: Generator) -> None:
    """Refuses a control that its generator cannot serve.

    Raises:
      UserError: it has no autoencoder, or one that cannot be built.
    """
    if "vae" in controls_of(config):
        round_trip_of(generator, config.generator.name)


def find_controls(
    config: ml_collections.ConfigDict, workdir: AnyPath, generated: str
) -> dict[str, dict[str, Any]]:
    """Manifests of the controls that a generated set is held to, by kind.

    Those that are there, whoever asked for them; the config's must be.

    Raises:
      UserError: one is asked for and missing, or unfinished.
    """
    asked, found = controls_of(config), {}
    for kind in CONTROLS:
        folder = workdir / "measures" / name_of(kind, generated)
        if kind not in asked and not folder.is_dir():
            continue
        manifest = read_manifest(folder, "measure")
        if manifest is None:
            raise UserError(
                f"{folder} is unfinished; run `bsjax measure --control={kind}` to the end, or"
                " remove that folder and leave the control out"
            )
        found[kind] = manifest
    return found


def check_compared(config: ml_collections.ConfigDict, workdir: AnyPath) -> None:
    """Refuses a finished comparison that does not know the controls of now: measured or asked for.

    Raises:
      UserError: it was made with others, and is not to be made anew.
    """
    generated = generated_name(config)
    folder = workdir / "comparisons" / generated
    done = None if config.overwrite else read_manifest(folder, "compare")
    if done is None:
        return
    known = {parent.removeprefix("measures/") for parent in done["parents"]}
    known = {name for name in known if name.startswith(CONTROL)}
    asked, names = controls_of(config), {kind: name_of(kind, generated) for kind in CONTROLS}
    now = {
        name
        for kind, name in names.items()
        if kind in asked or (workdir / "measures" / name).is_dir()
    }
    if known != now:
        made, wanted = (", ".join(sorted(each)) or "no control" for each in (known, now))
        raise UserError(
            f"{folder} was made with {made}, measured or asked for is {wanted}; run it again with"
            " --overwrite"
        )


def check_control(
    name: str, control: Mapping[str, Any], real: Mapping[str, Any], generated: Mapping[str, Any]
) -> None:
    """Refuses a control that is not of these real images and this generator.

    Args:
      name: of the control's folder.
      control, real, generated: manifests of the measured sets.

    Raises:
      UserError: what differs.
    """
    mend = f"remove measures/{name} and run `bsjax measure` with --control again"
    if control["parents"].get("images") != real["parents"].get("images"):
        raise UserError(f"measures/{name} is of other real images than measures/real; {mend}")
    drawn = generated.get(EXPERIMENT, {})
    for key, value in control["config"].items():
        if key.startswith("generator.") and drawn.get(key, value) != value:
            raise UserError(
                f"measures/{name} is of {key}={value}, the generated images of {drawn[key]}; {mend}"
            )
