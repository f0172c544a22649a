"""Many files of records of which few are open at a time.

A shell allows a process some 256 to 1,024 open files; large sets have more. All sources of a
process share the files held open and the memory for what is read ahead. A record that is damaged
is a ValueError of its own row, as a damaged picture in a folder is.

Of parquet a column of a row group is read at once and held until others need its place. Of one
that is larger than `CACHE_BYTES` there is never more than that one in memory: such a file needs as
much as its largest row group. Writing it with smaller ones (`row_group_size`) needs less.
"""

import bisect
import collections
import functools
import os
import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from array_record.python import array_record_module

OPEN_FILES = 64  # of each kind
CACHE_BYTES = 2**29  # of images; the last row group read is held in any case
TEXT_BYTES = 2**27  # of captions, likewise
READ_BUFFER = 2**15
LONGEST = 200  # characters of what a library says


class Stretch(NamedTuple):
    """Records of one ArrayRecord file."""

    path: str
    start: int
    stop: int


class ArrayRecords(Sequence):
    """The records of several ArrayRecord files, one behind the other; several threads may read."""

    def __init__(self, stretches: Sequence[Stretch]):
        self.stretches = list(stretches)
        self.ends = np.cumsum([s.stop - s.start for s in self.stretches]).tolist()

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def __getitem__(self, row: int) -> bytes:
        if not 0 <= row < len(self):
            raise IndexError(row)
        place = bisect.bisect_right(self.ends, row)
        stretch = self.stretches[place]
        return _read_records(stretch.path, [stretch.stop - (self.ends[place] - row)])[0]

    def __getitems__(self, rows: Sequence[int]) -> list[bytes]:
        """Records in the order asked for; those of one file are read at once.

        Raises:
          ValueError: one is damaged.
        """
        by_file: dict[int, list[int]] = {}
        for i, row in enumerate(rows):
            if not 0 <= row < len(self):
                raise IndexError(row)
            by_file.setdefault(bisect.bisect_right(self.ends, row), []).append(i)
        found = [b""] * len(rows)
        for place, asked in by_file.items():
            stretch = self.stretches[place]
            places = [stretch.stop - (self.ends[place] - rows[i]) for i in asked]
            for i, record in zip(asked, _read_records(stretch.path, places), strict=True):
                found[i] = record
        return found


def _read_records(path: str, places: list[int]) -> list[bytes]:
    try:
        return _open_array_record(path, _version(path)).read(places)
    except RuntimeError as error:  # its one type
        raise _damaged(path, error) from error


def whole_file(path: str) -> Stretch:
    """All records of a file.

    Raises:
      ValueError, RuntimeError: not ArrayRecord, or truncated.
    """
    reader = array_record_module.ArrayRecordReader(path, "", file_reader_buffer_size=READ_BUFFER)
    try:
        return Stretch(path, 0, reader.num_records())
    finally:
        reader.close()


class ParquetGroup(NamedTuple):
    """A row group of one parquet file."""

    path: str
    group: int
    n_rows: int


class ParquetRows:
    """Columns of several parquet files, one behind the other; several threads may read."""

    def __init__(self, groups: Sequence[ParquetGroup], cache: "ByteCache | None" = None):
        """Takes row groups, and where their columns are held: `IMAGES`, `TEXTS` or another."""
        self.groups, self.cache = list(groups), cache or IMAGES
        self.ends = np.cumsum([group.n_rows for group in self.groups]).tolist()

    def value(self, row: int, column_of: Callable[[str], str | None]) -> Any:
        """One cell; None in a file without that column.

        Args:
          row: among all rows.
          column_of: path of a file -> the column's name there, or None.

        Raises:
          ValueError: the row group is damaged.
        """
        place = bisect.bisect_right(self.ends, row)
        path, group, n_rows = self.groups[place]
        column = column_of(path)
        if column is None:
            return None
        key = (path, _version(path), group, column)
        found = self.cache.get(key, _read_column, _size_of_column)
        if isinstance(found, _Damaged):
            raise ValueError(found.reason)
        return found[row - (self.ends[place] - n_rows)].as_py()


