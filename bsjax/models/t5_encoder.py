"""The encoder of T5 v1.1 (arXiv:1910.10683): RMS norm, relative positions, gated GELU.

Written because transformers' Flax T5 does not run on today's jax. Names follow the checkpoint.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from bsjax.models.attention import attention
from bsjax.models.from_json import pick


class T5Config(NamedTuple):
    """Sizes, named as in config.json."""

    vocab_size: int = 32128
    d_model: int = 4096
    d_kv: int = 64
    d_ff: int = 10240
    num_layers: int = 24
    num_heads: int = 64
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    layer_norm_epsilon: float = 1e-6

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "T5Config":
        """From config.json."""
        return cls(**pick(config, cls._fields))


def relative_buckets(n: int, n_buckets: int, max_distance: int) -> Int[np.ndarray, "T T"]:
    """Bucket of (query, key): exact near by, logarithmic further away, halves by direction."""
    distance = np.arange(n)[None, :] - np.arange(n)[:, None]  # key - query
    half = n_buckets // 2
    exact = half // 2
    size = np.abs(distance)
    # In float32, as the reference, which decides where a logarithm falls on a border.
    ratio = np.maximum(size, 1).astype(np.float32) / np.float32(exact)
    far = np.log(ratio) / np.float32(math.log(max_distance / exact)) * np.float32(half - exact)
    far = np.minimum(exact + far.astype(np.int64), half - 1)
    return np.where(distance > 0, half, 0) + np.where(size < exact, size, far)


class RMSNorm(nn.Module):
    """Scale without shift, in float32."""

    epsilon: float
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        x = x.astype(jnp.float32)
        x = x / jnp.sqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + self.epsilon)
        return (x * scale[None, None]).astype(self.dtype)


class SelfAttention(nn.Module):
    """Attention without scaling of the scores; block 0 holds the relative positions of all."""

    config: T5Config
    has_bias: bool
    dtype: Any

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        mask: Bool[Array, "B T"],
        bias: Float[Array, "1 heads T T"] | None,
    ) -> tuple[Float[Array, "B T D"], Float[Array, "1 heads T T"]]:
        config, (batch, n, _) = self.config, x.shape
        inner = config.num_heads * config.d_kv

        def heads(name):
            y = nn.Dense(inner, use_bias=False, dtype=self.dtype, name=name)(x)
            return y.reshape(batch, n, config.num_heads, config.d_kv)

        if self.has_bias:
            n_buckets = config.relative_attention_num_buckets
            table = nn.Embed(n_buckets, config.num_heads, name="relative_attention_bias")
            buckets = relative_buckets(n, n_buckets, config.relative_attention_max_distance)
            bias = jnp.moveaxis(table(jnp.asarray(buckets)), -1, 0)[None].astype(self.dtype)
        y = attention(heads("q"), heads("k"), heads("v"), mask, bias, scale=1.0)
        y = y.reshape(batch, n, inner)
        return nn.Dense(config.d_model, use_bias=False, dtype=self.dtype, name="o")(y), bias


class GatedMLP(nn.Module):
    """GELU (tanh form) times a linear gate."""

    config: T5Config
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        def dense(width, name):
            return nn.Dense(width, use_bias=False, dtype=self.dtype, name=name)

        d_ff = self.config.d_ff
        gate = nn.gelu(dense(d_ff, "wi_0")(x), approximate=True)
        return dense(self.config.d_model, "wo")(gate * dense(d_ff, "wi_1")(x))


class Sublayer(nn.Module):
    """Norm, then attention or MLP, then the residual."""

    config: T5Config
    kind: str  # attention | mlp
    has_bias: bool
    dtype: Any

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        mask: Bool[Array, "B T"],
        bias: Float[Array, "1 heads T T"] | None,
    ) -> tuple[Float[Array, "B T D"], Float[Array, "1 heads T T"] | None]:
        y = RMSNorm(self.config.layer_norm_epsilon, self.dtype, name="layer_norm")(x)
        if self.kind == "attention":
            layer = SelfAttention(self.config, self.has_bias, self.dtype, name="SelfAttention")
            y, bias = layer(y, mask, bias)
        else:
            y = GatedMLP(self.config, self.dtype, name="DenseReluDense")(y)
        return x + y.astype(jnp.float32), bias


class Block(nn.Module):
    """Attention and MLP."""

    config: T5Config
    has_bias: bool
    dtype: Any

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        mask: Bool[Array, "B T"],
        bias: Float[Array, "1 heads T T"] | None,
    ) -> tuple[Float[Array, "B T D"], Float[Array, "1 heads T T"]]:
        for i, kind in enumerate(("attention", "mlp")):
            layer = Sublayer(self.config, kind, self.has_bias, self.dtype, name=f"layer_{i}")
            x, bias = layer(x, mask, bias)
        return x, bias


class Stack(nn.Module):
    """All blocks and the last norm."""

    config: T5Config
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"], mask: Bool[Array, "B T"]) -> Float[Array, "B T D"]:
        bias = None
        for i in range(self.config.num_layers):
            x, bias = Block(self.config, i == 0, self.dtype, name=f"block_{i}")(x, mask, bias)
        return RMSNorm(self.config.layer_norm_epsilon, self.dtype, name="final_layer_norm")(x)


class T5Encoder(nn.Module):
    """Ids -> features. Products in `dtype`; the residual stream stays float32, as T5 outgrows
    half precision."""

    config: T5Config
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, ids: Int[Array, "B T"], mask: Bool[Array, "B T"]) -> Float[Array, "B T D"]:
        shared = nn.Embed(self.config.vocab_size, self.config.d_model, name="shared")
        x = shared(ids).astype(jnp.float32)
        return Stack(self.config, self.dtype, name="encoder")(x, mask)
