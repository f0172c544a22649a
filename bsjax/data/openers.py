"""How each kind of image source is opened: ArrayRecord, parquet, tensorflow-datasets, scenes."""

import functools
import glob
import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgpack
import pyarrow as pa
import pyarrow.parquet as pq

from bsjax.core.addresses import Address
from bsjax.core.errors import UserError
from bsjax.core.foreign import is_valid
from bsjax.data import scenes
from bsjax.data.record_files import (
    LONGEST,
    TEXTS,
    ArrayRecords,
    ParquetGroup,
    ParquetRows,
    Stretch,
    whole_file,
)
from bsjax.data.text import (
    CAPTION_FIELDS,
    IMAGE_FIELDS,
    Fields,
    captions_in,
    captions_of,
    find_field,
    shown_names,
    split_and_fields,
)

EITHER = "{real,generated}"  # section of the config where the arm is not known
SCENES = 1_000_000  # that a seed stands for; real.limit takes the first
BARE = "image"  # field of a record that is an encoded image and nothing else
PROBED = 16  # records looked at to learn which fields there are
ENDINGS = {  # kind -> of its files
    "webdataset": r"\.tar$",
    "arrayrecord": r"\.array_?record(-\d+(-of-\d+)?)?$",
    "parquet": r"\.parquet$",
}
MSGPACK_MAPS = frozenset(bytes([first]) for first in (*range(0x80, 0x90), 0xDE) if first != 0x89)


class Reader(NamedTuple):
    """Two ways to read a row of a source; either raises ValueError for what cannot be used."""

    record: Callable[[int], tuple[list[str], bytes]]  # captions and encoded image
    captions: Callable[[int], list[str]]  # without the image, where that is less to read

    def __call__(self, row: int) -> dict[str, Any]:
        """caption and image, of which the image cannot be used without the caption."""
        captions, image = self.record(row)
        return {"caption": next(iter(captions), ""), "image": image}


class Opened(NamedTuple):
    """What is known of a source before any image is read."""

    n_records: int
    make_reader: Callable[[], Reader]
    identity: Any  # tells it from others
    fields: Sequence[str] = ()  # names seen in records
    has_captions: bool = True
    notes: Sequence[str] = ()  # what a reader should know
    keys: Sequence[str] | None = None  # of the records; None: their rows
    locate: Callable[[int], Address] | None = None  # of a row, if not the source's own path and row


def flag(section: str, name: str = "path") -> str:
    """The flag that sets a key of an arm, for messages."""
    return f"--config.{section}.{name}"


def list_files(path: str, kind: str, ending: str, section: str) -> list[str]:
    """The files that a pattern, or a folder, names, in order of their names.

    A pattern may have ranges in braces, as those of webdataset do: {00000..00009}.tar.

    What programs leave beside them (._x, .x.crc, x.incomplete, _SUCCESS) is none of them.
    """
    pattern = os.path.expanduser(path)
    if os.path.isdir(pattern):
        found = [
            os.path.join(pattern, name)
            for name in os.listdir(pattern)
            if re.search(ending, name, re.I) and not name.startswith((".", "_"))
        ]
    elif os.path.exists(pattern):
        found = [pattern]  # brackets may belong to the name
    else:
        found = [name for each in expand_ranges(pattern) for name in _glob(each)]
    if not found:
        raise UserError(
            f"{path} names no {kind} file; set {flag(section)} to a folder or a pattern"
        )
    for name in found:
        if not is_valid(name):
            raise UserError(f"{name}: the file's name is no UTF-8; rename it")
    return sorted(found)


def expand_ranges(pattern: str) -> list[str]:
    """A pattern for each number of its ranges in braces; itself where it has none."""
    match = re.search(r"\{(\d+)\.\.(\d+)\}", pattern)
    if match is None:
        return [pattern]
    first, last = match[1], match[2]
    width = len(first) if first.startswith("0") else 0
    return [
        each
        for number in range(int(first), int(last) + 1)
        for each in expand_ranges(
            f"{pattern[: match.start()]}{number:0{width}d}{pattern[match.end() :]}"
        )
    ]


def _glob(pattern: str) -> list[str]:
    folder, name = os.path.split(pattern)
    folder = glob.escape(folder) if os.path.isdir(folder) else folder
    return glob.glob(os.path.join(folder, name))


def _of_split(files: Sequence[str], path: str, split: str, section: str) -> list[str]:
    """Of a folder's files those of a split, if their names tell: train-00000-of-00002.parquet."""
    if not os.path.isdir(os.path.expanduser(path)):
        return list(files)
    splits: dict[str, list[str]] = {}
    others = []
    for file in files:
        match = re.match(r"(.+)-\d+-of-\d+\.|(train|test|val\w*|dev)\b", os.path.basename(file))
        if match:
            splits.setdefault(match[1] or match[2], []).append(file)
        else:
            others.append(os.path.basename(file))
    if splits and others:
        raise UserError(
            f"{path} holds the splits {', '.join(sorted(splits))}, and"
            f" {others[0]}, which is of none; set {flag(section)} to a pattern of those"
            " that are meant"
        )
    if splits and split not in splits:
        raise UserError(
            f"{path} holds the splits {', '.join(sorted(splits))}, not {split!r}; set"
            f" {flag(section, 'split')}"
        )
    return splits.get(split, list(files))


