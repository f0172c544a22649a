"""The encoder of MoVQ (arXiv:2209.09002): pixels to latents, with plain group norms.

Names follow diffusers' VQModel. The decoder, whose norms are modulated, is `bsjax.models.movq`.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from bsjax.models.from_json import pick
from bsjax.models.movq import attend
from bsjax.models.resnet import GROUPS, conv1, conv3

Image = Float[Array, "B h w c"]


class MoVQEncoderConfig(NamedTuple):
    """Sizes, named as in config.json."""

    block_out_channels: tuple[int, ...] = (128, 256, 256, 512)
    layers_per_block: int = 2
    down_block_types: tuple[str, ...] = ("DownEncoderBlock2D",) * 3 + ("AttnDownEncoderBlock2D",)
    latent_channels: int = 4
    vq_embed_dim: int = 4

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "MoVQEncoderConfig":
        """From config.json; there the width behind the encoder may be left open."""
        found = {name: value for name, value in config.items() if value is not None}
        return cls(**pick({"vq_embed_dim": config["latent_channels"]} | found, cls._fields))


def norm(dtype: Any, name: str) -> nn.GroupNorm:
    """The encoder's group norm."""
    return nn.GroupNorm(GROUPS, epsilon=1e-6, dtype=dtype, name=name)


class ResnetBlock(nn.Module):
    """Two convolutions behind norms."""

    width: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Image) -> Float[Array, "B h w o"]:
        y = conv3(self.width, self.dtype, "conv1")(nn.silu(norm(self.dtype, "norm1")(x)))
        y = conv3(self.width, self.dtype, "conv2")(nn.silu(norm(self.dtype, "norm2")(y)))
        if x.shape[-1] != self.width:
            x = conv1(self.width, self.dtype, "conv_shortcut")(x)
        return x + y


class AttentionBlock(nn.Module):
    """Attention with one head over all places."""

    dtype: Any

    @nn.compact
    def __call__(self, x: Image) -> Image:
        batch, height, width, channels = x.shape
        y = norm(self.dtype, "group_norm")(x).reshape(batch, height * width, channels)
        return x + attend(y, self.dtype).reshape(x.shape)


class Downsampler(nn.Module):
    """Half the size, by a convolution that looks to the right and down."""

    dtype: Any

    @nn.compact
    def __call__(self, x: Image) -> Float[Array, "B H W c"]:
        padding = ((0, 1), (0, 1))
        return nn.Conv(
            x.shape[-1], (3, 3), strides=2, padding=padding, dtype=self.dtype, name="conv"
        )(x)


class DownBlock(nn.Module):
    """Residual blocks, with attention or without, then half the size."""

    width: int
    n_layers: int
    has_attention: bool
    is_last: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: Image) -> Float[Array, "B H W o"]:
        for i in range(self.n_layers):
            x = ResnetBlock(self.width, self.dtype, name=f"resnets_{i}")(x)
            if self.has_attention:
                x = AttentionBlock(self.dtype, name=f"attentions_{i}")(x)
        return x if self.is_last else Downsampler(self.dtype, name="downsamplers_0")(x)


class MidBlock(nn.Module):
    """Residual, attention, residual."""

    dtype: Any

    @nn.compact
    def __call__(self, x: Image) -> Image:
        x = ResnetBlock(x.shape[-1], self.dtype, name="resnets_0")(x)
        x = AttentionBlock(self.dtype, name="attentions_0")(x)
        return ResnetBlock(x.shape[-1], self.dtype, name="resnets_1")(x)


class Encoder(nn.Module):
    """Pixels to what the last convolution makes latents of."""

    config: MoVQEncoderConfig
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "B H W 3"]) -> Float[Array, "B h w c"]:
        config, widths = self.config, self.config.block_out_channels
        x = conv3(widths[0], self.dtype, "conv_in")(x)
        for i, (width, kind) in enumerate(zip(widths, config.down_block_types, strict=True)):
            block = DownBlock(
                width, config.layers_per_block, kind.startswith("Attn"), i == len(widths) - 1,
                self.dtype, name=f"down_blocks_{i}",
            )  # fmt: skip
            x = block(x)
        x = MidBlock(self.dtype, name="mid_block")(x)
        x = nn.silu(norm(self.dtype, "conv_norm_out")(x))
        return conv3(config.latent_channels, self.dtype, "conv_out")(x)


class MoVQEncoder(nn.Module):
    """The encoding half; latents are those before the codebook, as the pipelines take them."""

    config: MoVQEncoderConfig
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: Float[Array, "B H W 3"]) -> Float[Array, "B h w c"]:
        x = Encoder(self.config, self.dtype, name="encoder")(images)
        return conv1(self.config.vq_embed_dim, self.dtype, "quant_conv")(x)
