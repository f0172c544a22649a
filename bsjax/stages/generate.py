"""generate: captions -> images of a text-to-image model.

Reads the captions of the real images (or a file of prompts) and the generator; writes
images/<set>/. An image depends on the seed and its caption's index alone: not on the batch, the
number of devices or an interruption. Hosts share nothing; each draws every n-th shard.
"""

import functools
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import logging
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from PIL import Image

from bsjax import pipeline
from bsjax.core import distributed
from bsjax.core.artifacts import atomic_path, hash_json, identity_for, write_manifest
from bsjax.core.config import select
from bsjax.core.errors import Preempted
from bsjax.core.foreign import printable
from bsjax.core.logs import progress
from bsjax.core.mesh import DATA, make_mesh, over_data, put, replicated
from bsjax.core.paths import AnyPath
from bsjax.core.precision import matmul_precision
from bsjax.core.rng import item_key, stage_key
from bsjax.data.image_shards import ImageShards, Outcome, Prompt
from bsjax.experiment import inputs, preflight
from bsjax.experiment.text_phase import TextFeatures
from bsjax.generators import loading
from bsjax.generators.protocol import Generator, Samples

SHEET_COLUMNS, SHEET_ROWS, SHEET_PIXELS, SHEET_GAP = 8, 4, 160, 4
PNG_THREADS = 8
FEATURES = "features-of-host"  # folders of the first phase, gone in the end


class Engine(NamedTuple):
    """A jitted sampler with its parameters on the devices."""

    step: Callable[..., Samples]
    params: Any
    mesh: Mesh
    batch_size: int


def generate(config: ml_collections.ConfigDict, workdir: AnyPath) -> None:
    """Draws one image per caption; what is there already is not drawn again."""
    if config.generator.name == "none":
        logging.info("generator.name=none: images come from generated.path")
        return
    preflight.check_workdir(workdir)
    prompts = inputs.list_prompts(config)
    opened = inputs.open_generator(config, workdir)
    parents = {"captions": hash_json(prompts.usable), "generator": opened.digest}
    draw_set(
        config,
        workdir,
        f"images/{inputs.generated_name(config)}",
        opened,
        prompts.usable,
        parents=parents,
        counts={"without_caption": prompts.n_without_caption},
    )


def draw_set(
    config: ml_collections.ConfigDict,
    workdir: AnyPath,
    name: str,
    opened: loading.Opened,
    prompts: Sequence[Prompt],
    *,
    parents: Mapping[str, str],
    counts: Mapping[str, int] = MappingProxyType({}),
    purpose: str = "generate",
) -> None:
    """Draws an image for each prompt; what is there already is not drawn again.

    Args:
      config: the experiment.
      workdir: of the run.
      name: of the set's folder in it.
      opened: the generator.
      prompts: with what decides the noise of each.
      parents: for the manifest.
      counts: for the manifest, beside those of the images.
      purpose: whose noise it is; sets of different purposes share none.
    """
    folder = workdir / name
    settings = select(config, pipeline.BY_NAME["generate"].config_keys)
    done = distributed.begin_together(
        folder, config=settings, parents=parents, overwrite=config.overwrite, stage="generate"
    )
    if done is not None:
        return
    preflight.check_disk(preflight.bills_of_images(config, workdir, len(prompts), name))
    identity = identity_for(settings, parents)
    shards = ImageShards(folder, prompts, config.generator.images_per_shard, config.seed, identity)
    n_truncated = _draw_all(config, opened, shards, purpose)
    distributed.wait_for_all("generate")
    if not distributed.is_writer():
        distributed.read_written(folder, "generate")
        return
    n_images, bad = shards.finish()
    for features in [path for path in folder.iterdir() if path.name.startswith(f"{FEATURES}-")]:
        features.rmtree()
    with atomic_path(folder / "contact_sheet.png") as temporary:
        contact_sheet(shards.first_images(SHEET_COLUMNS * SHEET_ROWS)).save(temporary)
    counts = {"images": n_images, "failed": len(bad), **counts, "truncated": n_truncated}
    logging.info("%s: %s", folder, counts)
    write_manifest(
        folder, stage="generate", config=settings, parents=parents, counts=counts,
        notes=inputs.generator_notes(config), bad_images=[image._asdict() for image in bad],
    )  # fmt: skip
    distributed.wait_for_all(distributed.WRITTEN)


