"""measure: images -> tokens of an encoder -> SAE codes -> concept statistics of every image set.

Reads the images of both arms, the encoder and the SAE; writes measures/<set>/. Works through shards
of images: each finished shard is on disk, so that a killed run goes on behind the last one.
"""

import functools
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import logging
from etils import epath
from jax.sharding import Mesh

from bsjax import pipeline
from bsjax.core.artifacts import begin_stage, write_manifest
from bsjax.core.config import select
from bsjax.core.dims import Grid
from bsjax.core.errors import UserError
from bsjax.core.foreign import printable
from bsjax.core.logs import PhaseTimer, progress
from bsjax.core.mesh import make_mesh, over_data, put, replicated
from bsjax.data.captions import BadImage, check_bad
from bsjax.data.images import Batch, iterate_batches
from bsjax.encoders.protocol import Backbone, Encoder
from bsjax.sae.encoder import pre_codes, threshold_codes
from bsjax.stages import inputs, preflight, workers
from bsjax.stages.rank import rank
from bsjax.stages.shards import ShardStore
from bsjax.stats import sparse_codes, streaming

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
    interpolation: str  # how images are resized
    batch_size: int


def measure(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
    """Measures every image set of the config that is not measured yet; ranks if asked to."""
    arms = measure_sets(config, workdir)
    if config.measure.rank_concept >= 0:
        for arm in arms:
            rank(epath.Path(workdir) / "measures" / arm.name, config.measure.rank_concept)


def measure_sets(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> list[inputs.Arm]:
    """Measures every image set of the config that is not measured yet; returns all sets."""
    preflight.check_workdir(workdir)
    arms = inputs.load_arms(config, workdir)
    if config.generator.name == "none" and len(arms) == 2:
        keys = ([record.key for record in arm.images.records] for arm in arms)
        preflight.check_pairing(config, *keys)
    encoder = inputs.load_encoder(config)
    sae, threshold = inputs.load_sae(config, workdir, encoder)
    preflight.check_ranked(config, sae.n_concepts)
    n_images = {arm.name: len(arm.images.records) for arm in arms}
    bills = preflight.bills_of_measures(config, workdir, n_images, encoder)
    preflight.check_disk(bills)
    notes = inputs.encoder_notes(encoder)
    engine = None
    for arm in arms:
        inputs.refuse_duplicates((r.key for r in arm.images.records), f"images of {arm.name}")
        folder = workdir / "measures" / arm.name
        settings = select(config, pipeline.BY_NAME["measure"].config_keys)
        shown = threshold if np.ndim(threshold) == 0 else "one a concept"
        settings |= {"sae.threshold": shown, "set": arm.name}
        parents = {"images": arm.digest, "encoder": encoder.digest, "sae": sae.digest}
        done = begin_stage(
            folder, config=settings, parents=parents, overwrite=config.overwrite, stage="measure"
        )
        if done is not None:
            continue
        if engine is None:
            engine = build_engine(config, encoder, encoder.params, sae.encoder, threshold)
        store = ShardStore(folder, engine.n_concepts, engine.grid)
        timer = PhaseTimer()
        with inputs.naming_arm(arm.section):
            bad = measure_arm(config, arm, engine, store, timer)
            counts = store.finish(arm.images.records, bad)
        if timer.summary():
            logging.info("%s: %s", arm.name, timer.summary())
        silent = silence_note(arm.name, counts, threshold)
        for note in silent:
            logging.warning("%s", note)
        counts |= {
            "listed": arm.images.n_listed,
            "unlisted": arm.images.n_unlisted,
            "without_caption": arm.images.n_without_caption,
            "not_understood": len(arm.images.not_understood),
            "bad": len(bad),
            "caption_source": arm.images.caption_source,
            "tokens_per_image": engine.grid.n_tokens,
        }
        write_manifest(
            folder,
            stage="measure",
            config=settings,
            parents=parents,
            counts=counts,
            notes=[*notes, *arm.notes, *silent],
            bad_images=[image._asdict() for image in bad],
        )
        store.clean()
    return arms


def silence_note(name: str, counts: dict[str, Any], threshold: float | np.ndarray) -> list[str]:
    """A warning where no token of a set fired, which no honest SAE brings about; else none."""
    if counts["dead_concepts"] < counts["concepts"]:
        return []
    return [
        f"NOTHING FIRES: all {counts['concepts']} concepts are dead on the {counts['images']}"
        f" images of {name}, no code reaches the threshold ({float(np.min(threshold)):g}). Look at"
        " --config.sae.threshold, and whether --config.sae.weights was trained on the features of"
        " --config.encoder.weights"
    ]


def build_engine(
    config: ml_collections.ConfigDict,
    encoder: Encoder,
    params: Any,
    sae_encoder: Any,
    threshold: float | np.ndarray,
) -> Engine:
    """Places the parameters on the mesh and jits the step."""
    mesh = make_mesh(config.mesh.data, config.mesh.model)
    crop = config.encoder.crop
    grid = encoder.grid(crop, crop)
    n_concepts = sae_encoder["kernel"].shape[1]
    step = jit_measure(encoder, grid, mesh)
    return Engine(
        step=functools.partial(step, precision=matmul_precision(config.encoder.dtype)),
        params=put(params, replicated(mesh)),
        sae=put(sae_encoder, replicated(mesh)),
        threshold=put(np.float32(threshold), replicated(mesh)),
        mesh=mesh,
        grid=grid,
        n_concepts=n_concepts,
        interpolation=encoder.preprocessing.interpolation,
        batch_size=inputs.batch_size(config, mesh),
    )


def jit_measure(encoder: Encoder | Backbone, grid: Grid, mesh: Mesh) -> Callable[..., Any]:
    """The step that measuring runs and `plan` compiles."""
    return jax.jit(
        functools.partial(measure_step, encode=encoder.apply, grid=grid),
        static_argnames=("n_kept", "precision"),
        out_shardings=replicated(mesh),
    )


def matmul_precision(dtype: str) -> str:
    """float32 means float32: accelerators otherwise round the inputs of float32 products."""
    return "highest" if dtype == "float32" else "default"


def measure_step(
    params, sae, threshold, top, images, mask, rows, *, encode, grid, n_kept, precision
):
    """One batch: uint8 images [B, H, W, 3] to statistics, compact codes and new top images.

    The product with the SAE's kernel decides which codes pass the threshold, so it is always
    computed in float32.
    """
    with jax.default_matmul_precision(precision):
        tokens = encode(params, images)  # [B, T, D]
    batch, n_tokens, width = tokens.shape
    with jax.default_matmul_precision("highest"):
        pre = pre_codes(sae, tokens.reshape(batch * n_tokens, width))  # [N, K]
    codes = threshold_codes(pre, threshold).reshape(batch, n_tokens, -1)  # [B, T, K]
    compact = sparse_codes.compact_codes(codes, mask, n_kept)
    statistics = streaming.reduce_batch(codes, compact, mask, grid)
    top = streaming.update_top_images(top, statistics.patch_mean, rows)
    is_finite = jnp.all(jnp.isfinite(tokens), axis=(1, 2)) | ~mask  # [B]
    return top, statistics._replace(patch_mean=None), compact, jnp.all(is_finite)


def measure_arm(
    config: ml_collections.ConfigDict,
    arm: inputs.Arm,
    engine: Engine,
    store: ShardStore,
    timer: PhaseTimer,
) -> list[BadImage]:
    """Measures the images behind the last finished shard; returns all unusable images."""
    source = config[arm.section]
    records = arm.images.records
    state = store.resume(config.measure.top_images)
    bad = [*arm.images.bad, *(BadImage(records[row].key, why) for row, why in state.bad)]
    if state.next_row:
        logging.info("%s: %d of %d images were done before", arm.name, state.next_row, len(records))
    batches = iterate_batches(
        records,
        resize=config.encoder.resize,
        crop=config.encoder.crop,
        batch_size=engine.batch_size,
        start=state.next_row,
        workers=workers.n_workers(source.workers, engine.batch_size * config.encoder.crop**2 * 3),
        interpolation=engine.interpolation,
    )
    top = put(streaming.TopImages(*state.top), replicated(engine.mesh))
    n_kept = min(FIRST_KEPT, engine.n_concepts)
    pending = None
    bar = progress(f"measure {arm.name}", len(records), state.next_row)
    with bar:
        while True:
            started = time.perf_counter()
            batch = next(batches, None)
            started = timer.add("waiting for images", started)
            launched = None
            if batch is not None:
                top, *results = _launch(engine, top, batch, n_kept)
                launched = (batch, top, results)
            if pending is not None:
                # The devices work on the batch just launched while the host books the one before.
                n_kept = _book(engine, store, pending, n_kept, timer)
                _report_bad(config, arm, pending[0], bad)
                bar.update(pending[0].n_records)
                if store.n_pending >= config.measure.images_per_shard or batch is None:
                    started = time.perf_counter()
                    store.commit(jax.device_get(pending[1]))
                    timer.add("writing", started)
            if launched is None:
                break
            pending = launched
    return bad


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
            f" {first + len(batch.rows) - 1}; check --config.encoder.weights, or set"
            " --config.encoder.dtype=float32"
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


def _report_bad(config, arm: inputs.Arm, batch: Batch, bad: list[BadImage]) -> None:
    for row, reason in batch.bad:
        image = BadImage(arm.images.records[row].key, reason)
        logging.warning("%s: %s cannot be used: %s", arm.name, *map(printable, image))
        bad.append(image)
    if batch.bad:
        flag = f"--config.{arm.section}.max_bad"
        check_bad(bad, arm.images.n_listed, config[arm.section].max_bad, flag)
