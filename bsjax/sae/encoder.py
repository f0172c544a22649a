"""RA-SAE encoder: linear map, LayerNorm over concepts, ReLU, threshold (METHOD 2.3)."""

from typing import TypedDict

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

NORM_EPSILON = 1e-5


class EncoderParams(TypedDict):
    """Linear layer (kernel, bias) and the affine part of the LayerNorm (scale, shift)."""

    kernel: Float[Array, "D K"]
    bias: Float[Array, "K"]
    scale: Float[Array, "K"]
    shift: Float[Array, "K"]


def init_encoder(key: Key[Array, ""], width: int, n_concepts: int) -> EncoderParams:
    """Xavier-uniform kernel, zero bias, identity LayerNorm."""
    kernel = jax.nn.initializers.glorot_uniform()(key, (width, n_concepts), jnp.float32)
    return {
        "kernel": kernel,
        "bias": jnp.zeros(n_concepts),
        "scale": jnp.ones(n_concepts),
        "shift": jnp.zeros(n_concepts),
    }


def pre_codes(params: EncoderParams, tokens: Float[Array, "N D"]) -> Float[Array, "N K"]:
    """LayerNorm(tokens @ kernel + bias) over the K concepts, biased variance, in float32."""
    h = tokens @ params["kernel"] + params["bias"][None]  # [N, K]
    mean = jnp.mean(h, axis=1, keepdims=True)
    variance = jnp.mean(jnp.square(h - mean), axis=1, keepdims=True)
    inverse = jax.lax.rsqrt(variance + NORM_EPSILON)
    return (h - mean) * inverse * params["scale"][None] + params["shift"][None]


def threshold_codes(
    pre: Float[Array, "N K"], threshold: float | Float[Array, ""] | Float[Array, "K"]
) -> Float[Array, "N K"]:
    """Codes at inference: relu(pre) where it reaches the threshold (of all, or each), else 0."""
    codes = jax.nn.relu(pre)
    if jnp.ndim(threshold):
        threshold = threshold[None]
    return jnp.where(codes >= threshold, codes, 0.0)
