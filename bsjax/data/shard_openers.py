"""How tar shards of WebDataset and data sets of the `datasets` library are opened."""

import bisect
import functools
import os
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from bsjax.core.addresses import Address
from bsjax.core.errors import UserError
from bsjax.data import downloads, hf_datasets, tar_shards
from bsjax.data.openers import (
    ENDINGS,
    PROBED,
    Opened,
    Reader,
    flag,
    identity_of,
    image_bytes,
    list_files,
    open_arrayrecord,
)
from bsjax.data.tar_shards import Shard
from bsjax.data.text import (
    CAPTION_FIELDS,
    Fields,
    captions_of,
    find_field,
    shown_names,
    split_and_fields,
)


class Texts(Sequence):
    """Texts in an Arrow array, which takes a fifth of the memory of a list."""

    def __init__(self, array: pa.StringArray | pa.ChunkedArray):
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, row):
        if isinstance(row, slice):
            return Texts(self.array[row])
        return self.array[row].as_py()

    def __iter__(self):
        return iter(self.array.to_pylist())


class Shards:
    """Samples of several tar files, one file behind the other. Worker processes can pickle it."""

    def __init__(self, shards: Sequence[Shard], fields: Fields):
        self.shards, self.fields = list(shards), fields
        self.ends = np.cumsum([len(shard.keys) for shard in self.shards]).tolist()

    def find(self, row: int) -> tuple[Shard, int]:
        """The file of a sample, and its row there."""
        place = bisect.bisect_right(self.ends, row)
        shard = self.shards[place]
        return shard, row - (self.ends[place] - len(shard.keys))

    def locate(self, row: int) -> Address:
        """Where a sample lies, by its own file: listing all files takes long."""
        shard, place = self.find(row)
        return Address("webdataset", shard.path, self.fields.beside("train"), place)

    def reader(self) -> Reader:
        """Reads samples."""
        return Reader(self._record, self._captions)

    def _record(self, row: int) -> tuple[list[str], bytes]:
        return tar_shards.read_sample(*self.find(row), self.fields)

    def _captions(self, row: int) -> list[str]:
        shard, place = self.find(row)
        return tar_shards.captions_in_sample(shard, shard.parts(place), self.fields.caption)


def _open_webdataset(path: str, split: str, section: str = "real", limit: int = -1) -> Opened:
    _, fields = split_and_fields(split)
    files = list_files(path, ".tar", ENDINGS["webdataset"], section)
    shards: list[Shard] = []
    n_records = 0
    for file in files:
        if 0 <= limit <= n_records:
            break  # listing takes a second for some 10,000 samples
        stat = os.stat(file)
        shards.append(tar_shards.indexed(file, (stat.st_size, stat.st_mtime_ns)))
        n_records += len(shards[-1].keys)
    names = list(dict.fromkeys(name for shard in shards for name in shard.fields))
    if n_records and tar_shards.find_image(names, fields.image) is None:
        raise UserError(
            f"{path}: expected samples with {fields.image or 'an image'}, got {shown_names(names)};"
            f" set {flag(section, 'image_field')}"
        )
    seen, has_captions = list(names), False
    if shards:
        seen, has_captions = tar_shards.caption_fields(shards[0], fields.caption, PROBED)
    found = Shards(shards, fields)
    return Opened(
        n_records,
        found.reader,
        identity_of([shard.path for shard in shards]),
        seen,
        has_captions,
        notes=downloads.losses([os.path.splitext(shard.path)[0] for shard in shards]),
        keys=_keys(shards),
        locate=found.locate,
    )


def _keys(shards: Sequence[Shard]) -> Texts:
    """Names of the samples; with those of their files where a name comes twice."""
    keys = pa.chunked_array([shard.keys for shard in shards], pa.string())
    if len(keys) == len(keys.unique()):
        return Texts(keys)
    files = [os.path.splitext(os.path.abspath(shard.path))[0] for shard in shards]
    names = [os.path.basename(file) for file in files]
    if len(set(names)) < len(names):
        names = [os.path.relpath(file, os.path.commonpath(files)) for file in files]
    told = [
        f"{name}/{key}"
        for name, shard in zip(names, shards, strict=True)
        for key in shard.keys.to_pylist()
    ]
    return Texts(pa.array(told, pa.string()))


def _open_hf(path: str, split: str, section: str = "real", limit: int = -1) -> Opened:
    split, fields = split_and_fields(split)
    found = hf_datasets.load(path, split, section)
    found, _ = hf_datasets.with_encoded_images(found, path, fields, section)
    names = list(found.features)
    has_captions = find_field(names, fields.caption, CAPTION_FIELDS) is not None
    make_reader = functools.partial(_reader_of_hf, path, split, fields, section)
    return Opened(len(found), make_reader, found._fingerprint, names, has_captions)


def _reader_of_hf(path: str, split: str, fields: Fields, section: str) -> Reader:
    found, image = hf_datasets.with_encoded_images(
        hf_datasets.load(path, split, section), path, fields, section
    )
    caption = find_field(list(found.features), fields.caption, CAPTION_FIELDS)
    # As Arrow has them: the library's own values cost as much again.
    columns = [image, *([] if caption in (None, image) else [caption])]
    rows = found.select_columns(columns).with_format("arrow")
    # Without a selection of rows the columns are read at once; each row by the library costs more.
    whole = None if found._indices is not None else found.data
    texts = None if caption is None else found.select_columns([caption]).with_format("arrow")

    def record(row):
        values, place = (rows[row], 0) if whole is None else (whole, row)
        captions = [] if caption is None else captions_of(values.column(caption)[place].as_py())
        return captions, image_bytes(hf_datasets.encoded(values.column(image)[place].as_py()))

    def captions(row):
        if texts is None:
            return []
        values, place = (texts[row], 0) if whole is None else (whole, row)
        return captions_of(values.column(caption)[place].as_py())

    return Reader(record, captions)


def _open_hf_stream(path: str, split: str, section: str = "real", limit: int = -1) -> Opened:
    split, fields = split_and_fields(split)
    pattern, columns = hf_datasets.spool(path, split, limit, fields, section)
    opened = open_arrayrecord(pattern, "train", section)
    return opened._replace(
        identity=[path, split, opened.n_records],
        fields=columns,
        has_captions=find_field(columns, fields.caption, CAPTION_FIELDS) is not None,
        locate=functools.partial(_in_spool, pattern),
    )


def _in_spool(pattern: str, row: int) -> Address:
    return Address("arrayrecord", pattern, "train", row)


OPENERS = {"webdataset": _open_webdataset, "hf": _open_hf, "hf_stream": _open_hf_stream}
