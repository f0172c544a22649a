"""Where training gets its tokens: from memory, from a token store, or from images as it goes.

Reads images and the encoder. A token store is written once, shard by shard, by as many hosts as
there are, and goes on behind the shards that are finished.
"""

import bisect
import dataclasses
import functools
import math
import pathlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grain
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import logging
from jax.sharding import Mesh, NamedSharding

from bsjax.core import distributed, lock
from bsjax.core.artifacts import MANIFEST, identity_for, write_manifest
from bsjax.core.config import select
from bsjax.core.errors import UserError
from bsjax.core.foreign import printable
from bsjax.core.logs import progress
from bsjax.core.mesh import make_mesh, over_data, put, replicated
from bsjax.core.precision import matmul_precision
from bsjax.core.rng import item_key, stage_key
from bsjax.data import token_store
from bsjax.data.images import READ_THREADS, iterate_batches, load_images
from bsjax.data.token_store import EpochOrder, StepReader, TokenArray, TokenStore
from bsjax.encoders.protocol import Encoder, encode_images
from bsjax.experiment import inputs, workers
from bsjax.sae.train_step import TOKENS

SHARD_BYTES = 2**29


@dataclasses.dataclass(frozen=True)
class Supply:
    """Tokens of a training, whatever they come from.

    Attributes:
      n_tokens: of one epoch.
      sample: number -> so many tokens [N, D] of the first epoch (fewer if there are fewer), the
        same on every host.
      steps: (first, stop) -> tokens [G, N, D] of each step, lying over the mesh. They depend on the
        seed and the number of the step alone.
    """

    n_tokens: int
    sample: Callable[[int], np.ndarray]
    steps: Callable[[int, int], Iterator[jax.Array]]


def open_supply(
    config: ml_collections.ConfigDict,
    arms: Sequence[inputs.Arm],
    encoder: Encoder,
    mesh: Mesh,
) -> Supply:
    """The supply that `train.supply` names; makes what it needs first.

    Raises:
      UserError: not one usable image, a store of other tokens, no room for a store.
    """
    kind = config.train.supply
    records = Joined([arm.images.records for arm in arms])
    if kind == "images":
        return _supply_of_images(config, records, encoder, mesh)
    if kind == "store":
        source = open_store(config, arms, records, encoder)
    else:
        return supply_of_array(config, collect_tokens(config, records, encoder), mesh)
    return _supply_of_tokens(config, source, mesh)


class Joined(Sequence):
    """Records of several sets, one behind the other; none is read for it."""

    def __init__(self, parts: Sequence[Sequence[Any]]):
        self.parts = parts
        self.ends = np.cumsum([len(part) for part in parts]).tolist()

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def __getitem__(self, row: int) -> Any:
        if not 0 <= row < len(self):
            raise IndexError(row)
        place = bisect.bisect_right(self.ends, row)
        return self.parts[place][row - self.ends[place] + len(self.parts[place])]


def encode_tokens(
    config: ml_collections.ConfigDict, encoder: Encoder
) -> Callable[[Any, jax.Array], jax.Array]:
    """(params, images uint8 [B, H, W, 3]) -> tokens [B, T, D], to be jitted."""
    precision = matmul_precision(config.encoder.dtype)
    return functools.partial(encode_images, apply=encoder.apply, precision=precision)


def _n_tokens_per_image(config, encoder) -> int:
    crop = config.encoder.crop
    return encoder.grid(crop, crop).n_tokens


def supply_of_array(config: ml_collections.ConfigDict, tokens: np.ndarray, mesh: Mesh) -> Supply:
    """The supply of tokens [N, D] in memory.

    Raises:
      UserError: values that are not finite.
    """
    return _supply_of_tokens(config, TokenArray(tokens), mesh)


