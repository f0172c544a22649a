"""The largest entries of rows and of a whole array, without sorting."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

# Entries that share one maximum.
GROUP_SIZE = 16


def largest_of_rows(
    rows: Float[Array, "*B K"], n_kept: int
) -> tuple[Float[Array, "*B k"], Int[Array, "*B k"]]:
    """As `jax.lax.top_k`: the `n_kept` largest of each row, largest first, and their places.

    The largest entries lie in the groups with the largest maxima, so only those groups are sorted.
    Of equal entries any may be taken.
    """
    leading, width = rows.shape[:-1], rows.shape[-1]
    n_groups = width // GROUP_SIZE
    if width % GROUP_SIZE or n_groups <= n_kept:
        return tuple(jax.lax.top_k(rows, n_kept))
    # Group i holds entries i, i + n_groups, ...: maxima are taken between stretches of a row.
    maxima = jnp.max(rows.reshape(*leading, GROUP_SIZE, n_groups), axis=-2)
    _, groups = jax.lax.top_k(maxima, n_kept)  # [*B, k]
    steps = n_groups * jnp.arange(GROUP_SIZE).reshape(*(1 for _ in leading), 1, GROUP_SIZE)
    members = (groups[..., None] + steps).reshape(*leading, n_kept * GROUP_SIZE)
    found = jnp.take_along_axis(rows, members, axis=-1)
    values, place = jax.lax.top_k(found, n_kept)
    return values, jnp.take_along_axis(members, place, axis=-1)


def places_of_largest(
    values: Float[Array, "S"], n: int
) -> tuple[Int[Array, "n"], Float[Array, ""]]:
    """Places of the `n` largest of non-negative numbers, in ascending order, and the smallest kept.

    Of numbers equal to the smallest those that come first are taken, as a stable sort does.
    """
    # Non-negative float32 numbers are ordered as their bits; as floats, tiny ones count as zero.
    bits = jax.lax.bitcast_convert_type(values, jnp.int32)
    smallest = _nth_largest(bits, n)
    above, equal = bits > smallest, bits == smallest
    n_equal = n - jnp.sum(above, dtype=jnp.int32)
    kept = above | (equal & (jnp.cumsum(equal, dtype=jnp.int32) <= n_equal))
    places = jnp.nonzero(kept, size=n)[0].astype(jnp.int32)
    return places, jax.lax.bitcast_convert_type(smallest, jnp.float32)


def _nth_largest(bits: Int[Array, "S"], n: int) -> Int[Array, ""]:
    """Finds the bits of the answer one by one: 31 counts, no sort; over a mesh each is one sum."""

    def set_bit(i, found):
        trial = found | (1 << (30 - i))
        return jnp.where(jnp.sum(bits >= trial, dtype=jnp.int32) >= n, trial, found)

    return jax.lax.fori_loop(0, 31, set_bit, jnp.zeros((), jnp.int32))
