"""Co-occurrence of shards on disk, merged as it piles up: sums that do not tell who made them.

A run holds Z^T Z of some consecutive shards. Blocks of `fan_in` shards that begin at a multiple of
it are merged, and blocks of such blocks, whichever host made the shards in whatever order; so the
sums are the same to the last bit for any number of hosts.
"""

import re
from collections.abc import Callable, Iterable

import scipy.sparse as sp

from bsjax.core.artifacts import remove_tree
from bsjax.core.paths import AnyPath
from bsjax.core.sparse_npz import is_whole_run, sum_runs, write_run

Run = tuple[int, int]  # first and last shard
_NAME = re.compile(r"pairs-\d{5,}-\d{5,}$")


class Runs:
    """The runs in a folder.

    Args:
      folder: of them.
      n_columns: K.
      fan_in: runs that are merged at once.
      identify: name of a run -> what it belongs to.
    """

    def __init__(
        self, folder: AnyPath, n_columns: int, fan_in: int, identify: Callable[[str], str]
    ):
        self.folder, self.n_columns, self.fan_in = folder, n_columns, fan_in
        self._identify = identify
        self.known: set[Run] = set()  # none within another

    def path(self, run: Run) -> AnyPath:
        return self.folder / f"pairs-{run[0]:05d}-{run[1]:05d}"

    def is_whole(self, run: Run) -> bool:
        """Whether a run is what was written."""
        return is_whole_run(self.path(run), self._identify(self.path(run).name))

    def choose(self, shards: set[int], runs: Iterable[Run]) -> set[int]:
        """Decides which of some whole runs are known from now on; returns their shards.

        A run with sums of a shard that is to be made anew is none of them; of two over a shard the
        larger is, from whose parts it was merged.

        Args:
          shards: that are there.
          runs: that are.
        """
        self.known = outermost(run for run in runs if shards.issuperset(shards_of(run)))
        return {i for run in self.known for i in shards_of(run)}

    def add(self, shard: int, pairs: sp.csr_array) -> None:
        """Writes the co-occurrence of a shard [K, K], which is known once `merge` is called."""
        self._write((shard, shard), iter([pairs]))

    def merge(self, shard: int) -> None:
        """Makes a shard's run known; merges its block if this one was the last it waited for."""
        if not any(shard in shards_of(run) for run in self.known):
            self.known.add((shard, shard))
        size = 1
        while True:
            step, size = size, size * self.fan_in
            first = shard // size * size
            parts = [(i, i + step - 1) for i in range(first, first + size, step)]
            if not self.known.issuperset(parts):
                return
            merged, folders = (first, first + size - 1), [self.path(part) for part in parts]
            self._write(merged, sum_runs(folders, self.n_columns))
            self.known = self.known.difference(parts) | {merged}
            for folder in folders:
                remove_tree(folder)

    def sum_all(self) -> Iterable[sp.csr_array]:
        """Co-occurrence of all shards, block of rows by block of rows."""
        for first in range(0, self.n_shards, self.fan_in):
            self.merge(first)  # those whose shards several hosts made
        return sum_runs([self.path(run) for run in sorted(self.known)], self.n_columns)

    @property
    def n_shards(self) -> int:
        """Up to the last that is known."""
        return 1 + max((stop for _, stop in self.known), default=-1)

    def _write(self, run: Run, blocks: Iterable[sp.csr_array]) -> None:
        path = self.path(run)
        write_run(path, iter(blocks), self.n_columns, self._identify(path.name))


def parse_run(name: str) -> Run | None:
    """The shards of a run by the name of its folder; None where that is none of a run."""
    if not _NAME.match(name):
        return None
    _, start, stop = name.split("-")
    return int(start), int(stop)


def shards_of(run: Run) -> range:
    """Numbers of the shards."""
    return range(run[0], run[1] + 1)


def outermost(runs: Iterable[Run]) -> set[Run]:
    """Runs without those that lie within another one."""
    found, covered = set(), -1
    for start, stop in sorted(runs, key=lambda run: (run[0], -run[1])):
        if start > covered:
            found.add((start, stop))
            covered = stop
    return found
