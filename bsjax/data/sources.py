"""Images from elsewhere than a folder: ArrayRecord, parquet, tensorflow-datasets, drawn scenes.

Each is a sequence of records that are read one by one, in any order, from several threads or
processes; only what a step needs is ever in memory. Captions are there where the source has them.
"""

import bisect
import functools
import glob
import hashlib
import os
import pathlib
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgpack
import numpy as np
import pyarrow.parquet as pq
from array_record.python import array_record_data_source

from bsjax.core.errors import UserError
from bsjax.data import scenes
from bsjax.data.addresses import Address, parse_address, write_address
from bsjax.data.captions import ImageSet

FLAG = "--config.real.path"
SCENES = 1_000_000  # that a seed stands for; real.limit takes the first
MSGPACK_MAPS = frozenset(bytes([first]) for first in (*range(0x80, 0x90), 0xDE) if first != 0x89)


class LazyRecord(NamedTuple):
    """One image of a large set; as `bsjax.data.captions.ImageRecord`, read when asked."""

    source: "Records"
    row: int

    @property
    def key(self) -> str:
        keys = self.source.keys
        return keys[self.row] if keys is not None else f"{self.row:09d}"

    @property
    def caption(self) -> str:
        if self.source.captions is not None:
            return self.source.captions[self.row]
        return self.source.fields(self.row)["caption"]

    @property
    def path(self) -> str:
        """Where the image lies, for `read_image`."""
        source = self.source
        return write_address(Address(source.kind, source.path, source.split, self.row))

    @property
    def extra(self) -> Mapping[str, str]:
        return {}

    def read(self) -> bytes:
        """The encoded image."""
        return self.source.fields(self.row)["image"]


class Records(Sequence):
    """A sequence of `LazyRecord`; each process that it is sent to opens the files for itself.

    Args:
      kind: arrayrecord, parquet or tfds.
      path: as `list_source` takes it.
      split: of a tfds dataset.
      n_records: how many.
      keys: of the images; None: their rows.
      captions: where they are known without reading; None: they stand in the records.
    """

    def __init__(
        self,
        kind: str,
        path: str,
        split: str,
        n_records: int,
        keys: Sequence[str] | None = None,
        captions: Sequence[str] | None = None,
    ):
        self.kind, self.path, self.split, self.n_records = kind, path, split, n_records
        self.keys, self.captions = keys, captions
        self._lock, self._read = threading.Lock(), None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_lock": None, "_read": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def __len__(self) -> int:
        return self.n_records

    def __getitem__(self, row: int) -> LazyRecord:
        if not -self.n_records <= row < self.n_records:
            raise IndexError(row)
        return LazyRecord(self, int(row) % self.n_records)

    def fields(self, row: int) -> dict[str, Any]:
        """caption and image of a row."""
        with self._lock:
            if self._read is None:
                self._read = OPENERS[self.kind](self.path, self.split).make_reader()
        return self._read(row)


class Opened(NamedTuple):
    """What is known of a source before any record is read."""

    n_records: int
    make_reader: Callable[[], Callable[[int], dict[str, Any]]]
    identity: Any  # tells it from others


def read_image(path: str) -> bytes:
    """The encoded image at a file's path or at a `LazyRecord.path`.

    Raises:
      OSError, ValueError: it is gone.
    """
    address = parse_address(path)
    if not address.kind:
        return pathlib.Path(path).read_bytes()
    try:
        return _reader(address.kind, address.path, address.split)(address.row)["image"]
    except (UserError, IndexError, RuntimeError) as error:
        raise OSError(f"{path} cannot be read: {error}") from error


@functools.lru_cache(maxsize=4)
def _reader(kind: str, path: str, split: str) -> Callable[[int], dict[str, Any]]:
    return OPENERS[kind](path, split).make_reader()


def list_source(
    source: str, path: str, split: str = "train", limit: int = -1
) -> tuple[ImageSet, list[Any]]:
    """Opens an image source that is no folder.

    Args:
      source: "arrayrecord" (records are encoded images, or msgpack maps with image and caption),
        "parquet" (a column image of encoded bytes, bare or as Hugging Face has it, and perhaps
        caption or text), "tfds" (a prepared dataset in ArrayRecord format), "scenes" (drawn as
        they are read, see `bsjax.data.scenes`).
      path: files, with wildcards; the name of a tfds dataset ("imagenet2012"), or its folder; the
        seed of scenes.
      split: of a tfds dataset.
      limit: keep only the first so many; -1 keeps all.

    Returns:
      The set, and what tells it from others (names, sizes and dates of its files).

    Raises:
      UserError: no such files, no images in them, a dataset that is not prepared.
    """
    opened = OPENERS[source](path, split)
    n_records = opened.n_records
    if limit >= 0:
        n_records = min(n_records, limit)
    if not n_records:
        raise UserError(f"{path} holds no record; set {FLAG}")
    records = Records(source, path, split, n_records)
    images = ImageSet(records, (), n_records, 0, 0, source)
    return images, [source, path, split, n_records, opened.identity]


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


def _open_arrayrecord(path: str, split: str) -> Opened:
    files = _files(path, (".arrayrecord", ".array_record"))
    try:
        n_records = len(array_record_data_source.ArrayRecordDataSource(files))
    except (ValueError, RuntimeError) as error:
        raise UserError(f"{path}: not ArrayRecord, or truncated ({error})") from error
    return Opened(n_records, functools.partial(_reader_of_arrayrecord, files), _identity(files))


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


def _open_parquet(path: str, split: str) -> Opened:
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
    return Opened(sum(counts), functools.partial(_reader_of_parquet, files), _identity(files))


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


def _open_tfds(path: str, split: str) -> Opened:
    source = _tfds_source(path, split)
    identity = hashlib.sha256(repr(source).encode()).hexdigest()[:16]
    return Opened(len(source), functools.partial(_reader_of_tfds, path, split), identity)


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


def _open_scenes(path: str, split: str) -> Opened:
    try:
        seed = int(path)
        if seed < 0:
            raise ValueError
    except ValueError as error:
        raise UserError(
            f"scenes of seed {path!r}: expected a whole number, 0 or more; set {FLAG}"
        ) from error
    return Opened(SCENES, functools.partial(_reader_of_scenes, seed), [scenes.VERSION, seed])


def _reader_of_scenes(seed):
    def read(row):
        scene = scenes.scene(seed, row)
        return {"image": scenes.encode(scene.image), "caption": scene.caption}

    return read


def _open_generated(path: str, split: str) -> Opened:
    from bsjax.data.image_shards import open_generated  # which reads with what stands here

    return open_generated(path)


OPENERS = {
    "arrayrecord": _open_arrayrecord,
    "parquet": _open_parquet,
    "tfds": _open_tfds,
    "scenes": _open_scenes,
    "generated": _open_generated,
}
