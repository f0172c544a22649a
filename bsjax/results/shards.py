"""Shards of an unfinished `measure`, and the artifacts made of them when all are there.

    .partial/layout.json         how many images a shard holds
    .partial/shard-00000.npz     token codes, image codes, sketches of the patches, counts and top
                                 images
    .partial/pairs-00000-00000/  co-occurrence of the shard (runs are merged as they pile up)

A shard holds a fixed range of images, and what is told of these alone. So shards are made in any
order, by any number of hosts, and the artifacts made of them in the order of images are the same.
A shard's npz is written last and whole: it exists if and only if the shard is complete. Both carry
checksums: what is not what was written here is made anew.
"""

import itertools
import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from absl import logging

from bsjax.core import checksums, distributed
from bsjax.core.artifacts import (
    TEMPORARY,
    atomic_path,
    identity_of,
    read_json,
    remove_tree,
    write_json,
)
from bsjax.core.dims import Grid
from bsjax.core.errors import UserError
from bsjax.core.paths import AnyPath
from bsjax.core.sparse_npz import CsrWriter
from bsjax.data.captions import BadImage, Record
from bsjax.data.images import Batch
from bsjax.results import measures, packing
from bsjax.results.runs import Runs, outermost, parse_run
from bsjax.stats import activation_maps, streaming
from bsjax.stats.cooccurrence import cooccurrence
from bsjax.stats.copies import Sketch

# Co-occurrence runs that may pile up before they are merged into one.
FAN_IN = 16
FORM = 2  # of the shards; those of 1 held running totals, and so went on one behind the other
LAYOUT, PER_SHARD = "layout.json", "images_per_shard"


class Progress(NamedTuple):
    """Where a measure stands."""

    next_row: int  # the first image that is to be measured yet
    missing: list[int]  # shards that this host is to make
    n_done: int  # images of the finished ones, whoever made them
    bad: list[tuple[int, str]]  # rows of unusable images that this host knows of, and why


