"""Stable Diffusion's UNet (arXiv:2112.10752, section 3.3), versions 1 and 2.

Written for its attention: diffusers' Flax module holds all scores at once, or computes them with
six passes, and has the tanh form of GELU. Names follow diffusers' UNet2DConditionModel.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from bsjax.models import unet
from bsjax.models.attention import Attention, FeedForward, TimestepEmbedding, sinusoid
from bsjax.models.from_json import pick
from bsjax.models.resnet import GROUPS, ResnetBlock, Upsampler

ATTENTION = "CrossAttn"  # how the names of blocks with attention begin


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
    def __call__(
        self, x: Float[Array, "B P c"], context: Float[Array, "B T E"]
    ) -> Float[Array, "B P c"]:
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
    def __call__(
        self, x: Float[Array, "B h w c"], context: Float[Array, "B T E"]
    ) -> Float[Array, "B h w c"]:
        batch, height, width, channels = x.shape

        def dense(name):  # in version 1 stored as a 1x1 convolution
            return nn.Dense(channels, dtype=self.dtype, name=name)

        norm = nn.GroupNorm(GROUPS, epsilon=1e-6, dtype=self.dtype, name="norm")
        y = dense("proj_in")(norm(x).reshape(batch, height * width, channels))
        y = TransformerBlock(self.n_heads, self.dtype, name="transformer_blocks_0")(y, context)
        return x + dense("proj_out")(y).reshape(x.shape)


class Downsampler(nn.Module):
    """Half the size by a convolution; the timestep plays no part."""

    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "B h w c"], time: Float[Array, "B e"]
    ) -> Float[Array, "B H W c"]:
        del time
        return nn.Conv(
            x.shape[-1], (3, 3), (2, 2), padding=((1, 1), (1, 1)), dtype=self.dtype, name="conv"
        )(x)


class SDUNet(nn.Module):
    """Latents and text -> noise or velocity."""

    config: SDUNetConfig
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "B h w c"], t: Float[Array, " B"], context: Float[Array, "B T E"]
    ) -> Float[Array, "B h w c"]:
        config, dtype = self.config, self.dtype
        first = config.block_out_channels[0]
        time = TimestepEmbedding(4 * first, dtype, name="time_embedding")(
            sinusoid(t, first).astype(dtype)
        )
        n_levels = len(config.block_out_channels)

        def level(i: int, has_attention: bool) -> unet.Level:
            attend = functools.partial(SpatialTransformer, config.n_heads(i), dtype)
            return unet.Level(
                config.block_out_channels[i],
                functools.partial(ResnetBlock, is_scaled=False, dtype=dtype),
                attend if has_attention else None,
                functools.partial(Downsampler, dtype),
                functools.partial(Upsampler, dtype),
            )

        return unet.walk(
            x, time, context.astype(dtype),
            down=[level(i, k.startswith(ATTENTION)) for i, k in enumerate(config.down_block_types)],
            middle=level(n_levels - 1, True),
            up=[
                level(n_levels - 1 - i, kind.startswith(ATTENTION))
                for i, kind in enumerate(config.up_block_types)
            ],
            n_layers=config.layers_per_block, out_channels=config.out_channels, epsilon=1e-5,
            dtype=dtype,
        )  # fmt: skip