def rows_of(arrays: dict[str, np.ndarray], places: np.ndarray) -> dict[str, np.ndarray]:
    return {name: array[places] for name, array in arrays.items()}


def _draw_all(config, opened: loading.Opened, shards: ImageShards, purpose: str) -> int:
    """Draws what is missing of this host's shards; returns how many captions were too long."""
    prompts = shards.prompts
    captions = [prompt.caption for prompt in prompts]
    tokens = opened.generator.prompts(captions)
    if tokens.n_truncated:
        logging.warning("%d captions are longer than the text encoder reads", tokens.n_truncated)
    mine = distributed.my_turns(shards.n_shards)
    missing = [(shard, shards.missing(shard)) for shard in mine]
    n_missing = sum(len(places) for _, places in missing)
    if not n_missing:
        return tokens.n_truncated
    n_mine = sum(len(shards.places(shard)) for shard in mine)
    generator = opened.generator
    read_batch = functools.partial(rows_of, tokens.arrays)
    if generator.TEXT_COMPONENTS:
        folder = shards.folder / f"{FEATURES}-{jax.process_index()}"
        features = TextFeatures(folder, opened, captions, identity=shards.identity)
        features.make()
        read_batch = features.batch
    names = [name for name in generator.components if name not in generator.TEXT_COMPONENTS]
    drawing = Drawing(config, opened, names, prompts, read_batch, purpose)
    with (
        progress("generate", n_mine, n_mine - n_missing) as bar,
        ThreadPoolExecutor(PNG_THREADS) as pool,
        # Several hosts draw each at its own pace: none waits for another to stop.
        distributed.StopSignal() if distributed.n_hosts() == 1 else nullcontext() as stop,
    ):
        for i, (shard, outcomes) in enumerate(in_batches(drawing, missing, pool)):
            shards.add(shard, outcomes)
            bar.update(len(outcomes))
            if stop is not None and stop.is_set(i):
                raise Preempted("stopped; all images drawn so far are kept")
    return tokens.n_truncated


def in_batches(
    drawing: "Drawing", missing: Sequence[tuple[int, list[int]]], pool: ThreadPoolExecutor
) -> Iterator[tuple[int, list[tuple[int, Outcome]]]]:
    """Outcomes batch by batch; devices draw the next batch while the host books the last one."""
    pending = None
    for shard, places in missing:
        for start in range(0, len(places), drawing.batch_size):
            part = places[start : start + drawing.batch_size]
            launched = (shard, part, drawing.launch(part))
            if pending is not None:
                yield _book(drawing, *pending, pool)
            pending = launched
    if pending is not None:
        yield _book(drawing, *pending, pool)


def _book(
    drawing: "Drawing", shard: int, places: list[int], samples: Samples, pool: ThreadPoolExecutor
) -> tuple[int, list[tuple[int, Outcome]]]:
    """Fetches a batch, draws again what is not finite, encodes."""
    images, is_finite = map(np.array, jax.device_get(samples))
    again = [row for row in range(len(places)) if not is_finite[row]]
    if again:
        retried = drawing.redraw([places[row] for row in again])
        for row, (image, is_good) in zip(again, retried, strict=True):
            images[row], is_finite[row] = image, is_good
    encoded = pool.map(encode_png, images[: len(places)])
    outcomes = []
    for row, (place, png) in enumerate(zip(places, encoded, strict=True)):
        prompt = drawing.prompts[place]
        if is_finite[row]:
            outcomes.append((place, Outcome(prompt, png)))
            continue
        reason = "the generator gave values that are not finite, in float32 too"
        logging.warning("%s: %s (%r)", printable(prompt.key), reason, prompt.caption[:60])
        outcomes.append((place, Outcome(prompt, None, reason)))
    return shard, outcomes