class ShardStore:
    """Collects batches into shards and shards into the artifacts of measures/<set>/.

    Args:
      folder: of the artifact.
      n_concepts: of the SAE.
      grid: how the tokens of an image lie.
      fan_in: runs of co-occurrence that are merged at once.
      identity: what the shards belong to; None: as the folder says.
    """

    def __init__(
        self,
        folder: AnyPath,
        n_concepts: int,
        grid: Grid,
        fan_in: int = FAN_IN,
        identity: str | None = None,
    ):
        self.folder = folder
        self.partial = folder / ".partial"
        self.n_concepts = n_concepts
        self.grid = grid
        self.fan_in = fan_in
        self._identity = identity_of(folder) if identity is None else identity
        self._n_images = self._per_shard = None
        self._runs = Runs(self.partial, n_concepts, fan_in, self._name)
        self._begin_shard()

    @property
    def n_pending(self) -> int:
        """Images added since the last commit."""
        return sum(batch.n_records for batch, *_ in self._open)

    def resume(
        self, n_top: int, n_images: int | None = None, images_per_shard: int | None = None
    ) -> Progress:
        """Finds what is finished and divides the rest among the hosts; all call it together.

        Args:
          n_top: top images kept per concept.
          n_images: of the set; None: shards come one behind the other, however large.
          images_per_shard: of a set that was not begun; one that was keeps its own.
        """
        self._n_top, self._n_images = n_top, n_images
        if n_images is not None:
            begun = self._begin_layout(images_per_shard) if distributed.is_writer() else None
            self._per_shard = distributed.from_writer(begun)
        elif distributed.is_writer():
            self.partial.mkdir(parents=True, exist_ok=True)
        names = [path.name for path in self._children()]
        numbers = sorted(int(match[1]) for name in names if (match := _SHARD.match(name)))
        n_shards = 1 + max(numbers, default=-1)
        if n_images is not None:
            n_shards = math.ceil(n_images / self._per_shard)
        # Each host looks through a part. One that does not see yet what another wrote in an earlier
        # run has it made anew.
        n_shards = max(distributed.from_all(n_shards))
        mine = distributed.my_part(range(n_shards))
        whole, runs, bad = self._look_through(names, numbers, mine)
        told = distributed.from_all([whole, runs])
        found = {i for shards, _ in told for i in shards}
        runs = [tuple(run) for _, runs in told for run in runs]
        done = self._runs.choose(found, runs)
        if n_images is None:
            end = next(i for i in itertools.count() if i not in done)
            done = self._runs.choose(set(range(end)), runs)
        if distributed.is_writer():
            self._drop(names, done, numbers)
        distributed.wait_for_all("measure_resumed")
        missing = [i for i in range(n_shards) if i not in done]
        self._next = missing[0] if missing else n_shards
        next_row = sum(self._n_of(i) for i in range(self._next))
        n_done = sum(self._n_of(i) for i in done)
        missing = list(distributed.my_part(missing))
        return Progress(next_row, missing, n_done, bad)

    def _look_through(
        self, names: Sequence[str], numbers: Sequence[int], mine: Sequence[int]
    ) -> tuple[list[int], list[tuple[int, int]], list[tuple[int, str]]]:
        """Of this host's part what is whole: shards, runs that begin there, and unusable images."""
        whole, bad = [], []
        for i in mine:
            if i in numbers and (found := self._find(i)) is not None:
                whole.append(i)
                bad += found
        runs = [run for name in names if (run := parse_run(name)) is not None]
        return whole, [run for run in runs if run[0] in mine and self._runs.is_whole(run)], bad

    def rows_of(self, shard: int) -> tuple[int, int]:
        """First row of a shard, and the row behind its last."""
        first = shard * self._per_shard
        return first, min(first + self._per_shard, self._n_images)

    def _n_of(self, shard: int) -> int:
        """Images of a finished shard, unusable ones included."""
        if self._per_shard is not None:
            first, stop = self.rows_of(shard)
            return stop - first
        with checksums.read_arrays(self._shard(shard)) as arrays:
            return int(arrays["stop"]) - int(arrays["start"])

    def _begin_layout(self, images_per_shard: int) -> int:
        """Images that each shard holds: as they were begun, whatever is asked for now."""
        self.partial.mkdir(parents=True, exist_ok=True)
        path = self.partial / LAYOUT
        try:
            found = read_json(path)
        except (OSError, UserError):
            found = None
        if checksums.is_sealed(found, self._name(LAYOUT)):
            return found[PER_SHARD]
        write_json(path, checksums.seal({PER_SHARD: images_per_shard}, self._name(LAYOUT)))
        return images_per_shard

    def _drop(self, names: Sequence[str], done: set[int], numbers: Sequence[int]) -> None:
        """Removes leftovers of killed runs, and what cannot be used."""
        for name in names:
            run = parse_run(name)
            if name.startswith(TEMPORARY) or (run and run not in self._runs.known):
                path = self.partial / name
                remove_tree(path) if path.is_dir() else path.unlink(missing_ok=True)
        lost = [i for i in numbers if i not in done]
        for i in lost:
            self._shard(i).unlink(missing_ok=True)
        if lost:
            logging.warning(
                "%s: %d of %d unfinished shards are damaged, or of another version; they are made"
                " anew", self.partial, len(lost), len(numbers),
            )  # fmt: skip

    def _children(self) -> list[AnyPath]:
        return list(self.partial.iterdir()) if self.partial.is_dir() else []

    def _find(self, i: int) -> list[tuple[int, str]] | None:
        """Unusable images of a shard; None where the shard is not what was written."""
        try:
            shard = self._load(i)
        except UserError:
            return None
        return _bad_of(shard)

    def add(self, batch: Batch, statistics: Any, codes: sp.csr_array) -> None:
        """Adds a batch's results (on the host) to the open shard."""
        mask = np.asarray(batch.mask)
        self._fires = self._fires + np.asarray(statistics.fires, np.int64)
        self._present = self._present + np.asarray(statistics.present, np.int64)
        sketch = statistics.sketch
        if sketch is not None:
            sketch = Sketch(*(np.asarray(part)[mask] for part in sketch))
        energy = np.asarray(statistics.image_energy)[mask]
        self._open.append((batch, energy, codes, sketch))

    def commit(self, top: streaming.TopImages) -> None:
        """Writes the open shard.

        Args:
          top: its top images.
        """
        batches, energies, codes, sketches = zip(*self._open, strict=True)
        token_codes = sp.csr_array(sp.vstack(codes, format="csr"))
        image_codes = sp.csr_array(np.concatenate(energies))
        rows = np.concatenate([batch.rows for batch in batches])
        mask = np.concatenate([batch.mask for batch in batches])
        bad = [entry for batch in batches for entry in batch.bad]
        start, stop = int(rows[0]), int(rows.max()) + 1
        i = self._next if self._per_shard is None else start // self._per_shard
        self._runs.add(i, cooccurrence(token_codes))
        with atomic_path(self._shard(i)) as temporary:
            checksums.save_arrays(
                temporary,
                self._name(self._shard(i).name),
                start=start,
                stop=stop,
                rows=rows[mask],
                fires=self._fires,
                present=self._present,
                top_scores=top.scores,
                top_rows=top.rows,
                bad_rows=np.array([row for row, _ in bad], np.int64),
                bad_reasons=np.array([reason for _, reason in bad], dtype=np.str_),
                **packing.pack("token", token_codes),
                **packing.pack("image", image_codes),
                **packing.pack_sketches(sketches),
            )
        self._begin_shard()
        self._next = i + 1
        self._runs.merge(i)

    def gather(self) -> None:
        """Returns when the shards of all hosts are there; all call it together."""
        told = distributed.from_all(sorted(self._runs.known))
        self._runs.known = outermost(tuple(run) for runs in told for run in runs)

    def read_bad(self) -> list[tuple[int, str]]:
        """Rows of the unusable images of all shards, in order, and why."""
        bad = []
        for i in range(self._n_shards):
            with checksums.read_arrays(self._shard(i)) as arrays:
                bad += _bad_of(arrays)
        return bad

    def finish(self, records: Sequence[Record], bad: Sequence[BadImage]) -> dict[str, Any]:
        """Writes the artifacts from all shards; returns counts for the manifest. One host does.

        Raises:
          UserError: no image could be used.
        """
        totals = streaming.init(self.n_concepts)
        top = streaming.empty_top_images(self.n_concepts, self._n_top)
        kept = []  # record of each row of the artifacts
        with (
            CsrWriter(self.folder / measures.IMAGE_CODES, self.n_concepts, np.float32) as writer,
            CsrWriter(self.folder / measures.IMAGE_TOKENS, self.n_concepts, np.int32) as counter,
        ):
            for i in range(self._n_shards):
                shard = self._load(i)
                kept.append(shard["rows"])
                codes = packing.unpack("image", shard, self.n_concepts)
                totals = streaming.add_images(totals, codes, shard["fires"], shard["present"])
                top = streaming.merge_top_images(
                    top, streaming.TopImages(shard["top_scores"], shard["top_rows"])
                )
                writer.append(codes)
                tokens = packing.unpack("token", shard, self.n_concepts)
                counter.append(count_tokens(tokens, self.grid.n_tokens))
            if not totals.n_images:
                reasons = "; ".join(f"{image.key}: {image.reason}" for image in bad[:5])
                raise UserError(
                    f"not one image could be used ({reasons}); mend them and add --overwrite"
                )
        statistics = streaming.finalize(totals)
        measures.write_concepts(self.folder, statistics)
        kept = np.concatenate(kept)
        self._write_images([records[row] for row in kept])
        self._write_top_images(top, totals.fires, kept, len(records))
        self._write_patches(kept.size)
        with CsrWriter(self.folder / measures.COOCCURRENCE, self.n_concepts, np.float32) as writer:
            for block in self._runs.sum_all():
                writer.append(block)
        return {
            "images": totals.n_images,
            "concepts": self.n_concepts,
            "dead_concepts": int((statistics["fires"] == 0).sum()),
            "active_per_token": float(
                statistics["fires"].sum() / (totals.n_images * self.grid.n_tokens)
            ),
        }

    def clean(self) -> None:
        """Removes the shards; called once the manifest is written."""
        remove_tree(self.partial)

    def _begin_shard(self) -> None:
        self._open: list[tuple[Batch, np.ndarray, sp.csr_array, Sketch | None]] = []
        self._fires = self._present = np.zeros(self.n_concepts, np.int64)

    @property
    def _n_shards(self) -> int:
        """Of the set, once all are there."""
        return self._runs.n_shards

    def _write_images(self, records: Sequence[Record]) -> None:
        measures.write_images(self.folder, records)

    def _write_top_images(
        self, top: streaming.TopImages, fires: np.ndarray, kept: np.ndarray, n: int
    ) -> None:
        place = np.full(n, -1, np.int32)
        place[kept] = np.arange(kept.size, dtype=np.int32)
        top_rows = np.where(top.rows >= 0, place[top.rows], -1).astype(np.int32)
        self._add_off_patches(top_rows, fires)
        codes = np.zeros((*top_rows.shape, self.grid.n_tokens), np.float16)
        first_row = 0
        for i in range(self._n_shards):
            shard = self._load(i)
            token_codes = packing.unpack("token", shard, self.n_concepts)
            activation_maps.fill_codes(codes, top_rows, token_codes, first_row)
            first_row += shard["rows"].size
        special, patches = np.split(codes, [self.grid.n_special], axis=2)
        maps = patches.reshape(*top_rows.shape, self.grid.h, self.grid.w)
        measures.write_top_images(self.folder, top_rows, top.scores, maps, special)

    def _write_patches(self, n: int) -> None:
        """Writes the sketches, where there are patches."""
        if packing.has_sketches(self._load(0)):
            shards = map(self._load, range(self._n_shards))
            measures.write_patches(self.folder, n, map(packing.unpack_sketches, shards))

    def _add_off_patches(self, top_rows: np.ndarray, fires: np.ndarray) -> None:
        """Fills the rows [K, L] of concepts that fire on class and register tokens alone."""
        found = np.flatnonzero((top_rows[:, 0] < 0) & (fires > 0))
        if found.size:
            shards = map(self._load, range(self._n_shards))
            parts = [packing.unpack("image", shard, self.n_concepts)[:, found] for shard in shards]
            energies = sp.csr_array(sp.vstack(parts, format="csr"))
            top_rows[found] = streaming.top_by_energy(energies, top_rows.shape[1])

    def _shard(self, i: int) -> AnyPath:
        return self.partial / f"shard-{i:05d}.npz"

    def _name(self, name: str) -> str:
        """What a partial file belongs to: this very stage, and its place in it."""
        return f"{self._identity}/{FORM}/{name}"

    def _load(self, i: int) -> dict[str, np.ndarray]:
        path = self._shard(i)
        try:
            return checksums.load_arrays(path, self._name(path.name))
        except (OSError, ValueError) as error:
            raise UserError(
                f"{path} cannot be used ({error}); run the same command again: it is made anew"
            ) from error


def count_tokens(codes: sp.csr_array, n_tokens: int) -> sp.csr_array:
    """Tokens [n, K] that fire in each image, of codes [n * n_tokens, K]; int32."""
    n_images = codes.shape[0] // n_tokens
    image = np.repeat(np.arange(codes.shape[0]) // n_tokens, np.diff(codes.indptr))
    fires = codes.data > 0
    entries = (fires.astype(np.int32), (image, codes.indices))
    counts = sp.csr_array(sp.coo_array(entries, shape=(n_images, codes.shape[1])))
    counts.eliminate_zeros()
    return counts


_SHARD = re.compile(r"shard-(\d{5,})\.npz$")


def _bad_of(shard: Any) -> list[tuple[int, str]]:
    return list(zip(shard["bad_rows"].tolist(), shard["bad_reasons"].tolist(), strict=True))
