"""Properties of the RA-SAE's parts that hold for any numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bsjax.core.mesh import make_mesh
from bsjax.sae.dictionary import dictionary, project
from bsjax.sae.encoder import pre_codes, tied_encoder
from bsjax.sae.gradient import Objective
from bsjax.sae.train_step import init_state, make_optimizer, make_schedule, train_step

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def same_numbers_whichever_test_ran_before():
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state


def normal(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


def test_project_meets_the_constraints():
    radius = 0.5
    params = {"W": normal(6, 9), "Lam": normal(6, 4).at[2].set(0.0), "multiplier": normal()}
    got = project(params, radius)
    assert float(got["W"].min()) >= 0
    np.testing.assert_allclose(got["W"].sum(axis=1), 1, atol=1e-6)
    norms = np.linalg.norm(got["Lam"], axis=1)
    assert norms.max() <= radius + 1e-6
    assert norms[2] == 0
    again = project(got, radius)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), got, again)


def test_no_relaxation_at_all_leaves_points_of_the_hull():
    params = {"W": normal(6, 9), "Lam": normal(6, 4).at[2].set(0.0), "multiplier": normal()}
    np.testing.assert_array_equal(project(params, 0.0)["Lam"], np.zeros((6, 4)))


def test_a_tied_encoder_finds_each_point_by_its_own_concept():
    points = normal(40, 16) + 3.0  # all share a direction
    encoder = tied_encoder(points, 30)
    np.testing.assert_allclose(np.linalg.norm(encoder["kernel"], axis=0), 1, rtol=1e-5)
    codes = pre_codes(encoder, points[:30])
    np.testing.assert_array_equal(np.argmax(codes, axis=1), np.arange(30))
    state = init_state(jax.random.key(0), points, 30, optax.sgd(0.1), encoder_init="candidates")
    np.testing.assert_array_equal(state.params["encoder"]["kernel"], encoder["kernel"])
    with pytest.raises(ValueError, match="at most as many concepts as points"):
        tied_encoder(points, 41)


def test_dictionary_by_hand():
    params = {
        "W": jnp.array([[0.25, 0.75]]),
        "Lam": jnp.array([[1.0, 0.0]]),
        "multiplier": jnp.log(jnp.float32(2)),
    }
    C = jnp.array([[4.0, 0.0], [0.0, 4.0]])
    np.testing.assert_allclose(dictionary(params, C), [[4.0, 6.0]], rtol=1e-6)


def test_pre_codes_are_normalised_over_concepts():
    params = {"kernel": normal(5, 7), "bias": normal(7), "scale": jnp.ones(7)}
    pre = pre_codes(params | {"shift": jnp.zeros(7)}, normal(3, 5))
    np.testing.assert_allclose(pre.mean(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(pre.std(axis=1), 1, atol=1e-3)


def mesh_of_one():
    return make_mesh(1, 1, jax.devices()[:1])


def make_step(loss="aux", optimizer=None, activation="batch_topk"):
    optimizer = optimizer or make_optimizer(make_schedule(1e-2, 1e-6, 100, 0.05), 1e-4)
    C = normal(24, 6)
    state = init_state(jax.random.key(0), C, 16, optimizer, activation)
    objective = Objective(n_active=2, loss=loss, activation=activation)
    mesh = mesh_of_one()

    def step(state, tokens):
        return train_step(
            state, tokens[None], C, objective=objective, optimizer=optimizer, mesh=mesh
        )

    return state, jax.jit(step)


def test_training_lowers_the_loss_and_moves_every_parameter():
    state, step = make_step()
    start = state.params
    tokens = normal(32, 6)
    losses = []
    for _ in range(60):
        state, metrics = step(state, tokens)
        losses.append(float(metrics.loss))
    assert losses[-1] < 0.6 * losses[0]
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), start, state.params)
    assert min(jax.tree.leaves(moved)) > 0
    assert int(state.last_active.max()) == 59


@pytest.mark.parametrize("loss", ["mse", "aux"])
def test_gradient_reaches_every_parameter(loss):
    # Plain gradient descent without weight decay: what moved, moved by its gradient.
    state, step = make_step(loss, optax.sgd(1.0))
    start = state.params | {"dictionary": project(state.params["dictionary"], 1.0)}
    after, _ = step(state, normal(32, 6))
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), start, after.params)
    # A shift before a LayerNorm moves its output, so even the bias has a gradient.
    assert min(jax.tree.leaves(moved)) > 1e-5


def test_projected_after_training():
    state, step = make_step("mse", optax.sgd(1.0))
    for _ in range(3):
        state, _ = step(state, normal(32, 6))
    trained = state.params["dictionary"]
    assert float(jnp.linalg.norm(trained["Lam"], axis=1).max()) > 0.01
    assert float(jnp.abs(trained["W"].sum(axis=1) - 1).max()) > 1e-3
    got = project(trained, 0.01)
    np.testing.assert_allclose(got["W"].sum(axis=1), 1, atol=1e-6)
    assert float(jnp.linalg.norm(got["Lam"], axis=1).max()) <= 0.01 + 1e-6


def test_schedule_warms_up_and_decays():
    n_steps = 200
    optimizer = make_optimizer(make_schedule(1.0, 1e-3, n_steps, 0.05), 0.0)
    params, sizes = jnp.zeros(1), []
    state = optimizer.init(params)
    for _ in range(n_steps):
        updates, state = optimizer.update(jnp.ones(1), state, params)
        sizes.append(-float(updates[0]))
        params = optax.apply_updates(params, updates)
    assert sizes[0] == 0
    assert np.argmax(sizes) == 10
    assert sizes[-1] < 0.01
