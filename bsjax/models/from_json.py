"""What a repository's config.json says, as a module takes it."""

from collections.abc import Iterable, Mapping
from typing import Any


def pick(config: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """The values of these keys that are there, lists as tuples; other keys are left alone."""
    found = {name: config[name] for name in names if name in config}
    return {k: tuple(v) if isinstance(v, list) else v for k, v in found.items()}
