"""Where an encoder's weights lie, and what every encoder's loading needs: shapes and a seed.

Sources are a hub id, a folder in the hub's layout, one file, or random:SEED.
"""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from bsjax.convert import hub
from bsjax.convert.tensors import (
    TensorSource,
    choose_files,
    open_files,
    open_folder,
    refuse_folder,
    shards_of,
)
from bsjax.core.errors import UserError
from bsjax.core.rng import seed_key

RANDOM = "random:"
CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"
STEMS = ("model", "pytorch_model")
# Asked for where the hub does not tell what it has.
HUB_FILES = ("*.json", "model*.safetensors", "pytorch_model*.bin")
FILE_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


class Found(NamedTuple):
    """Weights on this machine."""

    source: TensorSource
    folder: pathlib.Path | None  # in the hub's layout; None: a file that stands alone


def is_file(weights: str) -> bool:
    """Whether weights name one file, there or not."""
    path = pathlib.Path(weights).expanduser()
    return not path.is_dir() and path.suffix in FILE_SUFFIXES


def find_folder(
    weights: str, flag: str, fetch: Callable[[str], pathlib.Path]
) -> pathlib.Path | None:
    """The folder that a hub id or a path names; None: they name one file, which is there.

    Args:
      weights: hub id, folder, or file.
      flag: what an error tells the user to set.
      fetch: hub id -> folder on this machine.

    Raises:
      UserError: no such file, or no name of any of these.
    """
    path = pathlib.Path(weights).expanduser()
    if path.is_dir():
        return path
    if is_file(weights):
        if not path.is_file():
            raise UserError(f"{weights} does not exist; set {flag} to a file, folder or hub id")
        return None
    if path.is_absolute() or weights.count("/") != 1:
        raise UserError(
            f"{flag}={weights}: expected a hub id (owner/name), a folder with config.json and"
            " model.safetensors, a .safetensors or .pth file, or random:SEED; set it to one"
        )
    return fetch(weights)


def open_weights(weights: str, flag: str, fetch: Callable[[str], pathlib.Path]) -> Found:
    """The tensors that a hub id, a folder or a file names; none is read.

    Raises:
      UserError: as `find_folder`; no weights there, damaged files.
    """
    folder = find_folder(weights, flag, fetch)
    if folder is None:
        return Found(open_files((pathlib.Path(weights).expanduser(),)), None)
    return Found(open_folder(folder, STEMS, flag), folder)


def download(
    repo: str,
    flag: str,
    small: tuple[str, ...] = (CONFIG, PROCESSOR),
    list_repository: Callable[..., Any] = hub.list_repository,
    download_snapshot: Callable[..., pathlib.Path] = hub.download_snapshot,
) -> pathlib.Path:
    """A repository's configs and those of its weights that are read.

    Args:
      repo: owner/name.
      flag: what an error tells the user to set.
      small: names of its configs.
      list_repository: `hub.list_repository`.
      download_snapshot: `hub.download_snapshot`.

    Raises:
      UserError: why they are not to be had.
    """
    listed = list_repository(repo, flag)
    if listed is None:
        return download_snapshot(repo, flag, HUB_FILES)
    names = [name for name in listed if "/" not in name]
    chosen = choose_files(names, STEMS)
    if chosen is None:
        refuse_folder(repo, names, STEMS, flag)
    folder = download_snapshot(repo, flag, (*small, *chosen))
    if chosen[0].endswith(".json"):
        download_snapshot(repo, flag, shards_of(folder / chosen[0]))
    return folder


def describe_random(variant: str, weights: str) -> str:
    """The note of an encoder with random weights."""
    return (
        f"UNTRAINED FEATURES: the {variant} encoder has random weights ({weights})."
        " Concepts are shapes and colours at most; the numbers show how bsjax works, not what a"
        " model draws."
    )


def abstract_params(model: nn.Module) -> dict[str, Any]:
    """Shapes and dtypes of an image model's parameters; nothing is computed."""
    size = model.config.patch_size
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    return jax.eval_shape(model.init, seed_key(0), image)["params"]


def random_params(model: nn.Module, weights: str, flag: str) -> dict[str, Any]:
    """Parameters drawn from the seed of random:SEED, scaled so that tokens differ between images.

    Raises:
      UserError: no whole number.
    """
    try:
        seed = int(weights.removeprefix(RANDOM))
    except ValueError as error:
        raise UserError(
            f"{flag}={weights}: expected random:SEED with a whole number; set it so"
        ) from error
    size = model.config.patch_size
    init = jax.jit(model.init)
    params = init(seed_key(seed), jnp.zeros((1, size, size, 3), jnp.float32))["params"]
    return jax.tree.map(np.asarray, params)
