"""DINOv2 vision transformers in flax: images in, every token after the final norm out.

Sources: arXiv:2304.07193 (DINOv2), arXiv:2309.16588 (registers); numbers agree with transformers'
Dinov2Model and Dinov2WithRegistersModel. Pure: weights come from `bsjax.convert.dinov2`.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, UInt8

from bsjax.core.dims import Grid
from bsjax.models.cudnn import cudnn_attention, suits_cudnn

IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32)


@dataclasses.dataclass(frozen=True)
class DinoV2Config:
    """Sizes of one variant."""

    width: int
    depth: int
    n_heads: int
    n_registers: int = 0
    mlp: str = "gelu"  # gelu | swiglu
    patch_size: int = 14
    pretrain_grid: int = 37  # side of the learned position embeddings, 518 / 14
    norm_eps: float = 1e-6
    # Added to the grid's sides in the scale of interpolated position embeddings. The original
    # release has 0.1 without registers, and none with them; transformers has none.
    interpolate_offset: float = 0.0

    @property
    def mlp_width(self) -> int:
        """Hidden width: 4 * width, or two thirds of it rounded up to 8 for SwiGLU."""
        if self.mlp == "gelu":
            return 4 * self.width
        return (int(4 * self.width * 2 / 3) + 7) // 8 * 8

    @property
    def antialias(self) -> bool:
        """Variants with registers shrink position embeddings with antialiasing, others without."""
        return self.n_registers > 0

    def grid(self, height: int, width: int) -> Grid:
        """How the tokens of a height x width image lie: class token, registers, patches.

        Raises:
          ValueError: a side is not a multiple of the patch size.
        """
        return Grid(self.n_registers, *count_patches(self.patch_size, height, width))


_SIZES = {
    "vits14": DinoV2Config(width=384, depth=12, n_heads=6),
    "vitb14": DinoV2Config(width=768, depth=12, n_heads=12),
    "vitl14": DinoV2Config(width=1024, depth=24, n_heads=16),
    "vitg14": DinoV2Config(width=1536, depth=40, n_heads=24, mlp="swiglu"),
}
VARIANTS = _SIZES | {
    f"{name}_reg": dataclasses.replace(config, n_registers=4) for name, config in _SIZES.items()
}
# Of the scenes world (bsjax.planted), whose pictures have 64 pixels.
VARIANTS["vitxs8_reg"] = DinoV2Config(
    width=192, depth=6, n_heads=3, n_registers=4, patch_size=8, pretrain_grid=8
)


def token_grid(config: DinoV2Config, height: int, width: int) -> Grid:
    """`DinoV2Config.grid`."""
    return config.grid(height, width)


def count_patches(size: int, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of patches of `size` pixels in an image.

    Raises:
      ValueError: a side is not a multiple of the patch size.
    """
    if height % size or width % size:
        raise ValueError(f"expected sides that are multiples of {size}, got {height}x{width}")
    return height // size, width // size


def normalise_images(images: UInt8[Array, "B H W 3"]) -> Float[Array, "B H W 3"]:
    """Scales to [0, 1], then by ImageNet's mean and standard deviation (METHOD 2.1)."""
    scale = (1 / (255 * IMAGENET_STD))[None, None, None]
    shift = (IMAGENET_MEAN / IMAGENET_STD)[None, None, None]
    return images.astype(jnp.float32) * scale - shift


