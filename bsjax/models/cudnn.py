"""cuDNN's flash attention (arXiv:2205.14135): on NVIDIA GPUs no scores are written to memory."""

import functools
import importlib.util

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

PLUGINS = ("jax_cuda12_plugin", "jax_cuda13_plugin")
LARGEST_HEAD, HEADS_OF = 128, 8  # features of a head: at most, and a multiple of
AMPERE = 8.0  # compute capability from which on it is there


def suits_cudnn(dtype: jnp.dtype, width: int) -> bool:
    """Whether its kernel takes heads of such queries: half precision, and a width that it has."""
    is_half = dtype in (jnp.bfloat16, jnp.float16)
    return is_half and width % HEADS_OF == 0 and width <= LARGEST_HEAD and has_cudnn()


@functools.cache
def has_cudnn() -> bool:
    """Whether programs for CUDA can name it: jax's plug-in is installed, and no GPU here too old.

    Without a GPU here too, for programs are compiled for machines elsewhere (`bsjax plan`).
    """
    if not any(importlib.util.find_spec(name) for name in PLUGINS):
        return False
    try:
        gpus = jax.local_devices(backend="cuda")
    except RuntimeError:  # no such backend here
        return True
    return all(float(gpu.compute_capability) >= AMPERE for gpu in gpus)


def cudnn_attention(
    q: Float[Array, "B Q H D"],
    k: Float[Array, "B S H D"],
    v: Float[Array, "B S H D"],
    mask: Bool[Array, "B S"] | None = None,
    scale: float | None = None,
) -> Float[Array, "B Q H D"]:
    """Softmax attention, scores and softmax in float32, sums of values in float32.

    Args:
      q: queries that `suits_cudnn`.
      k: keys.
      v: values.
      mask: which keys may be seen; all, if None. Its kernel adds it to the scores, so it is made
        as large as they are for one head.
      scale: of the scores; None: 1 / sqrt(D).
    """
    if mask is not None:
        batch, n_keys = mask.shape
        mask = jnp.broadcast_to(mask[:, None, None], (batch, 1, q.shape[1], n_keys))
    return jax.nn.dot_product_attention(q, k, v, mask=mask, scale=scale, implementation="cudnn")
