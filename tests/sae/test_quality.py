"""Quality of an SAE: by hand on a few numbers, and as the reference library has it."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from bsjax.sae import quality
from tests import overcomplete


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture(scope="module")
def reference():
    overcomplete.load_or_skip()
    import overcomplete.metrics as metrics

    return metrics


def test_by_hand():
    x = jnp.array([[3.0, 4.0], [0.0, 2.0]])
    x_hat = jnp.array([[0.0, 4.0], [0.0, 1.0]])
    np.testing.assert_allclose(quality.relative_errors(x, x_hat), [3 / 5, 1 / 2], rtol=1e-5)
    D = jnp.array([[2.0, 0.0], [0.0, 3.0], [1.0, 1.0]])
    half = np.sqrt(0.5)
    np.testing.assert_allclose(quality.collinearity(D), [half, half, half], atol=1e-5)
    points = jnp.array([[5.0, 0.0], [-1.0, 0.0]])
    np.testing.assert_allclose(quality.ood_score(D, points), [0, 1, 1 - half], atol=1e-5)


def test_energy_spread_by_hand():
    assert quality.energy_spread(np.ones(200)).effective_share == pytest.approx(1)
    assert quality.energy_spread(np.ones(200)).top_percent == pytest.approx(0.01)
    one = quality.energy_spread(np.eye(1, 200)[0])
    assert one.effective_share == pytest.approx(1 / 200)
    assert one.top_percent == pytest.approx(1)
    assert quality.energy_spread(np.zeros(5)) == (0, 0)


def test_stability_by_hand():
    D = normal(6, 4)
    assert quality.stability(D, 3 * D[::-1]) == pytest.approx(1, abs=1e-5)
    # The best partner of both atoms is the first; only one can have it.
    D, other = np.array([[1.0, 0], [0.8, 0.6]]), np.array([[1.0, 0], [0, 1]])
    assert quality.stability(D, other) == pytest.approx((1 + 0.6) / 2, abs=1e-5)
    assert quality.stability(D, other, exact_up_to=1) == pytest.approx((1 + 0.6) / 2, abs=1e-5)


def test_matching_by_rounds_is_nearly_the_best():
    D = normal(512, 16)
    other = D[np.random.default_rng(1).permutation(512)] + 0.8 * normal(512, 16, seed=2)
    exact, rounds = quality.stability(D, other), quality.stability(D, other, exact_up_to=0)
    assert 0.98 * exact < rounds <= exact + 1e-6


def test_blocks_do_not_show():
    D, points = jnp.asarray(normal(70, 5)), jnp.asarray(normal(33, 5, seed=1))
    whole = quality.ood_score(D, points), quality.collinearity(D)
    again = quality.ood_score(D, points, 16), quality.collinearity(D, 16)
    np.testing.assert_allclose(again[0], whole[0], atol=1e-6)
    np.testing.assert_allclose(again[1], whole[1], atol=1e-6)


def test_as_the_reference_has_it(reference):
    x, x_hat = normal(20, 8), normal(20, 8, seed=1)
    D, other = normal(12, 8, seed=2), normal(12, 8, seed=3)

    def tensors(*arrays):
        return [torch.from_numpy(array) for array in arrays]

    relative_errors = quality.relative_errors(jnp.asarray(x), jnp.asarray(x_hat))
    assert float(relative_errors.mean()) == pytest.approx(
        reference.relative_avg_l2_loss(*tensors(x, x_hat)), rel=1e-4
    )
    largest, _ = reference.dictionary_collinearity(*tensors(D))
    assert float(quality.collinearity(jnp.asarray(D)).max()) == pytest.approx(
        float(largest), rel=1e-4
    )
    loss = reference.cosine_hungarian_loss(*tensors(D, other))
    assert 12 * (1 - quality.stability(D, other)) == pytest.approx(loss, rel=1e-4)
