"""PixArt-alpha's transformer (arXiv:2310.00426): a DiT with adaLN-single and cross-attention.

Names follow diffusers' PixArtTransformer2DModel.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from bsjax.models.attention import Attention, FeedForward, TimestepEmbedding, sinusoid
from bsjax.models.from_json import pick

TIME_WIDTH = 256


class PixArtConfig(NamedTuple):
    """Sizes, named as in config.json."""

    num_attention_heads: int = 16
    attention_head_dim: int = 72
    in_channels: int = 4
    out_channels: int = 8
    num_layers: int = 28
    sample_size: int = 128
    patch_size: int = 2
    caption_channels: int = 4096
    attention_bias: bool = True
    norm_eps: float = 1e-6
    interpolation_scale: int | None = None
    use_additional_conditions: bool | None = None

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "PixArtConfig":
        """From config.json."""
        return cls(**pick(config, cls._fields))

    @property
    def width(self) -> int:
        return self.num_attention_heads * self.attention_head_dim

    @property
    def is_conditioned_on_size(self) -> bool:
        """Resolution and aspect ratio are inputs; by default in the 1024 model alone."""
        if self.use_additional_conditions is None:
            return self.sample_size == 128
        return self.use_additional_conditions

    @property
    def scale(self) -> int:
        """By how much positions are stretched beyond those of training at 512 pixels."""
        return self.interpolation_scale or max(self.sample_size // 64, 1)


def positions(config: PixArtConfig, height: int, width: int) -> Float[np.ndarray, "N D"]:
    """Sines and cosines of column and row, for a grid of patches; computed, not learned."""
    base = config.sample_size // config.patch_size
    rows = np.arange(height, dtype=np.float32) / (height / base) / config.scale
    columns = np.arange(width, dtype=np.float32) / (width / base) / config.scale
    quarter = config.width // 4
    frequencies = 1 / 10_000 ** (np.arange(quarter) / quarter)

    def waves(place):
        angles = np.outer(place, frequencies)
        return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)

    grid_rows, grid_columns = np.meshgrid(rows, columns, indexing="ij")
    halves = [waves(grid_columns.ravel()), waves(grid_rows.ravel())]
    return np.concatenate(halves, axis=1).astype(np.float32)


class SizeEmbedding(nn.Module):
    """Timestep, and for the 1024 model resolution and aspect ratio."""

    config: PixArtConfig
    dtype: Any

    @nn.compact
    def __call__(
        self,
        t: Float[Array, " B"],
        resolution: Float[Array, "B 2"],
        aspect_ratio: Float[Array, "B 1"],
    ) -> Float[Array, "B D"]:
        def embed(values, width, name):
            features = sinusoid(values.ravel(), TIME_WIDTH).astype(self.dtype)
            embedded = TimestepEmbedding(width, self.dtype, name=name)(features)
            return embedded.reshape(t.shape[0], -1)

        width = self.config.width
        x = embed(t, width, "timestep_embedder")
        if self.config.is_conditioned_on_size:
            size = embed(resolution, width // 3, "resolution_embedder")
            ratio = embed(aspect_ratio, width // 3, "aspect_ratio_embedder")
            x = x + jnp.concatenate([size, ratio], axis=1)
        return x


class AdaLayerNormSingle(nn.Module):
    """One modulation for all blocks; each adds a table of its own."""

    config: PixArtConfig
    dtype: Any

    @nn.compact
    def __call__(
        self,
        t: Float[Array, " B"],
        resolution: Float[Array, "B 2"],
        aspect_ratio: Float[Array, "B 1"],
    ) -> tuple[Float[Array, "B M"], Float[Array, "B D"]]:
        embedded = SizeEmbedding(self.config, self.dtype, name="emb")(t, resolution, aspect_ratio)
        linear = nn.Dense(6 * self.config.width, dtype=self.dtype, name="linear")
        return linear(nn.silu(embedded)), embedded


class TextProjection(nn.Module):
    """Caption features to the transformer's width."""

    width: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "B S E"]) -> Float[Array, "B S D"]:
        x = nn.Dense(self.width, dtype=self.dtype, name="linear_1")(x)
        return nn.Dense(self.width, dtype=self.dtype, name="linear_2")(nn.gelu(x, approximate=True))


