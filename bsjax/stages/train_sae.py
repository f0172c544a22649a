"""train_sae: images -> DINOv2 tokens -> RA-SAE, on one host with the tokens in memory.

Reads the images of both arms (so that neither arm's concepts are missing) and the encoder; writes
sae/: the weights, the candidate points, quality.json.
"""

import functools
import pathlib

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import logging

from bsjax import pipeline
from bsjax.convert.rasae import TRAINED, save_trained
from bsjax.core.artifacts import atomic_path, begin_stage, write_json, write_manifest
from bsjax.core.config import select
from bsjax.core.errors import UserError
from bsjax.core.logs import progress
from bsjax.core.mesh import make_mesh, over_data, put, replicated
from bsjax.core.rng import item_key, stage_key
from bsjax.data.images import iterate_batches
from bsjax.models.dinov2 import normalise_images, token_grid
from bsjax.sae import quality
from bsjax.sae.candidates import fit_candidates
from bsjax.sae.dictionary import decode, dictionary, project
from bsjax.sae.encoder import pre_codes, threshold_codes
from bsjax.sae.train_step import init_state, make_optimizer, train_step
from bsjax.stages import inputs
from bsjax.stages.measure import matmul_precision

# Steps between two looks at the metrics; a look waits for the device.
STEPS_PER_LOOK = 20


