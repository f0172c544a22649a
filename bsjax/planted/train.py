"""Trains the scenes world's networks: `python -m bsjax.planted.train PART --workdir=DIR`.

PART is encoder, autoencoder, decoder or generator. Decoder and generator need the autoencoder's end
and may train side by side; the generator then writes the decoder too. Each takes between minutes
and two hours on two CPU cores; killed at any moment, the same command goes on. What it ends with is
a folder in the hub's layout, with a card, below DIR/weights. With --start=FOLDER the parts train
on from the finished networks of such a folder, of which bsjax/assets/scenes is one.
"""

import functools
import pathlib
import shutil
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from absl import app, flags
from flax import traverse_util

from bsjax.convert.dinov2 import load_dinov2
from bsjax.convert.tables import convert_by_name
from bsjax.convert.tensors import open_folder
from bsjax.core.artifacts import atomic_path, package_versions, read_json, write_json
from bsjax.core.errors import UserError
from bsjax.core.logs import quiet_libraries
from bsjax.generators import loading
from bsjax.generators.latents import RENAMES
from bsjax.generators.modules import DIFFUSION_STEMS
from bsjax.generators.tokenizers import HubTokenizer
from bsjax.models.dinov2 import VARIANTS
from bsjax.planted import autoencoder, encoder, export, generator
from bsjax.planted.fit import fit, read_curves

SEED = 0
PARAMS = "params.npz"
JUDGED_BATCHES = 64  # of pictures by which the latents are whitened
CARDS = {  # of each part, in a folder of finished networks
    "encoder": "encoder/card.json",
    "autoencoder": "generator/vae/autoencoder.json",
    "decoder": "generator/vae/decoder.json",
    "generator": "generator/card.json",
}
ENCODER_STEPS, AUTOENCODER_STEPS, DECODER_STEPS, GENERATOR_STEPS = 6300, 4400, 500, 6600


def train_encoder(workdir: pathlib.Path, steps: int, start: pathlib.Path | None) -> None:
    """DINOv2 in small; writes weights/encoder. Its heads are never kept: they begin anew."""
    begin = encoder.init(SEED)
    if start:
        begin["encoder"] = load_dinov2(encoder.VARIANT, str(start / "encoder")).params
    params, seconds = fit(
        workdir / "encoder", begin, encoder.loss, encoder.make_batch,
        steps=steps, peak_learning_rate=1e-3, batch=encoder.BATCH,
    )  # fmt: skip
    folder = workdir / "weights" / "encoder"
    state = export.dinov2_state(encoder.centre(params["encoder"]))
    config = export.dinov2_config(VARIANTS[encoder.VARIANT])
    export.write_component(folder, state, config, "model")
    write_card(folder, workdir / "encoder", "encoder", steps, seconds, start)


def train_autoencoder(workdir: pathlib.Path, steps: int, start: pathlib.Path | None) -> None:
    """Pixels to latents and back; writes its parameters for the parts that follow."""
    begin = read_start(start)["vae"] if start else autoencoder.init(SEED)
    params, seconds = fit(
        workdir / "autoencoder", begin, autoencoder.loss, autoencoder.make_batch,
        steps=steps, peak_learning_rate=1e-3, batch=autoencoder.BATCH,
    )  # fmt: skip
    judged_by = [autoencoder.make_batch(steps + i)["image"] for i in range(JUDGED_BATCHES)]
    write_params(workdir / "autoencoder", autoencoder.whiten(params, np.concatenate(judged_by)))
    folder = workdir / "autoencoder"
    write_card(folder, folder, "autoencoder", steps, seconds, start)


def train_decoder(workdir: pathlib.Path, steps: int, start: pathlib.Path | None) -> None:
    """Latents to pixels once more; writes the autoencoder's parameters with the new decoder's."""
    trained = read_vae(workdir / "autoencoder", start)
    params, seconds = fit(
        workdir / "decoder", {name: trained[name] for name in autoencoder.DECODING},
        autoencoder.make_decoder_loss(trained),
        functools.partial(autoencoder.make_batch, stream=autoencoder.DECODER_STREAM),
        steps=steps, peak_learning_rate=5e-4, batch=autoencoder.BATCH,
    )  # fmt: skip
    folder = workdir / "decoder"
    write_params(folder, trained | params)
    write_card(folder, folder, "decoder", steps, seconds, start)


def write_params(folder: pathlib.Path, params: Any) -> None:
    """For the parts that follow, in float32."""
    with atomic_path(folder / PARAMS) as temporary:
        np.savez(temporary, **traverse_util.flatten_dict(params, sep="/"))


def read_params(folder: pathlib.Path) -> Any:
    """What `write_params` wrote.

    Raises:
      UserError: the part is not finished.
    """
    path = folder / PARAMS
    if not path.is_file():
        raise UserError(f"{path} is not there; train the part {folder.name} to its end first")
    with np.load(path) as arrays:
        return traverse_util.unflatten_dict(dict(arrays), sep="/")


def read_vae(folder: pathlib.Path, start: pathlib.Path | None) -> Any:
    """The autoencoder that a part left in its folder; without one, that to train on from."""
    is_there = (folder / PARAMS).is_file()
    return read_start(start)["vae"] if start and not is_there else read_params(folder)


