"""Keys that depend on the seed and on what they are for, never on batch size or device count."""

import zlib

import jax
from jaxtyping import Array, Key


def stage_key(seed: int, purpose: str) -> Key[Array, ""]:
    """The root key of one purpose ("train_sae/candidates", ...) under the experiment's seed."""
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(purpose.encode()) & 0x7FFFFFFF)


def item_key(key: Key[Array, ""], index: int) -> Key[Array, ""]:
    """The key of item `index`: the same in whatever batch the item comes."""
    return jax.random.fold_in(key, index)
