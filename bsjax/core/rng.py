"""Keys that depend on the seed and on what they are for, never on batch size or device count.

Nor on settings of jax that other programs leave in the environment: the implementation is named
here, and whoever draws names the dtype.
"""

import os
import zlib
from collections.abc import Mapping
from typing import Any

import jax
from jaxtyping import Array, Int, Key

from bsjax.core.errors import UserError

IMPLEMENTATION = "threefry2x32"
# Settings that change what is drawn and that no argument of a draw can name: they are refused, not
# changed, since they belong to the whole program, which may have other users than this package.
OF_DRAWS = {
    "jax_enable_x64": False,
    "jax_threefry_partitionable": True,
    "jax_random_seed_offset": 0,
}
# Settings that change or stop computations elsewhere; a command refuses them too.
OF_RUNS = OF_DRAWS | {
    "jax_default_matmul_precision": None,
    "jax_numpy_dtype_promotion": "standard",
    "jax_disable_jit": False,
    "jax_debug_nans": False,  # training and sampling look for such numbers themselves
    "jax_debug_infs": False,
    "jax_debug_key_reuse": False,
}


def seed_key(seed: int) -> Key[Array, ""]:
    """The key of a seed, in the implementation that all numbers of this package were made with.

    Raises:
      UserError: jax is set up to draw other numbers.
    """
    _require(OF_DRAWS)
    return jax.random.key(seed, impl=IMPLEMENTATION)


def stage_key(seed: int, purpose: str) -> Key[Array, ""]:
    """The root key of one purpose ("train_sae/candidates", ...) under the experiment's seed.

    Raises:
      UserError: as `seed_key`.
    """
    return jax.random.fold_in(seed_key(seed), zlib.crc32(purpose.encode()) & 0x7FFFFFFF)


def item_key(key: Key[Array, ""], index: int | Int[Array, ""]) -> Key[Array, ""]:
    """The key of item `index`: the same in whatever batch the item comes."""
    return jax.random.fold_in(key, index)


def require_plain_settings() -> None:
    """Refuses settings of jax under which a run would give other numbers, or stop.

    Raises:
      UserError: with the name of the environment's variable.
    """
    _require(OF_RUNS)


def _require(settings: Mapping[str, Any]) -> None:
    for name, expected in settings.items():
        got = getattr(jax.config, name)
        got = getattr(got, "value", got)  # some settings are enumerations
        if got != expected:
            variable = name.upper()
            origin = f"unset {variable}" if variable in os.environ else f"set jax.config.{name}"
            raise UserError(
                f"{variable}={got}: expected {expected}, since bsjax would give other numbers or"
                f" stop; {origin}" + ("" if variable in os.environ else f" to {expected}")
            )
