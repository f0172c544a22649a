"""Shards of an unfinished `measure`, and the artifacts made of them when all are there.

    .partial/shard-00000.npz     token codes, image codes, sketches of the patches, running totals
                                 and top images
    .partial/pairs-00000-00000/  co-occurrence of the shard (runs are merged as they pile up)

A shard's npz is written last and by renaming: it exists if and only if the shard is complete. Both
carry checksums: from the first that is not what was written here on, shards are made anew.
"""

import re
import shutil
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from absl import logging

from bsjax.core import checksums
from bsjax.core.artifacts import TEMPORARY, atomic_path, identity_of
from bsjax.core.dims import Grid
from bsjax.core.errors import UserError
from bsjax.core.paths import AnyPath
from bsjax.core.sparse_npz import CsrWriter, is_whole_run, sum_runs, write_run
from bsjax.data.captions import BadImage, Record
from bsjax.data.images import Batch
from bsjax.results import measures
from bsjax.stats import activation_maps, streaming
from bsjax.stats.cooccurrence import cooccurrence
from bsjax.stats.copies import Sketch

# Co-occurrence runs that may pile up before they are merged into one.
FAN_IN = 16


class Progress(NamedTuple):
    """Where a measure stands."""

    next_row: int
    totals: streaming.Totals
    top: streaming.TopImages
    bad: list[tuple[int, str]]


