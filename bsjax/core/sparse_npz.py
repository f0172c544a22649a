"""Sparse matrices on disk, written and summed in blocks of rows so that memory stays small.

The files are exactly those of `scipy.sparse.save_npz`, readable by `scipy.sparse.load_npz`; they
are only written without ever holding the whole matrix. A *run* is an unfinished matrix: a folder
of three raw `.npy` arrays from which any block of rows can be read.
"""

import os
import pathlib
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence

import numpy as np
import scipy.sparse as sp

from bsjax.core.artifacts import atomic_path, explain_full_disk

# Bytes copied at a time into the zip file.
COPY_BLOCK = 1 << 22


class CsrWriter:
    """Writes one CSR matrix, block of rows by block of rows.

    Use as a context manager. The file appears under `path` only if the block succeeds.
    """

    def __init__(self, path: str | os.PathLike, n_columns: int, dtype: np.dtype | type):
        self.path = pathlib.Path(path)
        self.n_columns = n_columns
        self.dtype = np.dtype(dtype)
        self._row_sizes: list[np.ndarray] = []

    def __enter__(self) -> "CsrWriter":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._folder = tempfile.TemporaryDirectory(prefix=".csr-", dir=self.path.parent)
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
            block.data.astype(self.dtype).tofile(self._data)
            block.indices.astype(np.int32).tofile(self._indices)
        self._row_sizes.append(np.diff(block.indptr).astype(np.int64))

    def __exit__(self, error_type, error, traceback) -> None:
        try:
            if error_type is None:
                self._finish()
        finally:
            self._data.close()
            self._indices.close()
            self._folder.cleanup()

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


def write_run(folder: pathlib.Path, blocks: Iterator[sp.csr_array], n_columns: int) -> None:
    """Writes a run of f64 values from consecutive blocks of rows; whole or not at all."""
    temporary = pathlib.Path(tempfile.mkdtemp(prefix=".run-", dir=_ensure(folder.parent)))
    try:
        sizes = [np.zeros(1, np.int64)]
        with (
            explain_full_disk(folder),
            (temporary / "data").open("wb") as data,
            (temporary / "indices").open("wb") as indices,
        ):
            for block in blocks:
                block.sort_indices()
                block.data.astype(np.float64).tofile(data)
                block.indices.astype(np.int32).tofile(indices)
                sizes.append(np.diff(block.indptr).astype(np.int64))
        with explain_full_disk(folder):
            np.save(temporary / "indptr.npy", np.cumsum(np.concatenate(sizes)))
            np.save(temporary / "n_columns.npy", np.int64(n_columns))
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_run_rows(folder: pathlib.Path, start: int, stop: int) -> sp.csr_array:
    """Rows `start` to `stop` of a run."""
    indptr = np.load(folder / "indptr.npy", mmap_mode="r")[start : stop + 1].astype(np.int64)
    n_columns = int(np.load(folder / "n_columns.npy"))
    first, count = int(indptr[0]), int(indptr[-1] - indptr[0])
    data = np.fromfile(folder / "data", np.float64, count, offset=8 * first)
    indices = np.fromfile(folder / "indices", np.int32, count, offset=4 * first)
    return sp.csr_array((data, indices, indptr - first), shape=(stop - start, n_columns))


def sum_runs(
    folders: Sequence[pathlib.Path], n_rows: int, rows_per_block: int = 2048
) -> Iterator[sp.csr_array]:
    """Adds runs of one shape, a block of rows at a time, in the order given."""
    for start in range(0, n_rows, rows_per_block):
        stop = min(start + rows_per_block, n_rows)
        total = read_run_rows(folders[0], start, stop)
        for folder in folders[1:]:
            total = total + read_run_rows(folder, start, stop)
        yield sp.csr_array(total)


def _ensure(folder: pathlib.Path) -> pathlib.Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
