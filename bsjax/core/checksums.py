"""Checksums: what a file was when it was written, and whether it still is.

A finished folder's manifest lists size and sha256 of every file; whoever reads one checks it, once
a run. Files of an unfinished stage carry a checksum of their own, over their content and over what
they belong to (the stage's config, their place in it), so that one that was damaged, swapped or
brought from elsewhere is told from the one that was written, and made anew.
"""

import contextlib
import hashlib
import io
import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from bsjax.core.errors import UserError

BLOCK = 1 << 20  # bytes hashed at a time
THREADS = 4
CHECKSUM = "sha256"  # key of a checksum within what it is of

# Digest of each file by what tells that it is still the same: hashed once per run.
_known: dict[tuple[str, int, int, int], str] = {}


class Proof(NamedTuple):
    """What a file is known by."""

    size: int  # bytes
    sha256: str


def prove(path: str | os.PathLike) -> Proof:
    """Size and sha256 of a file's content.

    Raises:
      OSError: it cannot be read.
    """
    if "://" in os.fspath(path):
        return _prove_remote(path)
    stat = os.stat(path)
    key = (os.path.abspath(path), stat.st_size, stat.st_mtime_ns, stat.st_ino)
    if key not in _known:
        sha = hashlib.sha256()
        with open(path, "rb") as file:
            while block := file.read(BLOCK):
                sha.update(block)
        _known[key] = sha.hexdigest()
    return Proof(stat.st_size, _known[key])


def _prove_remote(path: str | os.PathLike) -> Proof:
    sha, size = hashlib.sha256(), 0
    with epath.Path(path).open("rb") as file:
        while block := file.read(BLOCK):
            sha.update(block)
            size += len(block)
    return Proof(size, sha.hexdigest())


def list_files(folder: str | os.PathLike, but: Iterable[str] = ()) -> Iterator[str]:
    """Paths below a folder, with slashes, in order; hidden files and folders are left out."""
    left_out = set(but)
    if "://" in os.fspath(folder):
        # fsspec names places without the protocol, others with it.
        root = os.fspath(epath.Path(folder)).partition("://")[2]
        names = []
        for place, _, files in epath.Path(folder).walk():
            below = os.fspath(place).rpartition("://")[2][len(root) :].strip("/")
            names += [f"{below}/{name}".strip("/") for name in files]
        yield from sorted(name for name in names if "/." not in f"/{name}" and name not in left_out)
        return
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = pathlib.Path(place, name).relative_to(folder).as_posix()
            if not name.startswith(".") and path not in left_out:
                yield path


def prove_files(folder: str | os.PathLike, names: Iterable[str]) -> dict[str, Proof]:
    """What each of some files of a folder is known by."""
    names = list(names)
    with ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(lambda name: prove(os.path.join(folder, name)), names)
        return dict(zip(names, found, strict=True))


def check_files(
    folder: str | os.PathLike,
    listed: Mapping[str, Any],
    names: Iterable[str] | None,
    mend: str,
) -> None:
    """Refuses files that are not what was written.

    Args:
      folder: where they lie.
      listed: what each file is known by: name -> [size, sha256] or a mapping of these.
      names: of the files to check; None: all that are listed.
      mend: what to do, for the message.

    Raises:
      UserError: a file is missing, not listed, or has another content.
    """

    def fault(name: str) -> str | None:
        if name not in listed:
            return "is not among the files that its manifest lists"
        expected = listed[name]
        wanted = Proof(*(expected[key] for key in Proof._fields))
        try:
            got = prove(os.path.join(folder, name))
        except FileNotFoundError:
            return "is missing"
        except OSError as error:
            return f"cannot be read ({error.strerror})"
        if got == wanted:
            return None
        return (
            f"is damaged or another file: expected {wanted.size} bytes of sha256"
            f" {wanted.sha256[:12]}, got {got.size} of {got.sha256[:12]}"
        )

    names = list(listed if names is None else names)
    with ThreadPoolExecutor(THREADS) as pool:
        for name, found in zip(names, pool.map(fault, names), strict=True):
            if found is not None:
                raise UserError(f"{os.path.join(folder, name)} {found}; {mend}")


def sum_of(content: Any, identity: str = "") -> str:
    """Hex digest of what JSON can hold, whatever the order of its keys, and of an identity."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(f"{identity}\n{text}".encode("utf-8", "surrogatepass")).hexdigest()


def seal(content: Mapping[Any, Any], identity: str = "") -> dict[Any, Any]:
    """`content` with a checksum of its own."""
    content = {key: value for key, value in content.items() if key != CHECKSUM}
    # As JSON has it: what is read later is compared.
    return {**content, CHECKSUM: sum_of(json.loads(json.dumps(content, default=str)), identity)}


def is_sealed(content: Any, identity: str = "") -> bool:
    """Whether `content` is what `seal` made, for this identity."""
    if not isinstance(content, dict) or not isinstance(content.get(CHECKSUM), str):
        return False
    rest = {key: value for key, value in content.items() if key != CHECKSUM}
    return content[CHECKSUM] == sum_of(rest, identity)


def sum_of_arrays(arrays: Mapping[str, np.ndarray], identity: str = "") -> str:
    """Hex digest of names, types, shapes and values of arrays, and of an identity."""
    sha = hashlib.sha256(identity.encode("utf-8", "surrogatepass"))
    for name, array in sorted(arrays.items()):
        array = np.asarray(array)
        sha.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        sha.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8) if array.size else b"")
    return sha.hexdigest()


def save_arrays(path: str | os.PathLike, identity: str = "", **arrays: Any) -> None:
    """Writes arrays as npz that `load_arrays` can check; to a path that no one reads yet."""
    found = {name: np.asarray(array) for name, array in arrays.items()}
    np.savez(path, **found, **{CHECKSUM: np.array(sum_of_arrays(found, identity))})


@contextlib.contextmanager
def read_arrays(path: str | os.PathLike) -> Iterator[Any]:
    """An npz file, here or in an object store, of which no array is read that is not asked for."""
    with contextlib.ExitStack() as stack:
        if "://" in os.fspath(path):
            file = io.BytesIO(epath.Path(path).read_bytes())
        else:
            file = stack.enter_context(open(path, "rb"))
        yield stack.enter_context(np.load(file, allow_pickle=False))


def load_arrays(path: str | os.PathLike, identity: str = "") -> dict[str, np.ndarray]:
    """The arrays that `save_arrays` wrote.

    Raises:
      ValueError: damaged, or written for another identity.
      FileNotFoundError: no such file.
    """
    try:
        with read_arrays(path) as stored:
            arrays = dict(stored)
        expected = str(arrays.pop(CHECKSUM))
    except FileNotFoundError:
        raise
    except Exception as error:  # Many types, by which byte is damaged; each means: not to be had.
        raise ValueError(f"damaged ({type(error).__name__})") from error
    if expected != sum_of_arrays(arrays, identity):
        raise ValueError("not what was written here")
    return arrays
