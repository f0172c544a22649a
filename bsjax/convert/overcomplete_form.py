"""What a checkpoint of overcomplete 0.3.0 may hold: all of it is used, or refused by name.

Read is a BatchTopKSAE of one linear layer with LayerNorm and a RelaxedArchetypalDictionary, as the
whole object (alone or in a DataParallel), as its state dict, or as either inside of dicts.
"""

import math
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from absl import logging

from bsjax.convert.torch_file import TorchFile
from bsjax.convert.torch_pickle import TensorRef
from bsjax.core.errors import UserError
from bsjax.sae.encoder import NORM_EPSILON

ENCODER = {
    "kernel": "encoder.final_block.0.weight",
    "bias": "encoder.final_block.0.bias",
    "scale": "encoder.final_block.1.weight",
    "shift": "encoder.final_block.1.bias",
}
DICTIONARY = {
    "W": "dictionary.W",
    "C": "dictionary.C",
    "Lam": "dictionary.Relax",
    "multiplier": "dictionary.multiplier",
}
# What to do about a checkpoint that is not of this form.
WAY_OUT = "take the published .pth, or a file that `bsjax convert` writes"
WANTED = (*ENCODER.values(), *DICTIONARY.values())
# The atoms that the reference keeps of its own when it is switched to inference.
FUSED = "dictionary._fused_dictionary"
THRESHOLD, RADIUS = "running_threshold", "dictionary.delta"
# Numbers that may be stored as tensors.
NUMBERS = (THRESHOLD, RADIUS, "top_k", "threshold_momentum")
# Where they stand around the SAE, they are meant for it.
AROUND = {THRESHOLD: THRESHOLD, "delta": RADIUS}

RELU = "torch.nn.modules.activation.ReLU"
NORM = "torch.nn.modules.normalization.LayerNorm"
DATA_PARALLEL = "torch.nn.parallel.data_parallel.DataParallel"
# In a graph of modules these must be there, and nothing else in the SAE.
MODULES = {
    "": "overcomplete.sae.batchtopk_sae.BatchTopKSAE",
    "encoder": "overcomplete.sae.modules.MLPEncoder",
    "encoder.mlp_blocks": "torch.nn.modules.container.ModuleList",
    "encoder.final_block": "torch.nn.modules.container.Sequential",
    "encoder.final_block.0": "torch.nn.modules.linear.Linear",
    "encoder.final_block.1": NORM,
    "encoder.final_activation": RELU,
    "dictionary": "overcomplete.sae.archetypal_dictionary.RelaxedArchetypalDictionary",
}
# Of any module: how torch trains it, nothing of what it computes at inference.
OF_TORCH = ("training", "_is_full_backward_hook", "_non_persistent_buffers_set")
OF_DATA_PARALLEL = (*OF_TORCH, "device_ids", "output_device", "src_device_obj", "dim")


class PublishedSAE(NamedTuple):
    """A checkpoint whose tensors have consistent shapes and whose attributes are accounted for."""

    path: pathlib.Path
    tensors: dict[str, TensorRef]  # by the names of `WANTED`; `FUSED`, if it is in use
    radius: float | None  # largest norm of a row of Relax, if the file tells
    threshold: float | None  # running threshold, if the file has one


class _Part(NamedTuple):
    """What stands in the SAE (by its names there), or around it."""

    tensors: dict[str, TensorRef]
    attributes: dict[str, Any]
    modules: dict[str, str]


def account(file: TorchFile) -> PublishedSAE:
    """Finds the SAE in a checkpoint and a place for everything else in it.

    Raises:
      UserError: no RA-SAE of the form that is read, or with anything in it that would change what
        it computes and is not known here: names it.
    """
    root = _find_root(file)
    inside, around = _split(file, root)
    _check_modules(file.path, root, inside, around)
    missing = [name for name in WANTED if name not in inside.tensors]
    if missing:
        raise UserError(f"{file.path} is no RA-SAE: it lacks {listed(missing)}; {WAY_OUT}")
    numbers = _take_numbers(file.path, root, inside, around)
    extra = [f"{root}{name}" for name in inside.tensors if name not in (*WANTED, FUSED)]
    extra += list(around.tensors)
    if extra:
        raise UserError(
            f"{file.path} is no RA-SAE of one linear layer with LayerNorm alone: it also holds"
            f" {listed(extra)}; expected the {len(WANTED)} tensors of a BatchTopKSAE with a"
            f" RelaxedArchetypalDictionary; {WAY_OUT}"
        )
    K, D, M = _check_shapes(file.path, inside.tensors)
    _check_attributes(file.path, root, inside, K, D, M)
    _check_around(file.path, around)
    if inside.attributes.get("dictionary.training", True):
        # Of an earlier inference; training on has made it stale.
        inside.tensors.pop(FUSED, None)
    return PublishedSAE(file.path, inside.tensors, numbers.get(RADIUS), numbers.get(THRESHOLD))


