"""Stable Diffusion's UNet (arXiv:2112.10752, section 3.3), versions 1 and 2.

Written for its attention: diffusers' Flax module holds all scores at once, or computes them with
six passes, and has the tanh form of GELU. Names follow diffusers' UNet2DConditionModel.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from bsjax.models.attention import Attention, FeedForward, TimestepEmbedding, sinusoid
from bsjax.models.from_json import pick
from bsjax.models.resnet import GROUPS, ResnetBlock, Upsampler, conv3


class SDUNetConfig(NamedTuple):
    """Sizes, named as in config.json."""

    in_channels: int = 4
    out_channels: int = 4
    down_block_types: tuple[str, ...] = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
    up_block_types: tuple[str, ...] = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers_per_block: int = 2
    attention_head_dim: int | tuple[int, ...] = 8  # the number of heads, whatever it is called
    cross_attention_dim: int = 768

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "SDUNetConfig":
        """From config.json."""
        return cls(**pick(config, cls._fields))

    def n_heads(self, level: int) -> int:
        heads = self.attention_head_dim
        return heads if isinstance(heads, int) else heads[level]


class TransformerBlock(nn.Module):
    """Self-attention, attention to the text, MLP."""

    n_heads: int
    dtype: Any

    @nn.compact
    def __call__(self, x, context):
        width = x.shape[-1]

        def norm(name):
            return nn.LayerNorm(1e-5, dtype=self.dtype, name=name)(x)

        def attend(name):
            return Attention(
                self.n_heads, width // self.n_heads, width, dtype=self.dtype, name=name
            )

        x = x + attend("attn1")(norm("norm1"))
        x = x + attend("attn2")(norm("norm2"), context)
        return x + FeedForward("geglu", self.dtype, name="ff")(norm("norm3"))


class SpatialTransformer(nn.Module):
    """A transformer block over the places of an image."""

    n_heads: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "B h w c"], context: Float[Array, "B T E"]):
        batch, height, width, channels = x.shape

        def dense(name):  # in version 1 stored as a 1x1 convolution
            return nn.Dense(channels, dtype=self.dtype, name=name)

        norm = nn.GroupNorm(GROUPS, epsilon=1e-6, dtype=self.dtype, name="norm")
        y = dense("proj_in")(norm(x).reshape(batch, height * width, channels))
        y = TransformerBlock(self.n_heads, self.dtype, name="transformer_blocks_0")(y, context)
        return x + dense("proj_out")(y).reshape(x.shape)


class Downsampler(nn.Module):
    """Half the size by a convolution."""

    dtype: Any

    @nn.compact
    def __call__(self, x):
        return nn.Conv(
            x.shape[-1], (3, 3), (2, 2), padding=((1, 1), (1, 1)), dtype=self.dtype, name="conv"
        )(x)


class DownBlock(nn.Module):
    """Residual blocks, with attention or without, then half the size."""

    width: int
    n_layers: int
    n_heads: int  # 0: no attention
    is_last: bool
    dtype: Any

    @nn.compact
    def __call__(self, x, time, context):
        kept = []
        for i in range(self.n_layers):
            block = ResnetBlock(self.width, is_scaled=False, dtype=self.dtype, name=f"resnets_{i}")
            x = block(x, time)
            if self.n_heads:
                x = SpatialTransformer(self.n_heads, self.dtype, name=f"attentions_{i}")(x, context)
            kept.append(x)
        if not self.is_last:
            x = Downsampler(self.dtype, name="downsamplers_0")(x)
            kept.append(x)
        return x, kept


class MidBlock(nn.Module):
    """Residual, attention, residual."""

    n_heads: int
    dtype: Any

    @nn.compact
    def __call__(self, x, time, context):
        def resnet(name):
            return ResnetBlock(x.shape[-1], is_scaled=False, dtype=self.dtype, name=name)

        x = resnet("resnets_0")(x, time)
        x = SpatialTransformer(self.n_heads, self.dtype, name="attentions_0")(x, context)
        return resnet("resnets_1")(x, time)


class UpBlock(nn.Module):
    """Residual blocks over what the way down kept, then twice the size."""

    width: int
    n_layers: int
    n_heads: int  # 0: no attention
    is_last: bool
    dtype: Any

    @nn.compact
    def __call__(self, x, kept, time, context):
        for i in range(self.n_layers):
            x = jnp.concatenate([x, kept.pop()], axis=-1)
            block = ResnetBlock(self.width, is_scaled=False, dtype=self.dtype, name=f"resnets_{i}")
            x = block(x, time)
            if self.n_heads:
                x = SpatialTransformer(self.n_heads, self.dtype, name=f"attentions_{i}")(x, context)
        return x if self.is_last else Upsampler(self.dtype, name="upsamplers_0")(x)


class SDUNet(nn.Module):
    """Latents and text -> noise or velocity."""

    config: SDUNetConfig
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "B h w c"], t: Float[Array, "B"], context: Float[Array, "B T E"]
    ) -> Float[Array, "B h w c"]:
        config, widths = self.config, self.config.block_out_channels
        features = sinusoid(t, widths[0]).astype(self.dtype)
        time = TimestepEmbedding(4 * widths[0], self.dtype, name="time_embedding")(features)
        context = context.astype(self.dtype)
        x = conv3(widths[0], self.dtype, "conv_in")(x)
        kept, last = [x], len(widths) - 1
        for i, (width, kind) in enumerate(zip(widths, config.down_block_types, strict=True)):
            heads = config.n_heads(i) if kind.startswith("CrossAttn") else 0
            block = DownBlock(
                width, config.layers_per_block, heads, i == last, self.dtype,
                name=f"down_blocks_{i}",
            )  # fmt: skip
            x, more = block(x, time, context)
            kept += more
        x = MidBlock(config.n_heads(last), self.dtype, name="mid_block")(x, time, context)
        for i, (width, kind) in enumerate(zip(widths[::-1], config.up_block_types, strict=True)):
            heads = config.n_heads(last - i) if kind.startswith("CrossAttn") else 0
            block = UpBlock(
                width, config.layers_per_block + 1, heads, i == last, self.dtype,
                name=f"up_blocks_{i}",
            )  # fmt: skip
            x = block(x, kept, time, context)
        norm = nn.GroupNorm(GROUPS, epsilon=1e-5, dtype=self.dtype, name="conv_norm_out")
        return conv3(config.out_channels, self.dtype, "conv_out")(nn.silu(norm(x)))
