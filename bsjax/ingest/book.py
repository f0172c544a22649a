"""What is known of each candidate, kept across a kill, and the shards of images that follow.

An answer is written down as it comes: its bytes into a file of its own, then a line into a journal.
Candidates are settled in the order in which they were drawn, whatever the order of the answers: so
the images kept do not depend on which server was quick. A full shard is written whole, then the
files of its images go.
"""

import contextlib
import functools
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgpack
import pyarrow as pa
import pyarrow.parquet as pq
from absl import logging
from array_record.python import array_record_module

from bsjax.core.artifacts import atomic_path, explain_full_disk
from bsjax.ingest.candidates import Candidate
from bsjax.ingest.judge import Judged, Seen
from bsjax.results.ingested import KEPT, OUTCOMES, TABLE

PARTIAL, JOURNAL = ".partial", "journal.jsonl"
SHARD, SHARDS = "shard-{:05d}.arrayrecord", "shard-*.arrayrecord"


class Known(NamedTuple):
    """What came of asking for a candidate, before others are looked at."""

    reason: str  # "": an image
    detail: str = ""
    width: int = 0
    height: int = 0
    phash: int = 0
    n_bytes: int = 0
    sha256: str = ""


class Book:
    """The state of one ingest.

    Args:
      folder: where the shards go.
      identity: of the settings and the table; answers written down under another are not used.
      candidates: in the order in which they were drawn.
      n_images: to keep.
      per_shard: images of a shard.
      most_bits: of `Seen`.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        identity: str,
        candidates: Sequence[Candidate],
        n_images: int,
        per_shard: int,
        most_bits: int,
    ):
        self.folder, self.candidates, self.n_images = folder, candidates, n_images
        self.outcomes: list[tuple[str, str]] = []  # of the candidates that are settled
        self.n_kept = 0
        self._known: dict[int, Known] = {}
        self._settled: list[Known] = []
        self._kept: list[int] = []  # places of kept candidates, in order
        self._per_shard, self._identity = per_shard, identity
        self._seen = Seen(most_bits)
        self._partial = folder / PARTIAL
        self._partial.mkdir(parents=True, exist_ok=True)
        self._n_sealed = 0  # images in shards that are written
        self._read_journal()
        self._journal = open(self._partial / JOURNAL, "ab")  # noqa: SIM115 - `close` closes it
        self.settle()

    @property
    def is_done(self) -> bool:
        """Whether there are enough images, or no more candidates."""
        return self.n_kept >= self.n_images or len(self.outcomes) == len(self.candidates)

    def is_known(self, place: int) -> bool:
        """Whether a candidate need not be asked for any more."""
        return place < len(self.outcomes) or place in self._known

    def add(self, place: int, judged: Judged, body: bytes | None) -> None:
        """Writes down what came of a candidate; survives from here on.

        Raises:
          UserError: the disk is full.
        """
        known = Known(judged.reason, judged.detail)
        if body is not None and not judged.reason:
            known = Known(
                "", "", judged.width, judged.height, judged.phash, len(body),
                hashlib.sha256(body).hexdigest(),
            )  # fmt: skip
            with explain_full_disk(self._body(place)):
                self._body(place).write_bytes(body)
        elif judged.width:
            known = known._replace(width=judged.width, height=judged.height)
        line = json.dumps([place, *known])
        with explain_full_disk(self._partial / JOURNAL):
            self._journal.write(f"{self._sum(line)} {line}\n".encode())
            self._journal.flush()
        self._known[place] = known

    def settle(self) -> None:
        """Decides on all candidates before the first that is not known yet; writes full shards."""
        while not self.is_done and len(self.outcomes) in self._known:
            place = len(self.outcomes)
            known = self._known.pop(place)
            outcome = known.reason, known.detail
            if not known.reason:
                twin = self._seen.nearest(known.phash)
                if twin is not None:
                    row = self.candidates[self._kept[twin]].row
                    outcome = "duplicate", f"as row {row}"
                    self._body(place).unlink(missing_ok=True)
                else:
                    outcome = KEPT, ""
                    self._seen.add(known.phash)
                    self._kept.append(place)
                    self.n_kept += 1
            self.outcomes.append(outcome)
            self._settled.append(known)
            if self.n_kept - self._n_sealed == self._per_shard:
                self._seal()

    def finish(self) -> dict[str, int]:
        """Writes the last shard and the table of all candidates; returns how many by outcome."""
        if self.n_kept > self._n_sealed:
            self._seal()
        self._write_table()
        self._journal.close()
        counts = dict.fromkeys(OUTCOMES, 0)
        for outcome, _ in self.outcomes:
            counts[outcome] += 1
        return counts

    def clear(self) -> None:
        """Removes what only an unfinished ingest needs."""
        shutil.rmtree(self._partial, ignore_errors=True)

    def close(self) -> None:
        """Lets go of the journal."""
        self._journal.close()

    def _seal(self) -> None:
        """Writes the shard of the images kept since the last one."""
        places = self._kept[self._n_sealed :]
        path = self.folder / SHARD.format(self._n_sealed // self._per_shard)
        missing = [place for place in places if not self._body(place).exists()]
        if not missing:
            with atomic_path(path) as temporary:
                writer = array_record_module.ArrayRecordWriter(str(temporary), "group_size:1")
                for place in places:
                    row, url, caption, _ = self.candidates[place]
                    writer.write(msgpack.packb({
                        "key": f"{row:09d}", "caption": caption, "url": url,
                        "image": self._body(place).read_bytes(),
                    }))  # fmt: skip
                writer.close()
            for place in places:
                self._body(place).unlink()
        self._n_sealed = self.n_kept

    def _write_table(self) -> None:
        n = len(self.outcomes)
        candidates = self.candidates[:n]
        columns = {
            "place": pa.array(range(n), pa.int64()),
            "row": pa.array([each.row for each in candidates], pa.int64()),
            "url": [each.url for each in candidates],
            "caption": [each.caption for each in candidates],
            "outcome": [outcome for outcome, _ in self.outcomes],
            "detail": [detail for _, detail in self.outcomes],
            "width": pa.array([known.width for known in self._settled], pa.int32()),
            "height": pa.array([known.height for known in self._settled], pa.int32()),
            "bytes": pa.array([known.n_bytes for known in self._settled], pa.int64()),
            "sha256": [known.sha256 for known in self._settled],
        }
        with atomic_path(self.folder / TABLE) as temporary:
            pq.write_table(pa.table(columns), temporary)

    def _read_journal(self) -> None:
        path = self._partial / JOURNAL
        if not path.exists():
            return
        n_lost, whole = 0, 0
        with open(path, "rb") as file:
            for raw in file:
                if raw.endswith(b"\n"):
                    whole += len(raw)
                digest, _, line = raw.decode(errors="replace").rstrip("\n").partition(" ")
                if not raw.endswith(b"\n") or digest != self._sum(line):
                    n_lost += 1
                    continue
                place, *values = json.loads(line)
                self._known[place] = Known(*values)
        os.truncate(path, whole)  # a line that a kill cut off
        for place in [p for p, known in self._known.items() if not known.reason]:
            if not self._is_there(place):
                del self._known[place]
        if n_lost:
            logging.warning("%s: %d damaged lines; these are asked for again", path, n_lost)

    def _is_there(self, place: int) -> bool:
        """Whether a candidate's image can still be had: from its file, or from a shard."""
        body = self._body(place)
        if body.exists():
            return hashlib.sha256(body.read_bytes()).hexdigest() == self._known[place].sha256
        return place in self._in_shards

    @functools.cached_property
    def _in_shards(self) -> set[int]:
        """Places of the candidates whose images stand in shards that are written.

        A shard of which anything is not as the journal has it goes: its images are asked for again.
        """
        place_of = {f"{each.row:09d}": place for place, each in enumerate(self.candidates)}
        found: set[int] = set()
        for path in sorted(self.folder.glob(SHARDS)):
            places = set()
            for key, sha256 in _contents(path):
                place = place_of.get(key, -1)
                known = self._known.get(place)
                if known is None or known.sha256 != sha256:
                    logging.warning("%s is not what was written; it is made anew", path)
                    path.unlink()
                    places = set()
                    break
                places.add(place)
            found |= places
        return found

    def _body(self, place: int) -> pathlib.Path:
        return self._partial / f"{place:09d}.bin"

    def _sum(self, line: str) -> str:
        return hashlib.sha256(f"{self._identity}/{line}".encode()).hexdigest()[:16]


def _contents(path: pathlib.Path) -> Iterator[tuple[str, str]]:
    """Key and sha256 of each image of a shard; an empty key where it is damaged."""
    reader = None
    try:
        reader = array_record_module.ArrayRecordReader(str(path), "")
        for row in range(reader.num_records()):
            record = msgpack.unpackb(reader.read([row])[0])
            yield record["key"], hashlib.sha256(record["image"]).hexdigest()
    except (RuntimeError, ValueError, KeyError, TypeError):
        yield "", ""
    finally:
        if reader is not None:
            with contextlib.suppress(RuntimeError):  # told above
                reader.close()