class DinoV2(nn.Module):
    """Image -> tokens. Matmuls run in `compute_dtype`; parameters, norms, softmax in float32."""

    config: DinoV2Config
    compute_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: Float[Array, "B H W 3"]) -> Float[Array, "B T D"]:
        cfg = self.config
        batch, height, width, _ = images.shape
        grid = token_grid(cfg, height, width)
        patches = to_patches(images, cfg.patch_size)  # [B, P, size * size * 3]
        x = nn.Dense(cfg.width, dtype=self.compute_dtype, name="patch_embed")(patches)  # [B, P, D]

        normal = nn.initializers.normal(0.02, jnp.float32)
        cls_token = self.param("cls_token", normal, (1, 1, cfg.width))
        n_positions = 1 + cfg.pretrain_grid**2
        position = self.param("pos_embed", normal, (1, n_positions, cfg.width))
        position = interpolate_positions(
            position, grid.h, grid.w, cfg.antialias, cfg.interpolate_offset
        )
        x = x + position[:, 1:].astype(x.dtype)
        cls = jnp.broadcast_to(cls_token + position[:, :1], (batch, 1, cfg.width))
        special = [cls.astype(x.dtype)]
        if cfg.n_registers:
            shape = (1, cfg.n_registers, cfg.width)
            registers = self.param("register_tokens", normal, shape)
            registers = jnp.broadcast_to(registers, (batch, *shape[1:]))
            special.append(registers.astype(x.dtype))
        x = jnp.concatenate([*special, x], axis=1)  # [B, T, D]

        for i in range(cfg.depth):
            x = Block(cfg, self.compute_dtype, name=f"block_{i}")(x)
        return _layer_norm(cfg, "norm")(x).astype(jnp.float32)


