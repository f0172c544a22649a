"""Images -> tokens -> codes -> statistics: the step on the devices and the loop around it.

Works through shards of images: each finished shard is on disk, so that a killed run goes on with
those that are missing. Several hosts divide the shards and share nothing else.
"""

import functools
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.sharding import Mesh

from bsjax.core import distributed
from bsjax.core.dims import Grid
from bsjax.core.errors import UserError
from bsjax.core.foreign import printable
from bsjax.core.logs import PhaseTimer, progress, step
from bsjax.core.mesh import over_data, put, replicated
from bsjax.core.precision import matmul_precision
from bsjax.data.captions import BadImage, ImageSet, check_bad
from bsjax.data.images import Batch, iterate_batches
from bsjax.encoders.protocol import Backbone, Encoder, encode_images
from bsjax.results.shards import ShardStore
from bsjax.sae.encoder import codes_of
from bsjax.stats import copies, sparse_codes, streaming

# Codes kept of each token at first; grows when a token has more.
FIRST_KEPT = 64


class Engine(NamedTuple):
    """The jitted step with everything that stays on the devices."""

    step: Callable[..., Any]
    params: Any
    sae: Any
    threshold: jax.Array
    mesh: Mesh
    grid: Grid
    n_concepts: int
    batch_size: int
    interpolation: str  # how images are resized


class Reading(NamedTuple):
    """How images are read, and how often what was found is written."""

    resize: int  # pixels of the short side; -1: all of an image becomes crop x crop
    crop: int  # pixels of the centre crop
    max_bad: float = 0.01  # largest share of unusable images before the work stops
    workers: int = 0  # processes that decode; 0: threads alone
    top_images: int = 12  # kept per concept
    images_per_shard: int = 256  # repeated at most by an interrupted run


def make_engine(
    encoder: Encoder,
    params: Any,
    sae_encoder: Mapping[str, Any],
    threshold: float | np.ndarray,
    *,
    crop: int,
    dtype: str,
    mesh: Mesh,
    batch_size: int,
) -> Engine:
    """Places the parameters on the mesh and jits the step.

    Args:
      encoder: from images to tokens.
      params: its parameters.
      sae_encoder: as `bsjax.sae.encoder.EncoderParams`.
      threshold: of the codes, one for all concepts or one for each.
      crop: pixels of the images' side.
      dtype: of the encoder's products: float32 or bfloat16.
      mesh: over whose data axis images are divided.
      batch_size: images per step.
    """
    grid = encoder.grid(crop, crop)
    step = jit_measure(encoder, grid, mesh)
    return Engine(
        step=functools.partial(step, precision=matmul_precision(dtype)),
        params=put(params, replicated(mesh)),
        sae=put(sae_encoder, replicated(mesh)),
        threshold=put(np.float32(threshold), replicated(mesh)),
        mesh=mesh,
        grid=grid,
        n_concepts=sae_encoder["kernel"].shape[1],
        batch_size=batch_size,
        interpolation=encoder.preprocessing.interpolation,
    )


def jit_measure(encoder: Encoder | Backbone, grid: Grid, mesh: Mesh) -> Callable[..., Any]:
    """The step that measuring runs and `plan` compiles; the same one for the same encoder."""
    # By the backbone, for parameters are no part of it: they are not held.
    return _jit_measure(getattr(encoder, "backbone", encoder).apply, grid, mesh)


@functools.lru_cache(maxsize=8)
def _jit_measure(encode: Callable[..., Any], grid: Grid, mesh: Mesh) -> Callable[..., Any]:
    return jax.jit(
        functools.partial(measure_step, encode=encode, grid=grid),
        static_argnames=("n_kept", "precision"),
        out_shardings=replicated(mesh),
    )


def measure_step(
    params, sae, threshold, top, images, mask, rows, *, encode, grid, n_kept, precision
):
    """One batch: uint8 images [B, H, W, 3] to statistics, compact codes and new top images.

    The product with the SAE's kernel decides which codes pass the threshold, so it is always
    computed in float32.
    """
    tokens = encode_images(params, images, encode, precision)  # [B, T, D]
    encode_tokens = functools.partial(codes_of, sae, threshold=threshold)
    n_concepts = sae["kernel"].shape[1]
    statistics, compact = streaming.reduce_tokens(
        encode_tokens, tokens, mask, grid, n_concepts, n_kept
    )
    top = streaming.update_top_images(top, statistics.patch_mean, rows)
    is_finite = jnp.all(jnp.isfinite(tokens), axis=(1, 2)) | ~mask  # [B]
    sketch = None
    if grid.n_patches:
        sketch = copies.sketch_patches(tokens[:, grid.n_special :], grid.h, grid.w)
    statistics = statistics._replace(patch_mean=None, sketch=sketch)
    return top, statistics, compact, jnp.all(is_finite)