def _find_root(file: TorchFile) -> str:
    """What stands before the names of the SAE: "module." or the like."""
    roots = {
        name.removesuffix(wanted)
        for name in file.tensors
        for wanted in WANTED
        if name == wanted or name.endswith(f".{wanted}")
    }
    if len(roots) > 1:
        raise UserError(
            f"{file.path} holds several RA-SAEs, or parts of them, under"
            f" {listed(sorted(root or '(no name)' for root in roots))}; save the one that is meant"
        )
    return roots.pop() if roots else ""


def _split(file: TorchFile, root: str) -> tuple[_Part, _Part]:
    inside, around = _Part({}, {}, {}), _Part({}, {}, {})
    groups = (file.tensors, file.attributes, file.modules)
    for group, here, there in zip(groups, inside, around, strict=True):
        for name, value in group.items():
            if not root or f"{name}.".startswith(root):
                here[name[len(root) :]] = value
            else:
                there[name] = value
    return inside, around


def _check_modules(path: pathlib.Path, root: str, inside: _Part, around: _Part) -> None:
    """In a graph of modules each must be of the class that is computed here."""
    kind = last(inside.modules.get("", ""))
    if kind == "RATopKSAE":
        raise UserError(
            f"{path} holds a RATopKSAE, whose codes are the top_k of each token: no threshold gives"
            f" them; expected a BatchTopKSAE: {WAY_OUT}"
        )
    wrong = [
        f"{name or 'the whole'} is a {last(origin)}, expected a DataParallel"
        for name, origin in around.modules.items()
        if origin != DATA_PARALLEL
    ]
    for name in {**MODULES, **inside.modules} if inside.modules else ():
        origin, expected = inside.modules.get(name), MODULES.get(name)
        if origin != expected:
            got = "missing" if origin is None else f"a {last(origin)}"
            needed = f"a {last(expected)}" if expected else "no module there"
            wrong.append(f"{f'{root}{name}' or 'the whole'} is {got}, expected {needed}")
    if wrong:
        raise UserError(
            f"{path} is no BatchTopKSAE of one linear layer with LayerNorm: {listed(wrong)};"
            f" {WAY_OUT}"
        )


def _take_numbers(path: pathlib.Path, root: str, inside: _Part, around: _Part) -> dict[str, float]:
    """The running threshold and the radius, from the SAE or from what it is wrapped in.

    Tensors among the attributes become numbers.
    """
    found: dict[str, dict[str, float]] = {THRESHOLD: {}, RADIUS: {}}
    for part, prefix, names in ((inside, root, NUMBERS), (around, "", ())):
        for name, ref in list(part.tensors.items()):
            if name in names or (part is around and last(name) in (*AROUND, "top_k")):
                if math.prod(ref.shape) != 1:
                    raise UserError(
                        f"{path}: {prefix}{name} is {ref.shape}, expected one number; save it so"
                    )
                part.attributes[name] = ref.read().reshape(1)[0].item()
                del part.tensors[name]
        for name, value in part.attributes.items():
            number = AROUND.get(last(name)) if part is around else name
            if number in found and value is not None:
                check(path, f"{prefix}{name}", value, _NUMBER)
                found[number][f"{prefix}{name}"] = float(value)
    for number, values in found.items():
        if len(set(values.values())) > 1:
            told = listed(f"{name} = {value:g}" for name, value in values.items())
            raise UserError(f"{path} has several values of {last(number)}: {told}; leave one")
    return {number: min(values.values()) for number, values in found.items() if values}


def _check_shapes(path: pathlib.Path, tensors: Mapping[str, TensorRef]) -> tuple[int, int, int]:
    """K, D, M."""
    weight, points = tensors[ENCODER["kernel"]].shape, tensors[DICTIONARY["C"]].shape
    if len(weight) != 2 or len(points) != 2:
        raise UserError(
            f"{path} is no RA-SAE: expected matrices as {ENCODER['kernel']} and {DICTIONARY['C']},"
            f" got {weight} and {points}; {WAY_OUT}"
        )
    (K, D), M = weight, points[0]
    shapes = dict.fromkeys(ENCODER.values(), (K,)) | {
        ENCODER["kernel"]: (K, D),
        DICTIONARY["W"]: (K, M),
        DICTIONARY["C"]: (M, D),
        DICTIONARY["Lam"]: (K, D),
        DICTIONARY["multiplier"]: (),
        FUSED: (K, D),
    }
    wrong = [
        f"{name} is {ref.shape}, expected {shapes[name]}"
        for name, ref in tensors.items()
        if ref.shape != shapes[name]
    ]
    wrong += [
        f"{name} is {ref.dtype}, expected floating-point numbers"
        for name, ref in tensors.items()
        if ref.dtype.kind in "iub"
    ]
    if wrong or 0 in (K, D, M):
        raise UserError(
            f"{path} is inconsistent: {listed(wrong) or f'{K} x {D} x {M} numbers'}; fetch or save"
            " it again"
        )
    return K, D, M