class Drawing:
    """The engines of a run: the configured one, and one in float32 for what came out as no numbers.

    Args:
      config: the experiment.
      opened: the generator.
      names: of the components that the sampler takes.
      prompts: all prompts.
      read_batch: places of prompts -> their arrays, as the generator takes them.
      purpose: whose noise it is.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        opened: loading.Opened,
        names: Sequence[str],
        prompts: Sequence[Prompt],
        read_batch: Callable[[np.ndarray], dict[str, np.ndarray]],
        purpose: str = "generate",
    ):
        self.config, self.opened, self.names = config, opened, names
        self.prompts, self.read_batch = prompts, read_batch
        self.key = stage_key(config.seed, purpose)
        self.engine = make_engine(config, opened.generator, opened, names)
        self._exact: Engine | None = None

    @property
    def batch_size(self) -> int:
        return self.engine.batch_size

    def launch(self, places: Sequence[int], engine: Engine | None = None) -> Samples:
        """Starts a batch; rows behind the last place repeat the first."""
        engine = engine or self.engine
        padded = np.resize(np.asarray(places), engine.batch_size)
        padded[len(places) :] = places[0]
        batch = self.read_batch(padded)
        indices = np.asarray([self.prompts[place].index for place in padded], np.int32)
        divided = over_data(engine.mesh)
        return engine.step(engine.params, self.key, put(batch, divided), put(indices, divided))

    def redraw(self, places: Sequence[int]) -> list[tuple[Any, bool]]:
        """The same images once more, in float32; nothing new where that was used already."""
        generator = self.opened.generator
        size = (generator.settings.height, generator.settings.width, 3)
        if generator.settings.dtype == "float32":
            return [(np.zeros(size, np.uint8), False)] * len(places)
        if self._exact is None:
            exact = self.opened.in_float32()
            self._exact = make_engine(self.config, exact, self.opened, self.names)
        found = []
        for start in range(0, len(places), self._exact.batch_size):
            part = places[start : start + self._exact.batch_size]
            samples = jax.device_get(self.launch(part, self._exact))
            found += [(samples.images[i], bool(samples.is_finite[i])) for i in range(len(part))]
        return found


def make_engine(
    config: ml_collections.ConfigDict,
    generator: Generator,
    opened: loading.Opened,
    names: Sequence[str],
) -> Engine:
    """Places the parameters on this host's devices and jits the sampler."""
    mesh = make_mesh(-1, 1, jax.local_devices())
    shapes = loading.abstract_params(generator, names)
    params = opened.place_params(names, jax.tree.map(lambda _: replicated(mesh), shapes))
    if generator.settings.dtype == "float32":
        params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    return Engine(jit_sample(generator, mesh), params, mesh, inputs.images_a_step(config, mesh))


def jit_sample(generator: Generator, mesh: Mesh) -> Callable[..., Samples]:
    """The sampler that generating runs and `plan` compiles.

    (params, key, prompt arrays, prompt indices) -> samples; each device draws its rows and sends
    nothing to the others.
    """

    def local(params, key, batch, indices):
        keys = jax.vmap(lambda index: item_key(key, index))(indices)
        with jax.default_matmul_precision(matmul_precision(generator.settings.dtype)):
            return generator.sample(params, batch, keys)

    return jax.jit(
        jax.shard_map(
            local, mesh=mesh, in_specs=(P(), P(), P(DATA), P(DATA)), out_specs=P(DATA),
            check_vma=False,
        )
    )  # fmt: skip


def encode_png(image: np.ndarray) -> bytes:
    """Lossless, and the same bytes for the same pixels."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=4)
    return buffer.getvalue()


def contact_sheet(images: Sequence[Image.Image]) -> Image.Image:
    """The first images side by side, row by row."""
    n_rows, step = max(-(-len(images) // SHEET_COLUMNS), 1), SHEET_PIXELS + SHEET_GAP
    size = (SHEET_COLUMNS * step - SHEET_GAP, n_rows * step - SHEET_GAP)
    sheet = Image.new("RGB", size, "white")
    for i, image in enumerate(images):
        image = image.resize((SHEET_PIXELS, SHEET_PIXELS), Image.Resampling.LANCZOS)
        sheet.paste(image, (i % SHEET_COLUMNS * step, i // SHEET_COLUMNS * step))
    return sheet
