"""What a repository in the hub's layout says of itself: configs, and the classes that it names."""

import pathlib
from collections.abc import Mapping
from typing import Any

from absl import logging

from bsjax.convert.config_keys import read_object
from bsjax.core.errors import UserError

INDEX = "model_index.json"  # what the pipeline is made of
SMALL_FILES = ("*.json", "*.txt", "*.model")  # configs and vocabularies


def read_config(folder: pathlib.Path, flag: str) -> dict[str, Any]:
    names = ("config.json", "scheduler_config.json")
    for name in names:
        content = read_object(folder / name)
        if content is not None:
            return content
    raise UserError(f"{folder} has no {names[0]}; set {flag} to a complete repository")


def _class_in(index: Mapping[str, Any], folder: str) -> str | None:
    """The class that model_index.json names for a folder: its entry is [library, class]."""
    entry = index.get(folder)
    if isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], str):
        return entry[1]
    return None


def with_named_class(
    config: dict[str, Any], index: Mapping[str, Any], folder: str
) -> dict[str, Any]:
    """A scheduler's config with the class that the pipeline makes of it: the index names it."""
    name = _class_in(index, folder)
    if folder != "scheduler" or name is None:
        return config
    if config.get("_class_name", name) != name:
        logging.warning(
            "the scheduler is %s, as %s has it; scheduler_config.json says %s",
            name, INDEX, config["_class_name"],
        )  # fmt: skip
    return config | {"_class_name": name}


def tokenizer_class(index: Mapping[str, Any], folder: pathlib.Path, default: str) -> str:
    """The class that the repository names: in its index, else in the tokenizer's own config."""
    own = read_object(folder / "tokenizer_config.json", {}).get("tokenizer_class")
    return _class_in(index, folder.name) or (own if isinstance(own, str) else default)
