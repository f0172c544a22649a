"""Residual blocks over images, as diffusers' UNets and decoders name their parts."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

GROUPS = 32


def conv3(width: int, dtype: Any, name: str) -> nn.Conv:
    """A 3x3 convolution that keeps the size."""
    return nn.Conv(width, (3, 3), padding=((1, 1), (1, 1)), dtype=dtype, name=name)


def conv1(width: int, dtype: Any, name: str) -> nn.Conv:
    """A 1x1 convolution."""
    return nn.Conv(width, (1, 1), dtype=dtype, name=name)


def enlarge(x: Float[Array, "B h w c"], factor: int = 2) -> Float[Array, "B H W c"]:
    """Each pixel becomes a square."""
    return jnp.repeat(jnp.repeat(x, factor, axis=1), factor, axis=2)


def halve(x: Float[Array, "B h w c"]) -> Float[Array, "B H W c"]:
    """Means over squares of two by two pixels."""
    return nn.avg_pool(x, (2, 2), (2, 2))


class Upsampler(nn.Module):
    """Twice the size, then a convolution; the timestep, where there is one, plays no part."""

    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "B h w c"], time: Float[Array, "B e"] | None = None
    ) -> Float[Array, "B H W c"]:
        del time
        return conv3(x.shape[-1], self.dtype, "conv")(enlarge(x))


class ResnetBlock(nn.Module):
    """Two convolutions; the timestep scales and shifts the second's input; may halve or double.

    diffusers' ResnetBlock2D with `time_embedding_norm="scale_shift"`, or "default".
    """

    width: int
    resample: str = ""  # "" | down | up
    epsilon: float = 1e-5
    dtype: Any = jnp.float32
    is_scaled: bool = True  # False: the timestep shifts alone, before the norm

    @nn.compact
    def __call__(
        self, x: Float[Array, "B h w c"], time: Float[Array, "B e"]
    ) -> Float[Array, "B H W o"]:
        def norm(name):
            return nn.GroupNorm(GROUPS, epsilon=self.epsilon, dtype=self.dtype, name=name)

        y = nn.silu(norm("norm1")(x))
        if self.resample:
            resize = enlarge if self.resample == "up" else halve
            x, y = resize(x), resize(y)
        y = conv3(self.width, self.dtype, "conv1")(y)
        n_values = (1 + self.is_scaled) * self.width
        time = nn.Dense(n_values, dtype=self.dtype, name="time_emb_proj")(nn.silu(time))
        time = time[:, None, None, :]
        if self.is_scaled:
            scale, shift = jnp.split(time, 2, axis=-1)
            y = norm("norm2")(y) * (1 + scale) + shift
        else:
            y = norm("norm2")(y + time)
        y = nn.silu(y)
        y = conv3(self.width, self.dtype, "conv2")(y)
        if x.shape[-1] != self.width:
            x = conv1(self.width, self.dtype, "conv_shortcut")(x)
        return x + y
