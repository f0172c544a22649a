"""How good an SAE is: fidelity, sparsity, dead concepts.

Definitions follow overcomplete 0.3.0, whose numbers the tests reproduce.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

EPSILON = 1e-6


def r2(x: Float[Array, "N D"], x_hat: Float[Array, "N D"]) -> Float[Array, ""]:
    """Share of variance explained; 1 is perfect, 0 no better than the one mean of all features."""
    spread = jnp.mean(jnp.square(x - jnp.mean(x)))
    return 1 - jnp.mean(jnp.square(x - x_hat)) / (spread + EPSILON)


def l0(codes: Float[Array, "N K"]) -> Float[Array, ""]:
    """Mean number of active concepts a token."""
    return jnp.mean(jnp.sum(codes != 0, axis=1).astype(jnp.float32))


def hoyer(codes: Float[Array, "N K"]) -> Float[Array, "N"]:
    """Hoyer sparsity of each token: 1 with one active concept, 0 with all equally active."""
    root = np.sqrt(codes.shape[1])
    l1 = jnp.sum(jnp.abs(codes), axis=1)
    l2 = jnp.sqrt(jnp.sum(jnp.square(codes), axis=1)) + EPSILON
    return (root - l1 / l2) / (root - 1)


def dead(codes: Float[Array, "N K"]) -> Float[Array, "K"]:
    """1 for a concept that fires on no token, else 0."""
    return jnp.all(codes == 0, axis=0).astype(jnp.float32)


def energy_of_codes(codes: Float[Array, "N K"], D: Float[Array, "K D"]) -> Float[Array, "K"]:
    """Length of each concept's mean contribution to the reconstruction."""
    mean = jnp.mean(codes, axis=0)
    return jnp.sqrt(jnp.sum(jnp.square(mean[:, None] * D), axis=1))
