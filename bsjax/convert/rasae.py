"""RA-SAE weights: the published .pth without torch, and the result of our own `train_sae`.

Reads the published file block by block (W alone has 4.1 GB), fuses the dictionary once and keeps
the fused result beside it, so that the next start reads 200 MB.
"""

import hashlib
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from bsjax.convert.hub import download_snapshot
from bsjax.convert.torch_file import TensorRef, TorchFile, open_torch_file
from bsjax.core.artifacts import atomic_path, hash_json
from bsjax.core.errors import UserError
from bsjax.sae.dictionary import project

FLAG = "--config.sae.weights"
PUBLISHED = "RA-SAE-DINOv2-32k.pth"
TRAINED = "sae.safetensors"
OVERCOMPLETE = "overcomplete.safetensors"
FUSED_SCHEMA = 1
ROWS_PER_BLOCK = 1024
CACHE_DIR = pathlib.Path("~/.cache/bsjax")

_NAMES = {
    "kernel": "encoder.final_block.0.weight",
    "bias": "encoder.final_block.0.bias",
    "scale": "encoder.final_block.1.weight",
    "shift": "encoder.final_block.1.bias",
}
_DICTIONARY = {
    "W": "dictionary.W",
    "C": "dictionary.C",
    "Lam": "dictionary.Relax",
    "multiplier": "dictionary.multiplier",
}


class LoadedSAE(NamedTuple):
    """An SAE ready for inference, host arrays in float32."""

    encoder: dict[str, np.ndarray]  # as bsjax.sae.encoder.EncoderParams
    dictionary: np.ndarray  # [K, D], projected and fused
    threshold: float | np.ndarray | None  # one, or one a concept; None: the checkpoint has none
    source: str
    digest: str

    @property
    def width(self) -> int:
        return self.encoder["kernel"].shape[0]

    @property
    def n_concepts(self) -> int:
        return self.encoder["kernel"].shape[1]


def load_rasae(weights: str) -> LoadedSAE:
    """Loads an RA-SAE for inference.

    Args:
      weights: `.pth` in the published form, folder of a `train_sae` stage (or the workdir it lies
        in), `.safetensors` as `save_trained` writes, or hub id.

    Raises:
      UserError: no such file, damaged, of another form, or asking to run code.
    """
    path = pathlib.Path(weights).expanduser()
    if path.is_dir():
        for folder in (path, path / "sae"):
            if (folder / TRAINED).is_file():
                return load_trained(folder / TRAINED)
        raise UserError(f"{weights} holds no {TRAINED}; set {FLAG} to the sae folder of a workdir")
    if path.is_file():
        if path.suffix == ".safetensors":
            return load_trained(path)
        return load_published(path)
    if path.suffix or path.is_absolute() or weights.count("/") != 1:
        raise UserError(f"{FLAG}={weights} does not exist; expected a .pth, a folder or a hub id")
    return load_rasae(str(download_snapshot(weights, FLAG, ("*.pth",)) / PUBLISHED))


def load_published(path: pathlib.Path) -> LoadedSAE:
    """Reads a `.pth` of the published form, or the fused copy made of it earlier.

    Atoms are exp(multiplier) * (W C + Lam) with W and Lam projected (METHOD 2.4), computed in
    blocks of rows of W.
    """
    stat = path.stat()
    key = {"schema": FUSED_SCHEMA, "bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    caches = (
        path.with_suffix(".fused.safetensors"),
        CACHE_DIR.expanduser() / f"{hash_json(str(path.resolve()))}.fused.safetensors",
    )
    for cache in caches:
        loaded = _read_fused(cache, hash_json(key), str(path))
        if loaded is not None:
            return loaded
    tensors, radius = _published_tensors(open_torch_file(path))
    encoder = {name: tensors[source].read() for name, source in _NAMES.items()}
    encoder = {name: np.asarray(array, np.float32) for name, array in encoder.items()}
    encoder["kernel"] = np.ascontiguousarray(encoder["kernel"].T)
    fused = _fuse(tensors, radius)
    digest = _digest(encoder, fused)
    _write_fused(caches, encoder, fused, {"key": hash_json(key), "digest": digest})
    return LoadedSAE(encoder, fused, None, str(path), digest)