def _check_attributes(path: pathlib.Path, root: str, inside: _Part, K: int, D: int, M: int) -> None:
    """Attributes of the SAE: each is known and as it is computed here."""
    rules, unknown = _rules(K, D, M), []
    for name, value in inside.attributes.items():
        holder, _, attribute = name.rpartition(".")
        if name in rules:
            check(path, f"{root}{name}", value, rules[name])
        elif not (attribute in OF_TORCH and holder in MODULES) and holder != "_fitted_info":
            unknown.append(f"{root}{name} = {str(value)[:40]}")
    if unknown:
        raise UserError(
            f"{path} has {listed(unknown)}, which is no part of a BatchTopKSAE as it is known here;"
            " leave it out, or save the state dict"
        )
    if inside.attributes.get("dictionary.use_multiplier", True) is False:
        multiplier = float(inside.tensors[DICTIONARY["multiplier"]].read())
        if multiplier:
            raise UserError(
                f"{path}: dictionary.multiplier is {multiplier:g}, expected 0, for use_multiplier"
                " is False; set one of them to match the other, and save it again"
            )


def _check_around(path: pathlib.Path, around: _Part) -> None:
    """Attributes of a DataParallel must be its own; what stands beside in a dict is told."""
    unused = []
    for name, value in around.attributes.items():
        holder, _, attribute = name.rpartition(".")
        if attribute in AROUND:
            continue
        if holder not in around.modules:
            unused.append(name)
        elif attribute not in OF_DATA_PARALLEL:
            raise UserError(
                f"{path} has {name} = {str(value)[:40]}, which is no part of a DataParallel as it"
                " is known here; leave it out, or save the state dict"
            )
        elif attribute == "dim":
            check(path, name, value, _equal(0))
    if unused:
        logging.warning("%s: not used, for it is no part of the SAE: %s", path, listed(unused))


Rule = tuple[Callable[[Any], bool], str]


def _equal(expected: Any) -> Rule:
    return (lambda value: type(value) is type(expected) and value == expected), repr(expected)


def _is_real(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


_ANY: Rule = (lambda value: True), "anything"
_FLAG: Rule = (lambda value: type(value) is bool), "True or False"
_COUNT: Rule = (lambda value: type(value) is int and value > 0), "a positive whole number"
_NUMBER: Rule = (lambda value: _is_real(value) and value >= 0), "a finite number, 0 or more"


def _rules(K: int, D: int, M: int) -> dict[str, Rule]:
    """What each attribute must be, with that in words."""
    return {
        "device": _ANY,
        "fitted": _ANY,
        "nb_concepts": _equal(K),
        # Of training alone; at inference the running threshold has its place.
        "top_k": ((lambda v: v is None or _COUNT[0](v)), f"{_COUNT[1]} or None"),
        "threshold_momentum": _NUMBER,
        THRESHOLD: ((lambda v: v is None or _NUMBER[0](v)), f"{_NUMBER[1]}, or None"),
        "encoder.input_size": _equal(D),
        "encoder.n_components": _equal(K),
        "encoder.nb_blocks": ((lambda v: type(v) is int and v in (0, 1)), "1, no hidden block"),
        # Of the hidden blocks, of which there are none.
        "encoder.hidden_dim": _ANY,
        "encoder.hidden_activation": _ANY,
        "encoder.residual": _FLAG,
        "encoder.output_activation": _equal(RELU),
        "encoder.norm_layer": _equal(NORM),
        "encoder.final_block.0.in_features": _equal(D),
        "encoder.final_block.0.out_features": _equal(K),
        "encoder.final_block.1.normalized_shape": (
            (lambda v: type(v) in (tuple, list) and tuple(v) == (K,)),
            repr((K,)),
        ),
        "encoder.final_block.1.eps": (
            (lambda v: _is_real(v) and math.isclose(v, NORM_EPSILON, rel_tol=1e-6)),
            repr(NORM_EPSILON),
        ),
        "encoder.final_block.1.elementwise_affine": _equal(True),
        "encoder.final_activation.inplace": _FLAG,
        "dictionary.in_dimensions": _equal(D),
        "dictionary.nb_concepts": _equal(K),
        "dictionary.nb_candidates": _equal(M),
        "dictionary.device": _ANY,
        "dictionary.use_multiplier": _FLAG,
        RADIUS: _NUMBER,
        FUSED: _equal(None),
    }


def check(path: pathlib.Path, name: str, value: Any, rule: Rule) -> None:
    """Raises `UserError` for a value that is not as the rule says."""
    if not rule[0](value):
        raise UserError(f"{path}: {name} is {str(value)[:80]}, expected {rule[1]}; {WAY_OUT}")


def last(name: str) -> str:
    """The part of a dotted name behind its last dot."""
    return name.rpartition(".")[2]


def listed(names: Iterable[str], most: int = 8) -> str:
    """Names with commas between, of many the first few."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
