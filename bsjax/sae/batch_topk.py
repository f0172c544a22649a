"""Batch top-k (arXiv:2412.06410): the largest codes of a whole batch survive."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

MOMENTUM = 0.9


def batch_topk(
    codes: Float[Array, "N K"], n_kept: int
) -> tuple[Float[Array, "N K"], Float[Array, ""]]:
    """Keeps the codes that reach the `n_kept`-th largest of the batch; ties at it all survive.

    Returns:
      The sparse codes [N, K] and the threshold. The mask is a constant to the gradient.
    """
    flat = jax.lax.stop_gradient(codes).reshape(-1)
    values, places = jax.lax.top_k(flat, n_kept)
    threshold = values[-1]
    # The comparison alone is not safe under jit: XLA may compute `codes` again inside a fusion with
    # another rounding, and the code that defines the threshold then falls below it in one use.
    is_top = jnp.zeros(flat.shape, bool).at[places].set(True).reshape(codes.shape)
    return jnp.where(is_top | (codes >= threshold), codes, 0.0), threshold


def running_threshold(
    running: Float[Array, ""], current: Float[Array, ""], step: Int[Array, ""]
) -> Float[Array, ""]:
    """Running mean of the batch thresholds, the threshold at inference; starts at the first."""
    return jnp.where(step == 0, current, MOMENTUM * running + (1 - MOMENTUM) * current)