class Block(nn.Module):
    """Self-attention, cross-attention to the caption, MLP."""

    config: PixArtConfig
    dtype: Any

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B P D"],
        modulation: Float[Array, "B M"],
        context: Float[Array, "B S D"],
        mask: Bool[Array, "B S"],
    ) -> Float[Array, "B P D"]:
        config, width = self.config, self.config.width
        table = self.param(
            "scale_shift_table", nn.initializers.normal(width**-0.5, jnp.float32), (6, width)
        )
        modulation = table[None] + modulation.reshape(x.shape[0], 6, width)  # [B, 6, D]
        shift1, scale1, gate1, shift2, scale2, gate2 = jnp.split(modulation, 6, axis=1)

        def norm(x):
            return _plain_norm(config.norm_eps, self.dtype)(x)

        def attend(name):
            return Attention(
                config.num_attention_heads, config.attention_head_dim, width,
                config.attention_bias, self.dtype, name=name,
            )  # fmt: skip

        x = x + gate1 * attend("attn1")(norm(x) * (1 + scale1) + shift1)
        x = x + attend("attn2")(x, context, mask)
        return x + gate2 * FeedForward("gelu_tanh", self.dtype, name="ff")(
            norm(x) * (1 + scale2) + shift2
        )


class PatchEmbedding(nn.Module):
    """Patches of latents to tokens."""

    config: PixArtConfig
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "B h w c"]) -> Float[Array, "B P D"]:
        size = self.config.patch_size
        x = nn.Conv(
            self.config.width, (size, size), (size, size), "VALID", dtype=self.dtype, name="proj"
        )(x)
        batch, height, width, channels = x.shape
        table = jnp.asarray(positions(self.config, height, width))[None]
        return (x.reshape(batch, height * width, channels) + table).astype(self.dtype)


class PixArtTransformer(nn.Module):
    """Latents and captions -> noise and (unused here) its variance."""

    config: PixArtConfig
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B h w c"],
        t: Float[Array, " B"],
        context: Float[Array, "B T E"],
        mask: Bool[Array, "B T"],
        resolution: Float[Array, "B 2"],
        aspect_ratio: Float[Array, "B 1"],
    ) -> Float[Array, "B h w o"]:
        config = self.config
        batch, height, width, _ = x.shape
        size = config.patch_size
        x = PatchEmbedding(config, self.dtype, name="pos_embed")(x)
        adaln = AdaLayerNormSingle(config, self.dtype, name="adaln_single")
        modulation, embedded = adaln(t, resolution, aspect_ratio)
        context = TextProjection(config.width, self.dtype, name="caption_projection")(context)
        for i in range(config.num_layers):
            block = Block(config, self.dtype, name=f"transformer_blocks_{i}")
            x = block(x, modulation, context, mask)
        table = self.param(
            "scale_shift_table",
            nn.initializers.normal(config.width**-0.5, jnp.float32),
            (2, config.width),
        )
        shift, scale = jnp.split(table[None] + embedded[:, None], 2, axis=1)
        x = _plain_norm(config.norm_eps, self.dtype)(x) * (1 + scale) + shift
        x = nn.Dense(size * size * config.out_channels, dtype=self.dtype, name="proj_out")(x)
        x = x.reshape(batch, height // size, width // size, size, size, config.out_channels)
        return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height, width, config.out_channels)


def _plain_norm(epsilon: float, dtype: Any) -> nn.LayerNorm:
    """A norm without parameters."""
    return nn.LayerNorm(epsilon, use_bias=False, use_scale=False, dtype=dtype)
