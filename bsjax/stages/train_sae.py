"""train_sae: images -> tokens of an encoder -> RA-SAE, over the mesh of all devices of all hosts.

Reads the images of both arms (so that neither arm's concepts are missing) and the encoder; writes
sae/: the weights, the candidate points, checkpoints, curves, quality.json. Killed at any moment,
the same command goes on from the newest checkpoint, with the same tokens in the same order.
"""

import functools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import logging
from jax.sharding import Mesh, NamedSharding

from bsjax import pipeline
from bsjax.convert.rasae import TRAINED, LoadedSAE, load_parameters, load_rasae, save_trained
from bsjax.core import checksums, distributed
from bsjax.core.artifacts import (
    atomic_path,
    differing_keys,
    identity_for,
    write_json,
    write_manifest,
)
from bsjax.core.checkpoint import Checkpoints
from bsjax.core.config import select
from bsjax.core.errors import Preempted, UserError
from bsjax.core.logs import progress, step
from bsjax.core.mesh import divide, make_mesh, place_shapes, replicated
from bsjax.core.paths import AnyPath
from bsjax.core.rng import stage_key
from bsjax.experiment import inputs, preflight
from bsjax.experiment.curves import Curves
from bsjax.experiment.recipe import Recipe, check_mesh, fresh_state, jit_step, make_recipe
from bsjax.experiment.tokens import Supply, open_supply
from bsjax.report.curves import plot_curves, plot_quality
from bsjax.sae import health, quality
from bsjax.sae.candidates import fit_candidates
from bsjax.sae.dictionary import decode, dictionary, project
from bsjax.sae.encoder import codes_of
from bsjax.sae.train_step import CANDIDATES, SAEState, shardings, state_of

# Steps without firing after which a concept counts as dead.
DEAD_AFTER = 1000
MOST_SHOWN = 8  # names of arrays in a line
CHECKPOINTS, CANDIDATES_FILE, QUALITY = "checkpoints", "candidates.npz", "quality.json"


def train_sae(config: ml_collections.ConfigDict, workdir: AnyPath) -> None:
    """Trains an RA-SAE on the images of this experiment, unless the config names one.

    Raises:
      UserError: what the images, the mesh or the config do not allow.
      Preempted: SIGTERM came; everything is saved.
    """
    if config.sae.weights:
        logging.info("train_sae: nothing to do, the SAE is %s", config.sae.weights)
        return
    preflight.check_workdir(workdir)
    folder = workdir / "sae"
    encoder = inputs.load_encoder(config)
    arms = inputs.load_arms(config, workdir)
    settings = select(config, pipeline.BY_NAME["train_sae"].config_keys)
    parents = inputs.parents_of(encoder, arms)
    done = distributed.begin_together(
        folder, config=settings, parents=parents, overwrite=config.overwrite, stage="train_sae"
    )
    if done is not None:
        return
    mesh = make_mesh(config.mesh.data, config.mesh.model)
    check_mesh(config, mesh)
    n_images = sum(len(arm.images.records) for arm in arms)
    preflight.check_training(config, workdir, n_images, encoder)
    preflight.check_disk(preflight.bills_of_training(config, workdir, n_images, encoder))
    supply = open_supply(config, arms, encoder, mesh)
    notes = inputs.encoder_notes(encoder)
    train_on(config, folder, supply, mesh, settings, parents, notes)


def train_on(
    config: ml_collections.ConfigDict,
    folder: AnyPath,
    supply: Supply,
    mesh: Mesh,
    settings: Mapping[str, Any],
    parents: Mapping[str, str],
    notes: Sequence[str] = (),
) -> None:
    """Trains on a supply of tokens into a folder, which `begin_stage` prepared, and finishes it.

    Args:
      config: seed and train.
      folder: of the artifact, with checkpoints to go on from.
      supply: of the tokens.
      mesh: to train on.
      settings: for the manifest: what decides the result.
      parents: hashes of what the tokens are made from.
      notes: warnings that go into the manifest.

    Raises:
      UserError: too few tokens, a training that diverged.
      Preempted: SIGTERM came; everything is saved.
    """
    recipe = make_recipe(config, mesh, supply.n_tokens)
    C = _candidates(config, folder, supply, mesh, settings, parents)
    checkpoints = Checkpoints(folder / CHECKPOINTS, config.train.keep_checkpoints)
    curves = Curves(folder, is_writer=distributed.is_writer())
    is_whole = False
    try:
        # As JSON has it, to be compared with what a checkpoint tells.
        made_from = json.loads(json.dumps({"settings": settings, "parents": parents}))
        state = _train(config, recipe, supply, C, mesh, checkpoints, curves, made_from)
        is_whole = True
    finally:
        curves.close()
        # Closing waits for a save that all hosts take part in: one that fails must not.
        if is_whole or distributed.n_hosts() == 1:
            checkpoints.close()
    _finish(config, folder, recipe, state, C, supply, settings, parents, notes)


