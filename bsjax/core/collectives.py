"""Sums and maxima over mesh axes, inside `jax.shard_map`.

An axis of one device needs no communication; left to XLA, it still costs a copy on CPUs. With no
axes named the functions work outside of `jax.shard_map` too.
"""

import math
from typing import Any

import jax

Axes = tuple[str, ...]


def sum_over(tree: Any, axes: Axes) -> Any:
    """`jax.lax.psum` over the axes that have several devices."""
    axes = _divided(axes)
    return jax.lax.psum(tree, axes) if axes else tree


def max_over(tree: Any, axes: Axes) -> Any:
    """`jax.lax.pmax` over the axes that have several devices."""
    axes = _divided(axes)
    return jax.lax.pmax(tree, axes) if axes else tree


def n_devices(axes: Axes) -> int:
    """Devices over which the axes together divide an array."""
    return math.prod(jax.lax.axis_size(axis) for axis in axes)


def _divided(axes: Axes) -> Axes:
    return tuple(axis for axis in axes if jax.lax.axis_size(axis) > 1)
