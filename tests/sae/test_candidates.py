"""k-means: plain Lloyd from its seeds, as good as scikit-learn, the same on every mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.cluster

from bsjax.core.mesh import make_mesh
from bsjax.sae.candidates import assign, fit_candidates

MESH = make_mesh(1, 1, jax.devices()[:1])


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
    start, _ = fit_candidates(key, tokens, 10, 0, MESH)
    C, inertia = fit_candidates(key, tokens, 10, 20, MESH)
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
            ours.append(fit_candidates(jax.random.key(k), tokens, 10, 20, MESH)[1])
            start = tokens[rng.choice(500, 10, replace=False)]
            random.append(reference_kmeans(tokens, start, 20))
    assert np.mean(ours) < np.mean(random)


def test_no_candidate_stays_empty_and_too_many_are_refused():
    tokens = np.repeat(np.random.default_rng(0).normal(size=(8, 3)), 4, axis=0).astype(np.float32)
    C, inertia = fit_candidates(jax.random.key(1), tokens, 8, 5, MESH)
    assert inertia == pytest.approx(0, abs=1e-3)
    assert np.isfinite(np.asarray(C)).all()
    with pytest.raises(ValueError, match="at least 33 tokens, got 32"):
        fit_candidates(jax.random.key(1), tokens, 33, 1, MESH)


@pytest.mark.parametrize("n_candidates", [32, 700])
def test_inertia_is_that_of_scikit_learn(n_candidates):
    """Both ways of seeding: one seed a round, and several."""
    rng = np.random.default_rng(1)
    tokens = 3 * rng.normal(size=(60, 16))[rng.integers(0, 60, 4000)] + rng.normal(size=(4000, 16))
    tokens = tokens.astype(np.float32)
    _, inertia = fit_candidates(jax.random.key(0), tokens, n_candidates, 30, MESH)
    reference = sklearn.cluster.KMeans(n_candidates, n_init=1, random_state=0).fit(tokens)
    assert inertia < 1.02 * reference.inertia_


@pytest.mark.parametrize("shape", [(8, 1), (2, 4)])
def test_candidates_do_not_depend_on_the_devices(shape):
    _, tokens = clustered(0)
    tokens = tokens[:497]  # which no mesh divides
    alone, inertia = fit_candidates(jax.random.key(3), tokens, 10, 5, MESH)
    spread, again = fit_candidates(jax.random.key(3), tokens, 10, 5, make_mesh(*shape))
    assert again == pytest.approx(inertia, rel=1e-5)
    np.testing.assert_allclose(spread, alone, rtol=1e-4, atol=1e-4)