def _candidates(config, folder, supply: Supply, mesh: Mesh, settings, parents) -> jax.Array:
    """The candidate points, from an earlier start or fitted now, lying over the mesh."""
    path = folder / CANDIDATES_FILE
    identity = identity_for(settings, parents)
    C = None
    if distributed.is_writer() and path.exists():
        try:
            C = checksums.load_arrays(path, identity)["candidates"]
        except ValueError as error:
            logging.warning("%s is made anew: %s", path, error)
            path.unlink()
    # Whether they are there is for one host to say: what each sees may differ, on NFS, and then
    # some would wait for ever for the others' part of what follows.
    if distributed.agree(C is not None):
        if C is None:
            distributed.wait_until_seen(path)
            C = checksums.load_arrays(path, identity)["candidates"]
    else:
        C, more = _make_candidates(config, supply, mesh)
        if distributed.is_writer():
            with atomic_path(path) as temporary:
                checksums.save_arrays(temporary, identity, candidates=C, **more)
    return divide(C, NamedSharding(mesh, CANDIDATES))


def _make_candidates(config, supply: Supply, mesh: Mesh) -> tuple[np.ndarray, dict[str, Any]]:
    """The candidate points, and what is told of them, on every host."""
    train = config.train
    if train.init_from:
        # W of another SAE weighs its own candidate points.
        return np.asarray(load_parameters(train.init_from)[1]), {}
    tokens = supply.sample(max(train.candidate_tokens, train.n_candidates))
    if train.n_candidates > len(tokens):
        raise UserError(
            f"train.n_candidates={train.n_candidates}, but only {len(tokens)} tokens are there;"
            " lower --config.train.n_candidates or raise --config.train.max_tokens"
        )
    key = stage_key(config.seed, "train_sae/candidates")
    with step(f"k-means: {train.n_candidates} candidates of {len(tokens)} tokens"):
        C, inertia = fit_candidates(
            key, tokens, train.n_candidates, train.candidate_iterations, mesh
        )
        return distributed.to_host(C), {"inertia": inertia}


def _start(config, recipe: Recipe, C, mesh: Mesh, checkpoints: Checkpoints, made_from) -> SAEState:
    """The state to go on from: own checkpoint, else `train.init_from`, else scratch."""
    train = config.train

    fresh = functools.partial(fresh_state, config, recipe)
    shapes = jax.eval_shape(fresh, C)
    places = shardings(shapes, mesh)
    like = place_shapes(shapes, places)
    restored = checkpoints.restore(like)
    if restored is not None:
        state, progress_made = restored
        found = {key: progress_made[key] for key in made_from}
        if found != made_from:
            changed = [
                key for part in made_from for key in differing_keys(found[part], made_from[part])
            ]
            raise UserError(
                f"the checkpoints in {checkpoints.folder} are of another training (not the same:"
                f" {', '.join(changed)}); choose another --workdir or --overwrite"
            )
        logging.info("train_sae: going on from step %d", int(state.step))
        return state
    if train.init_from:
        params, _ = load_parameters(train.init_from)
        wanted = jax.tree.map(lambda leaf: leaf.shape, shapes.params)
        found = jax.tree.map(np.shape, params)
        if found != wanted:
            raise UserError(
                f"train.init_from={train.init_from} has parameters of other shapes: expected"
                f" {wanted}, got {found}; set --config.train.n_concepts and"
                " --config.train.n_candidates to match"
            )
        params = jax.tree.map(divide, params, places.params)
        make = functools.partial(state_of, optimizer=recipe.optimizer)
        return jax.jit(make, out_shardings=places)(params)
    # Every array is born where it lies: no host ever holds a whole W.
    return jax.jit(fresh, out_shardings=places)(C)


