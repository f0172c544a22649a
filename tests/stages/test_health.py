"""A training that is spoilt stops, whatever is spoilt, and saves nothing of it."""

import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from jax.sharding import NamedSharding

from bsjax.core import ending
from bsjax.core.checkpoint import Checkpoints
from bsjax.core.errors import Preempted, UserError
from bsjax.core.mesh import divide, make_mesh
from bsjax.experiment.curves import Curves
from bsjax.experiment.recipe import make_recipe
from bsjax.sae.train_step import CANDIDATES, TOKENS
from bsjax.stages import train_sae as stage
from tests.stages.test_training import CONFIG

N_STEPS, LOOK, SAVE = 40, 10, 20


class Supply:
    """Noise; a step's depends on its number."""

    n_tokens = 640

    def __init__(self, mesh):
        self.sharding = NamedSharding(mesh, TOKENS)

    def steps(self, first, stop):
        for step in range(first, stop):
            tokens = np.random.default_rng(step).normal(size=(1, 64, 8)).astype(np.float32)
            yield divide(tokens, self.sharding)


def train(folder, shape=(1, 1)):
    """Trains 40 steps, looks every 10, saves every 20."""
    config = runpy.run_path(str(CONFIG))["get_config"]("tiny")
    settings = {"n_concepts": 16, "n_candidates": 16, "tokens_per_step": 64, "steps": N_STEPS}
    settings |= {"look_every": LOOK, "checkpoint_every": SAVE, "compute_dtype": "float32"}
    config.train.update(settings | {"loss": "aux"})
    mesh = make_mesh(*shape, jax.devices()[: shape[0] * shape[1]])
    points = np.random.default_rng(0).normal(size=(16, 8)).astype(np.float32)
    C = divide(points, NamedSharding(mesh, CANDIDATES))
    checkpoints, curves = Checkpoints(folder / "checkpoints", 3), Curves(folder, is_writer=True)
    try:
        recipe = make_recipe(config, mesh, Supply.n_tokens)
        made_from = {"settings": {}, "parents": {}}
        stage._train(config, recipe, Supply(mesh), C, mesh, checkpoints, curves, made_from)
    finally:
        curves.close()
        checkpoints.close()


def saved(folder):
    return sorted(int(path.name) for path in (folder / "checkpoints").glob("[0-9]*"))


def spoil_kernel(state, metrics):
    encoder = state.params["encoder"]
    encoder = encoder | {"kernel": encoder["kernel"].at[0, 0].set(jnp.nan)}
    return state._replace(params=state.params | {"encoder": encoder}), metrics


def spoil_threshold(state, metrics):
    return state._replace(threshold=state.threshold * jnp.inf), metrics


def spoil_optimizer(state, metrics):
    spoilt = [
        leaf.at[-1].set(jnp.nan) if leaf.shape == (16, 16) else leaf
        for leaf in jax.tree.leaves(state.opt_state)
    ]
    return state._replace(
        opt_state=jax.tree.unflatten(jax.tree.structure(state.opt_state), spoilt)
    ), metrics


def silence(state, metrics):
    return state, metrics._replace(l0=jnp.zeros_like(metrics.l0))


def raise_loss(state, metrics):
    return state, metrics._replace(loss=metrics.loss * jnp.nan)


def spoil_at(monkeypatch, at, spoil):
    """Step `at` leaves behind what `spoil` makes of it."""
    real = stage.jit_step

    def jit_step(*arguments, **named):
        run = real(*arguments, **named)

        def spoilt(state, tokens, C):
            places = jax.tree.map(lambda leaf: leaf.sharding, state)
            state, metrics = run(state, tokens, C)
            if int(state.step) == at:
                state, metrics = spoil(state, metrics)
            return jax.device_put(state, places), metrics

        return spoilt

    monkeypatch.setattr(stage, "jit_step", jit_step)


def test_a_sound_training_saves(tmp_path):
    train(epath.Path(tmp_path))
    assert saved(tmp_path) == [20, 40]


@pytest.mark.parametrize(
    ("at", "spoil", "message", "steps"),
    [
        (7, spoil_kernel, r"steps 0 and 10 \(.*params\.encoder\.kernel, .*none", []),
        (20, spoil_kernel, r"steps 10 and 20 \(not finite: params\.encoder\.kernel\)", []),
        (30, spoil_optimizer, r"20 and 30 \(not finite: opt_state\..*W.*\); .* step 20,", [20]),
        (30, spoil_threshold, r"20 and 30 \(not finite: threshold\); .* of step 20,", [20]),
        (40, spoil_threshold, r"state is not .* 30 and 40 \(not finite: threshold\);", [20]),
        (40, spoil_optimizer, r"opt_state\.0\.mu\.dictionary\.W", [20]),
        (30, silence, r"no token has an active concept .* between steps 20 and 30", [20]),
        (40, raise_loss, r"the loss is nan between steps 30 and 40", [20]),
    ],
)
def test_what_is_spoilt_is_not_saved(tmp_path, monkeypatch, at, spoil, message, steps):
    # One number is spoilt, which lies on one of the devices.
    shape = (2, 4) if spoil is spoil_kernel else (1, 1)
    spoil_at(monkeypatch, at, spoil)
    with pytest.raises(UserError, match=message) as told:
        train(epath.Path(tmp_path), shape)
    assert "the last good checkpoint is" in str(told.value)
    assert "--config.train.peak_learning_rate" in str(told.value)
    assert saved(tmp_path) == steps


@pytest.mark.parametrize(
    ("spoil", "error", "steps"),
    [(spoil_kernel, UserError, [20]), (None, Preempted, [20, 26])],
)
def test_sigterm_saves_a_sound_state_alone(tmp_path, monkeypatch, spoil, error, steps):
    if spoil:
        spoil_at(monkeypatch, 25, spoil)
    monkeypatch.setattr(ending.StopSignal, "is_set", lambda self, step: step == 26)
    with pytest.raises(error):
        train(epath.Path(tmp_path))
    assert saved(tmp_path) == steps


def test_a_start_that_is_spoilt_is_refused(tmp_path, monkeypatch):
    real = stage._start
    monkeypatch.setattr(stage, "_start", lambda *given: spoil_kernel(real(*given), None)[0])
    with pytest.raises(
        UserError, match=r"start at step 0 from values.*\(params\.encoder\.kernel\)"
    ):
        train(epath.Path(tmp_path))
    assert saved(tmp_path) == []
