"""Strict tables from another framework's tensor names to flax parameters.

A rule says which tensors it takes (a regular expression), where they go and what is done to them.
Every source tensor must match exactly one rule and every parameter must be set exactly once in the
expected shape; all offenders are listed in one error.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util

from bsjax.convert.tensors import TensorSource, refuse_kind
from bsjax.core.errors import UserError

Transform = Callable[[np.ndarray], np.ndarray]
SHOWN = 4
# What to do where the caller knows no flag.
WAY_OUT = "use the weights of that very model"


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
    way_out: str = WAY_OUT,
) -> dict[str, Any]:
    """Converts tensors to the nested parameter tree `expected` (arrays or ShapeDtypeStructs).

    Args:
      names: source names.
      read: gives the tensor of a name; called once each, only after all names fit.
      rules: the table.
      expected: nested tree of things with `.shape` and `.dtype`.
      source: what the weights are called in an error.
      way_out: what an error tells the user to do.

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
    _raise_faults(faults, source, way_out)

    params = {}
    for path, parts in plan.items():
        arrays = [transform(read(name)) for _, name, transform in sorted(parts, key=lambda p: p[0])]
        array = arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=-1)
        if array.shape != wanted[path].shape:
            faults.append(f"{path} has shape {array.shape}, expected {tuple(wanted[path].shape)}")
            continue
        params[path] = np.asarray(array, wanted[path].dtype)
    _raise_faults(faults, source, way_out)
    return traverse_util.unflatten_dict(params, sep="/")


def check(
    source: TensorSource,
    rules: Sequence[Rule],
    expected: Mapping[str, Any],
    what: str,
    way_out: str = WAY_OUT,
) -> None:
    """Holds tensors to the parameter tree `expected` by the files' headers alone.

    Raises:
      UserError: as `convert`, and tensors of a kind that is not read; damage within the numbers
        aside.
    """
    # Bools that take no memory stand for the numbers.
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, np.bool_), dict(expected))
    used = []

    def read(name):
        used.append(name)
        return np.broadcast_to(np.False_, source.shapes[name])

    convert(source.shapes, read, rules, shapes, what, way_out)
    for name in used:
        if name in source.unreadable:
            refuse_kind(source.files[0].parent, name, source.unreadable[name])


def convert_by_name(
    source: TensorSource,
    expected: Mapping[str, Any],
    what: str,
    renames: Sequence[tuple[str, str]] = (),
    ignored: Sequence[str] = (),
    way_out: str = WAY_OUT,
) -> dict[str, Any]:
    """Converts tensors whose dotted torch names are the flax paths, but for known habits.

    Kernels of linear layers and of convolutions are transposed. See `match_names`.
    """
    wanted = traverse_util.flatten_dict(dict(expected), sep="/")
    params = {}
    for path, name in match_names(source.shapes, expected, what, renames, ignored, way_out).items():
        tensor = source.read(name)
        if path.endswith("/kernel"):
            tensor = np.moveaxis(tensor, (0, 1), (-1, -2))
        # A 1x1 convolution may stand for a linear layer.
        params[path] = np.asarray(tensor.reshape(wanted[path].shape), wanted[path].dtype)
    return traverse_util.unflatten_dict(params, sep="/")


def match_names(
    shapes: Mapping[str, tuple[int, ...]],
    expected: Mapping[str, Any],
    what: str,
    renames: Sequence[tuple[str, str]] = (),
    ignored: Sequence[str] = (),
    way_out: str = WAY_OUT,
) -> dict[str, str]:
    """Which tensor each parameter is made of: flax path -> torch name.

    flax writes ``resnets_0`` or ``layers/0`` for torch's ``resnets.0``, and kernel, scale or
    embedding for a layer's weight.

    Args:
      shapes: of the tensors.
      expected: nested tree of things with `.shape` and `.dtype`.
      what: what the weights are called in an error.
      renames: (regular expression, replacement) for torch names, each tried in turn.
      ignored: regular expressions of tensors that are left out on purpose.
      way_out: what an error tells the user to do.

    Raises:
      UserError: tensors that nothing wants, parameters that nothing sets, shapes that differ.
    """
    wanted = traverse_util.flatten_dict(dict(expected), sep="/")
    names: dict[str, str] = {}  # as the flax path has it -> as the file has it
    faults = []
    for name in shapes:
        if any(re.fullmatch(pattern, name) for pattern in ignored):
            continue
        renamed = name
        for pattern, replacement in renames:
            renamed = re.sub(pattern, replacement, renamed)
        if renamed in names:
            faults.append(f"{name} and {names[renamed]} are the same parameter")
        names[renamed] = name
    matches = {}
    for path in wanted:
        found = [name for name in _torch_names(path) if name in names]
        if len(found) == 1:
            matches[path] = names.pop(found[0])
        else:
            faults.append(f"{path} is {'missing' if not found else 'set twice'}")
    faults += [f"{name} is unexpected" for name in names.values()]
    _raise_faults(faults, what, way_out)
    for path, name in matches.items():
        shape = tuple(wanted[path].shape)
        if _flax_shape(path, shapes[name], shape) != shape:
            faults.append(f"{path} has shape {shapes[name]} in the file, expected {shape}")
    _raise_faults(faults, what, way_out)
    return matches


def _flax_shape(path: str, shape: tuple[int, ...], wanted: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of a tensor as a flax parameter."""
    if not path.endswith("/kernel"):
        return shape
    shape = (*shape[2:], shape[1], shape[0])
    if len(wanted) == 2 and shape[:-2] == (1, 1):
        return shape[-2:]
    return shape


def _torch_names(path: str) -> list[str]:
    """Dotted names that a flax path can stand for."""
    parts = path.split("/")
    leaves = {"kernel": "weight", "scale": "weight", "embedding": "weight"}
    parts[-1] = leaves.get(parts[-1], parts[-1])
    choices = [
        (part, re.sub(r"_(\d+)$", r".\1", part)) if re.search(r"_\d+$", part) else (part,)
        for part in parts
    ]
    return [".".join(choice) for choice in itertools.product(*choices)]


def _raise_faults(faults: Sequence[str], source: str, way_out: str) -> None:
    if faults:
        more = f" and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        told = "; ".join(faults[:SHOWN])
        raise UserError(f"{source} does not fit the model: {told}{more}; {way_out}")
