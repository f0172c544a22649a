"""The decoder of MoVQ (arXiv:2209.09002): norms are modulated by the latents, place by place.

Names follow diffusers' VQModel with `norm_type="spatial"`. The codebook is not used to generate.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from bsjax.models.attention import attention
from bsjax.models.from_json import pick
from bsjax.models.resnet import GROUPS, Upsampler, conv1, conv3, enlarge


class MoVQConfig(NamedTuple):
    """Sizes, named as in config.json."""

    block_out_channels: tuple[int, ...] = (128, 256, 256, 512)
    layers_per_block: int = 2
    up_block_types: tuple[str, ...] = ("AttnUpDecoderBlock2D",) + ("UpDecoderBlock2D",) * 3
    latent_channels: int = 4
    out_channels: int = 3

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "MoVQConfig":
        """From config.json."""
        return cls(**pick(config, cls._fields))


class SpatialNorm(nn.Module):
    """A group norm whose scale and shift are convolutions of the latents."""

    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "B h w c"], latents: Float[Array, "B i j l"]):
        latents = enlarge(latents, x.shape[1] // latents.shape[1])
        width = x.shape[-1]
        norm = nn.GroupNorm(GROUPS, epsilon=1e-6, dtype=self.dtype, name="norm_layer")(x)
        scale = conv1(width, self.dtype, "conv_y")(latents)
        return norm * scale + conv1(width, self.dtype, "conv_b")(latents)


class ResnetBlock(nn.Module):
    """Two convolutions behind spatial norms."""

    width: int
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "B h w c"], latents: Float[Array, "B a b z"]
    ) -> Float[Array, "B h w o"]:
        y = nn.silu(SpatialNorm(self.dtype, name="norm1")(x, latents))
        y = conv3(self.width, self.dtype, "conv1")(y)
        y = nn.silu(SpatialNorm(self.dtype, name="norm2")(y, latents))
        y = conv3(self.width, self.dtype, "conv2")(y)
        if x.shape[-1] != self.width:
            x = conv1(self.width, self.dtype, "conv_shortcut")(x)
        return x + y


def attend(x: Float[Array, "B n c"], dtype: Any) -> Float[Array, "B n c"]:
    """Attention with one head, with the layers of the module that calls it."""

    def dense(name):
        return nn.Dense(x.shape[-1], dtype=dtype, name=name)

    q, k, v = (dense(name)(x)[:, :, None] for name in ("to_q", "to_k", "to_v"))
    return dense("to_out_0")(attention(q, k, v)[:, :, 0])


class AttentionBlock(nn.Module):
    """Attention with one head over all places."""

    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "B h w c"], latents: Float[Array, "B a b z"]
    ) -> Float[Array, "B h w c"]:
        batch, height, width, channels = x.shape
        y = SpatialNorm(self.dtype, name="spatial_norm")(x, latents)
        return x + attend(y.reshape(batch, height * width, channels), self.dtype).reshape(x.shape)


class MidBlock(nn.Module):
    """Residual, attention, residual."""

    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "B h w c"], latents: Float[Array, "B a b z"]
    ) -> Float[Array, "B h w c"]:
        x = ResnetBlock(x.shape[-1], self.dtype, name="resnets_0")(x, latents)
        x = AttentionBlock(self.dtype, name="attentions_0")(x, latents)
        return ResnetBlock(x.shape[-1], self.dtype, name="resnets_1")(x, latents)


class UpBlock(nn.Module):
    """Residual blocks, with attention or without, then twice the size."""

    width: int
    n_layers: int
    has_attention: bool
    is_last: bool
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "B h w c"], latents: Float[Array, "B a b z"]
    ) -> Float[Array, "B H W o"]:
        for i in range(self.n_layers):
            x = ResnetBlock(self.width, self.dtype, name=f"resnets_{i}")(x, latents)
            if self.has_attention:
                x = AttentionBlock(self.dtype, name=f"attentions_{i}")(x, latents)
        return x if self.is_last else Upsampler(self.dtype, name="upsamplers_0")(x)


class Decoder(nn.Module):
    """Latents to pixels."""

    config: MoVQConfig
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "B h w c"], latents: Float[Array, "B a b z"]
    ) -> Float[Array, "B H W 3"]:
        config, widths = self.config, self.config.block_out_channels[::-1]
        x = conv3(widths[0], self.dtype, "conv_in")(x)
        x = MidBlock(self.dtype, name="mid_block")(x, latents)
        for i, (width, kind) in enumerate(zip(widths, config.up_block_types, strict=True)):
            block = UpBlock(
                width, config.layers_per_block + 1, kind.startswith("Attn"),
                i == len(widths) - 1, self.dtype, name=f"up_blocks_{i}",
            )  # fmt: skip
            x = block(x, latents)
        x = nn.silu(SpatialNorm(self.dtype, name="conv_norm_out")(x, latents))
        return conv3(config.out_channels, self.dtype, "conv_out")(x)


class MoVQ(nn.Module):
    """The decoding half."""

    config: MoVQConfig
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, latents: Float[Array, "B h w c"]) -> Float[Array, "B H W 3"]:
        x = conv1(self.config.latent_channels, self.dtype, "post_quant_conv")(latents)
        return Decoder(self.config, self.dtype, name="decoder")(x, latents.astype(self.dtype))