def load_parameters(weights: str) -> tuple[dict[str, Any], np.ndarray]:
    """Trainable parameters of an RA-SAE, to train on from there.

    Args:
      weights: `.pth` in the published form, hub id, or what `save_overcomplete` wrote.

    Returns:
      The parameters as `bsjax.sae.train_step.SAEState.params`, and the candidate points [M, D].

    Raises:
      UserError: no such file, damaged, or of another form.
    """
    path = pathlib.Path(weights).expanduser()
    if path.is_file() and path.suffix == ".safetensors":
        try:
            tensors = load_file(path)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path} is damaged ({error}); export or fetch it again") from error
        missing = [
            name for name in (*_NAMES.values(), *_DICTIONARY.values()) if name not in tensors
        ]
        if missing:
            raise UserError(
                f"{path} lacks {', '.join(missing)}; expected the file that `bsjax convert` writes"
            )
    elif path.is_file():
        refs, _ = _published_tensors(open_torch_file(path))
        tensors = {name: ref.read() for name, ref in refs.items()}
    elif weights.count("/") == 1 and not path.suffix:
        flag = "--config.train.init_from"
        return load_parameters(str(download_snapshot(weights, flag, ("*.pth",)) / PUBLISHED))
    else:
        raise UserError(
            f"train.init_from={weights} does not exist; expected a .pth or .safetensors"
        )

    def take(names):
        return {name: np.asarray(tensors[source], np.float32) for name, source in names.items()}

    encoder, dictionary = take(_NAMES), take(_DICTIONARY)
    encoder["kernel"] = np.ascontiguousarray(encoder["kernel"].T)
    C = dictionary.pop("C")
    return {"encoder": encoder, "dictionary": dictionary}, C


def save_overcomplete(
    path: pathlib.Path, params: Mapping[str, Any], C: np.ndarray, threshold: float
) -> None:
    """Writes parameters under the names of overcomplete's state dict, as safetensors.

    In torch: `model.load_state_dict(safetensors.torch.load_file(path))`, for a `BatchTopKSAE` with
    a `RelaxedArchetypalDictionary`; the running threshold, which is no part of a state dict there,
    stands in the file's metadata.
    """
    tensors = {
        source: np.asarray(params["encoder"][name], np.float32) for name, source in _NAMES.items()
    }
    tensors[_NAMES["kernel"]] = np.ascontiguousarray(tensors[_NAMES["kernel"]].T)
    dictionary = dict(params["dictionary"]) | {"C": C}
    tensors |= {
        source: np.asarray(dictionary[name], np.float32) for name, source in _DICTIONARY.items()
    }
    with atomic_path(path) as temporary:
        save_file(tensors, os.fspath(temporary), metadata={"running_threshold": repr(threshold)})


def _published_tensors(file: TorchFile) -> tuple[dict[str, TensorRef], float]:
    """The eight tensors with consistent shapes, and the radius of the relaxation."""
    tensors = {name.removeprefix("module."): ref for name, ref in file.tensors.items()}
    wanted = [*_NAMES.values(), *_DICTIONARY.values()]
    missing = [name for name in wanted if name not in tensors]
    if missing:
        raise UserError(f"{file.path} is no RA-SAE: it lacks {', '.join(missing)}; see {FLAG}")
    weight, points = (tensors[n].shape for n in ("encoder.final_block.0.weight", "dictionary.C"))
    if len(weight) != 2 or len(points) != 2:
        raise UserError(
            f"{file.path} is no RA-SAE: expected matrices as encoder weight and candidate points,"
            f" got {weight} and {points}; see {FLAG}"
        )
    (K, D), M = weight, points[0]
    shapes = dict.fromkeys(_NAMES.values(), (K,)) | {
        "encoder.final_block.0.weight": (K, D),
        "dictionary.W": (K, M),
        "dictionary.C": (M, D),
        "dictionary.Relax": (K, D),
        "dictionary.multiplier": (),
    }
    wrong = [
        f"{name} is {tensors[name].shape}, expected {shape}"
        for name, shape in shapes.items()
        if tensors[name].shape != shape
    ]
    if wrong:
        raise UserError(f"{file.path} is inconsistent: {'; '.join(wrong)}")
    radius = file.attributes.get("module.dictionary.delta")
    radius = radius if radius is not None else file.attributes.get("dictionary.delta", 1.0)
    return tensors, float(radius)


