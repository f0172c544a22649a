"""The controls of measure: real images, changed, as sets to be measured like any other.

Reads the real images and, for the round trip, the generator's autoencoder; writes
images/control-vae-<set>/, shards as `generate` writes them. The other changes are made as images
are read.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import logging
from etils import epath

from bsjax.core import distributed
from bsjax.core.artifacts import identity_for, write_manifest
from bsjax.core.config import controls_of
from bsjax.core.errors import UserError
from bsjax.core.foreign import printable
from bsjax.core.logs import progress
from bsjax.core.mesh import make_mesh, over_data, put, replicated
from bsjax.core.paths import AnyPath
from bsjax.data.captions import BadImage, ImageSet
from bsjax.data.changes import CROP_PIXELS, JPEG_QUALITY, Change, ChangedRecords
from bsjax.data.decode import decode_rgb
from bsjax.data.image_shards import ImageShards, Outcome, Prompt, list_generated
from bsjax.experiment import inputs
from bsjax.experiment.controls import OF_ONE_SET, name_of
from bsjax.generators.protocol import Samples
from bsjax.generators.round_trip import OpenedRoundTrip, jit_round_trip, open_round_trip
from bsjax.stages.generate import encode_png

READ_THREADS = 8
MADE_BY = ("generator.name", "generator.weights", "generator.height", "generator.width")


class Control(NamedTuple):
    """One control, to be measured.

    Attributes:
      name: of its folders.
      change: what is done to the real images as they are read.
      settings, parents: for its manifest, beside those of every measured set.
      trip: through which autoencoder they go then; None: through none.
    """

    name: str
    change: Change
    settings: dict[str, Any]
    parents: dict[str, str]
    trip: OpenedRoundTrip | None = None


def plan_controls(config: ml_collections.ConfigDict, arms: Sequence[inputs.Arm]) -> list[Control]:
    """The controls that a config asks for.

    Raises:
      UserError: there are no real images, or no autoencoder.
    """
    kinds = controls_of(config)
    if kinds and not any(arm.section == "real" for arm in arms):
        raise UserError(
            f"measure.controls={config.measure.controls}: there are no real images to change; set"
            " --config.real.path, or leave out --control"
        )
    return [_plan(config, kind) for kind in kinds]


def _plan(config: ml_collections.ConfigDict, kind: str) -> Control:
    generator, trip, parents = config.generator, None, {}
    name = name_of(kind, inputs.generated_name(config))
    is_drawn = generator.name != "none"
    size = (generator.height, generator.width) if is_drawn else (CROP_PIXELS, CROP_PIXELS)
    change = Change(quality=JPEG_QUALITY) if kind == "jpeg" else Change(*size)
    if kind == "vae":
        opened = inputs.open_original(config)
        trip = open_round_trip(opened, generator.name, generator.weights)
        parents["autoencoder"] = trip.digest
        change = Change(trip.round_trip.height, trip.round_trip.width)
    settings = {"control": kind, **change.settings}
    if kind in OF_ONE_SET and is_drawn:
        settings |= {key: generator[key.partition(".")[2]] for key in MADE_BY}
    if kind == "vae":
        settings["generator.dtype"] = generator.dtype
    return Control(name, change, settings, parents, trip)


def images_of(
    control: Control, config: ml_collections.ConfigDict, workdir: AnyPath, real: inputs.Arm
) -> ImageSet:
    """The real images, changed; those of a round trip are drawn now.

    Raises:
      UserError: a file of those that were drawn is not what was written.
    """
    images = real.images
    if control.trip is None:
        return images._replace(records=ChangedRecords(images.records, control.change))
    folder = epath.Path(workdir) / "images" / control.name
    made_of = {
        "config": control.settings | {"images_per_shard": config.generator.images_per_shard},
        "parents": control.parents | {"images": real.digest},
    }
    done = distributed.begin_together(
        folder, **made_of, overwrite=config.overwrite, stage="generate"
    )
    if done is None:
        done = _draw(control, config, folder, real, made_of)
    try:
        found = list_generated(folder)
    except UserError as error:
        raise UserError(str(error).replace("bsjax generate", "bsjax measure")) from error
    bad = (*images.bad, *(BadImage(**image) for image in done["bad_images"]))
    return found._replace(bad=bad, n_listed=images.n_listed)


def _draw(
    control: Control,
    config: ml_collections.ConfigDict,
    folder: AnyPath,
    real: inputs.Arm,
    made_of: dict[str, Any],
) -> dict[str, Any]:
    """Draws what is missing of this host's shards; returns the manifest when all are there."""
    records = real.images.records
    prompts = [Prompt(row, each.key, each.caption) for row, each in enumerate(records)]
    identity = identity_for(made_of["config"], made_of["parents"])
    shards = ImageShards(folder, prompts, config.generator.images_per_shard, 0, identity)
    mine = distributed.my_turns(shards.n_shards)
    missing = [(shard, shards.missing(shard)) for shard in mine]
    n_missing = sum(len(places) for _, places in missing)
    n_mine = sum(len(shards.places(shard)) for shard in mine)
    if n_missing:
        with (
            progress(control.name, n_mine, n_mine - n_missing) as bar,
            ThreadPoolExecutor(READ_THREADS) as pool,
        ):
            for shard, outcomes in _in_batches(control, config, records, prompts, missing, pool):
                shards.add(shard, outcomes)
                bar.update(len(outcomes))
    distributed.wait_for_all("changed")
    if not distributed.is_writer():
        return distributed.read_written(folder, "generate")
    n_images, bad = shards.finish()
    manifest = write_manifest(
        folder, stage="generate", **made_of,
        counts={"images": n_images, "failed": len(bad)}, notes=inputs.generator_notes(config),
        bad_images=[image._asdict() for image in bad],
    )  # fmt: skip
    distributed.wait_for_all(distributed.WRITTEN)
    return manifest