def _train(config, recipe: Recipe, supply, C, mesh, checkpoints, curves, made_from) -> SAEState:
    """Runs the steps that are left."""
    train = config.train
    state = _start(config, recipe, C, mesh, checkpoints, made_from)
    first = int(state.step)
    curves.begin(first)
    make_step = functools.partial(
        jit_step, recipe, state=state, mesh=mesh, full_precision=train.full_precision
    )
    low, full = make_step(recipe.low), make_step(recipe.full)
    dead_share = jax.jit(
        lambda state: jnp.mean(state.last_active < jnp.maximum(state.step - DEAD_AFTER, 0))
    )
    check = _make_check(state, mesh, checkpoints)
    check(state, None, first, first)
    metrics, looked, looked_at = None, first, time.perf_counter()
    with (
        progress("train_sae", recipe.n_steps, first, unit="step") as bar,
        distributed.StopSignal() as stop,
    ):
        tokens_of_steps = supply.steps(first, recipe.n_steps)
        for step in range(first, recipe.n_steps):
            if stop.is_set(step):
                check(state, metrics, looked, step)
                checkpoints.save(step, state, made_from | {"next_step": step})
                checkpoints.wait()
                raise Preempted(f"stopped before step {step}, which is saved")
            run = low if step < recipe.n_low else full
            state, metrics = run(state, next(tokens_of_steps), C)
            done = step + 1
            if done % train.look_every and done < recipe.n_steps:
                continue
            values = {name: float(value) for name, value in metrics._asdict().items()}
            check(state, metrics, looked, done)
            now = time.perf_counter()
            values["tokens_per_second"] = (
                (done - looked) * train.tokens_per_step / (now - looked_at)
            )
            looked, looked_at = done, now
            values |= {
                "dead_share": float(dead_share(state)),
                "learning_rate": float(recipe.schedule(step)),
            }
            curves.add(done, values)
            bar.set_postfix(loss=f"{values['loss']:.4f}", r2=f"{values['r2']:.3f}")
            bar.update(done - bar.n)
            # Saved only what was just seen to be sound; the last look is behind the last step.
            if done // train.checkpoint_every > (done - train.look_every) // train.checkpoint_every:
                checkpoints.save(done, state, made_from | {"next_step": done})
        tokens_of_steps.close()
        checkpoints.save(recipe.n_steps, state, made_from | {"next_step": recipe.n_steps})
    return state


def _make_check(state: SAEState, mesh: Mesh, checkpoints: Checkpoints) -> Callable[..., None]:
    """A function that refuses a state that is not to be saved, nor trained on.

    It takes the state, the metrics of the step before it (None: there was none), the last step that
    was found good and that of the state. All hosts come to the same answer.
    """
    names = health.float_names(state)
    are_finite = jax.jit(health.are_finite, out_shardings=replicated(mesh))

    def check(state, metrics, last_good, step):
        flags = np.asarray(are_finite(state))
        wrong = [name for name, is_finite in zip(names, flags, strict=True) if not is_finite]
        loss, l0 = (1.0, 1.0) if metrics is None else (float(metrics.loss), float(metrics.l0))
        if np.isfinite(loss) and not wrong and l0 > 0:
            return
        shown = ", ".join(wrong[:MOST_SHOWN]) + (", ..." if len(wrong) > MOST_SHOWN else "")
        if metrics is None:
            raise UserError(
                f"training would start at step {step} from values that are not finite"
                f" ({shown}); check --config.train.init_from, or set another --workdir"
            )
        if not np.isfinite(loss):
            what = f"the loss is {loss}"
        elif wrong:
            what = "the state is not finite"
        else:
            what = f"no token has an active concept (l0={l0})"
        good = checkpoints.newest()
        raise UserError(
            f"{what} between steps {last_good} and {step}"
            f"{f' (not finite: {shown})' if wrong else ''}; the last good checkpoint is"
            f" {'none' if good is None else f'that of step {good}'}, and nothing was saved over it;"
            " lower --config.train.peak_learning_rate"
        )

    return check


