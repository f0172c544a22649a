"""Properties of the RA-SAE's parts that hold for any numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bsjax.core.mesh import make_mesh, over_data
from bsjax.sae.batch_topk import batch_topk, running_threshold
from bsjax.sae.candidates import assign, fit_candidates
from bsjax.sae.dictionary import dictionary, project
from bsjax.sae.encoder import pre_codes
from bsjax.sae.train_step import init_state, make_optimizer, train_step

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


@pytest.mark.parametrize("n_kept", [1, 7, 40])
def test_batch_topk_equals_a_sort_with_ties(n_kept):
    codes = jnp.asarray(RNG.integers(0, 9, (8, 10)), jnp.float32)
    kept, threshold = batch_topk(codes, n_kept)
    expected = np.sort(np.asarray(codes).ravel())[::-1][n_kept - 1]
    assert float(threshold) == expected
    np.testing.assert_array_equal(kept, np.where(codes >= expected, codes, 0))


def test_running_threshold_starts_at_the_first():
    first = running_threshold(jnp.float32(0), jnp.float32(2), jnp.int32(0))
    assert float(first) == 2
    assert float(running_threshold(first, jnp.float32(3), jnp.int32(1))) == pytest.approx(2.1)


def make_step(loss="aux", optimizer=None):
    optimizer = optimizer or make_optimizer(1e-2, 1e-6, 100, 0.05, 1e-4)
    C = normal(24, 6)
    state = init_state(jax.random.key(0), C, 16, optimizer)

    def step(state, tokens):
        settings = {"n_active": 48, "loss": loss, "relax_radius": 1.0, "optimizer": optimizer}
        return train_step(state, tokens, C, **settings)

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


@pytest.mark.parametrize("loss", ["mse", "aux"])
def test_one_device_equals_eight(loss):
    # Gradient descent, not AdamW, whose first steps have the size of the learning rate (0 while
    # the warm-up begins) whatever the gradient is.
    alone, step = make_step(loss, optax.sgd(0.1))
    start, spread = alone.params, alone
    mesh = make_mesh()
    assert mesh.size == 8
    for _ in range(3):
        tokens = normal(32, 6)
        alone, one = step(alone, tokens)
        spread, eight = step(spread, jax.device_put(tokens, over_data(mesh)))
        # Float32 sums in another order.
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), one, eight)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), alone.params, spread.params
    )
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), start, alone.params)
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
    optimizer = make_optimizer(1.0, 1e-3, n_steps, 0.05, 0.0)
    params, sizes = jnp.zeros(1), []
    state = optimizer.init(params)
    for _ in range(n_steps):
        updates, state = optimizer.update(jnp.ones(1), state, params)
        sizes.append(-float(updates[0]))
        params = optax.apply_updates(params, updates)
    assert sizes[0] == 0
    assert np.argmax(sizes) == 10
    assert sizes[-1] < 0.01


def reference_kmeans(tokens, centroids, n_iterations):
    for _ in range(n_iterations):
        place = ((tokens[:, None] - centroids[None]) ** 2).sum(-1).argmin(1)
        centroids = np.stack(
            [
                tokens[place == m].mean(0) if (place == m).any() else centroids[m]
                for m in range(len(centroids))
            ]
        )
    return ((tokens[:, None] - centroids[None]) ** 2).sum(-1).min(1).sum()


def clustered(seed):
    """500 tokens about 10 centres, and the generator for more of the same."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(10, 4)) * 4
    tokens = centres[rng.integers(0, 10, 500)] + rng.normal(size=(500, 4))
    return rng, tokens.astype(np.float32)


@pytest.mark.parametrize("seed", range(3))
def test_candidates_equal_plain_kmeans_from_the_same_start(seed):
    _, tokens = clustered(seed)
    key = jax.random.key(seed)
    start, _ = fit_candidates(key, jnp.asarray(tokens), 10, 0)
    C, inertia = fit_candidates(key, jnp.asarray(tokens), 10, 20)
    expected = reference_kmeans(tokens, np.asarray(start), 20)
    assert inertia == pytest.approx(expected, rel=1e-4)
    place, distance = assign(jnp.asarray(tokens), C)
    exact = ((tokens[:, None] - np.asarray(C)[None]) ** 2).sum(-1)
    np.testing.assert_array_equal(place, exact.argmin(1))
    np.testing.assert_allclose(distance, exact.min(1), rtol=1e-3, atol=1e-3)


def test_seeding_beats_random_starts_on_average():
    # One run may still end in a poor local optimum, with either start; so only means compare.
    ours, random = [], []
    for seed in range(5):
        rng, tokens = clustered(seed)
        for k in range(4):
            ours.append(fit_candidates(jax.random.key(k), jnp.asarray(tokens), 10, 20)[1])
            start = tokens[rng.choice(500, 10, replace=False)]
            random.append(reference_kmeans(tokens, start, 20))
    assert np.mean(ours) < np.mean(random)


def test_no_candidate_stays_empty_and_too_many_are_refused():
    tokens = jnp.asarray(np.repeat(RNG.normal(size=(8, 3)), 4, axis=0), jnp.float32)
    C, inertia = fit_candidates(jax.random.key(1), tokens, 8, 5)
    assert inertia == pytest.approx(0, abs=1e-3)
    assert np.isfinite(np.asarray(C)).all()
    with pytest.raises(ValueError, match="at least 33 tokens, got 32"):
        fit_candidates(jax.random.key(1), tokens, 33, 1)
