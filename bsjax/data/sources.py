"""Images from elsewhere than a folder: shards of many kinds, data sets by name, drawn scenes.

Each is a sequence of records that are read one by one, in any order, from several threads or
processes; only what a step needs is ever in memory. Captions are there where the source has them.
"""

import functools
import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from bsjax.core.addresses import Address, parse_address, write_address
from bsjax.core.errors import UserError
from bsjax.core.foreign import valid_text
from bsjax.data.captions import ImageSet
from bsjax.data.image_files import TEXT_SUFFIXES, read_file
from bsjax.data.openers import EITHER, ENDINGS, OPENERS, Opened, Reader, flag
from bsjax.data.text import ALL, Fields, no_captions_note

BESIDE = TEXT_SUFFIXES | {".md", ".yaml", ".yml", ".py", ".idx", ".lock"}  # hold no images


class LazyRecord(NamedTuple):
    """One image of a large set; as `bsjax.data.captions.ImageRecord`, read when asked."""

    source: "Records"
    row: int  # of the image in the source
    place: int  # in the sequence: another where an image comes once per caption

    @property
    def key(self) -> str:
        keys = self.source.keys
        return keys[self.place] if keys is not None else self.cluster

    @property
    def cluster(self) -> str:
        """Key of the image, which all its captions share."""
        if self.source.clusters is not None:
            return self.source.clusters[self.place]
        if self.source.keys is not None and self.source.rows is None:
            return self.source.keys[self.place]
        return f"{self.row:09d}"

    @property
    def caption(self) -> str:
        """The first of the record's; "" where it has none, or none that can be used."""
        if self.source.captions is not None:
            return self.source.captions[self.place]
        if (just := self.source.just_read(self.row)) is not None:
            return just
        return next(iter(self.source.captions_at(self.row)), "")

    @property
    def path(self) -> str:
        """Where the image lies, for `read_image`."""
        source = self.source
        if source.locate is not None:
            return write_address(source.locate(self.row))
        return write_address(Address(source.kind, source.path, source.split, self.row))

    @property
    def extra(self) -> Mapping[str, str]:
        return {}

    def read(self) -> bytes:
        """The encoded image.

        Raises:
          ValueError: the record has no image, or a caption that is no text.
        """
        return self.source.fields(self.row)["image"]


class Records(Sequence):
    """A sequence of `LazyRecord`; each process that it is sent to opens the files for itself.

    Args:
      kind: a key of `bsjax.data.openers.OPENERS`.
      path: as `list_source` takes it.
      split: of a tfds dataset.
      n_records: how many.
      keys: of the records; None: their rows.
      captions: where they are known without reading; None: they stand in the records.
      rows: of the images, where an image comes more than once; None: each once.
      section: of the config, for messages.
      opened: what is known of the source, where it can be sent to other processes.
    """

    def __init__(
        self,
        kind: str,
        path: str,
        split: str,
        n_records: int,
        keys: Sequence[str] | None = None,
        captions: Sequence[str] | None = None,
        rows: Sequence[int] | None = None,
        section: str = "real",
        opened: Opened | None = None,
    ):
        self.kind, self.path, self.split, self.n_records = kind, path, split, n_records
        self.keys, self.captions, self.rows = keys, captions, rows
        self.section, self.clusters = section, None
        self.locate = opened and opened.locate
        self.make_reader = opened and opened.make_reader
        self._lock, self._read, self._just = threading.Lock(), None, threading.local()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_lock": None, "_read": None, "_just": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock(), _just=threading.local())

    def __len__(self) -> int:
        return self.n_records

    def __getitem__(self, row: int) -> LazyRecord:
        if not -self.n_records <= row < self.n_records:
            raise IndexError(row)
        place = int(row) % self.n_records
        return LazyRecord(self, place if self.rows is None else self.rows[place], place)

    def fields(self, row: int) -> dict[str, Any]:
        """caption and image of a row of the source.

        Raises:
          ValueError: they cannot be used.
        """
        fields = self._reader()(row)
        self._just.found = row, fields["caption"]
        return fields

    def just_read(self, row: int) -> str | None:
        """The caption of the row that this thread read last; None of any other."""
        found = getattr(self._just, "found", None)
        return found[1] if found is not None and found[0] == row else None

    def captions_at(self, row: int) -> list[str]:
        """All captions of a row of the source; none where they cannot be used."""
        try:
            return self._reader().captions(row)
        except ValueError:
            return []

    def _reader(self) -> Reader:
        with self._lock:
            if self._read is None:
                if self.make_reader is None:
                    opened = OPENERS[self.kind](self.path, self.split, self.section)
                    self._read = opened.make_reader()
                else:
                    self._read = self.make_reader()
        return self._read