def measure_images(
    name: str,
    images: ImageSet,
    reading: Reading,
    engine: Engine,
    store: ShardStore,
    timer: PhaseTimer,
    n_kept: int = FIRST_KEPT,
) -> list[BadImage]:
    """Measures the images of the missing shards; returns all unusable images.

    All hosts call it together. Each makes a part of the shards, at its own pace, and returns when
    the others are done; host 0 alone knows all unusable images then.

    Args:
      name: of the set, for log lines.
      images: to be measured.
      reading: how they are read.
      engine: what computes.
      store: what keeps the results.
      timer: of the phases, as the host sees them.
      n_kept: codes fetched of each token at first.

    Raises:
      UserError: too many images are unusable, or tokens are not finite.
    """
    records = images.records
    state = store.resume(reading.top_images, len(records), reading.images_per_shard)
    known = [*images.bad, *(BadImage(records[row].key, why) for row, why in state.bad)]
    if state.n_done:
        logging.info("%s: %d of %d images were done before", name, state.n_done, len(records))
    parts = [store.rows_of(shard) for shard in state.missing]
    stops = {stop for _, stop in parts}
    batches = iterate_batches(
        records,
        resize=reading.resize,
        crop=reading.crop,
        batch_size=engine.batch_size,
        parts=parts,
        workers=reading.workers,
        interpolation=engine.interpolation,
    )
    none = streaming.init_top_images(engine.n_concepts, reading.top_images)
    none = put(none, replicated(engine.mesh))
    top, n_kept, pending = none, min(n_kept, engine.n_concepts), None
    n_mine = sum(stop - start for start, stop in parts)
    n_others = 0 if distributed.n_hosts() > 1 else state.n_done
    bar = progress(f"measure {name}", n_mine + n_others, n_others)
    with bar:
        while True:
            started = time.perf_counter()
            batch = next(batches, None)
            started = timer.add("waiting for images", started)
            launched = None
            if batch is not None:
                top, *results = _launch(engine, top, batch, n_kept)
                launched = (batch, top, results)
                if _stop(batch) in stops:
                    top = none  # Top images are those of a shard.
            if pending is not None:
                # The devices work on the batch just launched while the host books the one before.
                n_kept = _book(engine, store, pending, n_kept, timer)
                _report_bad(name, images, reading.max_bad, pending[0], known)
                bar.update(pending[0].n_records)
                if _stop(pending[0]) in stops:
                    started = time.perf_counter()
                    store.commit(jax.device_get(pending[1]))
                    timer.add("writing", started)
            if launched is None:
                break
            pending = launched
    with step(f"{name}: all images of this host are measured"):
        store.gather()
    if not distributed.is_writer():
        return known
    bad = [BadImage(records[row].key, why) for row, why in store.read_bad()]
    if distributed.n_hosts() > 1 and bad:
        check_bad([*images.bad, *bad], images.n_listed, reading.max_bad)
    return [*images.bad, *bad]


def _stop(batch: Batch) -> int:
    """Row behind the last of a batch."""
    return int(batch.rows.max()) + 1


def _launch(engine: Engine, top, batch: Batch, n_kept: int):
    """Starts the step on a batch; returns before it is done."""
    images, mask, rows = put((batch.images, batch.mask, batch.rows), over_data(engine.mesh))
    return engine.step(
        engine.params, engine.sae, engine.threshold, top, images, mask, rows, n_kept=n_kept
    )


def _book(engine: Engine, store: ShardStore, pending, n_kept: int, timer: PhaseTimer) -> int:
    """Fetches a batch's results and adds them to the open shard; returns the codes to keep."""
    batch, top, results = pending
    started = time.perf_counter()
    statistics, compact, is_finite = jax.device_get(results)
    started = timer.add("waiting for devices", started)
    if not is_finite:
        first = int(batch.rows[0])
        raise UserError(
            f"the encoder gave values that are not finite on images {first} to"
            f" {first + len(batch.rows) - 1}; check {{weights}}, or set {{dtype}}=float32",
            "weights",
            "dtype",
        )
    while not sparse_codes.is_complete(compact, engine.n_concepts):
        # Rare: a token has more active concepts than were kept. Only its codes are computed again.
        if compact.values.shape[-1] == n_kept:  # else launched before an earlier batch grew it
            n_kept = min(2 * n_kept, engine.n_concepts)
        _, _, compact, _ = jax.device_get(_launch(engine, top, batch, n_kept))
    codes = sparse_codes.to_csr(compact, batch.mask, engine.n_concepts)
    store.add(batch, statistics, codes)
    timer.add("statistics", started)
    return n_kept


def _report_bad(
    name: str, images: ImageSet, max_bad: float, batch: Batch, bad: list[BadImage]
) -> None:
    for row, reason in batch.bad:
        image = BadImage(images.records[row].key, reason)
        logging.warning("%s: %s cannot be used: %s", name, *map(printable, image))
        bad.append(image)
    if batch.bad:
        check_bad(bad, images.n_listed, max_bad)
