"""Generated images on disk: ArrayRecord shards that a killed run completes to the last byte.

A shard holds the images of a fixed range of prompts. While it grows its images lie in a journal,
synced after every batch; once all are there the shard is written whole, and the journal goes. So a
run that is killed repeats a batch at most, and what it ends with is what an uninterrupted run ends
with. Journals and the shards of an unfinished set carry checksums: what is not what was written
here is drawn anew. A finished set is checked by its manifest, and each record says its key.
"""

import functools
import hashlib
import os
import pathlib
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import msgpack
import pyarrow as pa
import pyarrow.parquet as pq
from absl import logging
from array_record.python import array_record_module
from etils import epath
from PIL import Image

from bsjax.core import checksums, mirror
from bsjax.core.artifacts import (
    again,
    atomic_path,
    check_files,
    explain_full_disk,
    identity_of,
    is_remote,
    read_json,
    require_manifest,
    write_json,
)
from bsjax.core.errors import UserError
from bsjax.core.paths import AnyPath
from bsjax.data.captions import BadImage, ImageSet
from bsjax.data.decode import decode_rgb
from bsjax.data.openers import Opened, Reader
from bsjax.data.record_files import ArrayRecords, whole_file
from bsjax.data.sources import Records

TABLE = "images.parquet"
SHARD_PATTERN = "shard-*.arrayrecord"
_SHARD = re.compile(r"shard-\d{5,}\.arrayrecord$")
_JOURNAL = re.compile(r"journal-\d{5,}$")


class Prompt(NamedTuple):
    """What one image is made from. `index` decides its noise, `key` what it is compared with."""

    index: int
    key: str
    caption: str


class Outcome(NamedTuple):
    """An image, or why there is none."""

    prompt: Prompt
    png: bytes | None
    reason: str = ""