def train_sae(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
    """Trains an RA-SAE on the images of this experiment, unless the config names one."""
    if config.sae.weights:
        logging.info("train_sae: nothing to do, the SAE is %s", config.sae.weights)
        return
    folder = workdir / "sae"
    encoder = inputs.load_encoder(config)
    arms = inputs.load_arms(config)
    settings = select(config, pipeline.BY_NAME["train_sae"].config_keys)
    parents = {"encoder": encoder.digest} | {f"images/{arm.name}": arm.digest for arm in arms}
    done = begin_stage(folder, config=settings, parents=parents, overwrite=config.overwrite)
    if done is not None:
        return
    tokens = _collect_tokens(config, arms, encoder)
    train = config.train
    if train.n_candidates > len(tokens):
        raise UserError(
            f"train.n_candidates={train.n_candidates}, but only {len(tokens)} tokens are there;"
            " lower --config.train.n_candidates or raise --config.train.max_tokens"
        )
    key = functools.partial(stage_key, config.seed)
    logging.info("k-means: %d candidates of %d tokens", train.n_candidates, len(tokens))
    C, inertia = fit_candidates(
        key("train_sae/candidates"),
        jnp.asarray(tokens),
        train.n_candidates,
        train.candidate_iterations,
    )
    with atomic_path(folder / "candidates.npz") as temporary:
        np.savez(temporary, candidates=np.asarray(C), inertia=inertia)
    state = _train(config, key, jnp.asarray(tokens), C)
    projected = project(state.params["dictionary"], train.relax_radius)
    sae = save_trained(
        folder / TRAINED,
        state.params["encoder"],
        dictionary(projected, C),
        float(state.threshold),
        f"train_sae seed {config.seed}",
    )
    numbers = _judge(tokens[: train.tokens_per_step], sae)
    write_json(folder / "quality.json", numbers)
    logging.info("quality: %s", numbers)
    counts = {"tokens": len(tokens), "steps": train.steps, **numbers}
    notes = inputs.encoder_notes(encoder)
    write_manifest(
        folder, stage="train_sae", config=settings, parents=parents, counts=counts, notes=notes
    )


def _collect_tokens(config, arms, encoder) -> np.ndarray:
    """Tokens [N, D] of all images, the same number of each image, float32."""
    mesh = make_mesh(config.mesh.data, config.mesh.model)
    batch_size = inputs.batch_size(config, mesh)
    params = put(encoder.params, replicated(mesh))
    precision = matmul_precision(config.encoder.dtype)

    @jax.jit
    def encode(params, images, places):
        with jax.default_matmul_precision(precision):
            tokens = encoder.model.apply({"params": params}, normalise_images(images))
        return jnp.take_along_axis(tokens, places[:, :, None], axis=1)

    n_images = sum(len(arm.images.records) for arm in arms)
    crop = config.encoder.crop
    n_tokens = token_grid(encoder.model.config, crop, crop).n_tokens
    per_image = max(min(n_tokens, config.train.max_tokens // n_images), 1)
    key = stage_key(config.seed, "train_sae/tokens")

    @jax.jit
    def draw_places(rows):
        def draw(row):
            return jax.random.permutation(item_key(key, row), n_tokens)[:per_image]

        return jax.vmap(draw)(rows)

    parts = []
    bar = progress("tokens", n_images)
    first = 0
    with bar:
        for arm in arms:
            for batch in iterate_batches(
                arm.images.records,
                resize=config.encoder.resize,
                crop=crop,
                batch_size=batch_size,
                workers=inputs.n_workers(config[arm.section].workers),
            ):
                places = draw_places(jnp.asarray(np.maximum(batch.rows, 0) + first))
                images, places = put((batch.images, places), over_data(mesh))
                tokens = np.asarray(encode(params, images, places))[batch.mask]
                parts.append(tokens.reshape(-1, tokens.shape[-1]))
                bar.update(batch.n_records)
            first += len(arm.images.records)
    tokens = np.concatenate(parts)
    if not len(tokens):
        raise UserError("not one image could be read; check the image folders")
    if not np.isfinite(tokens).all():
        raise UserError(
            "the encoder gave values that are not finite; check --config.encoder.weights"
        )
    return tokens


def _train(config, key, tokens, C):
    """Runs all steps; the batch of a step depends on the seed and the step alone."""
    train = config.train
    optimizer = make_optimizer(
        train.peak_learning_rate,
        train.final_learning_rate,
        train.steps,
        train.warmup_share,
        train.weight_decay,
    )
    batch_size = min(train.tokens_per_step, tokens.shape[0])
    batch_key = key("train_sae/batches")

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state, tokens, C):
        rows = jax.random.randint(
            item_key(batch_key, state.step), (batch_size,), 0, tokens.shape[0]
        )
        return train_step(
            state,
            tokens[rows],
            C,
            n_active=train.n_active * batch_size,
            loss=train.loss,
            relax_radius=train.relax_radius,
            optimizer=optimizer,
            sparse=train.loss == "mse" and jax.default_backend() == "cpu",
        )

    state = init_state(key("train_sae/init"), C, train.n_concepts, optimizer)
    with progress("train_sae", train.steps, unit="step") as bar:
        for i in range(train.steps):
            state, metrics = step(state, tokens, C)
            if (i + 1) % STEPS_PER_LOOK == 0 or i + 1 == train.steps:
                loss = float(metrics.loss)
                if not np.isfinite(loss):
                    raise UserError(
                        f"the loss is {loss} between steps {i + 1 - STEPS_PER_LOOK} and {i + 1};"
                        " lower --config.train.peak_learning_rate"
                    )
                bar.set_postfix(loss=f"{loss:.4f}", r2=f"{float(metrics.r2):.3f}")
                bar.update(i + 1 - bar.n)
    return state


def _judge(tokens, sae) -> dict[str, float]:
    """Quality at inference, with the stored threshold, on a sample of tokens."""
    codes = threshold_codes(pre_codes(sae.encoder, jnp.asarray(tokens)), sae.threshold)
    return {
        "r2": float(quality.r2(jnp.asarray(tokens), decode(codes, jnp.asarray(sae.dictionary)))),
        "l0": float(quality.l0(codes)),
        "dead_share": float(jnp.mean(quality.dead(codes))),
        "hoyer": float(jnp.mean(quality.hoyer(codes))),
        "threshold": float(sae.threshold),
    }
