"""Batch top-k is that of a sort, however the codes are spread over tokens and concepts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bsjax.core.mesh import make_mesh
from bsjax.sae import batch_topk
from bsjax.sae.batch_topk import batch_threshold, running_threshold, select_active

N_TOKENS, N_CONCEPTS, N_ACTIVE = 16, 1024, 80


def random_codes(crowded_tokens, crowded_stride):
    """Uniform codes; the largest may crowd on a token, or on concepts of one group."""
    codes = np.random.default_rng(0).uniform(size=(N_TOKENS, N_CONCEPTS)).astype(np.float32)
    if crowded_tokens:
        codes[3, : 60 * crowded_stride : crowded_stride][: codes.shape[1]] += 1
    return codes


CODES = {
    "spread": random_codes(False, 1),
    "a token with many": random_codes(True, 1),
    "a group with many": random_codes(True, 16),
    "two tokens hold all": np.where(np.arange(N_TOKENS)[:, None] < 2, random_codes(False, 1), 0),
    "few positive": np.where(random_codes(False, 1) > 0.999, random_codes(False, 1), 0),
    "ties": np.round(random_codes(False, 1), 1).astype(np.float32),
    "all equal": np.full((N_TOKENS, N_CONCEPTS), 0.5, np.float32),
}


@pytest.mark.parametrize("name", CODES)
@pytest.mark.parametrize("shape", [None, (1, 1), (4, 2), (1, 8)])
def test_equals_a_sort(name, shape):
    codes = CODES[name]
    order = np.argsort(-codes.ravel(), stable=True)[:N_ACTIVE]
    expected = codes.ravel()[order[-1]]
    axes = ("data", "model") if shape else ()

    def search(codes):
        active, threshold = select_active(codes, N_ACTIVE, axes)
        return (
            jax.tree.map(lambda leaf: leaf[None], active),
            threshold,
            batch_threshold(codes, N_ACTIVE, axes),
        )

    if shape:
        mesh = make_mesh(*shape, jax.devices()[: shape[0] * shape[1]])
        block = jax.P("data", "model")
        search = jax.shard_map(
            search, mesh=mesh, in_specs=block, out_specs=(block, jax.P(), jax.P()), check_vma=False
        )
    active, threshold, again = jax.jit(search)(jnp.asarray(codes))
    assert threshold == again == expected
    values = np.sort(np.asarray(active.values).ravel())
    kept = np.sort(codes.ravel()[order])
    if "ties" in name or "equal" in name:
        # Which of the equal ones stay is open, and over a mesh each device keeps what it has.
        assert values[values > 0].min() == expected
        assert shape or (values == kept).all()
        return
    np.testing.assert_array_equal(values[values > 0], kept[kept > 0])
    if not shape:
        places = np.asarray(active.tokens[0]) * N_CONCEPTS + np.asarray(active.concepts[0])
        np.testing.assert_array_equal(
            np.sort(places[active.values[0] > 0]), np.sort(order[codes.ravel()[order] > 0])
        )


def test_every_way_of_searching_is_taken():
    """The cases above reach the quick, the middle and the full search."""
    taken = set()
    for name, spare in (("spread", 2), ("a token with many", 2), ("a token with many", 1)):
        codes = jnp.asarray(CODES[name])
        values = -jnp.sort(-codes, axis=1)[:, : batch_topk.PER_TOKEN]
        bound = jnp.sort(values.ravel())[-N_ACTIVE]
        if values[:, -1].max() <= bound:
            taken.add("quick")
        else:
            taken.add("middle" if (codes >= bound).sum() <= spare * N_ACTIVE else "full")
        active, threshold = select_active(codes, N_ACTIVE, spare=spare)
        assert threshold == np.sort(CODES[name].ravel())[-N_ACTIVE]
        assert active.values.min() == threshold
    assert taken == {"quick", "middle", "full"}


def test_running_threshold_starts_at_the_first():
    first = running_threshold(jnp.float32(0), jnp.float32(2), jnp.int32(0))
    assert float(first) == 2
    assert float(running_threshold(first, jnp.float32(3), jnp.int32(1))) == pytest.approx(2.1)