@functools.cache
def read_start(start: pathlib.Path) -> dict[str, Any]:
    """Parameters of a finished generator by component, float32.

    Raises:
      UserError: there is none in the folder.
    """
    settings = generator.settings()
    folder = start / "generator"
    opened = loading.open_generator("stable_diffusion", "", {"": str(folder)}, settings)
    # That reads the decoding half of the autoencoder alone.
    files = open_folder(folder / "vae", DIFFUSION_STEMS, "--start")
    shapes = jax.eval_shape(lambda: autoencoder.init(SEED))
    return opened.read_params() | {"vae": convert_by_name(files, shapes, "vae", RENAMES)}


def train_generator(workdir: pathlib.Path, steps: int, start: pathlib.Path | None) -> None:
    """Text encoder and UNet; writes weights/generator, autoencoder included."""
    folder = workdir / "weights" / "generator"
    export.write_tokenizer(folder / "tokenizer", generator.words(), generator.LENGTH)
    tokenizer = HubTokenizer(folder / "tokenizer", "CLIPTokenizerFast")
    trained = read_vae(workdir / "autoencoder", start)
    pool = generator.make_pool(workdir / "pool.npz", trained)
    scaling = round(1 / float(np.std(pool.latents.astype(np.float32))), 5)
    text = generator.text_config(tokenizer.tokenizer)
    system = generator.system(text, scaling, tokenizer)
    planted = generator.Planted.read()
    if start:
        begin = {name: read_start(start)[name] for name in ("text_encoder", "unet")}
    else:
        begin = generator.init(system, SEED)
    params, seconds = fit(
        workdir / "generator", begin, generator.make_loss(system),
        functools.partial(generator.make_batch, pool, scaling, tokenizer, planted),
        steps=steps, peak_learning_rate=1e-3, batch=generator.BATCH
    )  # fmt: skip
    # A decoder fits the latents that it was trained on alone.
    has_own = (workdir / "autoencoder" / PARAMS).is_file()
    vae = read_vae(workdir / "decoder", None if has_own else start)
    for name, tree, config, stem, renames in (
        ("unet", params["unet"], generator.UNET, "diffusion_pytorch_model", ()),
        ("vae", vae, autoencoder.CONFIG | {"scaling_factor": scaling},
         "diffusion_pytorch_model", export.VAE_RENAMES),
        ("text_encoder", params["text_encoder"], text, "model", ()),
    ):  # fmt: skip
        export.write_component(folder / name, export.torch_state(tree, renames), config, stem)
    write_json(folder / "scheduler" / "scheduler_config.json", generator.SCHEDULER)
    export.write_model_index(folder)
    write_card(folder, workdir / "generator", "generator", steps, seconds, start)
    for part in ("autoencoder", "decoder"):
        card = workdir / part / "card.json"
        if start and not card.is_file():
            card = start / CARDS[part]
        shutil.copy(card, folder / "vae" / f"{part}.json")


def write_card(
    folder: pathlib.Path,
    run: pathlib.Path,
    part: str,
    steps: int,
    seconds: float,
    start: pathlib.Path | None,
) -> None:
    """How a network was made: command, seed, time, versions, last metrics, and what it began from.

    Args:
      folder: of the card.
      run: of the part.
      part: as the command names it.
      steps: in all.
      seconds: that they took.
      start: folder of finished networks that it began from.
    """
    flag = " --start=FOLDER" if start else ""
    card = {
        "command": f"python -m bsjax.planted.train {part} --workdir=DIR --steps={steps}{flag}",
        "seed": SEED,
        "seconds": round(seconds),
        "device": f"{jax.device_count()} {jax.devices()[0].device_kind}",
        "versions": package_versions(),
        "last": read_curves(run)[-1],
    }
    if start:
        card["start"] = read_json(start / CARDS[part])
    write_json(folder / "card.json", card)


def require_start(start: pathlib.Path, parts: Sequence[str]) -> None:
    """Fails at once where training on from a folder would fail at the end.

    Raises:
      UserError: the folder has no card of a part.
    """
    for part in parts:
        if not (start / CARDS[part]).is_file():
            raise UserError(
                f"--start={start}: {CARDS[part]} is not there; expected a folder of finished"
                " networks with their cards, as bsjax/assets/scenes is"
            )


PARTS: dict[str, tuple[Callable[..., None], int]] = {
    "encoder": (train_encoder, ENCODER_STEPS),
    "autoencoder": (train_autoencoder, AUTOENCODER_STEPS),
    "decoder": (train_decoder, DECODER_STEPS),
    "generator": (train_generator, GENERATOR_STEPS),
}


def define_flags() -> None:
    """Not when imported: `bsjax.main` has a --workdir too."""
    flags.DEFINE_string("workdir", None, "folder of checkpoints and results", required=True)
    flags.DEFINE_integer("steps", None, "instead of the part's own number")
    flags.DEFINE_string("start", None, "folder of finished networks to train on from")


def main(argv: list[str]) -> None:
    """Trains the parts named, in the order given."""
    quiet_libraries()
    given = flags.FLAGS
    workdir = pathlib.Path(given.workdir).expanduser()
    try:
        start = pathlib.Path(given.start).expanduser() if given.start else None
        parts = argv[1:] or list(PARTS)
        for part in parts:
            if part not in PARTS:
                raise app.UsageError(f"{part!r}: give some of {', '.join(PARTS)}, or none for all")
        if start:
            require_start(start, parts)
        for part in parts:
            train, steps = PARTS[part]
            (workdir / part).mkdir(parents=True, exist_ok=True)
            train(workdir, given.steps or steps, start)
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    define_flags()
    app.run(main)
