"""Attention in parts equals attention in one, and softmax written out."""

import jax.numpy as jnp
import numpy as np
import pytest

from bsjax.models.attention import _n_parts, attention


def plain(q, k, v, mask):
    scores = np.einsum("bqhd,bshd->bhqs", q, k) / np.sqrt(q.shape[-1])
    scores = np.where(mask[:, None, None], scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return np.einsum("bhqs,bshd->bqhd", weights, v)


@pytest.mark.parametrize("max_scores", [1 << 27, 1000, 10])
@pytest.mark.parametrize("n_queries", [24, 23])
def test_parts_do_not_show(n_queries, max_scores):
    rng = np.random.default_rng(0)
    q = rng.normal(size=(2, n_queries, 3, 8)).astype(np.float32)
    k, v = rng.normal(size=(2, 2, 17, 3, 8)).astype(np.float32)
    mask = rng.random((2, 17)) < 0.7
    found = attention(*map(jnp.asarray, (q, k, v, mask)), max_scores=max_scores)
    np.testing.assert_allclose(found, plain(q, k, v, mask), atol=1e-5)


def test_number_of_parts():
    assert _n_parts(24, 100, 100) == 1
    assert _n_parts(24, 101, 100) == 2
    assert _n_parts(24, 500, 100) == 6  # not 5, which does not divide 24
    assert _n_parts(23, 200, 100) == 23
