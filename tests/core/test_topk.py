"""The search for the largest is that of a sort, alone and over a mesh."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bsjax.core import topk
from bsjax.core.mesh import make_mesh
from bsjax.core.topk import largest_of_rows, nth_largest, nth_largest_of_rows, places_of_largest

MESHES = [(8, 1), (4, 2), (1, 8)]


def awkward(n, seed=0):
    """Non-negative numbers with ties, zeros and a denormal one, over many orders of magnitude."""
    rng = np.random.default_rng(seed)
    values = np.maximum(rng.normal(size=n), 0) * 10.0 ** rng.integers(-30, 30, n)
    values[:10] = values[10] = 0.5
    values[11] = 1e-42
    return values.astype(np.float32)


@pytest.mark.parametrize("shape", [(7, 320), (2, 3, 320), (4, 33)])
def test_largest_of_rows_are_those_of_a_sort(shape):
    rows = jax.random.normal(jax.random.key(1), shape)
    values, places = largest_of_rows(rows, 5)
    np.testing.assert_array_equal(values, -np.sort(-np.asarray(rows))[..., :5])
    np.testing.assert_array_equal(np.take_along_axis(np.asarray(rows), places, -1), values)


@pytest.mark.parametrize("n", [1, 2, 7, 50, 99, 100])
def test_places_of_largest_are_those_of_a_sort(n):
    values = awkward(100, n)
    smallest = nth_largest(jnp.asarray(values), n)
    places = places_of_largest(jnp.asarray(values), n, smallest)
    expected = np.argsort(-values, stable=True)[:n]
    np.testing.assert_array_equal(places, np.sort(expected))
    assert smallest == values[expected[-1]]


# As each platform searches: digits of the answer of one, two, three or five bits per pass.
@pytest.mark.parametrize("width", [1, 2, 3, 5])
def test_nth_largest_with_digits_of_any_width(width):
    values = awkward(640)
    for n in (1, 2, 10, 320, 640):
        found = nth_largest(jnp.asarray(values), n, bits_per_pass={"cpu": width})
        assert found == np.sort(values)[-n]


@pytest.mark.parametrize("copies", [127, 129, 300])  # below and above int32, above uint32
def test_counts_over_a_batch_are_exact(copies):
    """One pass of the search; the config of the published SAE has 2.1e9 codes per batch."""
    ones = jnp.ones((2**12, 2**12), jnp.float32)
    total = copies * ones.size
    for n, expected in ((1, True), (total - 1, True), (total, True), (total + 1, False)):
        is_reached = topk._compare_count([ones] * copies, n, ())
        assert bool(jax.jit(is_reached)(jnp.float32(0.5))) == expected
        assert not jax.jit(is_reached)(jnp.float32(1.5))


@pytest.mark.parametrize("one_word", [2**16, 2**32])
@pytest.mark.parametrize("shape", [(1, 1), *MESHES])
def test_counts_of_two_words(shape, one_word):
    """With parts so small that 262,144 numbers are many, halves carry as those of 1e10 would."""
    mesh = make_mesh(*shape, devices=jax.devices()[: shape[0] * shape[1]])
    values = awkward(512 * 512).reshape(512, 512)
    block, axes = jax.P("data", "model"), ("data", "model")
    for n in (1, 2**16 - 1, 2**16, 2**17 + 5):
        search = jax.shard_map(
            functools.partial(nth_largest, n=n, axes=axes, one_word=one_word),
            mesh=mesh, in_specs=block, out_specs=jax.P(), check_vma=False,
        )  # fmt: skip
        assert jax.jit(search)(values) == np.sort(values.ravel())[-n]
    assert nth_largest(jnp.asarray(values), values.size + 1, one_word=one_word) == 0


def test_places_beyond_int32_are_refused():
    values = jax.ShapeDtypeStruct((2**31,), jnp.float32)
    with pytest.raises(ValueError, match="expected fewer than 2\\*\\*31 numbers, got 2147483648"):
        jax.eval_shape(lambda v: places_of_largest(v, 5, jnp.float32(0)), values)


@pytest.mark.parametrize("shape", MESHES)
def test_over_a_mesh_the_same(shape):
    mesh = make_mesh(*shape)
    values = awkward(16 * 64).reshape(16, 64)
    over = functools.partial(jax.shard_map, mesh=mesh, check_vma=False)
    block = jax.P("data", "model")
    whole = over(lambda v: nth_largest(v, 77, ("data", "model")), in_specs=block, out_specs=jax.P())
    assert jax.jit(whole)(values) == np.sort(values.ravel())[-77]
    rows = over(
        lambda v: nth_largest_of_rows(v, 9, ("model",)), in_specs=block, out_specs=jax.P("data")
    )
    np.testing.assert_array_equal(jax.jit(rows)(values), np.sort(values)[:, -9])
