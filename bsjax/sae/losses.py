"""Training losses of the RA-SAE, one signature for all: (x, x_hat, pre, codes, D) -> scalar."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

AUX_WEIGHT = 0.1


def mse(
    x: Float[Array, "N D"],
    x_hat: Float[Array, "N D"],
    pre: Float[Array, "N K"],
    codes: Float[Array, "N K"],
    D: Float[Array, "K D"],
) -> Float[Array, ""]:
    """Mean squared error over tokens and features."""
    del pre, codes, D
    return jnp.mean(jnp.square(x - x_hat))


def aux(
    x: Float[Array, "N D"],
    x_hat: Float[Array, "N D"],
    pre: Float[Array, "N K"],
    codes: Float[Array, "N K"],
    D: Float[Array, "K D"],
) -> Float[Array, ""]:
    """mse plus 0.1 times the error of explaining the residual by the codes left out (METHOD 6).

    Of r = relu(pre) - codes the largest K / 2 of each token remain; this revives dead concepts.
    The dictionary is a constant to this second term: so it is in the reference's training numbers.
    """
    left_out = jax.nn.relu(pre) - codes  # [N, K]
    n_kept = left_out.shape[1] // 2
    values, places = jax.lax.top_k(left_out, n_kept)  # [N, K / 2]
    rows = jnp.arange(left_out.shape[0])[:, None]
    top_half = jnp.zeros_like(left_out).at[rows, places].set(values)
    residual = x - x_hat
    return mse(x, x_hat, pre, codes, D) + AUX_WEIGHT * jnp.mean(
        jnp.square(residual - top_half @ jax.lax.stop_gradient(D))
    )


LOSSES = {"mse": mse, "aux": aux}
