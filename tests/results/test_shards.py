"""Shards of an unfinished measure: from the first that is not what was written on, made anew."""

import numpy as np
import pytest
import scipy.sparse as sp
from etils import epath

from bsjax.core.artifacts import begin_stage
from bsjax.core.dims import Grid
from bsjax.data.captions import ImageRecord
from bsjax.data.images import Batch
from bsjax.results.runs import Runs
from bsjax.results.shards import ShardStore, count_tokens
from bsjax.stats import streaming
from tests.object_store import as_gs

K, BATCH, N_SHARDS = 6, 4, 7
GRID = Grid(0, 2, 2)


def measure(folder, n_shards=N_SHARDS, config=1, **options):
    """Goes on to `n_shards` shards of numbers that their place decides; how many were kept."""
    begin_stage(folder, config={"a": config}, parents={}, overwrite=False)
    store = ShardStore(folder, K, GRID, **options)
    n_kept = store.resume(3).next_row // BATCH
    for i in range(n_kept, n_shards):
        rng = np.random.default_rng(i)
        energy = rng.random((BATCH, K)).astype(np.float32)
        codes = rng.random((BATCH * GRID.n_tokens, K)) * (rng.random(K) > 0.5)
        fires, present = ((energy > e).sum(0).astype(np.int32) for e in (0.2, 0.5))
        statistics = streaming.BatchStatistics(energy, None, fires, present)
        rows = np.arange(i * BATCH, (i + 1) * BATCH, dtype=np.int32)
        store.add(Batch(None, np.ones(BATCH, bool), rows, ()), statistics, sp.csr_array(codes))
        top = np.full((K, 3), i)
        store.commit(streaming.TopImages(top.astype(np.float32), top.astype(np.int32)))
    return n_kept


def content(folder):
    partial = folder / ".partial"
    files = [path for path in sorted(partial.rglob("*")) if path.is_file()]
    return {str(path.relative_to(partial)): path.read_bytes() for path in files}


@pytest.mark.parametrize("fan_in", [16, 2])
def test_what_is_damaged_is_made_anew_and_what_lies_before_is_kept(tmp_path, fan_in):
    measure(tmp_path, fan_in=fan_in)
    whole = content(tmp_path)
    assert measure(tmp_path, fan_in=fan_in) == N_SHARDS  # nothing is made anew that need not be
    for name, data in whole.items():
        path = tmp_path / ".partial" / name
        half = len(data) // 2
        for damaged in (
            data[:half],
            None,
            data[:half] + bytes([data[half] ^ 1]) + data[half + 1 :],
        ):
            path.unlink() if damaged is None else path.write_bytes(damaged)
            n_kept = measure(tmp_path, fan_in=fan_in)
            first = int(name.split("/")[0].removesuffix(".npz").split("-")[1])
            # Of merged co-occurrence a later shard cannot be taken out again.
            assert n_kept == first if fan_in == 16 else n_kept <= first
            assert content(tmp_path) == whole, name


def test_shards_of_another_place_or_run_are_not_used(tmp_path):
    for name, config in (("a", 1), ("b", 2)):
        measure(tmp_path / name, config=config)
    whole = content(tmp_path / "a")
    partial = tmp_path / "a" / ".partial"
    for name, data in (
        ("shard-00003.npz", whole["shard-00004.npz"]),
        ("shard-00003.npz", content(tmp_path / "b")["shard-00003.npz"]),
        ("pairs-00003-00003/proof.json", whole["pairs-00002-00002/proof.json"]),
    ):
        (partial / name).write_bytes(data)
        assert measure(tmp_path / "a") == 3
        assert content(tmp_path / "a") == whole


def finish(folder, **options):
    store = ShardStore(folder, K, GRID, **options)
    store.resume(3)
    records = [ImageRecord(f"{row:03d}", "", str(row), {}) for row in range(N_SHARDS * BATCH)]
    counts = store.finish(records, ())
    store.clean()
    return counts


@pytest.mark.parametrize("fan_in", [16, 2])
def test_an_object_store_holds_the_same(tmp_path, fan_in):
    """Shards that are damaged and made anew, merged co-occurrence, the artifacts."""
    here, there = tmp_path / "here", epath.Path("gs://b/run/measures/x")
    measure(here, fan_in=fan_in)
    with as_gs(tmp_path / "store"):
        measure(there, fan_in=fan_in)
        kept = tmp_path / "store" / "b" / "run" / "measures" / "x"
        assert content(kept) == content(here)
        (there / ".partial" / "shard-00004.npz").unlink()
        (there / ".partial" / ".bsjax-tmp-x").write_text("left by a killed run")
        assert measure(there, fan_in=fan_in) == 4
        assert content(kept) == content(here)
        assert finish(there, fan_in=fan_in) == finish(here, fan_in=fan_in)
    names = {path.name for path in here.iterdir()}
    assert names == {path.name for path in kept.iterdir() if path.name != ".partial"}
    for name in names:
        assert (kept / name).read_bytes() == (here / name).read_bytes(), name


def test_the_same_blocks_are_merged_in_whatever_order_shards_come(tmp_path):
    """Sums of floats tell the order in which they were added."""
    rng, n, fan_in = np.random.default_rng(0), 11, 3
    pairs = [sp.csr_array(rng.random((K, K)) * 10.0 ** rng.integers(-8, 8)) for _ in range(n)]
    sums = []
    for name, order in (("a", range(n)), ("b", rng.permutation(n).tolist())):
        runs = Runs(tmp_path / name, K, fan_in, str)
        for i in order:
            runs.add(i, pairs[i])
            runs.merge(i)
        sums.append(sp.vstack(list(runs.sum_all())).toarray())
        assert runs.known == {(0, 8), (9, 9), (10, 10)}
    # Of several hosts none sees a block whole: the one that writes the sum merges it.
    runs = Runs(tmp_path / "c", K, fan_in, str)
    for i in range(n):
        runs.add(i, pairs[i])
    runs.known = {(i, i) for i in range(n)}
    sums.append(sp.vstack(list(runs.sum_all())).toarray())
    assert sums[0].tobytes() == sums[1].tobytes() == sums[2].tobytes()
    plain = np.sum([pair.toarray() for pair in pairs], axis=0)
    assert plain.tobytes() != sums[0].tobytes()  # so the test would tell


def test_tokens_that_fire_are_counted_image_by_image(tmp_path):
    measure(tmp_path)
    store = ShardStore(tmp_path, K, GRID)
    store.resume(3)
    records = [ImageRecord(f"{row:03d}", "", str(row), {}) for row in range(N_SHARDS * BATCH)]
    store.finish(records, ())
    got = sp.load_npz(tmp_path / "image_tokens.npz").toarray()
    assert got.shape == (N_SHARDS * BATCH, K)
    for i in range(N_SHARDS):
        rng = np.random.default_rng(i)
        rng.random((BATCH, K))
        codes = rng.random((BATCH * GRID.n_tokens, K)) * (rng.random(K) > 0.5)
        fires = (codes > 0).reshape(BATCH, GRID.n_tokens, K).sum(axis=1)
        np.testing.assert_array_equal(got[i * BATCH : (i + 1) * BATCH], fires)


def test_tokens_by_hand():
    codes = sp.csr_array(np.array([[1.0, 0], [2, 3], [0, 0], [0, 4]]))
    codes.data[1] = 0.0  # stored, and silent
    assert count_tokens(codes, 2).toarray().tolist() == [[1, 1], [0, 1]]
