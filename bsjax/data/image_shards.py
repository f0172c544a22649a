"""Generated images on disk: ArrayRecord shards that a killed run completes to the last byte.

A shard holds the images of a fixed range of prompts. While it grows its images lie in a journal,
synced after every batch; once all are there the shard is written whole, and the journal goes. So a
run that is killed repeats a batch at most, and what it ends with is what an uninterrupted run ends
with.
"""

import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import msgpack
import pyarrow as pa
import pyarrow.parquet as pq
from array_record.python import array_record_module
from etils import epath
from PIL import Image

from bsjax.core.artifacts import atomic_path, explain_full_disk, is_remote, read_json, write_json
from bsjax.data.captions import BadImage, ImageSet
from bsjax.data.decode import decode_rgb
from bsjax.data.sources import Records

TABLE = "images.parquet"
SHARD_PATTERN = "shard-*.arrayrecord"


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
      per_shard: prompts a shard.
      seed: written into each record.
    """

    def __init__(self, folder: epath.Path, prompts: Sequence[Prompt], per_shard: int, seed: int):
        self.folder, self.prompts, self.per_shard, self.seed = folder, prompts, per_shard, seed
        self.n_shards = -(-len(prompts) // per_shard)
        self._open: dict[int, dict[int, Outcome]] = {}  # shard -> place -> outcome

    def missing(self, shard: int) -> list[int]:
        """Places in `prompts` that a shard still lacks."""
        if self._sidecar(shard).exists():
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
                    file.write(msgpack.packb((place, outcome.png, outcome.reason)))
                file.flush()
                os.fsync(file.fileno())
        self.missing(shard)  # writes the shard, if this was all of it

    def finish(self) -> tuple[int, list[BadImage]]:
        """Writes the table of all images; returns their number and the prompts without one."""
        rows, bad = [], []
        for shard in range(self.n_shards):
            content = read_json(self._sidecar(shard))
            rows += content["images"]
            bad += [BadImage(key, reason) for key, reason in content["failed"]]
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
        records = list_generated(self.folder).records
        return [decode_rgb(records[i].read()) for i in range(min(n, len(records)))]

    def places(self, shard: int) -> range:
        """Places in `prompts` of a shard."""
        first = shard * self.per_shard
        return range(first, min(first + self.per_shard, len(self.prompts)))

    def _close(self, shard: int) -> None:
        found = self._open.pop(shard)
        outcomes = [found[place] for place in self.places(shard)]
        made = [outcome for outcome in outcomes if outcome.png is not None]
        failed = [(o.prompt.key, o.reason) for o in outcomes if o.png is None]
        if made:
            with atomic_path(self._path(shard)) as temporary:
                writer = array_record_module.ArrayRecordWriter(str(temporary), "group_size:1")
                for outcome in made:
                    writer.write(msgpack.packb(self._record(outcome)))
                writer.close()
        # Written last: a shard with a sidecar is finished.
        images = [tuple(outcome.prompt) for outcome in made]
        write_json(self._sidecar(shard), {"images": images, "failed": failed})
        if not is_remote(self.folder):
            pathlib.Path(self._journal(shard)).unlink(missing_ok=True)

    def _record(self, outcome: Outcome) -> dict[str, Any]:
        index, key, caption = outcome.prompt
        return {"key": key, "caption": caption, "seed": self.seed, "index": index,
                "image": outcome.png}  # fmt: skip

    def _read_journal(self, shard: int) -> Iterator[tuple[int, Outcome]]:
        """What a killed run had drawn; an entry that was cut off is drawn again."""
        path = self._journal(shard)
        if is_remote(self.folder) or not path.exists():
            return
        whole = 0
        with open(path, "rb") as file:
            unpacker = msgpack.Unpacker(file, max_buffer_size=0)
            for place, png, reason in unpacker:
                whole = unpacker.tell()
                yield place, Outcome(self.prompts[place], png, reason)
        os.truncate(path, whole)

    def _path(self, shard: int) -> epath.Path:
        return self.folder / SHARD_PATTERN.replace("*", f"{shard:05d}")

    def _sidecar(self, shard: int) -> epath.Path:
        return self.folder / f"shard-{shard:05d}.json"

    def _journal(self, shard: int) -> epath.Path:
        return self.folder / f"journal-{shard:05d}"


def list_generated(folder: epath.Path) -> ImageSet:
    """The images of a finished generated set."""
    table = pq.read_table(str(folder / TABLE), columns=["key", "caption"])
    pattern = str(folder / SHARD_PATTERN)
    records = Records(
        "arrayrecord",
        pattern,
        "",
        table.num_rows,
        *(table[name].to_pylist() for name in ("key", "caption")),
    )
    return ImageSet(records, (), table.num_rows, 0, 0, "generated")
