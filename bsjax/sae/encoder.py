"""RA-SAE encoder: linear map, LayerNorm over concepts, ReLU, threshold (METHOD 2.3)."""

from typing import TypedDict

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

NORM_EPSILON = 1e-5


class EncoderParams(TypedDict):
    """Linear layer (kernel, bias) and the affine part of the LayerNorm (scale, shift)."""

    kernel: Float[Array, "D K"]
    bias: Float[Array, " K"]
    scale: Float[Array, " K"]
    shift: Float[Array, " K"]


def init_encoder(key: Key[Array, ""], width: int, n_concepts: int) -> EncoderParams:
    """Xavier-uniform kernel, zero bias, identity LayerNorm."""
    return encoder_of(jax.nn.initializers.glorot_uniform()(key, (width, n_concepts), jnp.float32))


def tied_encoder(C: Float[Array, "M D"], n_concepts: int) -> EncoderParams:
    """Each concept looks for the candidate point that its atom begins as: hardly one is born dead.

    Differs: the published SAE begins with Xavier's kernel. Tying the two is the start of
    arXiv:2406.04093 (section 2.4). Directions have length 1 and go out from the points' mean.

    Raises:
      ValueError: more concepts than points.
    """
    if n_concepts > len(C):
        raise ValueError(
            f"expected at most as many concepts as points ({len(C)}), got {n_concepts}"
        )
    mean = jnp.mean(C, axis=0)
    directions = C[:n_concepts] - mean[None]
    lengths = jnp.linalg.norm(directions, axis=1, keepdims=True)
    encoder = encoder_of((directions / jnp.maximum(lengths, NORM_EPSILON)).T)
    encoder["bias"] = -mean @ encoder["kernel"]
    return encoder


def encoder_of(kernel: Float[Array, "D K"]) -> EncoderParams:
    """An encoder of that kernel, with zero bias and identity LayerNorm."""
    n_concepts = kernel.shape[1]
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


def codes_of(
    params: EncoderParams,
    tokens: Float[Array, "N D"],
    threshold: float | Float[Array, ""] | Float[Array, " K"],
) -> Float[Array, "N K"]:
    """Tokens to codes at inference, wherever codes are asked for.

    In float32, whatever surrounds it: the product decides which codes reach the threshold, and with
    inputs rounded to bfloat16, an accelerator's way otherwise, some cross it.
    """
    with jax.default_matmul_precision("highest"):
        return threshold_codes(pre_codes(params, tokens), threshold)


def threshold_codes(
    pre: Float[Array, "N K"], threshold: float | Float[Array, ""] | Float[Array, " K"]
) -> Float[Array, "N K"]:
    """Codes at inference: relu(pre) where it reaches the threshold (of all, or each), else 0."""
    codes = jax.nn.relu(pre)
    if jnp.ndim(threshold):
        threshold = threshold[None]
    return jnp.where(codes >= threshold, codes, 0.0)
