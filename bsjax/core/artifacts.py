"""Artifact folders: files that appear whole or not at all, and the manifest that explains them.

Every stage writes one folder and finishes it with ``manifest.json``: what it was computed from
(config, its hash, the hashes of its parents), by which versions, how much was lost on the way, and
size and sha256 of every file, which whoever reads one checks.
"""

import contextlib
import errno
import hashlib
import importlib.metadata
import json
import math
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from absl import logging
from etils import epath

from bsjax import __version__
from bsjax.core import checksums
from bsjax.core.errors import UserError
from bsjax.core.paths import AnyPath

SCHEMA_VERSION = 2  # 1 listed no files
MANIFEST, STARTED = "manifest.json", "config.json"
UNSEALED = {"config", "parents"}  # what config.json held before there were checksums
TEMPORARY = ".bsjax-tmp-"  # begins the names of what is being written
REAL = "real"  # name of the real set's folders
CONTROL = "control-"  # begins the names of those of its controls: real images, changed
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
    handle, name = tempfile.mkstemp(
        prefix=f"{TEMPORARY}{path.stem}-", suffix=path.suffix, dir=path.parent
    )
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


def remove_tree(folder: AnyPath) -> None:
    """Removes a folder with all that is in it, if it is there."""
    if not is_remote(folder):
        shutil.rmtree(folder, ignore_errors=True)
    elif folder.exists():
        folder.rmtree()


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


def or_none(value: Any) -> Any:
    """JSON knows no NaN and no infinity: None stands for them."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """Named values as JSON takes them."""
    return {name: or_none(value) for name, value in values.items()}


def read_json(path: str | os.PathLike, mend: str = "") -> Any:
    """Reads JSON; a damaged file is the user's to mend, in one line."""
    try:
        return json.loads(epath.Path(path).read_bytes())  # UTF-8, whatever the locale
    except (ValueError, RecursionError) as error:  # no JSON, or no text
        raise UserError(
            f"{path} is not valid JSON ({error}); {mend or 'delete it and run again'}"
        ) from error


def hash_json(content: Any) -> str:
    """Hex digest of `content`, independent of key order."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def package_versions() -> dict[str, str]:
    """Versions of bsjax and of the packages that decide its numbers."""
    versions = {name: importlib.metadata.version(name) for name in VERSIONED_PACKAGES}
    return {"bsjax": __version__, **versions}


def write_manifest(
    folder: AnyPath,
    *,
    stage: str,
    config: Mapping[str, Any],
    parents: Mapping[str, str],
    counts: Mapping[str, Any],
    notes: Sequence[str] = (),
    **more: Any,
) -> dict[str, Any]:
    """Finishes an artifact folder, in which nothing is written afterwards.

    Args:
      folder: of the artifact.
      stage: that made it.
      config: dotted keys.
      parents: names of what it was made from -> their hashes.
      counts: how much there is, and how much was lost.
      notes: warnings that go into the report.
      **more: further fields.
    """
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
        "files": _list_files(folder),
    }
    manifest = checksums.seal(manifest)
    write_json(folder / MANIFEST, manifest)
    return manifest


def _list_files(folder: str | os.PathLike) -> dict[str, dict[str, Any]]:
    """Name -> size and sha256 of each file of a folder."""
    names = checksums.list_files(folder, but=(MANIFEST,))
    found = checksums.prove_files(folder, names)
    return {name: proof._asdict() for name, proof in found.items()}


def check_files(
    folder: str | os.PathLike, manifest: Mapping[str, Any], names: Iterable[str] | None = None
) -> None:
    """Refuses files of a finished folder that are not what its stage wrote.

    Args:
      folder: of the artifact.
      manifest: its manifest.
      names: of the files about to be read; None: all.

    Raises:
      UserError: one is missing, damaged or another one: which, and the stage to run again.
    """
    checksums.check_files(folder, manifest["files"], names, again(manifest["stage"]))


def again(stage: str) -> str:
    """What to do where a stage's result cannot be used."""
    return f"run `bsjax {stage or 'STAGE'} --overwrite` to make it anew"


