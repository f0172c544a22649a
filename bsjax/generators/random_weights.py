"""Parameters drawn from a seed: a generator that draws noise, to see that all of it runs."""

import zlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bsjax.core.errors import UserError
from bsjax.generators.protocol import MAIN, Generator, flag_of

RANDOM = "random:"


def random_params(
    generator: Generator, weights: str, names: Sequence[str] | None = None
) -> dict[str, Any]:
    """Parameters drawn from a seed, each with its fan-in's scale."""
    dtype = jnp.dtype(generator.settings.dtype)
    return {
        key: random_component(key, generator.components[key].shapes, weights, dtype)
        for key in names or generator.components
    }


def random_component(name: str, shapes: Any, weights: str, dtype: Any) -> Any:
    """Parameters of one component; each depends on the seed and on the names alone."""
    try:
        seed = int(weights.removeprefix(RANDOM))
    except ValueError as error:
        raise UserError(
            f"{flag_of(MAIN)}={weights}: expected random:SEED with a whole number; set it so"
        ) from error
    return _random_tree(shapes, (seed, zlib.crc32(name.encode())), dtype)


def _random_tree(shapes: Any, seed: tuple[int, int], dtype: Any) -> Any:
    def draw(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name.endswith("scale"):
            return np.ones(leaf.shape, dtype)
        if name.endswith("bias"):
            return np.zeros(leaf.shape, dtype)
        fan_in = np.prod(leaf.shape[:-1]) if name.endswith("kernel") else leaf.shape[-1]
        rng = np.random.default_rng([*seed, zlib.crc32(name.encode())])
        return (rng.standard_normal(leaf.shape, np.float32) / np.sqrt(fan_in)).astype(dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)
