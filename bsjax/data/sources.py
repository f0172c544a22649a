"""Images from elsewhere than a folder: ArrayRecord shards, parquet tables, tensorflow-datasets.

Each is a sequence of records that are read one by one, in any order, from several threads or
processes; only what a step needs is ever in memory. Captions are there where the source has them.
"""

import bisect
import functools
import glob
import hashlib
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgpack
import numpy as np
import pyarrow.parquet as pq
from array_record.python import array_record_data_source

from bsjax.core.errors import UserError
from bsjax.data.captions import ImageSet

FLAG = "--config.real.path"
MSGPACK_MAPS = frozenset(bytes([first]) for first in (*range(0x80, 0x90), 0xDE) if first != 0x89)


class LazyRecord(NamedTuple):
    """One image of a large set; as `bsjax.data.captions.ImageRecord`, read when asked."""

    source: "Records"
    row: int

    @property
    def key(self) -> str:
        return f"{self.row:09d}"

    @property
    def caption(self) -> str:
        return self.source.fields(self.row)["caption"]

    @property
    def extra(self) -> Mapping[str, str]:
        return {}

    def read(self) -> bytes:
        """The encoded image."""
        return self.source.fields(self.row)["image"]


class Records(Sequence):
    """A sequence of `LazyRecord`; `open_source` makes a new handle in each process."""

    def __init__(self, open_source: Callable[[], Callable[[int], dict[str, Any]]], n_records: int):
        self._open, self._n_records = open_source, n_records
        self._lock, self._read = threading.Lock(), None

    def __getstate__(self) -> dict[str, Any]:
        return {"_open": self._open, "_n_records": self._n_records}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock(), _read=None)

    def __len__(self) -> int:
        return self._n_records

    def __getitem__(self, row: int) -> LazyRecord:
        if not -self._n_records <= row < self._n_records:
            raise IndexError(row)
        return LazyRecord(self, int(row) % self._n_records)

    def fields(self, row: int) -> dict[str, Any]:
        """caption and image of a row."""
        with self._lock:
            if self._read is None:
                self._read = self._open()
        return self._read(row)


def list_source(
    source: str, path: str, split: str = "train", limit: int = -1
) -> tuple[ImageSet, list[Any]]:
    """Opens an image source that is no folder.

    Args:
      source: "arrayrecord" (records are encoded images, or msgpack maps with image and caption),
        "parquet" (a column image of encoded bytes, bare or as Hugging Face has it, and perhaps
        caption or text), "tfds" (a prepared dataset in ArrayRecord format).
      path: files, with wildcards; the name of a tfds dataset ("imagenet2012"), or its folder.
      split: of a tfds dataset.
      limit: keep only the first so many; -1 keeps all.

    Returns:
      The set, and what tells it from others (names, sizes and dates of its files).

    Raises:
      UserError: no such files, no images in them, a dataset that is not prepared.
    """
    openers = {"arrayrecord": _open_arrayrecord, "parquet": _open_parquet, "tfds": _open_tfds}
    n_records, open_source, identity = openers[source](path, split)
    if limit >= 0:
        n_records = min(n_records, limit)
    if not n_records:
        raise UserError(f"{path} holds no record; set {FLAG}")
    records = Records(open_source, n_records)
    images = ImageSet(records, (), n_records, 0, 0, source)
    return images, [source, path, split, n_records, identity]


def _files(path: str, suffixes: tuple[str, ...]) -> list[str]:
    """The files that a pattern, or a folder, names, in order of their names."""
    pattern = os.path.expanduser(path)
    if os.path.isdir(pattern):
        found = [os.path.join(pattern, name) for name in os.listdir(pattern)]
        found = [name for name in found if any(part in os.path.basename(name) for part in suffixes)]
    else:
        found = glob.glob(pattern)
    if not found:
        raise UserError(f"{path} names no {suffixes[0]} file; set {FLAG} to a folder or a pattern")
    return sorted(found)


def _identity(files: Sequence[str]) -> list[list[Any]]:
    return [[os.path.basename(f), os.stat(f).st_size, os.stat(f).st_mtime_ns] for f in files]


def _open_arrayrecord(path: str, split: str):
    files = _files(path, (".arrayrecord", ".array_record"))
    try:
        n_records = len(array_record_data_source.ArrayRecordDataSource(files))
    except (ValueError, RuntimeError) as error:
        raise UserError(f"{path}: not ArrayRecord, or truncated ({error})") from error
    return n_records, functools.partial(_reader_of_arrayrecord, files), _identity(files)


def _reader_of_arrayrecord(files):
    source = array_record_data_source.ArrayRecordDataSource(files)

    def read(row):
        record = source[row]
        # A msgpack map begins with 0x80 to 0x8f or 0xde. Of image formats only PNG begins so, with
        # 0x89, which would be a map of nine fields.
        if record[:1] in MSGPACK_MAPS:
            fields = msgpack.unpackb(record)
            return {"image": fields["image"], "caption": fields.get("caption", "")}
        return {"image": record, "caption": ""}

    return read


def _open_parquet(path: str, split: str):
    files = _files(path, (".parquet",))
    counts = []
    for file in files:
        try:
            table = pq.ParquetFile(file)
        except (OSError, ValueError) as error:
            raise UserError(f"{file}: not parquet, or truncated ({error})") from error
        if "image" not in table.schema_arrow.names:
            raise UserError(f"{file}: expected a column image, got {table.schema_arrow.names}")
        counts.append(table.metadata.num_rows)
    return sum(counts), functools.partial(_reader_of_parquet, files), _identity(files)


def _reader_of_parquet(files):
    tables = [pq.ParquetFile(file) for file in files]
    groups = [(f, g) for f, table in enumerate(tables) for g in range(table.num_row_groups)]
    sizes = [tables[f].metadata.row_group(g).num_rows for f, g in groups]
    ends = np.cumsum(sizes).tolist()
    lock = threading.Lock()

    @functools.lru_cache(maxsize=8)
    def load(group):
        f, g = groups[group]
        names = [n for n in ("image", "caption", "text") if n in tables[f].schema_arrow.names]
        return tables[f].read_row_group(g, columns=names).to_pylist()

    def read(row):
        group = bisect.bisect_right(ends, row)
        with lock:
            fields = load(group)[row - (ends[group] - sizes[group])]
        image = fields["image"]
        if isinstance(image, dict):
            image = image.get("bytes")
        if not image:
            raise ValueError("no image bytes in this row")
        return {"image": image, "caption": fields.get("caption") or fields.get("text") or ""}

    return read


def _open_tfds(path: str, split: str):
    source = _tfds_source(path, split)
    identity = hashlib.sha256(repr(source).encode()).hexdigest()[:16]
    return len(source), functools.partial(_reader_of_tfds, path, split), identity


def _tfds_source(path: str, split: str):
    import tensorflow_datasets as tfds

    decoders = {"image": tfds.decode.SkipDecoding()}
    try:
        if os.path.isdir(os.path.expanduser(path)):
            builder = tfds.builder_from_directory(os.path.expanduser(path))
        else:
            builder = tfds.builder(path)
        return builder.as_data_source(split=split, decoders=decoders)
    except Exception as error:  # tfds raises many types; each means: not to be had.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"tfds dataset {path}, split {split}, cannot be opened ({reason[:200]}); prepare it"
            f" with file_format=array_record, or set {FLAG} to its folder"
        ) from error


def _reader_of_tfds(path, split):
    source = _tfds_source(path, split)

    def read(row):
        fields = source[row]
        return {"image": fields["image"], "caption": _text(fields.get("caption", ""))}

    return read


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