def _fuse(tensors: Mapping[str, TensorRef], radius: float) -> np.ndarray:
    """D [K, D] by blocks of rows; peak memory is one block of W beside C and D."""
    C = np.asarray(tensors["dictionary.C"].read(), np.float32)
    scale = np.exp(np.float32(tensors["dictionary.multiplier"].read()))
    W, Lam = tensors["dictionary.W"], tensors["dictionary.Relax"]
    fused = np.empty(Lam.shape, np.float32)
    for start in range(0, W.shape[0], ROWS_PER_BLOCK):
        stop = min(start + ROWS_PER_BLOCK, W.shape[0])
        block = {
            "W": np.asarray(W.read_rows(start, stop), np.float32),
            "Lam": np.asarray(Lam.read_rows(start, stop), np.float32),
            "multiplier": np.float32(0),
        }
        block = jax.tree.map(np.asarray, _project_block(block, radius))
        fused[start:stop] = scale * (block["W"] @ C + block["Lam"])
    return fused


_project_block = jax.jit(project)


def save_trained(
    path: pathlib.Path,
    encoder: Mapping[str, Any],
    dictionary: Any,
    threshold: float | np.ndarray,
    source: str,
) -> LoadedSAE:
    """Writes an SAE for inference as safetensors and returns it as it will be loaded.

    Args:
      path: of the file.
      encoder: as `bsjax.sae.encoder.EncoderParams`.
      dictionary: atoms [K, D].
      threshold: of all concepts, or of each [K].
      source: what the file tells of where it comes from.
    """
    encoder = {name: np.asarray(array, np.float32) for name, array in encoder.items()}
    dictionary = np.asarray(dictionary, np.float32)
    digest = _digest(encoder, dictionary)
    metadata = {"digest": digest, "source": source}
    if np.ndim(threshold):
        threshold = np.asarray(threshold, np.float32)
        _save(path, encoder, dictionary, metadata, {"threshold": threshold})
    else:
        threshold = float(threshold)
        _save(path, encoder, dictionary, metadata | {"threshold": repr(threshold)})
    return LoadedSAE(encoder, dictionary, threshold, str(path), digest)


def load_trained(path: pathlib.Path) -> LoadedSAE:
    """Reads what `save_trained` wrote."""
    encoder, dictionary, metadata = _load(path)
    threshold = metadata.get("threshold")
    if isinstance(threshold, str):
        threshold = float(threshold)
    digest = metadata.get("digest") or _digest(encoder, dictionary)
    return LoadedSAE(encoder, dictionary, threshold, str(path), digest)


def _read_fused(path: pathlib.Path, key: str, source: str) -> LoadedSAE | None:
    """The fused copy, if it is one of this very file."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="numpy") as handle:
            if (handle.metadata() or {}).get("key") != key:
                return None
        encoder, dictionary, metadata = _load(path)
    except (UserError, SafetensorError, OSError) as error:
        logging.warning("%s is damaged and is made anew (%s)", path, error)
        return None
    return LoadedSAE(encoder, dictionary, None, source, metadata["digest"])


def _write_fused(caches, encoder, dictionary, metadata) -> None:
    """Keeps the fused copy in the first place that can be written; a run never fails for it."""
    for path in caches:
        try:
            _save(path, encoder, dictionary, metadata)
        except (OSError, UserError) as error:
            logging.info("the fused dictionary is not kept at %s (%s)", path, error)
        else:
            return


def _save(path, encoder, dictionary, metadata, more=None) -> None:
    tensors = {f"encoder.{name}": array for name, array in encoder.items()}
    tensors |= {"dictionary": dictionary, **(more or {})}
    with atomic_path(path) as temporary:
        save_file(tensors, os.fspath(temporary), metadata=metadata)


def _load(path: pathlib.Path) -> tuple[dict[str, np.ndarray], np.ndarray, dict[str, str]]:
    try:
        with safe_open(path, framework="numpy") as handle:
            metadata = handle.metadata() or {}
            encoder = {name: handle.get_tensor(f"encoder.{name}") for name in _NAMES}
            dictionary = handle.get_tensor("dictionary")
            if "threshold" in handle.keys():  # noqa: SIM118 (a safetensors file is no dict)
                metadata["threshold"] = handle.get_tensor("threshold")
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path} is damaged or no SAE of bsjax ({error}); train or fetch it again"
        ) from error
    return encoder, dictionary, metadata


def _digest(encoder: Mapping[str, np.ndarray], dictionary: np.ndarray) -> str:
    """Identifies the weights by their content, whatever file they come from."""
    sha = hashlib.sha256()
    for array in (*(encoder[name] for name in sorted(encoder)), dictionary):
        sha.update(str(array.shape).encode())
        sha.update(np.ascontiguousarray(array))
    return sha.hexdigest()[:16]
