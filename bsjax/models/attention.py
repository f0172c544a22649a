"""Attention and the small pieces that the diffusion models share."""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import flash_attention as pallas_flash
from jaxtyping import Array, Bool, Float

from bsjax.models.cudnn import cudnn_attention, suits_cudnn

# Scores held at a time; more are computed in parts, a stretch of queries after another.
MAX_SCORES = 1 << 27
CPU_SCORES = 1 << 22  # what a CPU's caches hold
# The TPU kernel works on blocks of so many queries and keys, and on whole registers of features.
FLASH_BLOCK, LANES = 512, 128


def attention(
    q: Float[Array, "B Q H D"],
    k: Float[Array, "B S H D"],
    v: Float[Array, "B S H D"],
    mask: Bool[Array, "B S"] | None = None,
    bias: Float[Array, "1 #H Q S"] | None = None,
    scale: float | None = None,
    max_scores: int = MAX_SCORES,
) -> Float[Array, "B Q H D"]:
    """Softmax attention; scores and softmax in float32.

    Args:
      q: queries.
      k: keys.
      v: values.
      mask: which keys may be seen; all, if None.
      bias: added to the scores.
      scale: of the scores; None: 1 / sqrt(D).
      max_scores: above so many the queries are taken in equal stretches, so that the whole matrix
        of scores never exists. On TPUs and on NVIDIA GPUs kernels do better, where they can.
    """
    on_cuda = {}
    if bias is None and suits_cudnn(q.dtype, q.shape[-1]):
        on_cuda["cuda"] = functools.partial(cudnn_attention, scale=scale)
    if mask is None and bias is None and scale is None:
        in_parts = functools.partial(_attention_in_parts, max_scores=max_scores)
        on_tpu = flash_attention if suits_flash(q, k) else in_parts
        return jax.lax.platform_dependent(
            q, k, v, cpu=attention_by_heads, tpu=on_tpu, default=in_parts, **on_cuda
        )
    plain = functools.partial(_attention_in_parts, bias=bias, scale=scale, max_scores=max_scores)
    if on_cuda:
        return jax.lax.platform_dependent(q, k, v, mask, default=plain, **on_cuda)
    return plain(q, k, v, mask)


def suits_flash(q: Float[Array, "B Q H D"], k: Float[Array, "B S H D"]) -> bool:
    """Whether the TPU kernel takes it: half precision, and lengths that fill its blocks."""
    lengths = (q.shape[1], k.shape[1])
    return q.dtype == jnp.bfloat16 and all(n % FLASH_BLOCK == 0 for n in lengths)


def flash_attention(
    q: Float[Array, "B Q H D"], k: Float[Array, "B S H D"], v: Float[Array, "B S H D"]
) -> Float[Array, "B Q H D"]:
    """Attention whose scores never leave the chip's fast memory (arXiv:2205.14135), on a TPU."""
    width = q.shape[-1]
    padding = ((0, 0), (0, 0), (0, 0), (0, -width % LANES))
    q, k, v = (jnp.pad(jnp.moveaxis(x, 2, 1), padding) for x in (q, k, v))
    blocks = pallas_flash.BlockSizes(
        block_q=FLASH_BLOCK, block_k_major=FLASH_BLOCK, block_k=FLASH_BLOCK, block_b=1
    )
    out = pallas_flash.flash_attention(q, k, v, sm_scale=width**-0.5, block_sizes=blocks)
    return jnp.moveaxis(out[..., :width], 1, 2)


