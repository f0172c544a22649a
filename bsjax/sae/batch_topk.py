"""Batch top-k (arXiv:2412.06410): the largest codes of a whole batch survive."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from bsjax.core.topk import largest_of_rows, places_of_largest

MOMENTUM = 0.9
# Codes of a token that are looked at first; a token with more sends the search to all codes.
PER_TOKEN = 32


class ActiveCodes(NamedTuple):
    """The largest codes of a batch by tokens; zeros among them where fewer are positive."""

    values: Float[Array, "A"]
    tokens: Int[Array, "A"]
    concepts: Int[Array, "A"]
    threshold: Float[Array, ""]  # the smallest of the values


def select_active(codes: Float[Array, "N K"], n_active: int) -> ActiveCodes:
    """The `n_active` largest codes of the batch, exactly as a sort of all N x K finds them."""
    n_tokens, n_concepts = codes.shape
    per_token = min(max(PER_TOKEN, 4 * n_active // n_tokens), n_concepts)
    values, concepts = largest_of_rows(codes, per_token)  # [N, m]
    values, concepts = values.reshape(-1), concepts.reshape(-1)
    place, threshold = places_of_largest(values, n_active)
    candidates = ActiveCodes(values[place], place // per_token, concepts[place], threshold)
    if per_token == n_concepts:
        return candidates

    def search_all(codes):
        codes = codes.reshape(-1)
        place, threshold = places_of_largest(codes, n_active)
        return ActiveCodes(codes[place], place // n_concepts, place % n_concepts, threshold)

    # Complete if of no token the smallest code looked at is above the smallest kept.
    complete = jnp.max(values[per_token - 1 :: per_token]) <= threshold
    return jax.lax.cond(complete, lambda codes: candidates, search_all, codes)


def batch_topk(
    codes: Float[Array, "N K"], n_kept: int
) -> tuple[Float[Array, "N K"], Float[Array, ""]]:
    """Keeps the codes that reach the `n_kept`-th largest of the batch; ties at it all survive.

    Returns:
      The sparse codes [N, K] and the threshold. The mask is a constant to the gradient.
    """
    active = select_active(jax.lax.stop_gradient(codes), n_kept)
    # The comparison alone is not safe under jit: XLA may compute `codes` again inside a fusion with
    # another rounding, and the code that defines the threshold then falls below it in one use.
    is_top = jnp.zeros(codes.shape, bool).at[active.tokens, active.concepts].set(True)
    return jnp.where(is_top | (codes >= active.threshold), codes, 0.0), active.threshold


def running_threshold(
    running: Float[Array, ""], current: Float[Array, ""], step: Int[Array, ""]
) -> Float[Array, ""]:
    """Running mean of the batch thresholds, the threshold at inference; starts at the first."""
    return jnp.where(step == 0, current, MOMENTUM * running + (1 - MOMENTUM) * current)
