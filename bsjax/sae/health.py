"""Whether a training's state is still one to go on from: every number of it finite.

A loss does not tell: one NaN in the encoder silences every concept, and reconstructing by nothing
has a finite loss.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool


def float_names(state: Any) -> list[str]:
    """Names of the leaves that `are_finite` looks at, in its order."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return [
        jax.tree_util.keystr(path, simple=True, separator=".")
        for path, leaf in leaves
        if jnp.issubdtype(leaf.dtype, jnp.floating)
    ]


def are_finite(state: Any) -> Bool[Array, " L"]:
    """Of each leaf of floats whether all its numbers are finite; one pass over the memory."""
    leaves = (leaf for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.floating))
    return jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves])
