"""JumpReLU (arXiv:2407.14435): codes that reach a trained threshold of their concept stay."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def jump_relu(
    codes: Float[Array, "N K"], log_threshold: Float[Array, " K"], bandwidth: float
) -> Float[Array, "N K"]:
    """Codes where they reach their concept's threshold, else 0; the threshold is trained by its
    pseudo-gradient.

    Args:
      codes: relu of the pre-codes.
      log_threshold: natural logarithm of each concept's threshold.
      bandwidth: of the kernel, in units of the codes.
    """
    del bandwidth
    return jnp.where(codes >= jnp.exp(log_threshold)[None], codes, 0.0)


def _forward(codes, log_threshold, bandwidth):
    return jump_relu(codes, log_threshold, bandwidth), (codes, log_threshold)


def _backward(bandwidth, kept, d_codes):
    codes, log_threshold = kept
    stays = codes >= jnp.exp(log_threshold)[None]
    return (
        jnp.where(stays, d_codes, 0.0),
        threshold_gradient(codes, log_threshold, d_codes, bandwidth),
    )


jump_relu.defvjp(_forward, _backward)


def threshold_gradient(
    codes: Float[Array, "N K"],
    log_threshold: Float[Array, " K"],
    d_codes: Float[Array, "N K"],
    bandwidth: float,
) -> Float[Array, " K"]:
    """Pseudo-gradient of the log threshold (arXiv:2407.14435, eq. 11, with Silverman's kernel).

    As the reference has it, the threshold appears twice: by the exponential and in the kernel.
    """
    threshold, half = jnp.exp(log_threshold), bandwidth / 2
    gap = jnp.abs(codes - threshold[None]) / (half * np.sqrt(2.0))
    kernel = jnp.exp(-gap) * jnp.sin(gap + np.pi / 4) / half
    return -jnp.square(threshold) / bandwidth * jnp.sum(kernel * d_codes, axis=0)
