"""Loss `mse` and its gradient through the active codes alone: what autodiff gives, for less work.

Of N x K codes only n_active survive batch top-k, so the decoder, its two gradients and the gradient
of the pre-codes are sums over n_active entries. LayerNorm spreads a sparse gradient over the whole
row, but only by a constant and by a multiple of the row itself: the encoder's weight gradient is
sparse + rank one + (x^T diag(s) x) kernel, D x D x K work instead of N x D x K. What stays dense is
one product of the encoder and two of the dictionary. `jax.grad` of the dense form is the oracle.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bsjax.sae.batch_topk import ActiveCodes, select_active
from bsjax.sae.dictionary import dictionary
from bsjax.sae.encoder import pre_codes_with_moments


def mse_and_gradient(
    params: dict[str, Any], x: Float[Array, "N D"], C: Float[Array, "M D"], n_active: int
) -> tuple[Float[Array, ""], dict[str, Any], ActiveCodes, Float[Array, "N D"]]:
    """The loss, the gradient of all parameters, the active codes and the reconstruction."""
    encoder = params["encoder"]
    kernel, bias, scale = encoder["kernel"], encoder["bias"], encoder["scale"]
    n_concepts = bias.shape[0]
    pre, h, mean, inverse = pre_codes_with_moments(encoder, x)
    mean, inverse = mean[:, 0], inverse[:, 0]  # [N]
    active = select_active(jax.nn.relu(pre), n_active)
    z, t, k, _ = active

    # Decoder.
    D = dictionary(params["dictionary"], C)  # [K, D]
    atoms = D[k]  # [A, D]
    x_hat = jnp.zeros_like(x).at[t].add(z[:, None] * atoms)
    loss = jnp.mean(jnp.square(x_hat - x))
    d_x_hat = 2 * (x_hat - x) / x.size
    d_x_hat_at = d_x_hat[t]  # [A, D]
    dz = jnp.where(z > 0, jnp.sum(d_x_hat_at * atoms, axis=1), 0.0)  # [A]
    dD = jnp.zeros_like(D).at[k].add(z[:, None] * d_x_hat_at)  # [K, D]
    stretch = jnp.exp(params["dictionary"]["multiplier"])
    d_dictionary = {
        "W": stretch * (dD @ C.T),
        "Lam": stretch * dD,
        "multiplier": jnp.sum(dD * D),
    }

    # LayerNorm: with u = inverse * scale * dz the gradient of h is
    #   sparse(u) - inverse * mean_u - s * (h - mean),   s = inverse^2 * mean(scale * dz * normed)
    normed = (h[t, k] - mean[t]) * inverse[t]  # [A]
    d_normed = scale[k] * dz
    u = inverse[t] * d_normed
    to_tokens = jnp.zeros((x.shape[0],), x.dtype)
    constant = inverse * to_tokens.at[t].add(d_normed) / n_concepts  # [N]
    s = jnp.square(inverse) * to_tokens.at[t].add(d_normed * normed) / n_concepts  # [N]
    constant = constant - s * mean
    to_concepts = jnp.zeros_like(bias)
    x_s = s @ x  # [D]
    sparse = jnp.zeros_like(D).at[k].add(u[:, None] * x[t])  # [K, D]
    gram = x.T @ (s[:, None] * x)  # [D, D]
    d_kernel = sparse.T - gram @ kernel - x_s[:, None] * bias[None] - (constant @ x)[:, None]
    d_bias = to_concepts.at[k].add(u) - x_s @ kernel - jnp.sum(s) * bias - jnp.sum(constant)
    d_encoder = {
        "kernel": d_kernel,
        "bias": d_bias,
        "scale": to_concepts.at[k].add(dz * normed),
        "shift": to_concepts.at[k].add(dz),
    }
    return loss, {"encoder": d_encoder, "dictionary": d_dictionary}, active, x_hat