def collect_tokens(
    config: ml_collections.ConfigDict, records: Sequence[Any], encoder: Encoder
) -> np.ndarray:
    """Tokens [N, D] of all images, the same number of each, float32; the same on every host.

    Raises:
      UserError: not one usable image.
    """
    mesh = make_mesh(-1, 1, jax.local_devices())
    params = put(encoder.params, replicated(mesh))
    encode = encode_tokens(config, encoder)
    n_tokens = _n_tokens_per_image(config, encoder)
    per_image = max(min(n_tokens, config.train.max_tokens // max(len(records), 1)), 1)
    key = stage_key(config.seed, "train_sae/tokens")

    @jax.jit
    def encode_some(params, images, rows):
        def draw(row):
            order = jnp.arange(n_tokens, dtype=jnp.int32)
            return jax.random.permutation(item_key(key, row), order)[:per_image]

        return jnp.take_along_axis(encode(params, images), jax.vmap(draw)(rows)[:, :, None], axis=1)

    parts = []
    with progress("tokens", len(records)) as bar:
        for batch in _image_batches(config, encoder, records, inputs.batch_size(config, mesh)):
            rows = np.maximum(batch.rows, 0)
            tokens = encode_some(params, *put((batch.images, rows), over_data(mesh)))
            parts.append(np.asarray(tokens)[batch.mask].reshape(-1, tokens.shape[-1]))
            bar.update(batch.n_records)
    tokens = np.concatenate(parts) if parts else np.empty((0, 0))
    if not len(tokens):
        raise UserError(
            "not one real or generated image could be read; set --config.real.path and"
            " --config.generated.path to folders of images"
        )
    return tokens


def _image_batches(config, encoder, records, batch_size):
    return iterate_batches(
        records,
        resize=config.encoder.resize,
        crop=config.encoder.crop,
        batch_size=batch_size,
        workers=workers.n_workers(config.real.workers, batch_size * config.encoder.crop**2 * 3),
        interpolation=encoder.preprocessing.interpolation,
    )


def open_store(
    config: ml_collections.ConfigDict,
    arms: Sequence[inputs.Arm],
    records: Sequence[Any],
    encoder: Encoder,
) -> TokenStore:
    """The store of the config, extracted first if it is not finished.

    Raises:
      UserError: it holds other tokens, it is damaged, or the disk has no room for it.
    """
    folder = pathlib.Path(config.train.token_store).expanduser()
    settings = select(config, ("seed", "encoder", "train.shard_images"))
    parents = inputs.parents_of(encoder, arms)
    done = distributed.begin_together(folder, config=settings, parents=parents, overwrite=False)
    if done is None:
        # It may lie outside of the workdir and be shared: one job extracts, and sweeps before.
        with lock.hold(folder, is_writer=distributed.is_writer()):
            distributed.wait_for_all("token_store_lock")  # nobody writes while it is swept
            _extract(config, folder, records, encoder, settings, parents)
    else:
        logging.info("tokens: %s", folder)
        lock.drop_stale(folder)
    return TokenStore(folder, parents)


def _extract(config, folder, records, encoder, settings, parents) -> None:
    """Writes the shards that are not there yet, those of this host, and then the manifest."""
    per_image, width = _n_tokens_per_image(config, encoder), encoder.width
    images_per_shard = config.train.shard_images
    if images_per_shard < 1:
        images_per_shard = max(SHARD_BYTES // (per_image * width * 2), 1)
    n_shards = math.ceil(len(records) / images_per_shard)
    paths = [folder / token_store.shard_name(i, n_shards) for i in range(n_shards)]
    bill = token_store.storage_bill(len(records), per_image, width)
    free = shutil.disk_usage(folder).free
    logging.info(
        "token store: %d images x %d tokens x %d features, bfloat16: %.3f GB; %.1f GB free at %s",
        len(records), per_image, width, bill / 1e9, free / 1e9, folder,
    )  # fmt: skip
    if bill > free + sum(path.stat().st_size for path in paths if path.is_file()):
        raise UserError(
            f"the token store takes {bill / 1e9:.1f} GB, {folder} has {free / 1e9:.1f} GB free; set"
            f" {token_store.FLAG} to a larger disk, or --config.train.supply=images"
        )
    order = np.random.default_rng([config.seed, 0]).permutation(len(records))
    mesh = make_mesh(-1, 1, jax.local_devices())
    params = put(encoder.params, replicated(mesh))
    encode = jax.jit(encode_tokens(config, encoder))
    mine = distributed.my_turns(n_shards)
    identity = identity_for(settings, parents)
    done = {i for i in mine if token_store.is_whole(paths[i], identity)}
    damaged = [paths[i].name for i in mine if i not in done and paths[i].is_file()]
    if damaged:
        logging.warning("%d shards of tokens are damaged and made anew: %s", len(damaged), damaged)
    with progress("extract tokens", len(mine), len(done), unit="shard") as bar:
        for i in mine:
            if i in done:
                continue
            rows = order[i * images_per_shard : (i + 1) * images_per_shard]
            chosen = [records[int(row)] for row in rows]
            parts = []
            for batch in _image_batches(config, encoder, chosen, inputs.batch_size(config, mesh)):
                tokens = np.asarray(encode(params, put(batch.images, over_data(mesh))))[batch.mask]
                token_store.require_finite(tokens.reshape(-1, width), "the encoder's output")
                parts.append(tokens.astype(token_store.DTYPE).reshape(-1, width))
                for row, reason in batch.bad:
                    logging.warning(
                        "%s cannot be used: %s", printable(chosen[row].key), printable(reason)
                    )
            rng = np.random.default_rng([config.seed, 1, i])
            token_store.write_shard(paths[i], np.concatenate(parts), rng, identity)
            bar.update(1)
    distributed.wait_for_all("extracted")
    if distributed.is_writer():
        shards = [token_store.describe_shard(path) for path in paths]
        n_blocks = sum(shard.n_blocks for shard in shards)
        counts = {"images": len(records), "tokens": n_blocks * token_store.BLOCK, "width": width}
        write_manifest(
            folder, stage="train_sae", config=settings, parents=parents, counts=counts,
            notes=inputs.encoder_notes(encoder), shards=[list(shard) for shard in shards],
            identity=identity,
        )  # fmt: skip
    distributed.wait_for_all("token_store_manifest")
    distributed.wait_until_seen(folder / MANIFEST)


def _supply_of_tokens(config, source: TokenArray | TokenStore, mesh: Mesh) -> Supply:
    train = config.train
    shape = (train.accumulate, train.tokens_per_step // train.accumulate, source.width)
    sharding = NamedSharding(mesh, TOKENS)
    parts = _local_parts(sharding, shape)
    reader = StepReader(source, config.seed, train.tokens_per_step, parts, train.accumulate)

    def sample(n_tokens):
        n_blocks = min(max(n_tokens // reader.block, 1), reader.n_blocks)
        order = np.random.default_rng([config.seed, 2]).permutation(reader.n_blocks)
        return source.read_blocks(np.sort(order[:n_blocks]))

    def steps(first, stop):
        for local in _read_ahead(reader, first, stop):
            yield _spread(local, parts, shape, sharding)

    return Supply(source.n_tokens, sample, steps)


def _supply_of_images(config, records, encoder: Encoder, mesh: Mesh) -> Supply:
    """Encodes the images of each step within the training job; nothing is stored."""
    train, n_data = config.train, mesh.shape["data"]
    per_image = _n_tokens_per_image(config, encoder)
    width = encoder.width
    n_images = math.ceil(train.tokens_per_step / per_image)
    padded = math.ceil(n_images / n_data) * n_data
    params = put(encoder.params, replicated(mesh))
    encode = encode_tokens(config, encoder)
    key = stage_key(config.seed, "train_sae/tokens")
    sharding = over_data(mesh)
    shape = (padded, config.encoder.crop, config.encoder.crop, 3)
    parts = _local_parts(sharding, shape, dim=0)
    load = _LoadImages(records, config.seed, n_images, padded, parts, encoder.preprocessing)

    def tokens_of(params, images, mask, step, n_tokens):
        tokens = encode(params, images).reshape(-1, width)
        # Those of good images first, in random order; should they not suffice, they come again.
        usable = jnp.repeat(mask, per_image)
        draws = jax.random.uniform(item_key(key, step), usable.shape, jnp.float32)
        order = jnp.argsort(jnp.where(usable, draws, 2.0))
        rows = jnp.arange(n_tokens) % jnp.maximum(jnp.sum(usable), 1)
        return tokens[order[rows]].reshape(train.accumulate, -1, width)

    run = jax.jit(tokens_of, static_argnums=4, out_shardings=NamedSharding(mesh, TOKENS))

    def tokens_of_steps(first, stop):
        for step, (local, mask) in enumerate(_read_ahead(load, first, stop), first):
            if not mask.any():
                raise UserError(
                    f"not one real or generated image of step {step} could be read; mend the images"
                    " below --config.real.path and --config.generated.path"
                )
            images = _spread(local, parts, shape, sharding, dim=0)
            yield run(params, images, put(mask, replicated(mesh)), step, train.tokens_per_step)

    def sample(n_tokens):
        found = []
        stop = max(math.ceil(n_tokens / train.tokens_per_step), 1)
        for tokens in tokens_of_steps(0, min(stop, max(len(records) // n_images, 1))):
            found.append(distributed.to_host(tokens).reshape(-1, width))
        return np.concatenate(found)[:n_tokens]

    return Supply(len(records) * per_image, sample, tokens_of_steps)


class _LoadImages:
    """Step -> this host's images of it, and which of all hosts' images are good."""

    def __init__(self, records, seed, n_images, padded, parts, preprocessing):
        self.records, self.n_images, self.padded = records, n_images, padded
        self.order = EpochOrder(seed, len(records))
        self.parts, self.preprocessing = parts, preprocessing

    def __call__(self, step):
        rows = self.order.stretch(step, self.n_images)
        chosen = [self.records[int(row)] for row in rows]
        # All of the step's, not this host's alone: which are good is known when they are decoded.
        own = self.preprocessing
        images, mask, _ = load_images(chosen, self.padded, own.resize, own.crop, own.interpolation)
        return np.concatenate([images[start:stop] for start, stop in self.parts]), mask


def _local_parts(sharding, shape, dim=1) -> list[tuple[int, int]]:
    """The stretches of one dimension that lie on this host's devices, ascending."""
    indices = sharding.addressable_devices_indices_map(shape).values()
    return sorted({index[dim].indices(shape[dim])[:2] for index in indices})


def _spread(local, parts, shape, sharding, dim=1) -> jax.Array:
    """The array over the mesh of which this host holds `parts`, concatenated in `local`."""
    offsets, offset = {}, 0
    for start, stop in parts:
        offsets[start] = offset
        offset += stop - start

    def block(index):
        start, stop, _ = index[dim].indices(shape[dim])
        here = slice(offsets[start], offsets[start] + stop - start)
        return local[(slice(None),) * dim + (here,)]

    return jax.make_array_from_callback(shape, sharding, block)


def _read_ahead(load: Callable[[int], Any], first: int, stop: int) -> Iterator[Any]:
    """`load` of each number, in threads that stay a few ahead."""
    if first >= stop:
        return
    dataset = grain.MapDataset.range(first, stop).map(load)
    options = grain.ReadOptions(num_threads=READ_THREADS, prefetch_buffer_size=2 * READ_THREADS)
    stream = iter(dataset.to_iter_dataset(options))
    try:
        yield from stream
    finally:
        stream.close()
