"""Artifact folders: files that appear whole or not at all, and the manifest that explains them.

Every stage writes one folder and finishes it with ``manifest.json``: what it was computed from
(config, its hash, the hashes of its parents), by which versions, and how much was lost on the way.
"""

import contextlib
import errno
import hashlib
import importlib.metadata
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from absl import logging
from etils import epath

from bsjax import __version__
from bsjax.core.errors import UserError

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
REAL = "real"  # name of the real set's folders
VERSIONED_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "scipy", "pillow", "grain")


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a temporary path in the same folder; renames it to `path` if the block succeeds.

    An object store (gs://...) shows objects whole or not at all: there the temporary file is local
    and copied.

    Raises:
      UserError: the disk is full. What was finished before stays as it is.
    """
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if is_remote(path):
        with tempfile.TemporaryDirectory() as folder:
            temporary = pathlib.Path(folder) / path.name
            yield temporary
            epath.Path(temporary).copy(path, overwrite=True)
        return
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = pathlib.Path(name)
    try:
        with explain_full_disk(path):
            yield temporary
            # mkstemp makes files only their owner can read; artifacts follow the user's umask.
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def is_remote(path: str | os.PathLike) -> bool:
    """Whether a path is that of an object store (gs://...)."""
    return "://" in os.fspath(path)


@contextlib.contextmanager
def explain_full_disk(path: str | os.PathLike) -> Iterator[None]:
    """Turns 'no space left' while writing `path` into one line for the user."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"no space left on the disk while writing {path}; everything finished before is"
                " kept: free space (or choose another --workdir) and run the same command again"
            ) from error
        raise


def write_json(path: str | os.PathLike, content: Any) -> None:
    """Writes `content` as indented JSON, whole or not at all."""
    with atomic_path(path) as temporary:
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        temporary.write_text(text, encoding="utf-8")


def read_json(path: str | os.PathLike) -> Any:
    """Reads JSON; a damaged file is the user's to mend, in one line."""
    try:
        return json.loads(epath.Path(path).read_bytes())  # UTF-8, whatever the locale
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not valid JSON ({error}); delete it and run again") from error


def hash_json(content: Any) -> str:
    """Hex digest of `content`, independent of key order."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def package_versions() -> dict[str, str]:
    """Versions of bsjax and of the packages that decide its numbers."""
    versions = {name: importlib.metadata.version(name) for name in VERSIONED_PACKAGES}
    return {"bsjax": __version__, **versions}


def write_manifest(
    folder: pathlib.Path,
    *,
    stage: str,
    config: Mapping[str, Any],
    parents: Mapping[str, str],
    counts: Mapping[str, Any],
    notes: Sequence[str] = (),
    **more: Any,
) -> dict[str, Any]:
    """Finishes an artifact folder. `config` has dotted keys; `parents` maps names to hashes."""
    manifest = {
        "stage": stage,
        "schema_version": SCHEMA_VERSION,
        "config": dict(config),
        "config_hash": hash_json({"config": dict(config), "parents": dict(parents)}),
        "parents": dict(parents),
        "versions": package_versions(),
        "counts": dict(counts),
        "notes": list(notes),
        **more,
    }
    write_json(folder / MANIFEST, manifest)
    return manifest


def read_manifest(folder: pathlib.Path) -> dict[str, Any] | None:
    """The manifest of a finished folder, or None if the folder is unfinished.

    Raises:
      UserError: the folder was written by another version of the file formats.
    """
    path = folder / MANIFEST
    if not path.exists():
        return None
    manifest = read_json(path)
    if manifest.get("schema_version") != SCHEMA_VERSION:
        raise UserError(
            f"{path} has schema version {manifest.get('schema_version')}, this bsjax writes"
            f" {SCHEMA_VERSION}; choose another --workdir or --config.overwrite"
        )
    return manifest


def require_manifest(folder: pathlib.Path, stage: str) -> dict[str, Any]:
    """The manifest of a folder that `stage` must have finished.

    Raises:
      UserError: it has not.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise UserError(f"{folder / MANIFEST} is missing; run `bsjax {stage}` to the end first")
    return manifest


def begin_stage(
    folder: pathlib.Path,
    *,
    config: Mapping[str, Any],
    parents: Mapping[str, str],
    overwrite: bool,
) -> dict[str, Any] | None:
    """Prepares an artifact folder for a stage and guards what is already there.

    The config of a run in progress stands in ``config.json`` beside its partial results, so that
    an interrupted run is held to the same rule as a finished one.

    Returns:
      The manifest if the stage is finished with this very config and these parents, else None.

    Raises:
      UserError: the folder holds the results of another config, or of other parents.
    """
    wanted = {"config": dict(config), "parents": dict(parents)}
    manifest = read_manifest(folder) if not overwrite else None
    started = folder / "config.json"
    if overwrite:
        if is_remote(folder):
            if folder.exists():
                folder.rmtree()
        else:
            shutil.rmtree(folder, ignore_errors=True)
    found = manifest or (read_json(started) if started.exists() else None)
    if found is not None:
        changed = differing_keys(found["config"], wanted["config"])
        stale = differing_keys(found["parents"], wanted["parents"])
        if changed or stale:
            parts = [_describe(found["config"], wanted["config"], key) for key in changed]
            parts += [f"{key} was made anew" for key in stale]
            raise UserError(
                f"{folder} was made with another config: {'; '.join(parts)}; go back to it, choose"
                " another --workdir, or pass --config.overwrite to make it anew"
            )
    if manifest is None:
        write_json(started, wanted)
    else:
        logging.info("%s is finished already", folder)
    return manifest


def differing_keys(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Keys whose values differ between two flat mappings, missing ones included."""
    absent = object()
    keys = sorted(set(found) | set(wanted))
    return [key for key in keys if found.get(key, absent) != wanted.get(key, absent)]


def _describe(found: Mapping[str, Any], wanted: Mapping[str, Any], key: str) -> str:
    return f"{key} was {found.get(key, 'unset')!r} and is now {wanted.get(key, 'unset')!r}"