class _Damaged(NamedTuple):
    """Stands for a column of a row group that cannot be read, lest each row tries anew."""

    reason: str
    nbytes: int = 0


class ByteCache:
    """Arrow arrays, those last used, within a number of bytes; at least the last one.

    Room for one that is known to be large is made before it is read, so that none is held beside it
    that would not fit.
    """

    def __init__(self, n_bytes: int):
        self.n_bytes = n_bytes
        self._lock = threading.Lock()
        self._found: collections.OrderedDict[Hashable, Any] = collections.OrderedDict()

    def get(
        self,
        key: Hashable,
        read: Callable[[Any], Any],
        size: Callable[[Any], int] = lambda key: 0,
    ) -> Any:
        """What `read` makes of the key, kept or made now; `size` is what its bytes will be."""
        # One thread reads, the others find what it read: they are mostly at the same group.
        with self._lock:
            if key not in self._found:
                self._make_room(size(key), 0)
                array = read(key)
                self._found[key] = array
                self._make_room(0, 1)
            self._found.move_to_end(key)
            return self._found[key]

    def _make_room(self, n_more: int, n_kept: int) -> None:
        """Lets go of what was used longest ago, but not of the last `n_kept`."""
        while len(self._found) > n_kept and self._n_held() + n_more > self.n_bytes:
            self._found.popitem(last=False)

    def _n_held(self) -> int:
        return sum(array.nbytes for array in self._found.values())


# Apart, lest captions and images that do not fit beside each other push out one another at each
# row.
IMAGES, TEXTS = ByteCache(CACHE_BYTES), ByteCache(TEXT_BYTES)


def _size_of_column(key) -> int:
    """Bytes of a column of a row group, as the file's footer has them."""
    path, version, group, column = key
    found = _open_parquet(path, version).metadata.row_group(group)
    parts = (found.column(i) for i in range(found.num_columns))
    # A column of structs is stored as several.
    return sum(
        part.total_uncompressed_size
        for part in parts
        if part.path_in_schema == column or part.path_in_schema.startswith(f"{column}.")
    )


def _read_column(key) -> pa.ChunkedArray | _Damaged:
    path, version, group, column = key
    try:
        table = _open_parquet(path, version).read_row_group(group, columns=[column])
    except MemoryError:
        raise
    except (OSError, pa.ArrowException) as error:
        if getattr(error, "errno", None) is not None:
            raise  # the system's fault, which may pass
        return _Damaged(str(_damaged(f"{path}, row group {group}", error)))
    array = table.column(column)
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        # Not every writer sees to it that strings are UTF-8; bytes are looked at one by one.
        return array.cast(pa.large_binary())
    return array


def _damaged(where: str, error: Exception) -> ValueError:
    reason = " ".join(str(error).split())[:LONGEST]
    return ValueError(f"its record in {where} is damaged ({reason}); download or write it again")


def _version(path: str) -> tuple[int, int]:
    stat = os.stat(path)
    return stat.st_size, stat.st_mtime_ns


# What falls out of these caches is closed when the last thread that reads from it lets go.
@functools.lru_cache(maxsize=OPEN_FILES)
def _open_array_record(path: str, version: tuple[int, int]):
    del version  # a file that was written anew is opened anew
    return array_record_module.ArrayRecordReader(path, "", file_reader_buffer_size=READ_BUFFER)


@functools.lru_cache(maxsize=OPEN_FILES)
def _open_parquet(path: str, version: tuple[int, int]) -> pq.ParquetFile:
    del version
    # Checksums of pages, where the writer put them, tell damage that would pass for an image.
    return pq.ParquetFile(path, page_checksum_verification=True)