def identity_of(files: Sequence[str]) -> list[list[Any]]:
    """Names, sizes and dates of files."""
    return [[os.path.basename(f), os.stat(f).st_size, os.stat(f).st_mtime_ns] for f in files]


def image_bytes(value: Any) -> bytes:
    """An encoded image, bare or as {"bytes": ..., "path": ...}."""
    if isinstance(value, dict):
        value = value.get("bytes")
    if not value:
        raise ValueError("no image bytes in this row")
    if not isinstance(value, bytes):
        raise ValueError(f"its image is a {type(value).__name__}, expected encoded bytes")
    return value


def open_arrayrecord(path: str, split: str, section: str = "real", limit: int = -1) -> Opened:
    """Records that are encoded images, or msgpack maps with image and caption."""
    files = list_files(path, ".arrayrecord", ENDINGS["arrayrecord"], section)
    stretches = []
    for file in files:
        try:
            stretches.append(whole_file(file))
        except (ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:LONGEST]
            raise UserError(
                f"{file}: not ArrayRecord, or truncated ({reason}); download or write it again, or"
                f" set {flag(section)} to a pattern without it"
            ) from error
    _, fields = split_and_fields(split)
    records = ArrayRecords(stretches)
    seen: dict[str, None] = {}
    has_captions = False
    for row in range(min(PROBED, len(records))):
        try:
            names = _unpack(records[row])
        except ValueError:
            continue  # told when the record is used
        seen |= dict.fromkeys(names)
        has_captions |= find_field(names, fields.caption, CAPTION_FIELDS) is not None
    make_reader = functools.partial(_reader_of_arrayrecord, stretches, fields, section)
    return Opened(len(records), make_reader, identity_of(files), list(seen), has_captions)


def _unpack(record: bytes) -> dict[str, Any]:
    """The fields of a record.

    Raises:
      ValueError: it begins as a msgpack map and is none.
    """
    # A msgpack map begins with 0x80 to 0x8f or 0xde. Of image formats only PNG begins so, with
    # 0x89, which would be a map of nine fields.
    if record[:1] not in MSGPACK_MAPS:
        return {BARE: record}
    try:
        # Text comes as bytes: whether it is UTF-8 is asked where its captions are.
        fields = msgpack.unpackb(record, raw=True, strict_map_key=False)
    except Exception as error:  # msgpack raises several kinds, ValueError among them
        raise ValueError(f"no msgpack map ({error or type(error).__name__})") from error
    return {k.decode(errors="replace") if isinstance(k, bytes) else k: v for k, v in fields.items()}


def _reader_of_arrayrecord(stretches: Sequence[Stretch], fields: Fields, section: str) -> Reader:
    records = ArrayRecords(stretches)

    def record(row):
        found = _unpack(records[row])
        # A bare image is in "image", whatever the field of those that stand in maps.
        name = BARE if list(found) == [BARE] else fields.image or BARE
        if name not in found:
            raise ValueError(
                f"no {name} in this record, only {shown_names(found)}; set"
                f" {flag(section, 'image_field')}"
            )
        return captions_in(found, fields.caption), image_bytes(found[name])

    return Reader(record, lambda row: captions_in(_unpack(records[row]), fields.caption))


def _open_parquet(path: str, split: str, section: str = "real", limit: int = -1) -> Opened:
    split, fields = split_and_fields(split)
    files = _of_split(
        list_files(path, ".parquet", ENDINGS["parquet"], section), path, split, section
    )
    groups, columns, seen = [], {}, {}
    for file in files:
        try:
            with pq.ParquetFile(file) as table:
                names = table.schema_arrow.names
                sizes = [table.metadata.row_group(g).num_rows for g in range(table.num_row_groups)]
        except (OSError, pa.ArrowException) as error:
            reason = " ".join(str(error).split())[:LONGEST]
            raise UserError(
                f"{file}: not parquet, or truncated ({reason}); download or write it again, or set"
                f" {flag(section)} to a pattern without it"
            ) from error
        image = find_field(names, fields.image, IMAGE_FIELDS)
        if image is None:
            raise UserError(
                f"{file}: expected a column {fields.image or 'image'}, got {names}; set"
                f" {flag(section, 'image_field')}"
            )
        columns[file] = image, find_field(names, fields.caption, CAPTION_FIELDS)
        seen |= dict.fromkeys(names)
        groups += [ParquetGroup(file, g, n_rows) for g, n_rows in enumerate(sizes) if n_rows]
    has_captions = any(caption is not None for _, caption in columns.values())
    make_reader = functools.partial(_reader_of_parquet, groups, columns)
    n_rows = sum(group.n_rows for group in groups)
    return Opened(n_rows, make_reader, identity_of(files), list(seen), has_captions)


