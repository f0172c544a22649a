"""Sparse matrices on disk, written and summed in blocks of rows so that memory stays small.

The files are exactly those of `scipy.sparse.save_npz`, readable by `scipy.sparse.load_npz`; they
are only written without ever holding the whole matrix. A *run* is an unfinished matrix: a folder
of raw arrays from which any block of rows can be read, and their checksums.
"""

import contextlib
import os
import pathlib
import tempfile
import zipfile
from collections.abc import Iterator, Sequence

import numpy as np
import scipy.sparse as sp
from etils import epath

from bsjax.core import checksums
from bsjax.core.artifacts import (
    TEMPORARY,
    atomic_path,
    explain_full_disk,
    is_remote,
    read_json,
    remove_tree,
    write_json,
)
from bsjax.core.errors import UserError
from bsjax.core.paths import AnyPath

# Bytes copied at a time into the zip file.
COPY_BLOCK = 1 << 22
RUN_FILES = ("data", "indices", "indptr.npy", "n_columns.npy")
RUN_PROOF = "proof.json"


class CsrWriter:
    """Writes one CSR matrix, block of rows by block of rows.

    Use as a context manager. The file appears under `path` only if the block succeeds.
    """

    def __init__(self, path: str | os.PathLike, n_columns: int, dtype: np.dtype | type):
        self.path = epath.Path(path)
        self.n_columns = n_columns
        self.dtype = np.dtype(dtype)
        self._row_sizes: list[np.ndarray] = []

    def __enter__(self) -> "CsrWriter":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        place = None if is_remote(self.path) else self.path.parent
        self._folder = tempfile.TemporaryDirectory(prefix=f"{TEMPORARY}csr-", dir=place)
        folder = pathlib.Path(self._folder.name)
        self._data = (folder / "data").open("w+b")
        self._indices = (folder / "indices").open("w+b")
        return self

    def append(self, block: sp.csr_array) -> None:
        """Adds the rows of `block` [rows, n_columns] below what was written."""
        if block.shape[1] != self.n_columns:
            raise ValueError(f"expected {self.n_columns} columns, got {block.shape[1]}")
        block = sp.csr_array(block)
        block.sort_indices()
        with explain_full_disk(self.path):
            self._data.write(block.data.astype(self.dtype))
            self._indices.write(block.indices.astype(np.int32))
        self._row_sizes.append(np.diff(block.indptr).astype(np.int64))

    def __exit__(self, error_type, error, traceback) -> None:
        try:
            if error_type is None:
                self._finish()
        finally:
            # What is still in a buffer may find the disk full as well.
            with self._folder, explain_full_disk(self.path), self._data, self._indices:
                pass

    def _finish(self) -> None:
        sizes = np.concatenate([np.zeros(1, np.int64), *self._row_sizes])
        indptr = np.cumsum(sizes)
        n_rows, nnz = indptr.size - 1, int(indptr[-1])
        # scipy wants one dtype for both index arrays, wide enough to count the entries.
        index_dtype = np.int32 if nnz <= np.iinfo(np.int32).max else np.int64
        with (
            atomic_path(self.path) as temporary,
            zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        ):
            for name, raw, dtype in (
                ("data", self._data, self.dtype),
                ("indices", self._indices, np.dtype(np.int32)),
            ):
                target = index_dtype if name == "indices" else dtype
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    header = {"descr": np.dtype(target).str, "fortran_order": False}
                    np.lib.format.write_array_header_1_0(entry, header | {"shape": (nnz,)})
                    raw.flush()
                    raw.seek(0)
                    while chunk := raw.read(COPY_BLOCK):
                        entry.write(np.frombuffer(chunk, dtype).astype(target).tobytes())
            for name, array in (
                ("indptr", indptr.astype(index_dtype)),
                ("format", np.array(b"csr")),
                ("shape", np.array([n_rows, self.n_columns], np.int64)),
            ):
                with archive.open(f"{name}.npy", "w") as entry:
                    np.lib.format.write_array(entry, array, allow_pickle=False)


def write_run(
    folder: AnyPath, blocks: Iterator[sp.csr_array], n_columns: int, identity: str = ""
) -> None:
    """Writes a run of f64 values from consecutive blocks of rows.

    It is whole once its proof is there, which comes last: no folder need be renamed, which object
    stores cannot. `identity` is what it belongs to, as `is_whole_run` asks for.
    """
    remove_tree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        place = pathlib.Path(folder)
        if is_remote(folder):
            place = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(explain_full_disk(folder))
        sizes = [np.zeros(1, np.int64)]
        with (place / "data").open("wb") as data, (place / "indices").open("wb") as indices:
            for block in blocks:
                block.sort_indices()
                data.write(block.data.astype(np.float64))
                indices.write(block.indices.astype(np.int32))
                sizes.append(np.diff(block.indptr).astype(np.int64))
        np.save(place / "indptr.npy", np.cumsum(np.concatenate(sizes)))
        np.save(place / "n_columns.npy", np.int64(n_columns))
        proofs = checksums.prove_files(place, RUN_FILES)
        if is_remote(folder):
            for name in RUN_FILES:
                epath.Path(place / name).copy(folder / name, overwrite=True)
        write_json(folder / RUN_PROOF, checksums.seal({"files": proofs}, identity))


def is_whole_run(folder: AnyPath, identity: str = "") -> bool:
    """Whether a run is, to the last byte, what `write_run` wrote for this identity."""
    try:
        proof = read_json(folder / RUN_PROOF)
        if not checksums.is_sealed(proof, identity):
            return False
        found = checksums.prove_files(folder, RUN_FILES)
        return {name: list(proof) for name, proof in found.items()} == proof["files"]
    except (OSError, UserError):
        return False


def read_run_rows(folder: AnyPath, start: int, stop: int) -> sp.csr_array:
    """Rows `start` to `stop` of a run."""
    indptr = np.load(folder / "indptr.npy", mmap_mode="r")[start : stop + 1].astype(np.int64)
    n_columns = int(np.load(folder / "n_columns.npy"))
    first, count = int(indptr[0]), int(indptr[-1] - indptr[0])
    data = np.fromfile(folder / "data", np.float64, count, offset=8 * first)
    indices = np.fromfile(folder / "indices", np.int32, count, offset=4 * first)
    return sp.csr_array((data, indices, indptr - first), shape=(stop - start, n_columns))


def sum_runs(
    folders: Sequence[AnyPath], n_rows: int, rows_per_block: int = 2048
) -> Iterator[sp.csr_array]:
    """Adds runs of one shape, a block of rows at a time, in the order given."""
    with contextlib.ExitStack() as stack:
        folders = [stack.enter_context(_at_hand(folder)) for folder in folders]
        for start in range(0, n_rows, rows_per_block):
            stop = min(start + rows_per_block, n_rows)
            total = read_run_rows(folders[0], start, stop)
            for folder in folders[1:]:
                total = total + read_run_rows(folder, start, stop)
            yield sp.csr_array(total)


@contextlib.contextmanager
def _at_hand(folder: AnyPath) -> Iterator[AnyPath]:
    """A run on this machine's disk, where any block of rows can be read from."""
    if not is_remote(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory() as place:
        for name in RUN_FILES:
            (folder / name).copy(pathlib.Path(place, name))
        yield pathlib.Path(place)