def _finish(config, folder, recipe, state, C, supply, settings, parents, notes) -> None:
    """Writes the SAE for inference, its quality and the manifest."""
    mesh = C.sharding.mesh

    @functools.partial(jax.jit, out_shardings=replicated(mesh))
    def fuse(params, C):
        with jax.default_matmul_precision("highest"):
            weights = project(params["dictionary"], config.train.relax_radius)
            return dictionary(weights, C), params["encoder"], _constraints(weights)

    D, encoder_params, constraints = distributed.to_host(fuse(state.params, C))
    if not np.isfinite(D).all():
        raise UserError(
            "the dictionary after the last step has values that are not finite; lower"
            " --config.train.peak_learning_rate and train in another --workdir"
        )
    points = distributed.to_host(C)
    threshold = float(state.threshold)
    if "log_threshold" in encoder_params:
        threshold = np.exp(encoder_params.pop("log_threshold"))
    sample = supply.sample(config.train.judge_tokens)
    if distributed.is_writer():
        source = f"train_sae seed {config.seed}"
        sae = save_trained(folder / TRAINED, encoder_params, D, threshold, source)
        with step(f"judging the SAE on {len(sample)} tokens"):
            numbers, distributions = judge(sample, sae, points)
        numbers |= {name: float(value) for name, value in constraints.items()}
        if config.train.compare_with:
            other = load_rasae(config.train.compare_with).dictionary
            if other.shape != sae.dictionary.shape:
                raise UserError(
                    f"train.compare_with={config.train.compare_with} has atoms {other.shape},"
                    f" expected {sae.dictionary.shape}; set it to a training of another seed"
                )
            numbers["stability"] = quality.stability(sae.dictionary, other)
        write_json(folder / QUALITY, numbers)
        plot_curves(folder / "curves.jsonl", folder / "curves.png")
        plot_quality(distributions, folder / "quality.png")
        logging.info("quality: %s", numbers)
        counts = {"tokens": supply.n_tokens, "steps": recipe.n_steps, **numbers}
        write_manifest(
            folder, stage="train_sae", config=settings, parents=parents, counts=counts,
            notes=notes,
        )  # fmt: skip
    distributed.wait_for_all("train_sae")


def _constraints(weights) -> dict[str, jax.Array]:
    """How far the dictionary is from its constraints, as it is used and stored."""
    return {
        "largest_row_sum_error": jnp.max(jnp.abs(jnp.sum(weights["W"], axis=1) - 1)),
        "largest_relaxation": jnp.max(jnp.linalg.norm(weights["Lam"], axis=1)),
    }


def judge(
    tokens: np.ndarray, sae: LoadedSAE, points: np.ndarray
) -> tuple[dict[str, float], quality.Distributions]:
    """Quality at inference, with the stored threshold, on a sample of tokens.

    Args:
      tokens: the sample [N, D].
      sae: as saved.
      points: candidate points [M, D], which stand for the data in the OOD score.
    """
    encoder = jax.tree.map(jnp.asarray, sae.encoder)
    x, D = jnp.asarray(tokens), jnp.asarray(sae.dictionary)
    codes = codes_of(encoder, x, jnp.asarray(sae.threshold))
    with jax.default_matmul_precision("highest"):
        x_hat = decode(codes, D)
    found = quality.Distributions(
        relative_error=quality.relative_errors(x, x_hat),
        n_active=jnp.sum(codes != 0, axis=1).astype(jnp.float32),
        hoyer=quality.hoyer(codes),
        energy=quality.energy_of_codes(codes, D),
        ood=quality.ood_score(D, jnp.asarray(points)),
        collinearity=quality.collinearity(D),
    )
    found = quality.Distributions(*map(np.asarray, found))
    spread = quality.energy_spread(found.energy)
    numbers = {
        "tokens_judged": len(tokens),
        "r2": float(quality.r2(x, x_hat)),
        "relative_l2": float(np.mean(found.relative_error)),
        "l0": float(np.mean(found.n_active)),
        "dead_share": float(jnp.mean(quality.dead(codes))),
        "hoyer": float(np.mean(found.hoyer)),
        "energy_effective_share": spread.effective_share,
        "energy_top_percent": spread.top_percent,
        "ood_mean": float(np.mean(found.ood)),
        "ood_largest": float(np.max(found.ood)),
        "collinearity_mean": float(np.mean(found.collinearity)),
        "collinearity_largest": float(np.max(found.collinearity)),
        "threshold": float(np.mean(sae.threshold)),
    }
    return numbers, found