class Block(nn.Module):
    """Pre-norm transformer block with LayerScale."""

    config: DinoV2Config
    compute_dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        cfg = self.config
        y = _layer_norm(cfg, "norm1")(x).astype(self.compute_dtype)
        x = x + self._scale("ls1") * self._attend(y)
        y = _layer_norm(cfg, "norm2")(x).astype(self.compute_dtype)
        return x + self._scale("ls2") * self._mlp(y)

    def _attend(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        cfg = self.config
        width = x.shape[-1]
        qkv = nn.Dense(3 * width, dtype=self.compute_dtype, name="qkv")(x)
        y = attend(qkv, cfg.n_heads, self.compute_dtype)
        return nn.Dense(width, dtype=self.compute_dtype, name="proj")(y)

    def _mlp(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        cfg = self.config
        if cfg.mlp == "gelu":
            x = nn.Dense(cfg.mlp_width, dtype=self.compute_dtype, name="fc1")(x)
            x = jax.nn.gelu(x, approximate=False)
        else:
            x = nn.Dense(2 * cfg.mlp_width, dtype=self.compute_dtype, name="fc1")(x)
            gate, value = jnp.split(x, 2, axis=-1)
            x = jax.nn.silu(gate) * value
        return nn.Dense(cfg.width, dtype=self.compute_dtype, name="fc2")(x)

    def _scale(self, name: str) -> Float[Array, "1 1 D"]:
        gamma = self.param(name, nn.initializers.ones, (self.config.width,))
        return gamma.astype(self.compute_dtype)[None, None]


def attend(
    qkv: Float[Array, "B T E"], n_heads: int, compute_dtype: DTypeLike
) -> Float[Array, "B T D"]:
    """Every token asks all tokens, head by head; scores and softmax in float32.

    On an NVIDIA GPU cuDNN's kernel computes it in half precision, where it can.

    Args:
      qkv: queries, keys and values of each token side by side, each by heads; E = 3 D.
      n_heads: of D features together.
      compute_dtype: of the products with the values and of the result.
    """
    batch, n_tokens, width = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    qkv = qkv.reshape(batch, n_tokens, 3, n_heads, width // n_heads)
    plain = functools.partial(_attend_plainly, compute_dtype=compute_dtype)
    ways = {"cpu": functools.partial(_attend_by_heads, attend_to=plain), "default": plain}
    if suits_cudnn(qkv.dtype, qkv.shape[-1]):
        ways["cuda"] = _attend_by_cudnn
    return jax.lax.platform_dependent(qkv, **ways).reshape(batch, n_tokens, width)


def _attend_by_heads(
    qkv: Float[Array, "B T 3 H h"], attend_to: Callable[[Array], Array]
) -> Float[Array, "B T H h"]:
    """One head after the other: a CPU's products of two matrices are faster than those of many.

    Not `attention.attention_by_heads`, whose loop costs few tokens more than it saves them.
    """
    heads = [attend_to(qkv[:, :, :, i : i + 1]) for i in range(qkv.shape[3])]
    return jnp.concatenate(heads, axis=2)


def _attend_by_cudnn(qkv: Float[Array, "B T 3 H h"]) -> Float[Array, "B T H h"]:
    return cudnn_attention(*(qkv[:, :, i] for i in range(3)))


def _attend_plainly(
    qkv: Float[Array, "B T 3 H h"], compute_dtype: DTypeLike
) -> Float[Array, "B T H h"]:
    q, k, v = qkv.transpose(2, 0, 3, 1, 4)  # [B, heads, T, head]
    q = q * np.asarray(q.shape[-1] ** -0.5, q.dtype)
    scores = jnp.einsum("bhqd,bhkd->bhqk", q, k, preferred_element_type=jnp.float32)
    # Softmax, divided by its sum behind the product: [T, head] numbers instead of [T, T].
    weights = jnp.exp(scores - jnp.max(scores, axis=-1, keepdims=True))
    total = jnp.sum(weights, axis=-1, keepdims=True)
    y = jnp.einsum("bhqk,bhkd->bhqd", weights.astype(compute_dtype), v)
    return (y / total).astype(compute_dtype).transpose(0, 2, 1, 3)


def _layer_norm(config: DinoV2Config, name: str) -> nn.LayerNorm:
    return nn.LayerNorm(config.norm_eps, dtype=jnp.float32, name=name)


def to_patches(images: Float[Array, "B H W 3"], size: int) -> Float[Array, "B P C"]:
    """Cuts images into patches by rows; a patch's values are ordered row, column, channel."""
    batch, height, width, channels = images.shape
    h, w = height // size, width // size
    x = images.reshape(batch, h, size, w, size, channels).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, h * w, size * size * channels)


def interpolate_positions(
    position: Float[Array, "1 M D"],
    h: int,
    w: int,
    antialias: bool,
    offset: float = 0.0,
    n_class: int = 1,
) -> Float[Array, "1 T D"]:
    """Resizes learned position embeddings [1, n_class + g * g, D] to an h x w grid of patches.

    Bicubic with half-pixel centres as in torch: a = -0.75, or with antialiasing a = -0.5. With an
    offset the grid is sampled as if it had h + offset rows and w + offset columns. The first
    `n_class` embeddings, of class tokens, stay as they are.
    """
    side = int(round((position.shape[1] - n_class) ** 0.5))
    if (h, w) == (side, side):
        return position
    grid = position[0, n_class:].reshape(side, side, -1)
    rows = jnp.asarray(_cubic_weights(side, h, antialias, offset), position.dtype)  # [h, side]
    columns = jnp.asarray(_cubic_weights(side, w, antialias, offset), position.dtype)
    with jax.default_matmul_precision("highest"):
        grid = jnp.einsum("hi,wj,ijd->hwd", rows, columns, grid)
    return jnp.concatenate([position[:, :n_class], grid.reshape(1, h * w, -1)], axis=1)


def _cubic_weights(n_in: int, n_out: int, antialias: bool, offset: float = 0.0) -> np.ndarray:
    """Matrix [n_out, n_in] of bicubic interpolation; the border pixel stands for all beyond it."""
    a = -0.5 if antialias else -0.75
    scale = n_in / (n_out + offset)
    stretch = max(scale, 1.0) if antialias else 1.0
    centres = (np.arange(n_out) + 0.5) * scale - 0.5
    weights = np.zeros((n_out, n_in))
    for i, centre in enumerate(centres):
        reach = int(np.ceil(2 * stretch)) + 1
        taps = np.arange(int(np.floor(centre)) - reach, int(np.floor(centre)) + reach + 2)
        values = _cubic((taps - centre) / stretch, a)
        if antialias:  # Taps outside are dropped and the rest is scaled to sum to one.
            inside = (taps >= 0) & (taps < n_in)
            taps, values = taps[inside], values[inside] / values[inside].sum()
        np.add.at(weights[i], np.clip(taps, 0, n_in - 1), values)
    return weights


def _cubic(x: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic convolution kernel."""
    x = np.abs(x)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
