"""Do verdicts hold? False discoveries, power, coverage and speed where the truth is known.

    python tests/benchmarks/simulated.py [--repeats=200] [--images=1000] [--concepts=4000]
        [--large=5] [--speed] [--plot=FILE]

Prints, over worlds of `simulator.py` (every second one with all concepts moved by 2^N(0, 0.5)):
- suppressed and exaggerated: share of calls that truly changed by less than the margin, in all and
  by tenth of frequency; power at 8-fold; wrong signs;
- less and more: share of the calls of direction without any change;
- coverage of the 95 % intervals by firing images;
- repeated captions: real against real, each pair five times, as clusters and as rows;
- the control of each world.
--large does so many worlds of 10,000 pairs and 32,000 concepts as well. --speed times one: the
eight sums by number of non-zeros (--plot draws them) and against the same sums over dense blocks;
the estimates of today against those of before; everything that `compare` does, findings and copies
included.
Exit status 3 where a number misses what is asked of it.
"""

import argparse
import resource
import sys
import time

import numpy as np
import scipy.sparse as sp
from simulator import World, draw_world

from bsjax.analysis import comparison as analysis
from bsjax.analysis.comparison import Method
from bsjax.analysis.copies import judge_sketches
from bsjax.core.errors import GATE_FAILED
from bsjax.stats import clusters, verdicts
from bsjax.stats.comparison import Rules, compare_codes
from bsjax.stats.copies import MAX_SIDE, N_DIMS, Sketch
from bsjax.stats.sums import sum_pairs

BINS = ((1, 5), (6, 10), (11, 20), (21, 50), (51, 10**9))
ENOUGH = 100  # concepts, from which on coverage is a share
RULES = Rules()
SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)  # of the pairs, for the sums by non-zeros


class Tally:
    """What many worlds came to."""

    def __init__(self):
        self.false, self.by_decile, self.undirected, self.wrong, self.power = [], [], [], [], []
        self.control, self.counts = [], []
        self.covered = {bounds: [0, 0] for bounds in BINS}

    def add(self, world: World, seed: int) -> None:
        outcome = compare_codes(world.real, world.generated, RULES, seed=seed)
        columns, truth = outcome.columns, world.log_ratio
        called = np.isin(columns["verdict"], verdicts.CALLED)
        is_small = np.abs(truth) <= np.log(RULES.margin)
        right_way = columns["log_ratio"] * truth > 0
        self.false.append(_share(is_small, called))
        tenth = np.argsort(np.argsort(world.frequency)) * 10 // truth.size
        self.by_decile.append(
            [((called & is_small)[tenth == d].sum(), called[tenth == d].sum()) for d in range(10)]
        )
        directed = np.nan_to_num(columns["q_direction"], nan=1.0) <= RULES.fdr
        if (truth == 0).mean() > 0.5:
            self.undirected.append(_share(truth == 0, directed))
        self.wrong.append(_share(~right_way & (truth != 0), directed))
        eightfold = np.isclose(np.abs(truth), np.log(8))
        self.power.append(_share(called & right_way, eightfold))
        n_firing = columns["n_real"] + columns["n_generated"]
        inside = (columns["low"] <= truth) & (truth <= columns["high"])
        for bounds, found in self.covered.items():
            chosen = (n_firing >= bounds[0]) & (n_firing <= bounds[1])
            found[0] += int(inside[chosen].sum())
            found[1] += int(chosen.sum())
        self.control.append((outcome.control.share, outcome.control.inflation))
        self.counts.append([int((columns["verdict"] == kind).sum()) for kind in verdicts.KINDS])

    def show(self, least_power: float) -> bool:
        """Prints everything; returns whether all is as asked."""
        deciles = np.array(self.by_decile, float).sum(axis=0)
        shares = deciles[:, 0] / np.maximum(deciles[:, 1], 1)
        told = [f"{s:.3f}/{int(n)}" for s, n in zip(shares, deciles[:, 1], strict=True)]
        print(
            f"  calls below the margin {np.mean(self.false):.4f}; by tenth of frequency"
            f" {' '.join(told)}"
        )
        undirected = np.mean(self.undirected) if self.undirected else float("nan")
        print(f"  directions without a change {undirected:.4f}, wrong signs"
              f" {np.mean(self.wrong):.4f}, power at 8-fold {np.mean(self.power):.3f}")  # fmt: skip
        cover = {bounds: hit / max(n, 1) for bounds, (hit, n) in self.covered.items()}
        told = [
            f"{a}-{b if b < 10**9 else ''}: {cover[a, b]:.3f} ({self.covered[a, b][1]})"
            for a, b in BINS
        ]
        print(f"  coverage by firing images (concepts) {', '.join(told)}")
        share, inflation = np.mean(self.control, axis=0)
        print(f"  control: {share:.4f} pass at 5 %, lambda {inflation:.3f}")
        mean = np.mean(self.counts, axis=0)
        told = [f"{kind} {n:.0f}" for kind, n in zip(verdicts.KINDS, mean, strict=True)]
        print(f"  verdicts {', '.join(told)}")
        worst = shares[deciles[:, 1] > 20].max(initial=0)
        checks = {
            "false discoveries": np.mean(self.false) <= 0.05 and worst <= 0.05,
            "directions": not undirected > 0.05 + 2 * _error(self.undirected),
            "wrong signs": np.mean(self.wrong) < 0.01,
            "power": np.mean(self.power) >= least_power,
            "coverage": all(cover[b] >= 0.93 for b in BINS if self.covered[b][1] >= ENOUGH)
            and all(cover[b] <= 0.97 for b in BINS[3:]),
            "control": 0.04 <= share <= 0.06,
        }
        return _told(checks)