def attention_by_heads(
    q: Float[Array, "B Q H D"],
    k: Float[Array, "B S H D"],
    v: Float[Array, "B S H D"],
    max_scores: int = CPU_SCORES,
) -> Float[Array, "B Q H D"]:
    """Attention as a CPU likes it: one head after another, in stretches that its caches hold."""
    batch, n_queries, n_heads, width = q.shape
    n_parts = _n_parts(n_queries, n_queries * k.shape[1], max_scores)

    def one_head(qkv):
        q, k, v = qkv

        def part(q):
            scores = jnp.dot(q, k.T, preferred_element_type=jnp.float32) * width**-0.5
            weights = jnp.exp(scores - jnp.max(scores, axis=1, keepdims=True))
            out = jnp.dot(weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
            return (out / jnp.sum(weights, axis=1, keepdims=True)).astype(q.dtype)

        return jax.lax.map(part, q.reshape(n_parts, -1, width)).reshape(n_queries, width)

    flat = [jnp.moveaxis(x, 2, 1).reshape(-1, x.shape[1], width) for x in (q, k, v)]
    out = jax.lax.map(one_head, tuple(flat))
    return jnp.moveaxis(out.reshape(batch, n_heads, n_queries, width), 1, 2)


def _attention_in_parts(q, k, v, mask=None, bias=None, scale=None, max_scores=MAX_SCORES):
    batch, n_queries, n_heads, width = q.shape
    mask = None if mask is None else mask[:, None, None, :]
    n_parts = _n_parts(n_queries, batch * n_heads * n_queries * k.shape[1], max_scores)
    if n_parts == 1 or bias is not None:
        return jax.nn.dot_product_attention(q, k, v, bias=bias, mask=mask, scale=scale)

    def part(q):
        return jax.nn.dot_product_attention(q, k, v, mask=mask, scale=scale)

    parts = q.reshape(batch, n_parts, n_queries // n_parts, n_heads, width)
    found = jax.lax.map(part, jnp.moveaxis(parts, 1, 0))
    return jnp.moveaxis(found, 0, 1).reshape(batch, n_queries, n_heads, width)


def _n_parts(n_queries: int, n_scores: int, max_scores: int) -> int:
    """The smallest divisor of the queries that brings the scores below the limit."""
    least = math.ceil(n_scores / max_scores)
    for n_parts in range(least, n_queries):
        if n_queries % n_parts == 0:
            return n_parts
    return 1 if least <= 1 else n_queries


def sinusoid(t: Float[Array, " B"], width: int) -> Float[Array, "B W"]:
    """Timestep features, cosines first (arXiv:1706.03762, as diffusers' `flip_sin_to_cos`)."""
    half = width // 2
    frequencies = jnp.exp(-math.log(10_000) * jnp.arange(half, dtype=jnp.float32) / half)
    angles = t.astype(jnp.float32)[:, None] * frequencies[None]
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=1)


class TimestepEmbedding(nn.Module):
    """Two linear layers over timestep features."""

    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B W"]) -> Float[Array, "B D"]:
        x = nn.Dense(self.width, dtype=self.dtype, name="linear_1")(x)
        return nn.Dense(self.width, dtype=self.dtype, name="linear_2")(nn.silu(x))


class Projection(nn.Module):
    """First layer of a transformer's MLP; see `FeedForward`."""

    width: int
    activation: str
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T H"]:
        if self.activation == "geglu":  # arXiv:2002.05202
            x = nn.Dense(2 * self.width, dtype=self.dtype, name="proj")(x)
            x, gate = jnp.split(x, 2, axis=-1)
            return x * nn.gelu(gate, approximate=False)
        x = nn.Dense(self.width, dtype=self.dtype, name="proj")(x)
        return nn.gelu(x, approximate=self.activation == "gelu_tanh")


class FeedForward(nn.Module):
    """A transformer's MLP of four times the width, with the names of diffusers."""

    activation: str  # gelu | gelu_tanh | geglu
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        y = Projection(4 * x.shape[-1], self.activation, self.dtype, name="net_0")(x)
        return nn.Dense(x.shape[-1], dtype=self.dtype, name="net_2")(y)


class Attention(nn.Module):
    """Multi-head attention with the projections' names of diffusers."""

    n_heads: int
    head_width: int
    out_width: int
    qkv_bias: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B Q D"],
        context: Float[Array, "B S E"] | None = None,
        mask: Bool[Array, "B S"] | None = None,
    ) -> Float[Array, "B Q D"]:
        context = x if context is None else context
        inner = self.n_heads * self.head_width

        def heads(x, name):
            x = nn.Dense(inner, use_bias=self.qkv_bias, dtype=self.dtype, name=name)(x)
            return x.reshape(*x.shape[:2], self.n_heads, self.head_width)

        x = attention(heads(x, "to_q"), heads(context, "to_k"), heads(context, "to_v"), mask)
        x = x.reshape(*x.shape[:2], inner)
        return nn.Dense(self.out_width, dtype=self.dtype, name="to_out_0")(x)
