"""Shards of an unfinished `measure`, and the artifacts made of them when all are there.

    .partial/shard-00000.npz     token codes, image codes, running totals and top images
    .partial/pairs-00000-00000/  co-occurrence of the shard (runs are merged as they pile up)

A shard's npz is written last and by renaming: it exists if and only if the shard is complete.
"""

import pathlib
import shutil
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse as sp

from bsjax.core.artifacts import atomic_path
from bsjax.core.dims import Grid
from bsjax.core.errors import UserError
from bsjax.core.sparse_npz import CsrWriter, sum_runs, write_run
from bsjax.data.captions import BadImage, ImageRecord
from bsjax.data.images import Batch
from bsjax.stats import activation_maps, streaming
from bsjax.stats.cooccurrence import cooccurrence

# Co-occurrence runs that may pile up before they are merged into one.
FAN_IN = 16


class Progress(NamedTuple):
    """Where a measure stands."""

    next_row: int
    totals: streaming.Totals
    top: streaming.TopImages
    bad: list[tuple[int, str]]


class ShardStore:
    """Collects batches into shards and shards into the artifacts of measures/<set>/."""

    def __init__(self, folder: pathlib.Path, n_concepts: int, grid: Grid):
        self.folder = folder
        self.partial = folder / ".partial"
        self.n_concepts = n_concepts
        self.grid = grid
        self._open: list[tuple[Batch, np.ndarray, sp.csr_array]] = []

    @property
    def n_pending(self) -> int:
        """Images added since the last commit."""
        return sum(batch.n_records for batch, _, _ in self._open)

    def resume(self, n_top: int) -> Progress:
        """State behind the last complete shard; what lies beyond it is removed."""
        self.partial.mkdir(parents=True, exist_ok=True)
        for leftover in (*self.partial.glob(".run-*"), *self.partial.glob(".shard-*")):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        self._n_shards = 0
        while self._shard(self._n_shards).exists():
            self._n_shards += 1
        for run in self._runs():
            if _range(run)[1] >= self._n_shards:
                shutil.rmtree(run)
        self._totals = streaming.init(self.n_concepts)
        top = streaming.init_top_images(self.n_concepts, n_top)
        self._next_row, bad = 0, []
        for i in range(self._n_shards):
            shard = self._load(i)
            bad += list(zip(shard["bad_rows"].tolist(), shard["bad_reasons"].tolist(), strict=True))
            self._next_row = int(shard["stop"])
        if self._n_shards:
            self._totals = streaming.Totals(
                int(shard["n_images"]), *(shard[f"total_{name}"] for name in _TOTALS)
            )
            top = streaming.TopImages(shard["top_scores"], shard["top_rows"])
        top = streaming.TopImages(*(np.asarray(array) for array in top))
        return Progress(self._next_row, self._totals, top, bad)

    def add(self, batch: Batch, statistics: Any, codes: sp.csr_array) -> None:
        """Adds a batch's results (on the host) to the open shard."""
        self._totals = streaming.update(self._totals, statistics, batch.mask)
        self._open.append((batch, np.asarray(statistics.image_energy)[batch.mask], codes))

    def commit(self, top: streaming.TopImages) -> None:
        """Writes the open shard."""
        token_codes = sp.csr_array(sp.vstack([codes for _, _, codes in self._open], format="csr"))
        image_codes = sp.csr_array(np.concatenate([energy for _, energy, _ in self._open]))
        rows = np.concatenate([batch.rows for batch, _, _ in self._open])
        mask = np.concatenate([batch.mask for batch, _, _ in self._open])
        bad = [entry for batch, _, _ in self._open for entry in batch.bad]
        self._next_row = int(rows.max()) + 1
        run = self.partial / f"pairs-{self._n_shards:05d}-{self._n_shards:05d}"
        shutil.rmtree(run, ignore_errors=True)
        write_run(run, iter([cooccurrence(token_codes)]), self.n_concepts)
        with atomic_path(self._shard(self._n_shards)) as temporary:
            np.savez(
                temporary,
                stop=self._next_row,
                rows=rows[mask],
                n_images=self._totals.n_images,
                top_scores=top.scores,
                top_rows=top.rows,
                bad_rows=np.array([row for row, _ in bad], np.int64),
                bad_reasons=np.array([reason for _, reason in bad], dtype=np.str_),
                **{f"total_{name}": getattr(self._totals, name) for name in _TOTALS},
                **_pack("token", token_codes),
                **_pack("image", image_codes),
            )
        self._open = []
        self._n_shards += 1
        self._merge_runs()

    def finish(self, records: Sequence[ImageRecord], bad: Sequence[BadImage]) -> dict[str, Any]:
        """Writes the artifacts from all shards; returns counts for the manifest.

        Raises:
          UserError: no image could be used.
        """
        if not self._totals.n_images:
            reasons = "; ".join(f"{image.key}: {image.reason}" for image in bad[:5])
            raise UserError(
                f"not one image could be used ({reasons}); mend them and add --overwrite"
            )
        statistics = streaming.finalize(self._totals)
        table = {"concept": np.arange(self.n_concepts, dtype=np.int32), **statistics}
        _write_table(self.folder / "concepts.parquet", pa.table(table))

        kept = []  # record of each row of the artifacts
        with CsrWriter(self.folder / "image_codes.npz", self.n_concepts, np.float32) as writer:
            for i in range(self._n_shards):
                shard = self._load(i)
                kept.append(shard["rows"])
                writer.append(_unpack("image", shard, self.n_concepts))
        kept = np.concatenate(kept)
        self._write_images([records[row] for row in kept])
        self._write_top_images(shard, kept, len(records))
        with CsrWriter(self.folder / "cooccurrence.npz", self.n_concepts, np.float32) as writer:
            for block in sum_runs(self._runs(), self.n_concepts):
                writer.append(block)
        return {
            "images": self._totals.n_images,
            "concepts": self.n_concepts,
            "dead_concepts": int((statistics["fires"] == 0).sum()),
            "active_per_token": float(
                statistics["fires"].sum() / (self._totals.n_images * self.grid.n_tokens)
            ),
        }

    def clean(self) -> None:
        """Removes the shards; called once the manifest is written."""
        shutil.rmtree(self.partial, ignore_errors=True)

    def _write_images(self, records: Sequence[ImageRecord]) -> None:
        columns = {
            "row": np.arange(len(records), dtype=np.int32),
            "key": [record.key for record in records],
            "caption": [record.caption for record in records],
            "path": [record.path for record in records],
        }
        for name in sorted({name for record in records for name in record.extra}):
            if name not in columns:
                columns[name] = [record.extra.get(name, "") for record in records]
        _write_table(self.folder / "images.parquet", pa.table(columns))

    def _write_top_images(self, last: dict[str, np.ndarray], kept: np.ndarray, n: int) -> None:
        place = np.full(n, -1, np.int32)
        place[kept] = np.arange(kept.size, dtype=np.int32)
        top_rows = np.where(last["top_rows"] >= 0, place[last["top_rows"]], -1).astype(np.int32)
        self._add_off_patches(top_rows)
        codes = np.zeros((*top_rows.shape, self.grid.n_tokens), np.float16)
        first_row = 0
        for i in range(self._n_shards):
            shard = self._load(i)
            token_codes = _unpack("token", shard, self.n_concepts)
            activation_maps.fill_codes(codes, top_rows, token_codes, first_row)
            first_row += shard["rows"].size
        special, patches = np.split(codes, [self.grid.n_special], axis=2)
        maps = patches.reshape(*top_rows.shape, self.grid.h, self.grid.w)
        with atomic_path(self.folder / "top_images.npz") as temporary:
            np.savez_compressed(
                temporary, images=top_rows, scores=last["top_scores"], maps=maps, special=special
            )

    def _add_off_patches(self, top_rows: np.ndarray) -> None:
        """Fills the rows [K, L] of concepts that fire on class and register tokens alone."""
        found = np.flatnonzero((top_rows[:, 0] < 0) & (self._totals.fires > 0))
        if found.size:
            shards = map(self._load, range(self._n_shards))
            parts = [_unpack("image", shard, self.n_concepts)[:, found] for shard in shards]
            energies = sp.csr_array(sp.vstack(parts, format="csr"))
            top_rows[found] = streaming.top_by_energy(energies, top_rows.shape[1])

    def _merge_runs(self) -> None:
        """Merges runs of equal length once FAN_IN of them stand side by side."""
        while True:
            runs = self._runs()
            tail = runs[-FAN_IN:]
            lengths = {stop - start for start, stop in map(_range, tail)}
            if len(tail) < FAN_IN or len(lengths) != 1:
                return
            merged = self.partial / f"pairs-{_range(tail[0])[0]:05d}-{_range(tail[-1])[1]:05d}"
            write_run(merged, sum_runs(tail, self.n_concepts), self.n_concepts)
            for run in tail:
                shutil.rmtree(run)

    def _runs(self) -> list[pathlib.Path]:
        """Runs in order, each shard in exactly one: a run inside a larger one is a leftover."""
        runs = sorted(
            self.partial.glob("pairs-*-*"), key=lambda run: (_range(run)[0], -_range(run)[1])
        )
        covered, current = -1, []
        for run in runs:
            start, stop = _range(run)
            if start <= covered:
                shutil.rmtree(run)
                continue
            current.append(run)
            covered = stop
        return current

    def _shard(self, i: int) -> pathlib.Path:
        return self.partial / f"shard-{i:05d}.npz"

    def _load(self, i: int) -> dict[str, np.ndarray]:
        with np.load(self._shard(i), allow_pickle=False) as file:
            return dict(file)


_TOTALS = ("energy", "energy_squared", "fires", "present")


def _range(run: pathlib.Path) -> tuple[int, int]:
    _, start, stop = run.name.split("-")
    return int(start), int(stop)


def _pack(name: str, matrix: sp.csr_array) -> dict[str, np.ndarray]:
    matrix.sort_indices()
    return {
        f"{name}_data": matrix.data.astype(np.float32),
        f"{name}_indices": matrix.indices.astype(np.int32),
        f"{name}_indptr": matrix.indptr.astype(np.int64),
    }


def _unpack(name: str, shard: dict[str, np.ndarray], n_columns: int) -> sp.csr_array:
    parts = tuple(shard[f"{name}_{part}"] for part in ("data", "indices", "indptr"))
    return sp.csr_array(parts, shape=(parts[2].size - 1, n_columns))


def _write_table(path: pathlib.Path, table: pa.Table) -> None:
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)
