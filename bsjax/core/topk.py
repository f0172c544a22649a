"""The largest entries of rows and of a whole array, without sorting, also of arrays over a mesh.

Functions with `axes` run inside `jax.shard_map`: each device holds a block, counts are summed over
the named mesh axes, and nothing else is sent.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt

from bsjax.core.collectives import Axes, n_devices, sum_over

# Entries that share one maximum.
GROUP_SIZE = 16
# Rows that are searched together; with thousands of entries each a few tens of MB.
ROWS_PER_BLOCK = 2048
# Numbers that are too many to be counted in uint32.
ONE_WORD = 2**32
SMALLEST_NORMAL = np.float32(2.0**-126).view(np.uint32)
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


def nth_largest(
    values: Float[Array, "..."] | Sequence[Float[Array, "..."]],
    n: int,
    axes: Axes = (),
    *,
    one_word: int = ONE_WORD,
    bits_per_pass: Mapping[str, int] = BITS_PER_PASS,
) -> Float[Array, ""]:
    """The `n`-th largest of non-negative numbers (of one or several arrays), as a sort finds it.

    Denormal numbers count as zero, as the hardware's comparisons take them.

    Args:
      values: an array, or several.
      n: from 1 for the largest.
      axes: of the mesh, over which the numbers lie.
      one_word: so many numbers are counted in two words.
      bits_per_pass: platform -> bits of the answer found by a pass over the data; one elsewhere.
    """
    arrays = [values] if isinstance(values, jax.Array) else values
    is_reached = _compare_count(arrays, n, axes, one_word)

    def count(trial):
        return is_reached(trial).astype(jnp.int32)

    return _search(count, jnp.zeros((), jnp.uint32), 1, bits_per_pass)


def _compare_count(
    arrays: Sequence[Float[Array, "..."]], n: int, axes: Axes, one_word: int = ONE_WORD
) -> Callable[[Float[Array, ""]], Bool[Array, ""]]:
    """Trial -> whether at least `n` of all numbers reach it, however many there are.

    131,072 tokens x 32,000 concepts are 4.2e9 numbers: more than int32 counts, and with some more
    tokens more than uint32 does. Then a count is two words.
    """
    n_numbers = sum(array.size for array in arrays) * n_devices(axes)
    if n > n_numbers:
        return lambda trial: jnp.zeros((), bool)
    if n_numbers < one_word:

        def is_reached(trial):
            counts = [jnp.sum(array >= trial, dtype=jnp.uint32) for array in arrays]
            return sum_over(sum(counts[1:], counts[0]), axes) >= jnp.uint32(n)

        return is_reached

    parts = [part for array in arrays for part in _parts_of(array, one_word)]

    def is_reached(trial):
        counts = [jnp.sum(part >= trial, dtype=jnp.uint32) for part in parts]
        # Sums of halves: no carry is lost with fewer than 2^16 parts and devices together.
        halves = jnp.stack([jnp.stack([count >> 16, count & 0xFFFF]) for count in counts])
        high, low = sum_over(jnp.sum(halves, axis=0, dtype=jnp.uint32), axes)
        high, low = high + (low >> 16), low & 0xFFFF
        return (high > n >> 16) | ((high == n >> 16) & (low >= n & 0xFFFF))

    return is_reached


def _parts_of(array: Float[Array, "..."], one_word: int) -> list[Float[Array, "..."]]:
    """Stretches of the first dimension of which each has fewer numbers than one word counts."""
    if array.size < one_word:
        return [array]
    length = max((one_word - 1) * array.shape[0] // array.size, 1)
    return [array[start : start + length] for start in range(0, array.shape[0], length)]


def nth_largest_of_rows(rows: Float[Array, "N K"], n: int, axes: Axes = ()) -> Float[Array, " N"]:
    """The `n`-th largest of each row of non-negative numbers; a row lies over `axes`."""

    def count(trial):
        return sum_over(jnp.sum(rows >= trial[:, None], axis=1, dtype=jnp.int32), axes)

    return _search(count, jnp.zeros(rows.shape[0], jnp.uint32), n)


def by_blocks(function: Callable[..., Any], *arrays: Float[Array, "N ..."]) -> Any:
    """`function` of blocks of the arrays' rows, its results one behind the other.

    For functions that pass over their rows many times: a block stays in an accelerator's fast
    memory meanwhile.
    """
    n_blocks, rest = divmod(arrays[0].shape[0], ROWS_PER_BLOCK)
    if rest or n_blocks == 1:
        return function(*arrays)

    def one(i):
        # A slice, not a reshape into blocks, which may lay the whole array out anew.
        first = i * ROWS_PER_BLOCK
        cut = (jax.lax.dynamic_slice_in_dim(array, first, ROWS_PER_BLOCK) for array in arrays)
        return function(*cut)

    found = jax.lax.map(one, jnp.arange(n_blocks))
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), found)


def split_rows(tree: Any, rows: int) -> Any:
    """Arrays [N, ...] as [N / rows, rows, ...] for `in_parts`; as they are if rows is 0."""
    if not rows:
        return tree
    return jax.tree.map(lambda leaf: leaf.reshape(-1, rows, *leaf.shape[1:]), tree)


def join_rows(tree: Any, rows: int) -> Any:
    """The inverse of `split_rows`."""
    if not rows:
        return tree
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), tree)


def in_parts(function: Callable[..., Any], *arrays: Any, rows: int) -> tuple[Any, Any]:
    """`function` of so many rows of the arrays at a time.

    Args:
      function: of rows of each array; returns (results by row, results to be summed).
      arrays: trees of arrays as `split_rows` makes them.
      rows: at a time; 0 for all.

    Returns:
      Results by row, split as the arrays are (joined and split again, a matrix may be laid out
      anew), and the sums: in parts they differ from those of all rows at once by the rounding of
      float32 sums in another order.
    """
    if not rows:
        return function(*arrays)

    def add(sums, part):
        # Behind a barrier a part is fetched once, not by each that reads it.
        by_row, more = function(*jax.lax.optimization_barrier(part))
        return jax.tree.map(jnp.add, sums, more), by_row

    first = jax.tree.map(lambda leaf: leaf[0], arrays)
    _, shapes = jax.eval_shape(function, *first)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    sums, by_row = jax.lax.scan(add, zeros, arrays)
    return by_row, sums


def places_of_largest(
    values: Float[Array, " S"], n: int, smallest: Float[Array, ""]
) -> Int[Array, " n"]:
    """Places of the numbers that are at least `smallest`, in ascending order, `n` at most.

    Of numbers equal to the smallest those that come first are taken, as a stable sort does. Where
    fewer reach it, the place behind the last fills the rest.

    Raises:
      ValueError: more numbers than places in int32.
    """
    if values.size >= 2**31:
        raise ValueError(f"expected fewer than 2**31 numbers, got {values.size}")
    above, equal = values > smallest, values == smallest
    n_equal = n - jnp.sum(above, dtype=jnp.int32)
    kept = above | (equal & (jnp.cumsum(equal, dtype=jnp.int32) <= n_equal))
    return jnp.nonzero(kept, size=n, fill_value=kept.size)[0].astype(jnp.int32)


def _search(
    count: Callable[[Float[Array, "..."]], Int[Array, "..."]],
    start: UInt[Array, "..."],
    n: int,
    bits_per_pass: Mapping[str, int] = BITS_PER_PASS,
) -> Float[Array, "..."]:
    """The largest number that at least `n` entries reach, found by its bits, highest first.

    Non-negative float32 numbers are ordered as their bits.
    """

    def as_float(bits):
        return jax.lax.bitcast_convert_type(bits, jnp.float32)

    def by_digits(width):
        def find_digit(found, shift):
            # Counts fall as the digit rises: so many trials succeed as the digit is large.
            digit = jnp.zeros_like(found)
            for trial in range(1, 2**width):
                reached = count(as_float(found | (jnp.uint32(trial) << shift))) >= n
                digit = digit + reached.astype(jnp.uint32)
            return found | (digit << shift)

        def search(found):
            n_passes = 30 // width
            # Bit 31 is the sign; bit 30 comes alone, so that the rest divides evenly.
            top = count(as_float(found | jnp.uint32(1 << 30))) >= n
            found = jnp.where(top, jnp.uint32(1 << 30), found)

            def step(i, found):
                return find_digit(found, (30 - width * (i + 1)).astype(jnp.uint32))

            return jax.lax.fori_loop(0, n_passes, step, found)

        return search

    branches = {platform: by_digits(width) for platform, width in bits_per_pass.items()}
    found = jax.lax.platform_dependent(start, default=by_digits(1), **branches)
    # Denormal trials compare as zero, which every entry reaches.
    return jnp.where(found < SMALLEST_NORMAL, 0.0, as_float(found))
