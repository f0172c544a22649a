"""The config that a workdir's own manifests tell, for stages that work on finished artifacts.

Reads measures/*/manifest.json and the manifests beside it. `measure` writes the whole experiment
into its own; what each artifact was made with comes from the artifact.
"""

import pathlib
from typing import Any

import ml_collections
from absl import logging

from bsjax import presets
from bsjax.core.artifacts import CONTROL, REAL, list_finished, read_manifest
from bsjax.core.config import flatten
from bsjax.core.errors import UserError
from bsjax.core.foreign import valid_text
from bsjax.core.paths import AnyPath

EXPERIMENT = "experiment"  # of a manifest of measure: the whole config


def experiment_of(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """What `measure` keeps of a config: dotted keys, with an SAE on disk by its full path."""
    flat = flatten(config)
    weights = pathlib.Path(flat["sae.weights"]).expanduser()
    if flat["sae.weights"] and weights.exists():
        flat["sae.weights"] = str(weights.resolve())
    # A path may hold bytes that no JSON can.
    return {key: valid_text(v) if isinstance(v, str) else v for key, v in flat.items()}


def read_experiments(
    workdir: AnyPath, stage: str, against: str | None = None
) -> list[ml_collections.ConfigDict]:
    """Configs for a stage of a workdir: of compare one for each generated set, of report one.

    Args:
      workdir: of a run.
      stage: that they are for.
      against: the set that all others are compared with, which needs no config.

    Raises:
      UserError: nothing is measured there, or a manifest is damaged.
    """
    folder = workdir / "measures"
    sets = [name for name in list_finished(folder) if not name.startswith(CONTROL)]
    wanted = [name for name in sets if name != REAL] if stage == "compare" else [REAL]
    if not wanted or REAL not in sets:
        missing = f"{folder / REAL}" if REAL not in sets else f"a generated set in {folder}"
        raise UserError(f"{missing} is not measured; run `bsjax measure` first, or give --config")
    others = [name for name in wanted if name != against]
    if not others:
        raise UserError(
            f"{folder} holds no generated set but {against!r}; measure another one to compare with"
            " it"
        )
    return [_read(workdir, name) for name in others]


def _read(workdir: AnyPath, name: str) -> ml_collections.ConfigDict:
    """The experiment of one set."""
    config = presets.experiment()
    known = flatten(config)
    measured = read_manifest(workdir / "measures" / name, "measure") or {}
    parts = [measured.get(EXPERIMENT, {})]  # absent: measured before it was kept
    for folder, stage in ((f"images/{name}", "generate"), (f"comparisons/{name}", "compare")):
        made = (read_manifest(workdir / folder, stage) or {}).get("config", {})
        _tell_changed(parts[0], made, folder)
        parts.append(made)
    flat = {key: value for part in parts for key, value in part.items() if key in known}
    config.update_from_flattened_dict(flat)
    config.overwrite = False
    if name not in (REAL, "generated") and config.generator.name == "none":
        raise UserError(
            f"the manifests of {workdir} do not say what drew the images of {name}; give --config"
        )
    return config


def _tell_changed(measured: dict[str, Any], made: dict[str, Any], folder: str) -> None:
    """Says which settings of an artifact are kept that are not those of the experiment."""
    for key in sorted(measured.keys() & made.keys()):
        if measured[key] != made[key]:
            logging.info(
                "%s=%s as %s was made, not %s as the images were measured; --config.%s=... sets"
                " another", key, made[key], folder, measured[key], key,
            )  # fmt: skip
