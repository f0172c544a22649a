"""The U of a diffusion UNet: blocks that halve the size, a middle, blocks that double it again.

What Stable Diffusion's and Kandinsky's have in common; they differ in the layers that they give it.
Names follow diffusers' UNet2DConditionModel.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from bsjax.models.resnet import GROUPS, conv3

Image = Float[Array, "B h w c"]
Layer = Callable[..., nn.Module]  # called with the name of the layer, and what it still lacks


class Level(NamedTuple):
    """The layers of one size of the U.

    Attributes:
      width: channels.
      resnet: (width, name) -> a block of (x, time).
      attend: (name) -> a layer of (x, context); None: there is none at this size.
      shrink: (name) -> a layer of (x, time) that halves the size.
      grow: (name) -> one that doubles it.
    """

    width: int
    resnet: Layer
    attend: Layer | None
    shrink: Layer
    grow: Layer


class DownBlock(nn.Module):
    """Residual blocks, with attention or without, then half the size."""

    level: Level
    n_layers: int
    is_last: bool

    @nn.compact
    def __call__(
        self, x: Image, time: Float[Array, "B e"], context: Float[Array, "B T E"]
    ) -> tuple[Float[Array, "B H W o"], list[Array]]:
        level, kept = self.level, []
        for i in range(self.n_layers):
            x = level.resnet(level.width, name=f"resnets_{i}")(x, time)
            if level.attend is not None:
                x = level.attend(name=f"attentions_{i}")(x, context)
            kept.append(x)
        if not self.is_last:
            x = level.shrink(name="downsamplers_0")(x, time)
            kept.append(x)
        return x, kept


class MidBlock(nn.Module):
    """Residual, attention, residual."""

    level: Level

    @nn.compact
    def __call__(
        self, x: Image, time: Float[Array, "B e"], context: Float[Array, "B T E"]
    ) -> Float[Array, "B h w c"]:
        level = self.level
        x = level.resnet(level.width, name="resnets_0")(x, time)
        x = level.attend(name="attentions_0")(x, context)
        return level.resnet(level.width, name="resnets_1")(x, time)


class UpBlock(nn.Module):
    """Residual blocks over what the way down kept, then twice the size."""

    level: Level
    n_layers: int
    is_last: bool

    @nn.compact
    def __call__(
        self, x: Image, kept: list[Array], time: Float[Array, "B e"],
        context: Float[Array, "B T E"],
    ) -> Float[Array, "B H W o"]:  # fmt: skip
        level = self.level
        for i in range(self.n_layers):
            x = jnp.concatenate([x, kept.pop()], axis=-1)
            x = level.resnet(level.width, name=f"resnets_{i}")(x, time)
            if level.attend is not None:
                x = level.attend(name=f"attentions_{i}")(x, context)
        return x if self.is_last else level.grow(name="upsamplers_0")(x, time)


def walk(
    x: Image,
    time: Float[Array, "B e"],
    context: Float[Array, "B T E"],
    *,
    down: Sequence[Level],
    middle: Level,
    up: Sequence[Level],
    n_layers: int,
    out_channels: int,
    epsilon: float,
    dtype: Any,
) -> Float[Array, "B h w o"]:
    """Down, through the middle and up again; called within a module, whose layers these become.

    Args:
      x: latents.
      time: the timestep's embedding.
      context: tokens that attention looks at.
      down: from the full size to the smallest.
      middle: of the smallest size; with attention.
      up: from the smallest size to the full one, with one residual block more than down.
      n_layers: residual blocks of each size on the way down.
      out_channels: of the result.
      epsilon: of the last norm.
      dtype: of products.
    """
    x = conv3(down[0].width, dtype, "conv_in")(x)
    kept, last = [x], len(down) - 1
    for i, level in enumerate(down):
        x, more = DownBlock(level, n_layers, i == last, name=f"down_blocks_{i}")(x, time, context)
        kept += more
    x = MidBlock(middle, name="mid_block")(x, time, context)
    for i, level in enumerate(up):
        block = UpBlock(level, n_layers + 1, i == last, name=f"up_blocks_{i}")
        x = block(x, kept, time, context)
    norm = nn.GroupNorm(GROUPS, epsilon=epsilon, dtype=dtype, name="conv_norm_out")
    return conv3(out_channels, dtype, "conv_out")(nn.silu(norm(x)))
