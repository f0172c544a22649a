"""The RA-SAE's losses in their dense form, sorted and differentiated by JAX: the tests' oracle."""

import jax
import jax.numpy as jnp

from bsjax.sae.dictionary import decode, dictionary
from bsjax.sae.encoder import pre_codes


def active_codes(codes, objective):
    """Codes that stay, by sorting; ties at a threshold all stay, as in the reference."""
    n_tokens = codes.shape[0]
    constant = jax.lax.stop_gradient(codes)
    if objective.activation == "topk":
        cut = -jnp.sort(-constant, axis=1)[:, objective.n_active - 1, None]
    else:
        cut = -jnp.sort(-constant.ravel())[objective.n_active * n_tokens - 1]
    return jnp.where(constant >= cut, codes, 0.0), jnp.mean(cut)


def loss(params, tokens, C, objective):
    pre = pre_codes(params["encoder"], tokens)
    codes, _ = active_codes(jax.nn.relu(pre), objective)
    D = dictionary(params["dictionary"], C)
    residual = tokens - decode(codes, D)
    value = jnp.mean(jnp.square(residual))
    value += objective.l1_weight * jnp.mean(jnp.sum(codes, axis=1))
    if objective.loss == "aux":
        left_out = jax.nn.relu(pre) - codes  # [N, K]
        values, places = jax.lax.top_k(left_out, left_out.shape[1] // 2)
        rows = jnp.arange(left_out.shape[0])[:, None]
        top_half = jnp.zeros_like(left_out).at[rows, places].set(values)
        explained = top_half @ jax.lax.stop_gradient(D)
        value += 0.1 * jnp.mean(jnp.square(residual - explained))
    return value
