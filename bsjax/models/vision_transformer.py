"""The image towers of CLIP and SigLIP in flax: images in, every token of the last layer out.

Sources: arXiv:2103.00020 (CLIP), arXiv:2303.15343 (SigLIP), arXiv:2502.14786 (SigLIP 2, whose
checkpoints of a fixed size are built as SigLIP's). Numbers agree with `last_hidden_state` of
transformers' CLIPVisionModel and SiglipVisionModel. Pure: weights come from
`bsjax.convert.vision_transformer`.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, UInt8

from bsjax.core.dims import Grid
from bsjax.models.dinov2 import attend, count_patches, interpolate_positions, to_patches

ACTIVATIONS = {
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_pytorch_tanh": functools.partial(jax.nn.gelu, approximate=True),
}


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """Sizes of one tower."""

    width: int
    depth: int
    n_heads: int
    mlp_width: int
    patch_size: int
    image_size: int  # pixels of the side that position embeddings were learned for
    activation: str  # a key of ACTIVATIONS
    norm_eps: float
    n_class: int  # 1: a class token, as CLIP has; 0: none, as SigLIP

    def grid(self, height: int, width: int) -> Grid:
        """How the tokens of a height x width image lie.

        Where the size that it was trained for is no multiple of the patch size (384 and 14), the
        last rows and columns of pixels are not seen, as in transformers.

        Raises:
          ValueError: a side is neither that size nor a multiple of the patch size.
        """
        sides = (s - s % self.patch_size if s == self.image_size else s for s in (height, width))
        return Grid(0, *count_patches(self.patch_size, *sides), self.n_class)

    def cut(self, images: Float[Array, "B H W 3"]) -> Float[Array, "B P C"]:
        """The patches of images by rows, each with its values by row, column, channel."""
        grid, size = self.grid(*images.shape[1:3]), self.patch_size
        return to_patches(images[:, : grid.h * size, : grid.w * size], size)


def normalise(
    images: UInt8[Array, "B H W 3"], mean: tuple[float, ...], std: tuple[float, ...]
) -> Float[Array, "B H W 3"]:
    """Scales to [0, 1], then by mean and standard deviation of each channel."""
    scale = 1 / (255 * np.asarray(std, np.float32))
    shift = np.asarray(mean, np.float32) / np.asarray(std, np.float32)
    return images.astype(jnp.float32) * scale[None, None, None] - shift[None, None, None]


def clip_config(width: int, depth: int, patch_size: int, image_size: int = 224) -> VisionConfig:
    """CLIP as OpenAI released it: heads of 64 features."""
    return VisionConfig(
        width, depth, width // 64, 4 * width, patch_size, image_size, "quick_gelu", 1e-5, n_class=1
    )


def siglip_config(
    width: int, depth: int, n_heads: int, mlp_width: int, patch_size: int, image_size: int
) -> VisionConfig:
    """SigLIP and SigLIP 2 as Google released them."""
    return VisionConfig(
        width, depth, n_heads, mlp_width, patch_size, image_size, "gelu_pytorch_tanh", 1e-6,
        n_class=0,
    )  # fmt: skip


class ClipVision(nn.Module):
    """CLIP's image tower, a norm in front of its blocks.

    Tokens are those behind the last block. The norm behind them is left out: CLIP has it on the
    class token alone, on the way to the text's space, and transformers' `last_hidden_state` too.
    """

    config: VisionConfig
    compute_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: Float[Array, "B H W 3"]) -> Float[Array, "B T D"]:
        cfg, dtype = self.config, self.compute_dtype
        patches = cfg.cut(images)  # [B, P, size * size * 3]
        x = nn.Dense(cfg.width, use_bias=False, dtype=dtype, name="patch_embed")(patches)
        cls_token = self.param("cls_token", nn.initializers.normal(0.02), (cfg.width,))
        cls = jnp.broadcast_to(cls_token, (x.shape[0], 1, cfg.width))
        x = jnp.concatenate([cls.astype(x.dtype), x], axis=1)  # [B, T, D]
        x = x + _positions(self, cfg, images.shape).astype(x.dtype)
        x = _layer_norm(cfg, "norm_pre")(x).astype(dtype)
        for i in range(cfg.depth):
            x = Block(cfg, dtype, name=f"block_{i}")(x)
        return x.astype(jnp.float32)


class SiglipVision(nn.Module):
    """SigLIP's image tower: patches alone, a norm behind its blocks.

    Tokens are those behind that norm, before the head that pools them.
    """

    config: VisionConfig
    compute_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: Float[Array, "B H W 3"]) -> Float[Array, "B P D"]:
        cfg, dtype = self.config, self.compute_dtype
        patches = cfg.cut(images)  # [B, P, size * size * 3]
        x = nn.Dense(cfg.width, dtype=dtype, name="patch_embed")(patches)  # [B, P, D]
        x = x + _positions(self, cfg, images.shape).astype(x.dtype)
        for i in range(cfg.depth):
            x = Block(cfg, dtype, name=f"block_{i}")(x)
        return _layer_norm(cfg, "norm")(x).astype(jnp.float32)


class Block(nn.Module):
    """Pre-norm transformer block. Matmuls run in `compute_dtype`, norms and softmax in float32."""

    config: VisionConfig
    compute_dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        cfg, dtype = self.config, self.compute_dtype
        y = _layer_norm(cfg, "norm1")(x).astype(dtype)
        qkv = nn.Dense(3 * cfg.width, dtype=dtype, name="qkv")(y)
        x = x + nn.Dense(cfg.width, dtype=dtype, name="proj")(attend(qkv, cfg.n_heads, dtype))
        y = _layer_norm(cfg, "norm2")(x).astype(dtype)
        y = ACTIVATIONS[cfg.activation](nn.Dense(cfg.mlp_width, dtype=dtype, name="fc1")(y))
        return x + nn.Dense(cfg.width, dtype=dtype, name="fc2")(y)


def _positions(module: nn.Module, config: VisionConfig, shape: tuple[int, ...]):
    """Position embeddings [1, T, D] for images of that shape."""
    grid = config.grid(*shape[1:3])
    learned = config.grid(config.image_size, config.image_size)
    normal = nn.initializers.normal(0.02)
    table = module.param("pos_embed", normal, (learned.n_tokens, config.width))
    return interpolate_positions(
        table[None], grid.h, grid.w, antialias=False, n_class=config.n_class
    )


def _layer_norm(config: VisionConfig, name: str) -> nn.LayerNorm:
    return nn.LayerNorm(config.norm_eps, dtype=jnp.float32, name=name)