class ShardStore:
    """Collects batches into shards and shards into the artifacts of measures/<set>/.

    Args:
      folder: of the artifact.
      n_concepts: of the SAE.
      grid: how the tokens of an image lie.
      fan_in: runs of co-occurrence that are merged at once.
    """

    def __init__(self, folder: AnyPath, n_concepts: int, grid: Grid, fan_in: int = FAN_IN):
        self.folder = folder
        self.partial = folder / ".partial"
        self.n_concepts = n_concepts
        self.grid = grid
        self.fan_in = fan_in
        self._identity = identity_of(folder)
        self._open: list[tuple[Batch, np.ndarray, sp.csr_array, Sketch | None]] = []

    @property
    def n_pending(self) -> int:
        """Images added since the last commit."""
        return sum(batch.n_records for batch, *_ in self._open)

    def resume(self, n_top: int) -> Progress:
        """State behind the last complete shard; what lies beyond it is removed."""
        self.partial.mkdir(parents=True, exist_ok=True)
        for leftover in sorted(self.partial.iterdir()):
            if leftover.name.startswith(TEMPORARY):
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        self._n_shards = self._drop_damaged()
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

    def _drop_damaged(self) -> int:
        """Removes what cannot be used of an interrupted run; returns how many shards are left."""
        numbers = sorted(
            int(match[1]) for path in self.partial.iterdir() if (match := _SHARD.match(path.name))
        )
        n_good = 0
        while n_good in numbers and self._is_whole(n_good):
            n_good += 1
        covered = 0
        for run in self._runs():
            start, stop = _range(run)
            if start != covered or start >= n_good or not is_whole_run(run, self._name(run)):
                break
            covered = stop + 1
            if covered > n_good:
                # It holds sums of shards that are to be made anew.
                covered = start
                break
        # The co-occurrence of shards behind the last sound run is gone; all of theirs is.
        n_good = min(n_good, covered)
        for run in self._runs():
            if _range(run)[1] >= n_good:
                shutil.rmtree(run)
        lost = [i for i in numbers if i >= n_good]
        for i in lost:
            self._shard(i).unlink()
        if lost:
            logging.warning(
                "%s: %d of %d unfinished shards are damaged, or lie behind one that is; they are"
                " made anew", self.partial, len(lost), len(numbers),
            )  # fmt: skip
        return n_good

    def _is_whole(self, i: int) -> bool:
        try:
            self._load(i)
        except UserError:
            return False
        return True

    def add(self, batch: Batch, statistics: Any, codes: sp.csr_array) -> None:
        """Adds a batch's results (on the host) to the open shard."""
        self._totals = streaming.update(self._totals, statistics, batch.mask)
        sketch = statistics.sketch
        if sketch is not None:
            sketch = Sketch(*(np.asarray(part)[batch.mask] for part in sketch))
        energy = np.asarray(statistics.image_energy)[batch.mask]
        self._open.append((batch, energy, codes, sketch))

    def commit(self, top: streaming.TopImages) -> None:
        """Writes the open shard."""
        batches, energies, codes, sketches = zip(*self._open, strict=True)
        token_codes = sp.csr_array(sp.vstack(codes, format="csr"))
        image_codes = sp.csr_array(np.concatenate(energies))
        rows = np.concatenate([batch.rows for batch in batches])
        mask = np.concatenate([batch.mask for batch in batches])
        bad = [entry for batch in batches for entry in batch.bad]
        self._next_row = int(rows.max()) + 1
        run = self.partial / f"pairs-{self._n_shards:05d}-{self._n_shards:05d}"
        shutil.rmtree(run, ignore_errors=True)
        pairs = iter([cooccurrence(token_codes)])
        write_run(run, pairs, self.n_concepts, self._name(run))
        with atomic_path(self._shard(self._n_shards)) as temporary:
            checksums.save_arrays(
                temporary,
                self._name(self._shard(self._n_shards)),
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
                **_pack_sketches(sketches),
            )
        self._open = []
        self._n_shards += 1
        self._merge_runs()

    def finish(self, records: Sequence[Record], bad: Sequence[BadImage]) -> dict[str, Any]:
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
        measures.write_concepts(self.folder, statistics)
        kept = []  # record of each row of the artifacts
        with (
            CsrWriter(self.folder / measures.IMAGE_CODES, self.n_concepts, np.float32) as writer,
            CsrWriter(self.folder / measures.IMAGE_TOKENS, self.n_concepts, np.int32) as counter,
        ):
            for i in range(self._n_shards):
                shard = self._load(i)
                kept.append(shard["rows"])
                writer.append(_unpack("image", shard, self.n_concepts))
                tokens = _unpack("token", shard, self.n_concepts)
                counter.append(count_tokens(tokens, self.grid.n_tokens))
        kept = np.concatenate(kept)
        self._write_images([records[row] for row in kept])
        self._write_top_images(shard, kept, len(records))
        self._write_patches(kept.size)
        with CsrWriter(self.folder / measures.COOCCURRENCE, self.n_concepts, np.float32) as writer:
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

    def _write_images(self, records: Sequence[Record]) -> None:
        measures.write_images(self.folder, records)

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
        measures.write_top_images(self.folder, top_rows, last["top_scores"], maps, special)

    def _write_patches(self, n: int) -> None:
        """Writes the sketches; not where a shard lacks them: an older version began the run."""
        parts = [set(_SKETCH) <= set(self._load(i)) for i in range(self._n_shards)]
        if all(parts):
            shards = (self._load(i) for i in range(self._n_shards))
            sketches = (Sketch(*(shard[name] for name in _SKETCH)) for shard in shards)
            measures.write_patches(self.folder, n, sketches)

    def _add_off_patches(self, top_rows: np.ndarray) -> None:
        """Fills the rows [K, L] of concepts that fire on class and register tokens alone."""
        found = np.flatnonzero((top_rows[:, 0] < 0) & (self._totals.fires > 0))
        if found.size:
            shards = map(self._load, range(self._n_shards))
            parts = [_unpack("image", shard, self.n_concepts)[:, found] for shard in shards]
            energies = sp.csr_array(sp.vstack(parts, format="csr"))
            top_rows[found] = streaming.top_by_energy(energies, top_rows.shape[1])

    def _merge_runs(self) -> None:
        """Merges runs of equal length once `fan_in` of them stand side by side."""
        while True:
            runs = self._runs()
            tail = runs[-self.fan_in :]
            lengths = {stop - start for start, stop in map(_range, tail)}
            if len(tail) < self.fan_in or len(lengths) != 1:
                return
            merged = self.partial / f"pairs-{_range(tail[0])[0]:05d}-{_range(tail[-1])[1]:05d}"
            total = sum_runs(tail, self.n_concepts)
            write_run(merged, total, self.n_concepts, self._name(merged))
            for run in tail:
                shutil.rmtree(run)

    def _runs(self) -> list[AnyPath]:
        """Runs in order, each shard in exactly one: a run inside a larger one is a leftover."""
        found = [path for path in self.partial.iterdir() if _RUN.match(path.name)]
        runs = sorted(found, key=lambda run: (_range(run)[0], -_range(run)[1]))
        covered, current = -1, []
        for run in runs:
            start, stop = _range(run)
            if start <= covered:
                shutil.rmtree(run)
                continue
            current.append(run)
            covered = stop
        return current

    def _shard(self, i: int) -> AnyPath:
        return self.partial / f"shard-{i:05d}.npz"

    def _name(self, path: AnyPath) -> str:
        """What a partial file belongs to: this very stage, and its place in it."""
        return f"{self._identity}/{path.name}"

    def _load(self, i: int) -> dict[str, np.ndarray]:
        path = self._shard(i)
        try:
            return checksums.load_arrays(path, self._name(path))
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
_RUN = re.compile(r"pairs-\d{5,}-\d{5,}$")
_TOTALS = ("energy", "energy_squared", "fires", "present")
_SKETCH = tuple(f"patch_{name}" for name in Sketch._fields)


def _range(run: AnyPath) -> tuple[int, int]:
    _, start, stop = run.name.split("-")
    return int(start), int(stop)


def _pack(name: str, matrix: sp.csr_array) -> dict[str, np.ndarray]:
    matrix.sort_indices()
    return {
        f"{name}_data": matrix.data.astype(np.float32),
        f"{name}_indices": matrix.indices.astype(np.int32),
        f"{name}_indptr": matrix.indptr.astype(np.int64),
    }


def _pack_sketches(sketches: Sequence[Sketch | None]) -> dict[str, np.ndarray]:
    if any(sketch is None for sketch in sketches):
        return {}
    return {
        name: np.concatenate(parts)
        for name, parts in zip(_SKETCH, zip(*sketches, strict=True), strict=True)
    }


def _unpack(name: str, shard: dict[str, np.ndarray], n_columns: int) -> sp.csr_array:
    parts = tuple(shard[f"{name}_{part}"] for part in ("data", "indices", "indptr"))
    return sp.csr_array(parts, shape=(parts[2].size - 1, n_columns))