def _in_batches(
    control: Control,
    config: ml_collections.ConfigDict,
    records: Sequence[Any],
    prompts: Sequence[Prompt],
    missing: Sequence[tuple[int, list[int]]],
    pool: ThreadPoolExecutor,
) -> Iterator[tuple[int, list[tuple[int, Outcome]]]]:
    """Outcomes batch by batch; the devices work on one while the host books the one before."""
    trip, read_params = control.trip.round_trip, control.trip.read_params
    mesh = make_mesh(-1, 1, jax.local_devices())
    params = put(read_params(), replicated(mesh))
    if config.generator.dtype == "float32":
        params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    step = jit_round_trip(trip, config.generator.dtype, mesh)
    n = inputs.images_a_step(config, mesh)
    load = functools.partial(_load, control.change, records)
    pending: Callable[[], Any] | None = None
    for shard, places in missing:
        for start in range(0, len(places), n):
            part = places[start : start + n]
            loaded = list(pool.map(load, part))
            pixels = np.zeros((n, trip.height, trip.width, 3), np.uint8)
            for row, (image, _) in enumerate(loaded):
                if image is not None:
                    pixels[row] = image
            samples = step(params, put(pixels, over_data(mesh)))
            if pending is not None:
                yield pending()
            pending = functools.partial(_book, shard, part, loaded, samples, prompts, pool)
    if pending is not None:
        yield pending()


def _load(change: Change, records: Sequence[Any], row: int) -> tuple[np.ndarray | None, str]:
    """Pixels of a real image, changed, or why there are none."""
    try:
        return np.asarray(change.apply(decode_rgb(records[row].read()))), ""
    except FileNotFoundError:
        return None, "no such file"
    except (OSError, ValueError) as error:
        return None, str(error)


def _book(
    shard: int,
    places: Sequence[int],
    loaded: Sequence[tuple[np.ndarray | None, str]],
    samples: Samples,
    prompts: Sequence[Prompt],
    pool: ThreadPoolExecutor,
) -> tuple[int, list[tuple[int, Outcome]]]:
    """Fetches a batch and encodes it."""
    images, is_finite = map(np.asarray, jax.device_get(samples))
    outcomes = []
    pngs = pool.map(encode_png, images[: len(places)])
    for row, (place, png) in enumerate(zip(places, pngs, strict=True)):
        image, reason = loaded[row]
        if image is not None and not is_finite[row]:
            image, reason = None, "the autoencoder gave values that are not finite"
        if image is None:
            logging.warning("%s cannot be used: %s", *map(printable, (prompts[place].key, reason)))
        outcomes.append((place, Outcome(prompts[place], None if image is None else png, reason)))
    return shard, outcomes
