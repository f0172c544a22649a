"""Kandinsky 2.1's UNet (arXiv:2310.03502): attention over the image and added tokens at once.

Names follow diffusers' UNet2DConditionModel with SimpleCrossAttn blocks.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from bsjax.models import unet
from bsjax.models.attention import TimestepEmbedding, attention, sinusoid
from bsjax.models.from_json import pick
from bsjax.models.resnet import GROUPS, ResnetBlock

N_IMAGE_TOKENS = 10
ATTENTION = "SimpleCrossAttn"  # how the names of blocks with attention begin


class KandinskyUNetConfig(NamedTuple):
    """Sizes, named as in config.json."""

    in_channels: int = 4
    out_channels: int = 8
    block_out_channels: tuple[int, ...] = (384, 768, 1152, 1536)
    down_block_types: tuple[str, ...] = (
        "ResnetDownsampleBlock2D",
        *["SimpleCrossAttnDownBlock2D"] * 3,
    )
    up_block_types: tuple[str, ...] = (*["SimpleCrossAttnUpBlock2D"] * 3, "ResnetUpsampleBlock2D")
    layers_per_block: int = 3
    attention_head_dim: int = 64
    cross_attention_dim: int = 768
    encoder_hid_dim: int = 1024
    norm_eps: float = 1e-5

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "KandinskyUNetConfig":
        """From config.json."""
        return cls(**pick(config, cls._fields))


class AddedAttention(nn.Module):
    """Self-attention whose keys and values begin with those of the added tokens."""

    head_width: int
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "B h w c"], context: Float[Array, "B T E"]
    ) -> Float[Array, "B h w c"]:
        batch, height, width, channels = x.shape

        def heads(x, name):
            x = nn.Dense(channels, dtype=self.dtype, name=name)(x)
            return x.reshape(batch, x.shape[1], channels // self.head_width, self.head_width)

        norm = nn.GroupNorm(GROUPS, epsilon=1e-5, dtype=self.dtype, name="group_norm")
        y = norm(x).reshape(batch, height * width, channels)
        k = jnp.concatenate([heads(context, "add_k_proj"), heads(y, "to_k")], axis=1)
        v = jnp.concatenate([heads(context, "add_v_proj"), heads(y, "to_v")], axis=1)
        y = attention(heads(y, "to_q"), k, v).reshape(batch, height * width, channels)
        y = nn.Dense(channels, dtype=self.dtype, name="to_out_0")(y)
        return x + y.reshape(x.shape)


class TextImageTime(nn.Module):
    """What text and image embedding add to the timestep's."""

    width: int
    dtype: Any

    @nn.compact
    def __call__(
        self, text: Float[Array, "B D"], image: Float[Array, "B D"]
    ) -> Float[Array, "B e"]:
        text = nn.Dense(self.width, dtype=self.dtype, name="text_proj")(text)
        text = nn.LayerNorm(1e-5, dtype=self.dtype, name="text_norm")(text)
        return text + nn.Dense(self.width, dtype=self.dtype, name="image_proj")(image)


class TextImageProjection(nn.Module):
    """The added tokens: some of the image embedding, then the text's."""

    width: int
    dtype: Any

    @nn.compact
    def __call__(
        self, text: Float[Array, "B S E"], image: Float[Array, "B D"]
    ) -> Float[Array, "B T e"]:
        image = nn.Dense(N_IMAGE_TOKENS * self.width, dtype=self.dtype, name="image_embeds")(image)
        image = image.reshape(image.shape[0], N_IMAGE_TOKENS, self.width)
        text = nn.Dense(self.width, dtype=self.dtype, name="text_proj")(text)
        return jnp.concatenate([image, text], axis=1)


class KandinskyUNet(nn.Module):
    """Latents, text and an image embedding -> noise and (unused here) its variance."""

    config: KandinskyUNetConfig
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B h w c"],
        t: Float[Array, " B"],
        text: Float[Array, "B T E"],
        text_embedding: Float[Array, "B D"],
        image_embedding: Float[Array, "B D"],
    ) -> Float[Array, "B h w o"]:
        config, widths = self.config, self.config.block_out_channels
        features = sinusoid(t, widths[0]).astype(self.dtype)
        time = TimestepEmbedding(4 * widths[0], self.dtype, name="time_embedding")(features)
        added = TextImageTime(4 * widths[0], self.dtype, name="add_embedding")
        time = time + added(text_embedding, image_embedding)
        project = TextImageProjection(
            config.cross_attention_dim, self.dtype, name="encoder_hid_proj"
        )
        context = project(text, image_embedding)

        n_levels = len(widths)
        block = functools.partial(ResnetBlock, epsilon=config.norm_eps, dtype=self.dtype)

        def level(i: int, has_attention: bool) -> unet.Level:
            attend = functools.partial(AddedAttention, config.attention_head_dim, self.dtype)
            return unet.Level(
                widths[i], block, attend if has_attention else None,
                functools.partial(block, widths[i], "down"),
                functools.partial(block, widths[i], "up"),
            )  # fmt: skip

        return unet.walk(
            x, time, context,
            down=[level(i, k.startswith(ATTENTION)) for i, k in enumerate(config.down_block_types)],
            middle=level(n_levels - 1, True),
            up=[
                level(n_levels - 1 - i, kind.startswith(ATTENTION))
                for i, kind in enumerate(config.up_block_types)
            ],
            n_layers=config.layers_per_block, out_channels=config.out_channels,
            epsilon=config.norm_eps, dtype=self.dtype,
        )  # fmt: skip