def _reader_of_parquet(groups, columns: Mapping[str, tuple[str, str | None]]) -> Reader:
    rows, texts = ParquetRows(groups), ParquetRows(groups, TEXTS)

    def captions(row):
        return captions_of(texts.value(row, lambda file: columns[file][1]))

    def record(row):
        return captions(row), image_bytes(rows.value(row, lambda file: columns[file][0]))

    return Reader(record, captions)


def _open_tfds(path: str, split: str, section: str = "real", limit: int = -1) -> Opened:
    split, fields = split_and_fields(split)
    source, names = _tfds_source(path, split, fields, section)
    identity = hashlib.sha256(repr(source).encode()).hexdigest()[:16]
    has_captions = find_field(names, fields.caption, CAPTION_FIELDS) is not None
    make_reader = functools.partial(_reader_of_tfds, path, split, fields, section)
    return Opened(len(source), make_reader, identity, names, has_captions)


def _tfds_source(path: str, split: str, fields: Fields, section: str):
    """The source, its images still encoded, and the names of its fields."""
    import tensorflow_datasets as tfds

    try:
        if os.path.isdir(os.path.expanduser(path)):
            builder = tfds.builder_from_directory(os.path.expanduser(path))
        else:
            builder = tfds.builder(path, data_dir=os.environ.get("TFDS_DATA_DIR"))
        names = list(builder.info.features)
        image = find_field(names, fields.image, IMAGE_FIELDS)
        if image is not None:
            decoders = {image: tfds.decode.SkipDecoding()}
            source = builder.as_data_source(split=split, decoders=decoders)
            # tfds holds each file open that it has read from.
            files = [
                Stretch(os.fspath(f.filename), f.skip, f.skip + f.take)
                for f in builder.info.splits[split].file_instructions
            ]
            source.data_source = ArrayRecords(files)
            return source, names
    except Exception as error:  # tfds raises many types; each means: not to be had.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"tfds dataset {path}, split {split}, cannot be opened ({reason[:LONGEST]}); prepare it"
            f" with file_format=array_record, or set {flag(section)} to its folder"
        ) from error
    raise UserError(
        f"tfds dataset {path} has no field {fields.image or 'image'}, only {shown_names(names)};"
        f" set {flag(section, 'image_field')}"
    )


def _reader_of_tfds(path: str, split: str, fields: Fields, section: str) -> Reader:
    source, names = _tfds_source(path, split, fields, section)
    image_name = find_field(names, fields.image, IMAGE_FIELDS)

    def read(row):
        try:
            return source[row]
        except (OSError, ValueError):
            raise
        except Exception as error:  # protobuf and each feature of tfds have errors of their own
            reason = " ".join(str(error).split())[:LONGEST] or type(error).__name__
            raise ValueError(f"its record is no example of {path} ({reason})") from error

    def record(row):
        found = read(row)
        return captions_in(found, fields.caption), image_bytes(found[image_name])

    return Reader(record, lambda row: captions_in(read(row), fields.caption))


def _open_scenes(path: str, split: str, section: str = "real", limit: int = -1) -> Opened:
    try:
        seed = int(path)
        if seed < 0:
            raise ValueError
    except ValueError as error:
        raise UserError(
            f"scenes of seed {path!r}: expected a whole number, 0 or more; set {flag(section)}"
        ) from error
    return Opened(SCENES, functools.partial(_reader_of_scenes, seed), [scenes.VERSION, seed])


def _reader_of_scenes(seed: int) -> Reader:
    def record(row):
        scene = scenes.scene(seed, row)
        return [scene.caption], scenes.encode(scene.image)

    return Reader(record, lambda row: [scenes.scene(seed, row).caption])


def _open_generated(path: str, split: str, section: str = "generated", limit: int = -1) -> Opened:
    from bsjax.data.image_shards import open_generated  # which reads with what stands here

    return open_generated(path)


def _open_shards(
    kind: str, path: str, split: str, section: str = "real", limit: int = -1
) -> Opened:
    from bsjax.data import shard_openers  # likewise

    return shard_openers.OPENERS[kind](path, split, section, limit)


# Each takes path, split with fields, section of the config, and how many records are wanted: fewer
# may be listed where listing takes long, never fewer than those.
OPENERS: dict[str, Callable[..., Opened]] = {
    "arrayrecord": open_arrayrecord,
    "parquet": _open_parquet,
    "tfds": _open_tfds,
    "scenes": _open_scenes,
    "generated": _open_generated,
    "webdataset": functools.partial(_open_shards, "webdataset"),
    "hf": functools.partial(_open_shards, "hf"),
    "hf_stream": functools.partial(_open_shards, "hf_stream"),
}