def _share(of: np.ndarray, among: np.ndarray) -> float:
    return float((of & among).sum() / max(among.sum(), 1))


def _error(values: list[float]) -> float:
    return float(np.std(values) / np.sqrt(max(len(values), 1))) if values else 0.0


def _told(checks: dict[str, bool]) -> bool:
    missed = [name for name, is_met in checks.items() if not is_met]
    print(f"  missed: {', '.join(missed)}" if missed else "  all as asked")
    return not missed


def repeated(n: int, n_concepts: int) -> bool:
    """Real against real, every pair five times."""
    world = draw_world(99, 2 * n // 5, n_concepts, planted=0.0)
    half = n // 5
    five = np.repeat(np.arange(half), 5)
    pairs = world.real[:half][five], world.real[half:][five]
    captions = [f"caption {row}" for row in five]
    labels = clusters.find_clusters(captions, None)
    told = compare_codes(*pairs, RULES, labels=labels, repeats=labels)
    rows = compare_codes(*pairs, RULES, repeats=labels)
    changed = (*verdicts.CALLED, verdicts.LESS, verdicts.MORE)
    n_told, n_rows = (int(np.isin(o.columns["verdict"], changed).sum()) for o in (told, rows))
    print(f"real against real, five of each: {n_told} called or directed, control"
          f" {told.control.share:.3f}; as rows {n_rows}, control {rows.control.share:.3f},"
          f" lambda {rows.control.inflation:.2f}")  # fmt: skip
    return _told({
        "no calls": n_told == 0,
        "control": 0.04 <= told.control.share <= 0.06,
        "control fails on rows": not rows.control.is_sound,
    })  # fmt: skip


def dense_sums(real: sp.csr_array, generated: sp.csr_array) -> list[np.ndarray]:
    """The eight sums over dense blocks of concepts, as statistics of arrays are usually written."""
    n, n_concepts = real.shape
    left, right, parts = real.tocsc(), generated.tocsc(), []
    width = max((1 << 24) // n, 1)
    for start in range(0, n_concepts, width):
        r, g = (arm[:, start : start + width].toarray() for arm in (left, right))
        parts.append([(r > 0).sum(0), (g > 0).sum(0), ((r > 0) & (g > 0)).sum(0), r.sum(0),
                      g.sum(0), (r * r).sum(0), (g * g).sum(0), (r * g).sum(0)])  # fmt: skip
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


def speed(world: World, plot: str | None) -> bool:
    """Times the statistics of one world; the sums also over parts of its pairs."""
    n, times = world.real.shape[0], []
    for share in SHARES:
        arms = world.real[: int(share * n)], world.generated[: int(share * n)]
        times.append((arms[0].nnz + arms[1].nnz, _least(lambda arms=arms: sum_pairs(*arms))))
        print(f"  sums of {times[-1][0]:>9,} non-zeros: {times[-1][1]:.3f} s")
    if plot:
        draw(times, plot)
    sums, sparse = sum_pairs(world.real, world.generated), times[-1][1]
    started = time.perf_counter()
    dense = dense_sums(world.real, world.generated)
    ratio = (time.perf_counter() - started) / sparse
    for name, values in zip(sums._fields[1:], dense, strict=True):
        np.testing.assert_allclose(getattr(sums, name), values, rtol=1e-3)
    print(f"  over dense blocks: {ratio * sparse:.1f} s, {ratio:.0f} times as long")
    method, parts = Method(RULES), {}
    started = time.perf_counter()
    outcome = compare_codes(world.real, world.generated, RULES)
    parts["verdicts and control"] = time.perf_counter() - started
    captions = write_captions(n)
    started = time.perf_counter()
    told = analysis.compare_codes(world.real, world.generated, method, captions)
    parts["with clusters, words, findings, substitutions, pairs"] = time.perf_counter() - started
    sketches = [draw_sketches(n, seed) for seed in range(2)]
    keys = [str(row) for row in range(n)]
    started = time.perf_counter()
    judge_sketches(*sketches, world.real, captions, keys)
    parts["copies, 16 x 16 patches"] = time.perf_counter() - started
    for name, took in parts.items():
        print(f"  {name}: {took:.1f} s")
    total = sum(list(parts.values())[1:])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"  all: {total:.1f} s, peak {peak:.2f} GiB, {outcome.control.eligible} concepts judged,"
          f" {told.findings.num_rows} findings")  # fmt: skip
    return _told({
        "20 times the dense sums": ratio >= 20,
        "two minutes": total <= 120,
        "3 GB": peak * 2**30 <= 3e9,
    })  # fmt: skip


def _least(function) -> float:
    """Seconds, the least of three times."""
    took = []
    for _ in range(3):
        started = time.perf_counter()
        function()
        took.append(time.perf_counter() - started)
    return min(took)


def draw(times: list[tuple[int, float]], path: str) -> None:
    """Seconds by number of non-zeros."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(4, 3), layout="constrained")
    axes.plot([n / 1e6 for n, _ in times], [took for _, took in times], "o-")
    axes.set(xlabel="million non-zeros", ylabel="seconds", xlim=(0, None), ylim=(0, None),
             title="Sums of both arms")  # fmt: skip
    figure.savefig(path)


def write_captions(n: int) -> list[str]:
    """n captions of ten words, frequent and rare ones as in a language."""
    rng = np.random.default_rng(0)
    chance = 1 / np.arange(5, 20_005)
    drawn = rng.choice(chance.size, (n, 10), p=chance / chance.sum())
    letters = "abcdefghijklmnopqrst"
    words = np.array(["".join(letters[int(d)] for d in f"{k:05d}") for k in range(chance.size)])
    return [" ".join(row) for row in words[drawn]]


def draw_sketches(n: int, seed: int) -> Sketch:
    """Sketches of patches without any meaning, of the size of DINOv2's at 224 pixels."""
    rng = np.random.default_rng(seed)
    values = rng.integers(-127, 128, (n, MAX_SIDE, MAX_SIDE, N_DIMS), np.int8)
    mean = rng.standard_normal((n, N_DIMS), np.float32)
    return Sketch(values, np.full(n, 0.02, np.float32), mean)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--concepts", type=int, default=4000)
    parser.add_argument("--large", type=int, default=0, help="worlds of 10,000 x 32,000")
    parser.add_argument("--speed", action="store_true", help="time one of these")
    parser.add_argument("--plot", help="with --speed: file for seconds by non-zeros")
    chosen = parser.parse_args()
    is_met = True
    if chosen.repeats:
        tally, started = Tally(), time.perf_counter()
        for seed in range(chosen.repeats):
            moved = 0.5 * (seed % 2)
            tally.add(draw_world(seed, chosen.images, chosen.concepts, moved_sd=moved), seed)
            if seed % 10 == 9:
                rate = (time.perf_counter() - started) / (seed + 1)
                sys.stderr.write(f"{seed + 1} worlds, {rate:.1f} s each\n")
        print(f"{chosen.repeats} worlds, {chosen.images} pairs, {chosen.concepts} concepts")
        is_met &= tally.show(least_power=0.33)
        is_met &= repeated(chosen.images, chosen.concepts)
    if chosen.large or chosen.speed:
        world, tally = draw_world(0, 10_000, 32_000), Tally()
        print(f"10,000 pairs, 32,000 concepts, {world.real.nnz / 1e4:.0f} non-zeros per image")
        if chosen.speed:
            is_met &= speed(world, chosen.plot)
        for seed in range(chosen.large):
            tally.add(world, seed)
            if seed + 1 < chosen.large:
                world = draw_world(seed + 1, 10_000, 32_000)
        if chosen.large:
            is_met &= tally.show(least_power=0.90)
    return 0 if is_met else GATE_FAILED


if __name__ == "__main__":
    sys.exit(main())
