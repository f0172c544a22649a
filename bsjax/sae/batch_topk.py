"""Which codes of a batch stay active, exactly as a sort of all of them would tell.

Batch top-k (arXiv:2412.06410): the largest codes of the whole batch. Top-k: of each token. All
functions run inside `jax.shard_map`: a device holds the codes of some tokens (mesh axis "data") and
some concepts (axis "model"); with no axes named they see a whole batch.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from bsjax.core.collectives import Axes, max_over
from bsjax.core.topk import (
    by_blocks,
    largest_of_rows,
    nth_largest,
    nth_largest_of_rows,
    places_of_largest,
)

MOMENTUM = 0.9
# Compact search: codes of a token that are looked at first; enough for all but odd tokens.
PER_TOKEN = 32
# Compact search: room for so many times n_active codes, when a token has more than PER_TOKEN.
SPARE = 2
# Masked search: concepts that form a group, the codes kept of it, and the lanes of a vector unit.
GROUP, KEPT_OF_GROUP, LANES = 32, 4, 128


class ActiveCodes(NamedTuple):
    """Active codes of this device's block; where fewer are active than fit, zeros fill up."""

    values: Float[Array, " A"]
    tokens: Int[Array, " A"]
    concepts: Int[Array, " A"]


def batch_threshold(
    codes: Float[Array, "*N K"],
    n_active: int,
    axes: Axes = (),
    group_maxima: list[Float[Array, "*N G"]] | None = None,
) -> Float[Array, ""]:
    """The `n_active`-th largest code of the batch, from non-negative codes.

    Looks at the few largest codes of each group of concepts first, an eighth of all. They hold the
    answer unless some group has still more codes above it; then all are searched.

    Args:
      codes: those that lie here.
      n_active: of the whole batch.
      axes: of the mesh, over which the codes lie.
      group_maxima: what `largest_of_groups` made of them, if that is known.
    """
    kept = by_blocks(largest_of_groups, codes) if group_maxima is None else group_maxima
    if not kept:
        return nth_largest(codes, n_active, axes)
    threshold = nth_largest(kept, n_active, axes)
    complete = max_over(jnp.max(kept[-1]), axes) <= threshold
    return jax.lax.cond(
        complete, lambda codes: threshold, lambda codes: nth_largest(codes, n_active, axes), codes
    )


def largest_of_groups(codes: Float[Array, "N K"]) -> list[Float[Array, "N G"]]:
    """The largest, second largest, ... of each group of concepts; none of too few concepts.

    A group takes every n-th stretch of lanes, so that comparing is between whole vectors.
    """
    width = codes.shape[1]
    if width < GROUP * LANES // 4:
        return []
    stride = -(-width // (GROUP * LANES)) * LANES
    codes = jnp.pad(codes, ((0, 0), (0, -width % stride)))
    kept = [jnp.zeros_like(codes[:, :stride]) for _ in range(KEPT_OF_GROUP)]
    for start in range(0, codes.shape[1], stride):
        new = codes[:, start : start + stride]
        for i, old in enumerate(kept):
            kept[i], new = jnp.maximum(old, new), jnp.minimum(old, new)
    return kept


def token_thresholds(
    codes: Float[Array, "N K"], n_active: int, axes: Axes = ()
) -> Float[Array, " N"]:
    """The `n_active`-th largest code of each token."""
    return by_blocks(lambda block: nth_largest_of_rows(block, n_active, axes), codes)


def select_active(
    codes: Float[Array, "N K"], n_active: int, axes: Axes = (), spare: int = SPARE
) -> tuple[ActiveCodes, Float[Array, ""]]:
    """The `n_active` largest codes of the batch, those that lie here, and the smallest of them.

    Of codes equal to the smallest any may stay; each device has room for `n_active`. Fast on CPUs,
    where gathering is cheap and passes over all codes are dear. When a token has more codes than
    PER_TOKEN, the search for the others has room for `spare` times `n_active`.

    Raises:
      ValueError: more codes than places in int32; `batch_threshold` takes any number.
    """
    if codes.size >= 2**31:
        raise ValueError(f"expected fewer than 2**31 codes, got {codes.size}")
    n_tokens, n_concepts = codes.shape
    per_token = min(max(PER_TOKEN, 4 * n_active // n_tokens), n_concepts)
    values, concepts = largest_of_rows(codes, per_token)  # [N, m]
    tokens = jnp.arange(n_tokens, dtype=jnp.int32)[:, None] + jnp.zeros_like(concepts)
    first = ActiveCodes(values.reshape(-1), tokens.reshape(-1), concepts.reshape(-1))
    # Of a part of the codes, hence at most the threshold of all.
    bound = nth_largest(first.values, n_active, axes)
    if per_token == n_concepts:
        return _largest(first, n_active, bound), bound

    def search_above_bound(codes):
        flat = codes.reshape(-1)
        place = jnp.nonzero(flat >= bound, size=size, fill_value=flat.size)[0].astype(jnp.int32)
        values = jnp.where(place < flat.size, flat.at[place].get(mode="clip"), 0.0)
        place = jnp.minimum(place, flat.size - 1)
        found = ActiveCodes(values, place // n_concepts, place % n_concepts)
        threshold = nth_largest(values, n_active, axes)
        return _largest(found, n_active, threshold), threshold

    def search_all(codes):
        threshold = nth_largest(codes, n_active, axes)
        place = jnp.arange(codes.size, dtype=jnp.int32)
        found = ActiveCodes(codes.reshape(-1), place // n_concepts, place % n_concepts)
        return _largest(found, n_active, threshold), threshold

    def search_further(codes):
        n_above = max_over(jnp.sum(codes >= bound, dtype=jnp.int32), axes)
        return jax.lax.cond(n_above <= size, search_above_bound, search_all, codes)

    size = min(spare * n_active, codes.size)
    # Complete if of no token the smallest code looked at is above the smallest kept. Taken from the
    # flat array: XLA knows a top-k by its pattern, a sort with one slice, and sorts if it has two.
    complete = max_over(jnp.max(first.values[per_token - 1 :: per_token]), axes) <= bound
    return jax.lax.cond(
        complete,
        lambda codes: (_largest(first, n_active, bound), bound),
        search_further,
        codes,
    )


def _largest(found: ActiveCodes, n: int, threshold: Float[Array, ""]) -> ActiveCodes:
    """Of `found` those that reach the threshold, with room for `n`."""
    place = places_of_largest(found.values, n, threshold)
    return jax.tree.map(lambda array: array.at[place].get(mode="fill", fill_value=0), found)


def running_threshold(
    running: Float[Array, ""], current: Float[Array, ""], step: Int[Array, ""]
) -> Float[Array, ""]:
    """Running mean of the batch thresholds, the threshold at inference; starts at the first."""
    return jnp.where(step == 0, current, MOMENTUM * running + (1 - MOMENTUM) * current)