class ImageShards:
    """The folder of one generated set.

    Args:
      folder: where the shards lie.
      prompts: all prompts of the set.
      per_shard: prompts per shard.
      seed: written into each record.
      identity: what the shards belong to; None: as the folder says.
    """

    def __init__(
        self,
        folder: AnyPath,
        prompts: Sequence[Prompt],
        per_shard: int,
        seed: int,
        identity: str | None = None,
    ):
        self.folder, self.prompts, self.per_shard, self.seed = folder, prompts, per_shard, seed
        self.n_shards = -(-len(prompts) // per_shard)
        self._open: dict[int, dict[int, Outcome]] = {}  # shard -> place -> outcome
        self._finished: dict[int, dict[str, Any]] = {}  # shard -> sidecar
        self.identity = identity_of(folder) if identity is None else identity

    def missing(self, shard: int) -> list[int]:
        """Places in `prompts` that a shard still lacks."""
        if self._is_finished(shard):
            return []
        if shard not in self._open:
            self._open[shard] = dict(self._read_journal(shard))
        places = [place for place in self.places(shard) if place not in self._open[shard]]
        if not places:  # killed between the last image and the shard
            self._close(shard)
        return places

    def add(self, shard: int, outcomes: Iterable[tuple[int, Outcome]]) -> None:
        """Adds (place, outcome) pairs; they survive from here on.

        Raises:
          UserError: the disk is full.
        """
        outcomes = list(outcomes)
        self._open.setdefault(shard, {}).update(outcomes)
        if not is_remote(self.folder):
            with explain_full_disk(self._journal(shard)), open(self._journal(shard), "ab") as file:
                for place, outcome in outcomes:
                    file.write(self._entry(place, outcome))
                file.flush()
                os.fsync(file.fileno())
        self.missing(shard)  # writes the shard, if this was all of it

    def finish(self) -> tuple[int, list[BadImage]]:
        """Writes the table of all images; returns their number and the prompts without one."""
        rows, bad = [], []
        for shard in range(self.n_shards):
            content = self._read_sidecar(shard)
            if content is None:
                raise UserError(
                    f"{self._sidecar(shard)} is missing or damaged; run the same command again: the"
                    " shard is drawn anew"
                )
            rows += content["images"]
            bad += [BadImage(key, reason) for key, reason in content["failed"]]
        for path in self.folder.iterdir():
            if _JOURNAL.match(path.name):  # killed between the shard and its journal's end
                path.unlink()
        columns = {
            "row": pa.array([row[0] for row in rows], pa.int64()),
            "key": [row[1] for row in rows],
            "caption": [row[2] for row in rows],
        }
        with atomic_path(self.folder / TABLE) as temporary:
            pq.write_table(pa.table(columns), temporary)
        return len(rows), bad

    def first_images(self, n: int) -> list[Image.Image]:
        """The first `n` images, decoded."""
        with tempfile.TemporaryDirectory() as place:
            folder, files = pathlib.Path(self.folder), _shard_files(self.folder)
            if is_remote(self.folder):
                folder, files = pathlib.Path(place), files[:n]  # each has one image at least
                for name in (TABLE, *files):
                    (self.folder / name).copy(folder / name)
            n = min(n, pq.read_metadata(folder / TABLE).num_rows)
            read = _reader(os.fspath(folder), files, folder / TABLE)
            return [decode_rgb(read(i)["image"]) for i in range(n)]

    def places(self, shard: int) -> range:
        """Places in `prompts` of a shard."""
        first = shard * self.per_shard
        return range(first, min(first + self.per_shard, len(self.prompts)))

    def _close(self, shard: int) -> None:
        found = self._open.pop(shard)
        outcomes = [found[place] for place in self.places(shard)]
        made = [outcome for outcome in outcomes if outcome.png is not None]
        failed = [(o.prompt.key, o.reason) for o in outcomes if o.png is None]
        proof = None
        if made:
            with atomic_path(self._path(shard)) as temporary:
                writer = array_record_module.ArrayRecordWriter(str(temporary), "group_size:1")
                for outcome in made:
                    writer.write(msgpack.packb(self._record(outcome)))
                writer.close()
                proof = list(checksums.prove(temporary))
        # Written last: a shard with a sidecar is finished.
        images = [tuple(outcome.prompt) for outcome in made]
        content = {"images": images, "failed": failed, "file": proof}
        write_json(self._sidecar(shard), checksums.seal(content, f"{self.identity}/{shard}"))
        if not is_remote(self.folder):
            pathlib.Path(self._journal(shard)).unlink(missing_ok=True)

    def _record(self, outcome: Outcome) -> dict[str, Any]:
        index, key, caption = outcome.prompt
        return {"key": key, "caption": caption, "seed": self.seed, "index": index,
                "image": outcome.png}  # fmt: skip

    def _is_finished(self, shard: int) -> bool:
        """Whether a shard is there as it was written; one that is not goes, and its sidecar."""
        if shard in self._finished:
            return True
        sidecar, path = self._sidecar(shard), self._path(shard)
        if not sidecar.exists():
            return False
        content = self._read_sidecar(shard)
        if content is not None and content["file"] is not None:
            try:
                is_whole = list(checksums.prove(path)) == content["file"]
            except OSError:
                is_whole = False
            content = content if is_whole else None
        if content is None:
            logging.warning("%s is damaged or not of this run; its images are drawn anew", path)
            sidecar.unlink()
            path.unlink(missing_ok=True)
            return False
        self._finished[shard] = content
        return True

    def _read_sidecar(self, shard: int) -> dict[str, Any] | None:
        """What a finished shard holds; None if it is missing or not what was written here."""
        try:
            content = read_json(self._sidecar(shard))
        except (OSError, UserError):
            return None
        return content if checksums.is_sealed(content, f"{self.identity}/{shard}") else None

    def _entry(self, place: int, outcome: Outcome) -> bytes:
        packed = msgpack.packb((place, tuple(outcome.prompt), outcome.png, outcome.reason))
        return msgpack.packb((self._sum(packed), packed))

    def _sum(self, packed: bytes) -> bytes:
        return hashlib.sha256(f"{self.identity}/{self.seed}/".encode() + packed).digest()

    def _read_journal(self, shard: int) -> Iterator[tuple[int, Outcome]]:
        """What a killed run had drawn; from what was cut off or damaged on, it is drawn again."""
        path = self._journal(shard)
        if is_remote(self.folder) or not path.exists():
            return
        whole, n_read, size = 0, 0, pathlib.Path(path).stat().st_size
        with open(path, "rb") as file:
            unpacker = msgpack.Unpacker(file, max_buffer_size=0)
            while True:
                try:
                    digest, packed = next(unpacker)
                    if digest != self._sum(packed):
                        break
                    place, prompt, png, reason = msgpack.unpackb(packed)
                    if place not in self.places(shard) or Prompt(*prompt) != self.prompts[place]:
                        break
                except StopIteration:
                    break
                except Exception:  # Many types, by which byte is damaged.
                    break
                whole, n_read = unpacker.tell(), n_read + 1
                yield place, Outcome(self.prompts[place], png, reason)
        if whole < size:
            logging.warning(
                "%s: %d of %d bytes are whole; what came behind its %d images is drawn anew",
                path, whole, size, n_read,
            )  # fmt: skip
            os.truncate(path, whole)

    def _path(self, shard: int) -> AnyPath:
        return self.folder / SHARD_PATTERN.replace("*", f"{shard:05d}")

    def _sidecar(self, shard: int) -> AnyPath:
        return self.folder / f"shard-{shard:05d}.json"

    def _journal(self, shard: int) -> AnyPath:
        return self.folder / f"journal-{shard:05d}"


def list_generated(folder: AnyPath) -> ImageSet:
    """The images of a finished generated set, each known by its key.

    Raises:
      UserError: unfinished, or a file of it is missing, damaged or another one.
    """
    manifest = require_manifest(epath.Path(folder), "generate")
    here = mirror.fetch(folder)
    check_files(here, manifest)
    _refuse_foreign(here, manifest)
    table = pq.read_table(here / TABLE, columns=["key", "caption"])
    keys, captions = (table[name].to_pylist() for name in ("key", "caption"))
    records = Records("generated", os.fspath(folder), "", len(keys), keys, captions)
    return ImageSet(records, (), len(keys), 0, 0, "generated")


def _refuse_foreign(folder: AnyPath, manifest: dict[str, Any]) -> None:
    foreign = [name for name in _shard_files(folder) if name not in manifest["files"]]
    if foreign:
        raise UserError(
            f"{folder / foreign[0]} is none of the shards that `bsjax generate` wrote there; remove"
            " it"
        )


def open_generated(path: str) -> Opened:
    """A finished generated set, to be read by rows of its table.

    Raises:
      UserError: it is not there, or a row's record is that of another key.
    """
    try:
        folder = mirror.fetch(epath.Path(path))
    except FileNotFoundError:
        folder = pathlib.Path(path)
    files = _shard_files(folder) if folder.is_dir() else []
    if not files or not (folder / TABLE).is_file():
        raise UserError(f"{path} holds no generated images; {again('generate')}")
    n_records = pq.read_metadata(folder / TABLE).num_rows
    make_reader = functools.partial(_reader, os.fspath(folder), files, folder / TABLE)
    return Opened(n_records, make_reader, files)


def _shard_files(folder: AnyPath) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if _SHARD.match(path.name))


def _reader(folder: str, files: Sequence[str], table: AnyPath):
    keys = pq.read_table(str(table), columns=["key"])["key"].to_pylist()
    paths = [os.path.join(folder, name) for name in files]
    source = ArrayRecords([whole_file(path) for path in paths])

    def fields_of(row):
        try:
            fields = msgpack.unpackb(source[row])
        except (RuntimeError, ValueError, IndexError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"{folder}: row {row} cannot be read ({reason}); {again('generate')}"
            ) from error
        if fields["key"] != keys[row]:
            raise UserError(
                f"{folder}: row {row} is the image of {fields['key']!r}, expected {keys[row]!r};"
                f" {again('generate')}"
            )
        return fields

    def record(row):
        fields = fields_of(row)
        return [fields["caption"]], fields["image"]

    return Reader(record, lambda row: record(row)[0])