def read_manifest(folder: AnyPath, stage: str = "", mend: str = "") -> dict[str, Any] | None:
    """The manifest of a finished folder, or None if the folder is unfinished.

    Args:
      folder: of the artifact.
      stage: that makes it, for the messages.
      mend: what to do about a damaged one; "": run that stage again.

    Raises:
      UserError: the folder was written by another version of the file formats, or it is damaged.
    """
    path = folder / MANIFEST
    if not path.exists():
        return None
    manifest = read_json(path, mend)
    if not isinstance(manifest, dict):
        raise UserError(f"{path} is damaged: expected an object; {mend or again(stage)}")
    if manifest.get("schema_version") != SCHEMA_VERSION:
        maker = stage or str(manifest.get("stage", ""))
        raise UserError(
            f"{path} has schema version {manifest.get('schema_version')}, this bsjax writes"
            f" {SCHEMA_VERSION}; {mend or f'{again(maker)}, or choose another --workdir'}"
        )
    if not checksums.is_sealed(manifest):
        raise UserError(f"{path} is damaged: it is not what was written; {mend or again(stage)}")
    if stage and manifest["stage"] != stage:
        raise UserError(
            f"{path} is another's: expected one of {stage}, got one of {manifest['stage']};"
            f" {again(stage)}"
        )
    return manifest


def require_manifest(folder: AnyPath, stage: str) -> dict[str, Any]:
    """The manifest of a folder that `stage` must have finished.

    Raises:
      UserError: it has not.
    """
    manifest = read_manifest(folder, stage)
    if manifest is None:
        raise UserError(f"{folder / MANIFEST} is missing; run `bsjax {stage}` to the end first")
    return manifest


def list_finished(folder: AnyPath) -> list[str]:
    """Names of the finished artifacts in a folder of several, in order."""
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(path.name for path in found if (path / MANIFEST).is_file())


def begin_stage(
    folder: AnyPath,
    *,
    config: Mapping[str, Any],
    parents: Mapping[str, str],
    overwrite: bool,
    stage: str = "",
) -> dict[str, Any] | None:
    """Prepares an artifact folder for a stage and guards what is already there.

    The config of a run in progress stands in ``config.json`` beside its partial results, so that
    an interrupted run is held to the same rule as a finished one.

    Args:
      folder: of the artifact.
      config: dotted keys.
      parents: names of what it is made from -> their hashes.
      overwrite: what is there goes.
      stage: for the messages.

    Returns:
      The manifest if the stage is finished with this very config and these parents, else None.

    Raises:
      UserError: the folder holds the results of another config, or of other parents.
    """
    wanted = {"config": dict(config), "parents": dict(parents)}
    manifest = read_manifest(folder, stage) if not overwrite else None
    if overwrite:
        # First what calls it finished: a run may be killed while the rest goes.
        (epath.Path(folder) / MANIFEST).unlink(missing_ok=True)
        remove_tree(epath.Path(folder))
    found = manifest or _read_started(folder)
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
        write_json(folder / STARTED, checksums.seal(wanted))
    else:
        logging.info("%s is finished already", folder)
    return manifest


def _read_started(folder: AnyPath) -> dict[str, Any] | None:
    """config.json of a run in progress.

    A damaged one counts as none: partial results tell by themselves of which config they are. One
    from before there were checksums still says with what config the run began.
    """
    path = folder / STARTED
    if not path.exists():
        return None
    try:
        found = read_json(path)
    except UserError:
        found = None
    if isinstance(found, dict) and set(found) == UNSEALED:
        return found
    if not checksums.is_sealed(found):
        logging.warning("%s is damaged and written anew", path)
        return None
    return found


def identity_of(folder: str | os.PathLike) -> str:
    """What partial results in an artifact's folder belong to: config and parents of its stage.

    Empty where no stage began.
    """
    found = _read_started(epath.Path(folder))
    return "" if found is None else found.get(checksums.CHECKSUM, "")


def identity_for(config: Mapping[str, Any], parents: Mapping[str, str]) -> str:
    """What `identity_of` says once a stage of this config and these parents began.

    For hosts that may not see yet what another wrote.
    """
    wanted = {"config": dict(config), "parents": dict(parents)}
    return checksums.seal(wanted)[checksums.CHECKSUM]


def differing_keys(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Keys whose values differ between two flat mappings, missing ones included."""
    absent = object()
    keys = sorted(set(found) | set(wanted))
    return [key for key in keys if found.get(key, absent) != wanted.get(key, absent)]


def _describe(found: Mapping[str, Any], wanted: Mapping[str, Any], key: str) -> str:
    return f"{key} was {found.get(key, 'unset')!r} and is now {wanted.get(key, 'unset')!r}"
