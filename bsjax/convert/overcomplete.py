"""RA-SAEs of overcomplete 0.3.0: their numbers, read block by block.

W alone has 4.1 GB in the published checkpoint. `bsjax.convert.overcomplete_form` says what a
checkpoint may hold.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from absl import logging

from bsjax.convert.overcomplete_form import (
    DICTIONARY,
    ENCODER,
    FUSED,
    RADIUS,
    THRESHOLD,
    WAY_OUT,
    PublishedSAE,
    account,
)
from bsjax.convert.safetensors_file import open_safetensors, write_safetensors
from bsjax.convert.torch_file import TorchFile, open_torch_file
from bsjax.core.errors import UserError
from bsjax.sae.dictionary import project

PUBLISHED_RADIUS = 1.0
ROWS_PER_BLOCK = 1024


def open_published(path: pathlib.Path) -> PublishedSAE:
    """The SAE of a `.pth`, or of a `.safetensors` with the names of a state dict.

    Raises:
      UserError: damaged, or as `account` says.
    """
    if path.suffix != ".safetensors":
        return account(open_torch_file(path))
    tensors, metadata = open_safetensors(path)
    return account(TorchFile(path, tensors, _numbers_of(path, metadata)))


def read_encoder(sae: PublishedSAE) -> dict[str, np.ndarray]:
    """As `bsjax.sae.encoder.EncoderParams`, in float32; UserError where not finite."""
    encoder = {name: _read(sae, source) for name, source in ENCODER.items()}
    return encoder | {"kernel": np.ascontiguousarray(encoder["kernel"].T)}


def read_dictionary(sae: PublishedSAE) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """As `bsjax.sae.dictionary.DictionaryParams`, as stored, and the candidate points [M, D]."""
    dictionary = {name: _read(sae, source) for name, source in DICTIONARY.items()}
    return dictionary, dictionary.pop("C")


def fuse(sae: PublishedSAE) -> np.ndarray:
    """The atoms D [K, D] by blocks of rows; peak memory is one block of W beside C and D.

    exp(multiplier) * (W C + Lam) with W and Lam projected (METHOD 2.4).

    Raises:
      UserError: values that are not finite, or other atoms than those the file itself has in use.
    """
    C, Lam = _read(sae, DICTIONARY["C"]), sae.tensors[DICTIONARY["Lam"]]
    radius = PUBLISHED_RADIUS if sae.radius is None else sae.radius
    with np.errstate(over="ignore"):
        scale = np.exp(_read(sae, DICTIONARY["multiplier"]))
    fused, longest = np.empty(Lam.shape, np.float32), 0.0
    for start in range(0, len(fused), ROWS_PER_BLOCK):
        rows = start, min(start + ROWS_PER_BLOCK, len(fused))
        block = {name: _read(sae, DICTIONARY[name], rows) for name in ("W", "Lam")}
        longest = max(longest, float(np.linalg.norm(block["Lam"], axis=1).max()))
        block = jax.tree.map(np.asarray, _project_block(block | {"multiplier": scale}, radius))
        with np.errstate(over="ignore", invalid="ignore"):
            fused[slice(*rows)] = scale * (block["W"] @ C + block["Lam"])
    if not np.isfinite(fused).all():
        raise UserError(
            f"{sae.path}: the atoms that its dictionary gives are not finite (multiplier"
            f" {float(_read(sae, DICTIONARY['multiplier'])):g}); fetch it again"
        )
    # A step of an optimizer leaves rows a little longer than allowed, till the next projection.
    if sae.radius is None and longest > 1.1 * PUBLISHED_RADIUS:
        logging.warning(
            "%s has rows of %s up to %.3g long and does not say what was allowed (delta): they are"
            " shortened to %g, the published one",
            *(sae.path, DICTIONARY["Lam"], longest, PUBLISHED_RADIUS),
        )
    if (
        FUSED in sae.tensors
        and np.abs(_read(sae, FUSED) - fused).max() > 1e-3 * np.abs(fused).max()
    ):
        raise UserError(
            f"{sae.path}: {FUSED}, which it uses at inference, is not what its W, C, Relax and"
            " multiplier give; call train() and eval() on it and save it again"
        )
    return fused


_project_block = jax.jit(project)


def write_state_dict(
    path: pathlib.Path,
    params: Mapping[str, Any],
    C: np.ndarray,
    threshold: float,
    radius: float = PUBLISHED_RADIUS,
) -> None:
    """Writes parameters under the names of overcomplete's state dict, as safetensors.

    In torch: `model.load_state_dict(safetensors.torch.load_file(path))`, for a `BatchTopKSAE` with
    a `RelaxedArchetypalDictionary`; the running threshold and the radius (delta), which are no part
    of a state dict there, stand in the file's metadata.
    """
    tensors = {source: params["encoder"][name] for name, source in ENCODER.items()}
    tensors[ENCODER["kernel"]] = np.asarray(tensors[ENCODER["kernel"]]).T
    dictionary = dict(params["dictionary"]) | {"C": C}
    tensors |= {source: dictionary[name] for name, source in DICTIONARY.items()}
    metadata = {THRESHOLD: repr(float(threshold)), RADIUS: repr(float(radius)), "format": "pt"}
    write_safetensors(path, tensors, metadata)


def _read(sae: PublishedSAE, name: str, rows: tuple[int, int] | None = None) -> np.ndarray:
    """A tensor, or rows of it, in float32."""
    ref = sae.tensors[name]
    array = ref.read() if rows is None else ref.read_rows(*rows)
    with np.errstate(over="ignore"):  # of float64: infinite then, and refused
        array = np.asarray(array, np.float32)
    is_bad = ~np.isfinite(array)
    if is_bad.any():
        raise UserError(
            f"{sae.path}: {name} has values that are not finite ({is_bad.sum()} of {array.size}"
            " looked at); fetch it again, or take a checkpoint from before the training failed"
        )
    return array


def _numbers_of(path: pathlib.Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """The attributes that `write_state_dict` keeps in a file's metadata."""
    found: dict[str, Any] = {}
    for name, text in metadata.items():
        if name in (THRESHOLD, RADIUS):
            try:
                found[name] = float(text)
            except ValueError as error:
                raise UserError(
                    f"{path}: {name} is {text!r}, expected a number; {WAY_OUT}"
                ) from error
        elif name != "format":  # "pt", which torch's readers ask for
            logging.warning("%s: not used, for it is no part of the SAE: %s", path, name)
    return found
