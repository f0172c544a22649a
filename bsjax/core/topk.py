"""The largest entries of rows and of a whole array, without sorting, also of arrays over a mesh.

Functions with `axes` run inside `jax.shard_map`: each device holds a block, counts are summed over
the named mesh axes, and nothing else is sent.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt

from bsjax.core.collectives import Axes, sum_over

# Entries that share one maximum.
GROUP_SIZE = 16
# Bits of the answer that one pass over the data finds: on accelerators reading is dear, on CPUs
# counting is.
BITS_PER_PASS = {"tpu": 3, "cuda": 3}


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


def nth_largest(values: Float[Array, "..."], n: int, axes: Axes = ()) -> Float[Array, ""]:
    """The `n`-th largest of non-negative numbers, as a sort of all of them finds it."""
    bits = _as_bits(values)

    def count(trial):
        return sum_over(jnp.sum(bits >= trial, dtype=jnp.int32), axes)

    return _as_float(_search(count, jnp.zeros((), jnp.uint32), n))


def nth_largest_of_rows(rows: Float[Array, "N K"], n: int, axes: Axes = ()) -> Float[Array, "N"]:
    """The `n`-th largest of each row of non-negative numbers; a row lies over `axes`."""
    bits = _as_bits(rows)

    def count(trial):
        return sum_over(jnp.sum(bits >= trial[:, None], axis=1, dtype=jnp.int32), axes)

    return _as_float(_search(count, jnp.zeros(rows.shape[0], jnp.uint32), n))


def places_of_largest(
    values: Float[Array, "S"], n: int
) -> tuple[Int[Array, "n"], Float[Array, ""]]:
    """Places of the `n` largest of non-negative numbers, in ascending order, and the smallest kept.

    Of numbers equal to the smallest those that come first are taken, as a stable sort does.
    """
    smallest = nth_largest(values, n)
    bits, bound = _as_bits(values), _as_bits(smallest)
    above, equal = bits > bound, bits == bound
    n_equal = n - jnp.sum(above, dtype=jnp.int32)
    kept = above | (equal & (jnp.cumsum(equal, dtype=jnp.int32) <= n_equal))
    return jnp.nonzero(kept, size=n)[0].astype(jnp.int32), smallest


def _as_bits(values: Float[Array, "..."]) -> UInt[Array, "..."]:
    """Non-negative float32 numbers are ordered as their bits; as floats, tiny ones count as 0."""
    return jax.lax.bitcast_convert_type(values, jnp.uint32)


def _as_float(bits: UInt[Array, "..."]) -> Float[Array, "..."]:
    return jax.lax.bitcast_convert_type(bits, jnp.float32)


def _search(
    count: Callable[[UInt[Array, "..."]], Int[Array, "..."]], start: UInt[Array, "..."], n: int
) -> UInt[Array, "..."]:
    """The largest bit pattern of which at least `n` entries are as large, highest bits first."""

    def by_digits(width):
        def find_digit(found, shift):
            # Counts fall as the digit rises: so many trials succeed as the digit is large.
            digit = jnp.zeros_like(found)
            for trial in range(1, 2**width):
                reached = count(found | (jnp.uint32(trial) << shift)) >= n
                digit = digit + reached.astype(jnp.uint32)
            return found | (digit << shift)

        def search(found):
            n_passes = 30 // width
            # Bit 31 is the sign; bit 30 comes alone, so that the rest divides evenly.
            top = count(found | jnp.uint32(1 << 30)) >= n
            found = jnp.where(top, jnp.uint32(1 << 30), found)

            def step(i, found):
                return find_digit(found, (30 - width * (i + 1)).astype(jnp.uint32))

            return jax.lax.fori_loop(0, n_passes, step, found)

        return search

    branches = {platform: by_digits(width) for platform, width in BITS_PER_PASS.items()}
    return jax.lax.platform_dependent(start, default=by_digits(1), **branches)