def read_image(path: str) -> bytes:
    """The encoded image at a file's path or at a `LazyRecord.path`.

    Raises:
      OSError, ValueError: it is gone.
    """
    address = parse_address(path)
    if not address.kind:
        return read_file(path)
    try:
        return _reader(address.kind, address.path, address.split)(address.row)["image"]
    except (UserError, IndexError, RuntimeError) as error:
        raise OSError(f"{path} cannot be read: {error}") from error


@functools.lru_cache(maxsize=4)
def _reader(kind: str, path: str, split: str) -> Callable[[int], dict[str, Any]]:
    return OPENERS[kind](path, split, EITHER).make_reader()


def list_source(
    source: str,
    path: str,
    split: str = "train",
    limit: int = -1,
    fields: Fields = Fields(),  # noqa: B008
    section: str = "real",
) -> tuple[ImageSet, list[Any]]:
    """Opens an image source that is no folder.

    Args:
      source: "arrayrecord" (records are encoded images, or msgpack maps with image and caption),
        "parquet" (a column of encoded images, bare or as Hugging Face has it, and perhaps one of
        captions), "webdataset" (tar shards), "hf" (data sets of the library of that name),
        "hf_stream" (the first `limit` rows of one, read as they come), "tfds" (a prepared dataset
        in ArrayRecord format), "scenes" (drawn as they are read, see `bsjax.data.scenes`).
      path: files, with wildcards; the name of a tfds dataset ("imagenet2012"), or its folder; the
        seed of scenes.
      split: of a tfds dataset, or of a folder of parquet files as Hugging Face names them.
      limit: keep only the first so many images; -1 keeps all.
      fields: of images and captions, where they are not the usual ones; with captions="all" each
        caption is a record, keys end in #0, #1, ..., and all captions are read now.
      section: of the config, for messages.

    Returns:
      The set, and what tells it from others (names, sizes and dates of its files).

    Raises:
      UserError: no such files, no images in them, a dataset that is not prepared.
    """
    split = fields.beside(split)
    opened = OPENERS[source](path, split, section, limit)
    n_records = opened.n_records
    if limit >= 0:
        n_records = min(n_records, limit)
    if not n_records:
        raise UserError(f"{path} holds no record; set {flag(section)}")
    records = Records(
        *(source, path, split, n_records, opened.keys),
        section=section,
        # Others are opened anew, from their path alone.
        opened=opened if opened.locate is not None else None,
    )
    notes, n_without = tuple(opened.notes), 0
    if not opened.has_captions:
        notes += (no_captions_note(path, opened.fields, fields.caption, section),)
        n_without = n_records
    elif fields.captions == ALL:
        records = _one_a_caption(records)
        n_without = sum(not caption for caption in records.captions)
    others = _left_out(path, ENDINGS[source]) if source in ENDINGS else ()
    images = ImageSet(records, (), len(records), 0, n_without, source, others, notes)
    return images, [source, path, split, n_records, opened.identity]


def _left_out(path: str, ending: str) -> tuple[str, ...]:
    """What else lies in a folder of files of one kind, but texts and tables that go with them."""
    folder = os.path.expanduser(path)
    if not os.path.isdir(folder):
        return ()
    return tuple(
        valid_text(entry.name) + ("/" if entry.is_dir() else "")
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name)
        if not re.search(ending, entry.name, re.I)
        and not entry.name.startswith((".", "_"))
        and os.path.splitext(entry.name)[1].lower() not in BESIDE
    )


def _one_a_caption(records: Records) -> Records:
    keys, captions, rows, clusters = [], [], [], []
    for record in records:
        for i, caption in enumerate(records.captions_at(record.row) or [""]):
            keys.append(f"{record.cluster}#{i}")
            captions.append(caption)
            rows.append(record.row)
            clusters.append(record.cluster)
    several = Records(
        *(records.kind, records.path, records.split, len(rows), keys, captions, rows),
        section=records.section,
    )
    several.clusters = clusters
    several.locate, several.make_reader = records.locate, records.make_reader
    return several
