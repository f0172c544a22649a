"""Strict tables from another framework's tensor names to flax parameters.

A rule says which tensors it takes (a regular expression), where they go and what is done to them.
Every source tensor must match exactly one rule and every parameter must be set exactly once in the
expected shape; all offenders are listed in one error.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from flax import traverse_util

from bsjax.core.errors import UserError

Transform = Callable[[np.ndarray], np.ndarray]
SHOWN = 4


class Rule(NamedTuple):
    """`pattern` matches a whole source name; `target` is a flax path like ``block_\\1/qkv/kernel``.

    A target of None drops the tensor on purpose. Several rules may send parts of one parameter:
    their targets then end in ``#0``, ``#1``, ... and the parts are joined along the last axis.
    """

    pattern: str
    target: str | None
    transform: Transform = np.asarray


def transpose(tensor: np.ndarray) -> np.ndarray:
    """A linear layer's weight [out, in] as a flax kernel [in, out]."""
    return tensor.T


def convert(
    names: Iterable[str],
    read: Callable[[str], np.ndarray],
    rules: Sequence[Rule],
    expected: Mapping[str, Any],
    source: str,
) -> dict[str, Any]:
    """Converts tensors to the nested parameter tree `expected` (arrays or ShapeDtypeStructs).

    Args:
      names: source names.
      read: gives the tensor of a name; called once each, only after all names fit.
      rules: the table.
      expected: nested tree of things with `.shape` and `.dtype`.
      source: what the weights are called in an error.

    Raises:
      UserError: names that no or several rules match, parameters unset, set twice or misshapen.
    """
    wanted = traverse_util.flatten_dict(dict(expected), sep="/")
    compiled = [(re.compile(rule.pattern), rule) for rule in rules]
    plan: dict[str, list[tuple[int, str, Transform]]] = {}
    faults: list[str] = []
    for name in names:
        matches = [(m, rule) for pattern, rule in compiled if (m := pattern.fullmatch(name))]
        if len(matches) != 1:
            faults.append(f"{name} {'is unexpected' if not matches else 'matches two rules'}")
            continue
        match, rule = matches[0]
        if rule.target is None:
            continue
        path, _, part = match.expand(rule.target).partition("#")
        if path not in wanted:
            faults.append(f"{name} is unexpected")
            continue
        plan.setdefault(path, []).append((int(part or -1), name, rule.transform))
    for path, parts in plan.items():
        numbers = sorted(part for part, _, _ in parts)
        if numbers not in ([-1], list(range(len(numbers)))):
            faults.append(f"{path} is set twice or in part")
    faults += [f"{path} is missing" for path in wanted if path not in plan]
    _raise_faults(faults, source)

    params = {}
    for path, parts in plan.items():
        arrays = [transform(read(name)) for _, name, transform in sorted(parts, key=lambda p: p[0])]
        array = arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=-1)
        if array.shape != wanted[path].shape:
            faults.append(f"{path} has shape {array.shape}, expected {tuple(wanted[path].shape)}")
            continue
        params[path] = np.asarray(array, wanted[path].dtype)
    _raise_faults(faults, source)
    return traverse_util.unflatten_dict(params, sep="/")


def _raise_faults(faults: Sequence[str], source: str) -> None:
    if faults:
        more = f" and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise UserError(f"{source} does not fit the model: {'; '.join(faults[:SHOWN])}{more}")
