"""Relaxed archetypal dictionary (arXiv:2502.12892, eq. 4): atoms near the convex hull of tokens.

Three pure functions: `project` back to the constraints, `dictionary` of the parameters, `decode`.
"""

from typing import TypedDict

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bsjax.core.collectives import Axes, sum_over

EPSILON = 1e-8


class DictionaryParams(TypedDict):
    """Trainable part of the dictionary; the candidate points C [M, D] are constant."""

    W: Float[Array, "K M"]
    Lam: Float[Array, "K D"]
    multiplier: Float[Array, ""]


def init_dictionary(n_concepts: int, C: Float[Array, "M D"]) -> DictionaryParams:
    """The published start: every atom is a candidate point, W the rectangular identity."""
    return {
        "W": jnp.eye(n_concepts, C.shape[0], dtype=jnp.float32),
        "Lam": jnp.zeros((n_concepts, C.shape[1]), jnp.float32),
        "multiplier": jnp.zeros((), jnp.float32),
    }


def project(
    params: DictionaryParams, relax_radius: float | Float[Array, ""], axes: Axes = ()
) -> DictionaryParams:
    """Rows of W non-negative with sum 1, rows of Lam no longer than `relax_radius`.

    Inside `jax.shard_map`, `axes` are the mesh axes over which the rows of W lie.
    """
    W = jax.nn.relu(params["W"])
    sums = jnp.sum(W, axis=1, keepdims=True)
    W = W / (sum_over(sums, axes) + EPSILON)
    norm = jnp.linalg.norm(params["Lam"], axis=1, keepdims=True)  # [K, 1]
    # A row of zeros has no direction to shrink along.
    scale = jnp.minimum(relax_radius / jnp.where(norm > 0, norm, 1.0), 1.0)
    return {"W": W, "Lam": params["Lam"] * scale, "multiplier": params["multiplier"]}


def dictionary(params: DictionaryParams, C: Float[Array, "M D"]) -> Float[Array, "K D"]:
    """Atoms of projected parameters."""
    # arXiv:2502.12892, eq. 4: D = W C + Lam, scaled to the conical hull by exp(multiplier)
    return jnp.exp(params["multiplier"]) * (params["W"] @ C + params["Lam"])


def decode(codes: Float[Array, "N K"], D: Float[Array, "K D"]) -> Float[Array, "N D"]:
    """Reconstruction of tokens from codes."""
    return codes @ D
