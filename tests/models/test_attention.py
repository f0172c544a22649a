"""Attention in parts equals attention in one, and softmax written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from bsjax.models.attention import (
    _n_parts,
    attention,
    attention_by_heads,
    flash_attention,
    suits_flash,
)


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


@pytest.mark.parametrize("max_scores", [1 << 22, 100])
def test_by_heads(max_scores):
    rng = np.random.default_rng(0)
    q = rng.normal(size=(2, 24, 3, 8)).astype(np.float32)
    k, v = rng.normal(size=(2, 2, 17, 3, 8)).astype(np.float32)
    found = attention_by_heads(*map(jnp.asarray, (q, k, v)), max_scores=max_scores)
    np.testing.assert_allclose(found, plain(q, k, v, np.ones((2, 17), bool)), atol=1e-5)


@pytest.mark.parametrize("width", [72, 128])
def test_the_tpu_kernel_is_equal(width):
    """Interpreted here; compiled for TPUs by `bsjax plan`."""
    rng = np.random.default_rng(0)
    q, k, v = rng.normal(size=(3, 1, 1024, 2, width)).astype(np.float32)
    with pltpu.force_tpu_interpret_mode():
        found = jax.jit(flash_attention)(*map(jnp.asarray, (q, k, v)))
    np.testing.assert_allclose(found, plain(q, k, v, np.ones((1, 1024), bool)), atol=1e-4)


def test_when_the_kernel_is_taken():
    def suits(n_queries, n_keys, dtype):
        q, k = (jax.ShapeDtypeStruct((1, n, 2, 8), dtype) for n in (n_queries, n_keys))
        return suits_flash(*(jnp.zeros(each.shape, each.dtype) for each in (q, k)))

    assert suits(1024, 512, jnp.bfloat16)
    assert not suits(1024, 512, jnp.float32)  # it would round to half precision
    assert not suits(1000, 512, jnp.bfloat16)
    assert not suits(1024, 77, jnp.bfloat16)
    x = jnp.ones((1, 512, 2, 8), jnp.bfloat16)  # on a CPU: the plain form
    np.testing.assert_allclose(attention(x, x, x).astype(jnp.float32), 1)


def test_number_of_parts():
    assert _n_parts(24, 100, 100) == 1
    assert _n_parts(24, 101, 100) == 2
    assert _n_parts(24, 500, 100) == 6  # not 5, which does not divide 24
    assert _n_parts(23, 200, 100) == 23
