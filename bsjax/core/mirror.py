"""Copies on this machine's disk of what lies in an object store.

Parquet, npz and ArrayRecord are read by libraries that want files. So a finished artifact is copied
before it is read, once a machine, and a stage that works by itself (compare, report) has the whole
workdir copied, works there, and sends what it wrote.
"""

import contextlib
import hashlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from absl import logging
from etils import epath

from bsjax.core import checksums
from bsjax.core.artifacts import MANIFEST, TEMPORARY, is_remote
from bsjax.core.logs import step
from bsjax.core.paths import AnyPath

THREADS = 8
# What no stage that works by itself reads, and may be large.
LEFT_OUT = ("sae/checkpoints", "weights/")


def fetch(folder: AnyPath, names: Iterable[str] | None = None) -> pathlib.Path:
    """A finished artifact's folder on this machine: itself, or a copy that is kept in the cache.

    A copy is of one manifest: of an artifact that was made anew there is a new one.

    Args:
      folder: of the artifact.
      names: of its files to be copied; None: all.

    Raises:
      FileNotFoundError: no manifest, or no such file.
    """
    if not is_remote(folder):
        return pathlib.Path(folder)
    folder = epath.Path(folder)
    manifest = (folder / MANIFEST).read_bytes()
    names = sorted(checksums.list_files(folder) if names is None else names)
    told = "\n".join([os.fspath(folder), *names]).encode()
    root = _cache() / hashlib.sha256(told).hexdigest()[:16]
    place = root / hashlib.sha256(manifest).hexdigest()[:16]
    if (place / MANIFEST).is_file():
        return place
    with contextlib.suppress(FileNotFoundError):
        for old in root.iterdir():
            shutil.rmtree(old, ignore_errors=True)
    root.mkdir(parents=True, exist_ok=True)
    temporary = pathlib.Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=_cache()))
    try:
        with step(f"copying {folder} to this machine"):
            _copy(folder, temporary, [name for name in names if name != MANIFEST])
        (temporary / MANIFEST).write_bytes(manifest)
        # Another process of this machine may have been faster.
        with contextlib.suppress(OSError):
            os.replace(temporary, place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return place


@contextlib.contextmanager
def mirrored(workdir: AnyPath) -> Iterator[AnyPath]:
    """A workdir on this machine: itself, or a copy. What the block changes there is sent.

    Manifests are sent last, so that a folder counts as finished only once it is whole.
    """
    if not is_remote(workdir):
        yield workdir
        return
    workdir = epath.Path(workdir)
    with tempfile.TemporaryDirectory(prefix="bsjax-") as place:
        copy = pathlib.Path(place, workdir.name or "workdir")
        copy.mkdir()
        with step(f"copying {workdir} to this machine"):
            _copy(workdir, copy, [n for n in checksums.list_files(workdir) if _is_read(n)])
        before = _stamps(copy)
        yield epath.Path(copy)
        after = _stamps(copy)
        changed = [name for name, stamp in after.items() if before.get(name) != stamp]
        with step(f"sending {len(changed)} files to {workdir}"):
            for is_manifest in (False, True):
                names = [n for n in changed if (pathlib.Path(n).name == MANIFEST) == is_manifest]
                _copy(copy, workdir, names)
            for name in before.keys() - after.keys():
                (workdir / name).unlink(missing_ok=True)
        logging.info("%s is up to date", workdir)


def _copy(source: AnyPath, target: AnyPath, names: Iterable[str]) -> None:
    def copy(name: str) -> None:
        if not is_remote(target):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
        epath.Path(source / name).copy(target / name, overwrite=True)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(copy, names))


def _is_read(name: str) -> bool:
    return not name.startswith(LEFT_OUT)


def _stamps(folder: pathlib.Path) -> dict[str, tuple[int, int, int]]:
    """What tells whether a file has been written since."""
    found = {}
    for name in checksums.list_files(folder):
        stat = (folder / name).stat()
        found[name] = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
    return found


def _cache() -> pathlib.Path:
    caches = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return caches / "bsjax" / "mirror"
