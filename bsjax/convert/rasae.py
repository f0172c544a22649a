"""RA-SAE weights: the published .pth without torch, and the result of our own `train_sae`.

The published file's dictionary is fused once and the result kept beside it, so that the next start
reads 200 MB instead of 4.4 GB. Files of ours say by checksums what was written.
"""

import hashlib
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from bsjax.convert.hub import download_snapshot
from bsjax.convert.overcomplete import (
    PUBLISHED_RADIUS,
    fuse,
    open_published,
    read_dictionary,
    read_encoder,
    write_state_dict,
)
from bsjax.convert.overcomplete_form import DICTIONARY, ENCODER, WANTED, listed
from bsjax.convert.safetensors_file import open_safetensors, write_safetensors
from bsjax.core.artifacts import hash_json
from bsjax.core.errors import UserError
from bsjax.models.rasae import RASAE

FLAG = "--config.sae.weights"
PUBLISHED = "RA-SAE-DINOv2-32k.pth"
TRAINED = "sae.safetensors"
OVERCOMPLETE = "overcomplete.safetensors"
FUSED_SCHEMA = 2  # 1 kept no threshold

# Files from before there was a checksum have these alone.
_FIRST_METADATA = {"digest", "source", "threshold"}
_TENSORS = (*(f"encoder.{name}" for name in ENCODER), "dictionary")


class LoadedSAE(NamedTuple):
    """An SAE ready for inference, host arrays in float32."""

    encoder: dict[str, np.ndarray]  # as bsjax.sae.encoder.EncoderParams
    dictionary: np.ndarray  # [K, D], projected and fused
    threshold: float | np.ndarray | None  # one, or one per concept; None: the checkpoint has none
    source: str
    digest: str  # of encoder and dictionary

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
        in), `.safetensors` as `save_trained` or `save_overcomplete` writes; hub id (pushed, too).

    Raises:
      UserError: no such file, damaged, of another form, with values that are not finite, or asking
        to run code.
    """
    path, is_ours = _locate(weights, FLAG)
    return load_trained(path) if is_ours else load_published(path)


def look_at_rasae(weights: str, flag: str = FLAG) -> tuple[int, int]:
    """Width of the features and number of concepts of an RA-SAE, by the file's header alone.

    Args:
      weights: as `load_rasae` takes them.
      flag: what an error tells the user to set.

    Raises:
      UserError: no such file, a damaged header, no RA-SAE.
    """
    path, is_ours = _locate(weights, flag)
    if is_ours:
        refs, _ = open_safetensors(path)
        _check_names(path, refs)
        width, n_concepts = refs["encoder.kernel"].shape
    else:
        n_concepts, width = open_published(path).tensors[ENCODER["kernel"]].shape
    return width, n_concepts


def digest_of_header(weights: str, flag: str = FLAG) -> str:
    """The digest that a file of ours says it has; "" for other files, which do not tell.

    Raises:
      UserError: no such file, or a damaged header.
    """
    path, is_ours = _locate(weights, flag)
    return open_safetensors(path)[1].get("digest", "") if is_ours else ""


def look_at_parameters(weights: str) -> tuple[int, int, int]:
    """Width, concepts and candidate points of what `load_parameters` reads, by the header alone.

    Raises:
      UserError: as `load_parameters`, values aside.
    """
    tensors = open_published(_locate_parameters(weights)).tensors
    n_concepts, width = tensors[ENCODER["kernel"]].shape
    return width, n_concepts, tensors[DICTIONARY["C"]].shape[0]


def _locate(weights: str, flag: str) -> tuple[pathlib.Path, bool]:
    """The file of an RA-SAE, fetched where a hub id names it, and whether it is of our form."""
    path = pathlib.Path(weights).expanduser()
    if path.is_dir():
        for folder in (path, path / "sae"):
            if (folder / TRAINED).is_file():
                return folder / TRAINED, True
        raise UserError(f"{weights} holds no {TRAINED}; set {flag} to the sae folder of a workdir")
    if path.is_file():
        if path.suffix == ".safetensors":
            names = tuple(open_safetensors(path)[0])
            return path, not any(name.endswith(WANTED) for name in names)
        return path, False
    if path.suffix or path.is_absolute() or weights.count("/") != 1:
        raise UserError(f"{flag}={weights} does not exist; set it to a .pth, a folder or a hub id")
    folder = download_snapshot(weights, flag, ("*.pth", f"sae/{TRAINED}"))
    is_pushed = (folder / "sae").is_dir()  # by `bsjax push`
    return _locate(str(folder if is_pushed else folder / PUBLISHED), flag)


def cache_dir() -> pathlib.Path:
    """Where fused copies go whose checkpoint lies in a folder that cannot be written."""
    caches = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return caches.expanduser() / "bsjax"


def load_published(path: pathlib.Path) -> LoadedSAE:
    """Reads a checkpoint of the published form, or the fused copy made of it earlier.

    Raises:
      UserError: anything in it that is not known, as `overcomplete_form.account` says.
    """
    stat = path.stat()
    key = {"schema": FUSED_SCHEMA, "bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    caches = (
        path.with_suffix(".fused.safetensors"),
        cache_dir() / f"{hash_json(str(path.resolve()))}.fused.safetensors",
    )
    for cache in caches:
        loaded = _read_fused(cache, hash_json(key), str(path))
        if loaded is not None:
            return loaded
    published = open_published(path)
    encoder, fused = read_encoder(published), fuse(published)
    sae = LoadedSAE(encoder, fused, published.threshold, str(path), _digest(encoder, fused))
    _write_fused(caches, sae, hash_json(key))
    return sae


def load_parameters(weights: str) -> tuple[dict[str, Any], np.ndarray]:
    """Trainable parameters of an RA-SAE, to train on from there.

    Args:
      weights: `.pth` in the published form, hub id, or what `save_overcomplete` wrote.

    Returns:
      The parameters as `bsjax.sae.train_step.SAEState.params`, and the candidate points [M, D].

    Raises:
      UserError: no such file, damaged, of another form, or with values that are not finite.
    """
    published = open_published(_locate_parameters(weights))
    dictionary, C = read_dictionary(published)
    return {"encoder": read_encoder(published), "dictionary": dictionary}, C


def _locate_parameters(weights: str) -> pathlib.Path:
    path, flag = pathlib.Path(weights).expanduser(), "--config.train.init_from"
    if path.is_file():
        return path
    if weights.count("/") == 1 and not path.suffix:
        return _locate_parameters(str(download_snapshot(weights, flag, ("*.pth",)) / PUBLISHED))
    raise UserError(
        f"{flag}={weights} does not exist; set it to a .pth, a .safetensors or a hub id"
    )


def save_overcomplete(
    path: pathlib.Path,
    params: Mapping[str, Any],
    C: np.ndarray,
    threshold: float,
    relax_radius: float = PUBLISHED_RADIUS,
) -> None:
    """Writes parameters as overcomplete's state dict (`overcomplete.write_state_dict`)."""
    write_state_dict(path, params, C, threshold, relax_radius)


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

    Raises:
      UserError: shapes that do not fit, values that are not finite, a threshold below 0.
    """
    encoder = {name: np.asarray(encoder[name], np.float32) for name in ENCODER}
    dictionary = np.asarray(dictionary, np.float32)
    threshold = np.asarray(threshold, np.float32) if np.ndim(threshold) else float(threshold)
    sae = LoadedSAE(encoder, dictionary, threshold, str(path), _digest(encoder, dictionary))
    _save(path, sae, {"source": source})
    return sae


def load_trained(path: pathlib.Path) -> LoadedSAE:
    """Reads what `save_trained` wrote.

    Raises:
      UserError: damaged (what was read is not what was written), or no such file.
    """
    return _load(path)[0]


def as_module(sae: LoadedSAE, threshold: float | None = None) -> tuple[RASAE, dict[str, Any]]:
    """The SAE as a Flax module for inference, and its variables.

    Args:
      sae: as loaded.
      threshold: instead of the SAE's own.

    Raises:
      UserError: no threshold given, and the SAE has none.
    """
    threshold = sae.threshold if threshold is None else threshold
    if threshold is None:
        raise UserError(f"{sae.source} stores no threshold; give one (the published one is 0.829)")
    params = {"encoder": sae.encoder, "dictionary": {"D": sae.dictionary}}
    variables = {"params": params, "constants": {"threshold": np.float32(threshold)}}
    return RASAE(sae.width, sae.n_concepts), jax.tree.map(jnp.asarray, variables)


def as_trainable_module(
    params: Mapping[str, Any],
    C: np.ndarray,
    threshold: float = 0.0,
    relax_radius: float = PUBLISHED_RADIUS,
) -> tuple[RASAE, dict[str, Any]]:
    """Trainable parameters and candidate points as a Flax module, and its variables.

    Args:
      params: as `load_parameters` gives them, or the params of a training's state.
      C: candidate points [M, D].
      threshold: at inference, for activations that do not train it.
      relax_radius: largest norm of a row of Lam.
    """
    width, n_concepts = params["encoder"]["kernel"].shape
    activation = "jumprelu" if "log_threshold" in params["encoder"] else "batch_topk"
    module = RASAE(width, n_concepts, len(C), activation, relax_radius=relax_radius)
    constants = {"candidates": C, "threshold": np.float32(threshold)}
    return module, jax.tree.map(jnp.asarray, {"params": dict(params), "constants": constants})


def _read_fused(path: pathlib.Path, key: str, source: str) -> LoadedSAE | None:
    """The fused copy, if it is one of this very file."""
    if not path.is_file():
        return None
    try:
        if open_safetensors(path)[1].get("key") != key:
            return None
        sae, _ = _load(path)
    except UserError as error:
        logging.warning("the fused dictionary is made anew: %s", error)
        return None
    return sae._replace(source=source)


def _write_fused(caches, sae: LoadedSAE, key: str) -> None:
    """Keeps the fused copy in the first place that can be written; a run never fails for it."""
    for path in caches:
        try:
            _save(path, sae, {"key": key})
        except (OSError, UserError) as error:
            logging.info("the fused dictionary is not kept at %s (%s)", path, error)
        else:
            return


def _save(path, sae: LoadedSAE, metadata: Mapping[str, str]) -> None:
    _check(path, sae)
    tensors = {f"encoder.{name}": array for name, array in sae.encoder.items()}
    tensors["dictionary"] = sae.dictionary
    metadata = {**metadata, "digest": sae.digest}
    if np.ndim(sae.threshold):
        tensors["threshold"] = sae.threshold
    elif sae.threshold is not None:
        metadata["threshold"] = repr(sae.threshold)
    write_safetensors(path, tensors, metadata | {"checksum": _checksum(metadata, sae.threshold)})


def _load(path: pathlib.Path) -> tuple[LoadedSAE, dict[str, str]]:
    """An SAE of ours and its metadata, if it is what was written."""
    refs, metadata = open_safetensors(path)
    _check_names(path, refs)
    arrays = {name: ref.read() for name, ref in refs.items()}
    encoder = {name: arrays[f"encoder.{name}"] for name in ENCODER}
    threshold: Any = arrays.get("threshold", metadata.get("threshold"))
    digest = _digest(encoder, arrays["dictionary"])
    written = dict(metadata)
    checksum = written.pop("checksum", None)
    if (
        metadata.get("digest", digest) != digest
        or (checksum is None and not set(metadata) <= _FIRST_METADATA)
        or (checksum is not None and checksum != _checksum(written, threshold))
        or ("threshold" in arrays and "threshold" in metadata)
    ):
        raise UserError(
            f"{path} is damaged: its content is not what was written; train or fetch it again"
        )
    if isinstance(threshold, str):
        try:
            threshold = float(threshold)
        except ValueError as error:
            raise UserError(
                f"{path} is damaged: its threshold is {threshold!r}, expected a number; train or"
                " fetch it again"
            ) from error
    sae = LoadedSAE(encoder, arrays["dictionary"], threshold, str(path), digest)
    _check(path, sae)
    return sae, metadata


def _check_names(path: pathlib.Path, refs: Mapping[str, Any]) -> None:
    """Refuses a file that has not the tensors of an SAE of ours."""
    wrong = [f"{name} is missing" for name in _TENSORS if name not in refs]
    wrong += [f"{name} is not known" for name in refs if name not in (*_TENSORS, "threshold")]
    wrong += [f"{name} is {r.dtype}" for name, r in refs.items() if r.dtype != np.float32]
    if wrong:
        raise UserError(
            f"{path} is damaged or no SAE of bsjax ({listed(wrong)}); train or fetch it again"
        )


def _check(path: Any, sae: LoadedSAE) -> None:
    """Refuses shapes that do not fit, and numbers that no code could be told from."""
    arrays = {f"encoder.{name}": array for name, array in sae.encoder.items()}
    arrays |= {"dictionary": sae.dictionary}
    K = len(sae.encoder["bias"])
    shapes = dict.fromkeys(arrays, (K,))
    shapes["dictionary"] = (K, *sae.dictionary.shape[1:2])
    shapes["encoder.kernel"] = shapes["dictionary"][::-1]
    if sae.threshold is not None:
        arrays["threshold"] = np.asarray(sae.threshold)
        shapes["threshold"] = (K,) if np.ndim(sae.threshold) else ()
    wrong = [
        f"{name} is {array.shape}, expected {shapes[name]}"
        for name, array in arrays.items()
        if array.shape != shapes[name]
    ]
    wrong += [
        f"{name} has values that are not finite"
        for name, array in arrays.items()
        if not np.isfinite(array).all()
    ]
    if "threshold" in arrays and (arrays["threshold"] < 0).any():
        wrong.append(f"threshold is {arrays['threshold'].min():g}, expected 0 or more")
    if wrong:
        raise UserError(f"{path} is no SAE that can be used: {listed(wrong)}; train it again")


def _digest(encoder: Mapping[str, np.ndarray], dictionary: np.ndarray) -> str:
    """Identifies the weights by their content, whatever file they come from."""
    sha = hashlib.sha256()
    for array in (*(encoder[name] for name in sorted(encoder)), dictionary):
        sha.update(str(array.shape).encode())
        sha.update(np.ascontiguousarray(array))
    return sha.hexdigest()[:16]


def _checksum(metadata: Mapping[str, str], threshold: Any) -> str:
    """Of all that the digest, which stands in the metadata, leaves out."""
    values = np.asarray(threshold).tolist() if np.ndim(threshold) else None
    return hash_json([dict(metadata), values])
