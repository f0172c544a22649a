"""Statistics against hand-worked numbers."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp

from bsjax.core.dims import Grid
from bsjax.core.sparse_npz import CsrWriter, sum_runs, write_run
from bsjax.stats import datapoints, divergences, sparse_codes, streaming


def test_divergences_by_hand():
    real, generated = np.array([3.0, 0.0, 2.0, 0.0]), np.array([1.0, 5.0, 2.0, 0.0])
    np.testing.assert_allclose(divergences.relative(real, generated), [-0.5, 1, 0, 0])
    np.testing.assert_allclose(divergences.difference(real, generated), [-2, 5, 0, 0])
    # 15.5-fold is where relative at T = 0.4 crosses delta = 0.1 (METHOD section 4).
    edge = divergences.delta(divergences.relative(np.array([15.5]), np.array([1.0])), 0.4)
    assert edge[0] == pytest.approx(0.1, abs=1e-3)
    assert divergences.delta(np.array([-1.76]), 0.8)[0] == pytest.approx(0.1, abs=1e-3)


def test_pairs_of_copies_come_first():
    real = sp.csr_array(np.array([[1.0, 0, 2], [1, 1, 0], [0, 0, 0]]))
    generated = sp.csr_array(np.array([[0.0, 3, 1], [1, 1, 0], [0, 0, 1]]))
    scores = datapoints.score_pairs(real, generated)
    np.testing.assert_allclose(scores["mean_difference"], [1 / 3, 0, 1 / 3])
    np.testing.assert_allclose(scores["absolute_difference"], [5, 0, 1])
    np.testing.assert_allclose(scores["cosine"], [2 / np.sqrt(50), 1, 0])
    assert datapoints.rank_pairs(scores)[0] == 1


def test_top_images_keep_the_first_of_equals():
    top = streaming.init_top_images(1, 2)
    for rows, values in (([0, 1], [1.0, 3.0]), ([2, 3], [3.0, 0.0])):
        top = streaming.update_top_images(
            top, jnp.array(values)[:, None], jnp.array(rows, jnp.int32)
        )
    assert top.rows.tolist() == [[1, 2]]


def random_codes(n_active):
    """Codes [3, 9, 320] of a class token and 8 patches, about `n_active` above zero a token."""
    rng = np.random.default_rng(1)
    codes = rng.uniform(0.5, 2, (3, 9, 320)) * (rng.random((3, 9, 320)) < n_active / 320)
    return jnp.asarray(codes, jnp.float32), jnp.array([True, True, False])


def test_compact_codes_are_all_codes():
    codes, mask = random_codes(4)
    compact = jax.jit(sparse_codes.compact_codes, static_argnums=2)(codes, mask, 16)
    assert sparse_codes.is_complete(compact, 320)
    got = sparse_codes.to_csr(jax.device_get(compact), np.asarray(mask), 320).toarray()
    np.testing.assert_array_equal(got, codes[:2].reshape(18, 320))


@pytest.mark.parametrize("n_kept", [3, 16, 64])  # by groups, by groups, whole rows
def test_compact_codes_are_the_largest(n_kept):
    codes = jnp.abs(jax.random.normal(jax.random.key(2), (2, 3, 320)))
    compact = sparse_codes.compact_codes(codes, jnp.ones(2, bool), n_kept)
    np.testing.assert_array_equal(compact.values, -np.sort(-codes)[..., :n_kept])
    np.testing.assert_array_equal(np.take_along_axis(codes, compact.concepts, 2), compact.values)
    assert not sparse_codes.is_complete(compact, 320)
    with pytest.raises(ValueError, match=f"more than the {n_kept}"):
        sparse_codes.to_csr(jax.device_get(compact), np.ones(2, bool), 320)


@pytest.mark.parametrize("n_kept", [2, 16])  # a token has more than two: the dense codes are summed
@pytest.mark.parametrize("part_bytes", [4 * 320, 4 * 320 * 5, 10**6])  # parts of 1, 5 and 9 tokens
def test_sums_of_compact_codes_are_those_of_dense_ones(n_kept, part_bytes, monkeypatch):
    monkeypatch.setattr(streaming, "PART_BYTES", part_bytes)
    codes, mask = random_codes(4)

    def reduce(codes, mask):  # by an encoder of which tokens that are none fire, too
        shifted = lambda tokens: tokens + 1.0  # noqa: E731
        return streaming.reduce_tokens(shifted, codes - 1.0, mask, Grid(0, 2, 4), 320, n_kept)

    got, compact = jax.jit(reduce)(codes, mask)
    codes = np.asarray((codes - 1.0) + 1.0)
    kept = codes * np.asarray(mask)[:, None, None]
    energy, patches = np.zeros((2, 3, 320), np.float32)
    for token in range(9):  # one after the other, whatever was kept and however they were divided
        energy, patches = (
            energy + kept[:, token] * (token == 0),
            patches + kept[:, token] * (token > 0),
        )
    np.testing.assert_array_equal(got.image_energy, energy + patches)
    np.testing.assert_array_equal(got.patch_mean, patches / np.float32(8))
    np.testing.assert_array_equal(got.fires, (kept > 0).sum((0, 1)))
    np.testing.assert_array_equal(got.present, (kept.sum(1) > 0).sum(0))
    np.testing.assert_array_equal(compact.values, -np.sort(-kept)[..., :n_kept])
    firing = np.asarray(compact.values) > 0
    found = np.take_along_axis(kept, np.asarray(compact.concepts), 2)
    np.testing.assert_array_equal(found[firing], np.asarray(compact.values)[firing])
    dense = streaming._sums_at_once(
        jnp.asarray(codes),
        mask,
        encode=lambda tokens: tokens,
        grid=Grid(0, 2, 4),
        n_concepts=320,
        n_kept=n_kept,
    )
    np.testing.assert_allclose(dense[0][0] + dense[0][1], got.image_energy, rtol=1e-6)
    np.testing.assert_allclose(dense[0][1] / 8, got.patch_mean, rtol=1e-6)
    np.testing.assert_array_equal(dense[1].sum(0), got.fires)
    np.testing.assert_array_equal(dense[2].values, compact.values)


def test_top_images_of_parts_are_those_of_the_whole():
    rng = np.random.default_rng(1)
    scores = rng.integers(0, 6, (40, 5)).astype(np.float32)  # many are equal, many are zero
    scores[:, 4] = 0

    def top_of(rows):
        top = streaming.init_top_images(5, 4)
        for batch in np.array_split(rows, 3):
            top = streaming.update_top_images(top, jnp.asarray(scores[batch]), jnp.asarray(batch))
        return streaming.TopImages(*map(np.asarray, top))

    whole = top_of(np.arange(40, dtype=np.int32))
    parts = streaming.empty_top_images(5, 4)
    for part in np.array_split(np.arange(40, dtype=np.int32), 7):
        parts = streaming.merge_top_images(parts, top_of(part))
    np.testing.assert_array_equal(parts.scores, whole.scores)
    np.testing.assert_array_equal(parts.rows, whole.rows)


@pytest.mark.parametrize("size", [1, 3, 4, 5, 40])  # put in one by one, and sorted
def test_top_images_do_not_tell_the_size_of_a_batch(size):
    rng = np.random.default_rng(4)
    scores = rng.integers(0, 6, (40, 9)).astype(np.float32)
    scores[:, 8] = 0
    top = streaming.init_top_images(9, 6)
    for start in range(0, 40, size):
        rows = np.arange(start, min(start + size, 40), dtype=np.int32)
        top = streaming.update_top_images(top, jnp.asarray(scores[rows]), jnp.asarray(rows))
    order = np.argsort(-scores.T, axis=1, kind="stable")[:, :6]
    expected = np.take_along_axis(scores.T, order, axis=1)
    np.testing.assert_array_equal(top.scores, expected)
    np.testing.assert_array_equal(top.rows, np.where(expected > 0, order, -1))


def test_sums_over_images_do_not_tell_how_they_were_divided():
    rng = np.random.default_rng(2)
    codes = rng.random((30, 4)).astype(np.float32) * 10.0 ** rng.integers(-6, 6, (30, 1))
    codes = sp.csr_array((codes * (rng.random((30, 4)) > 0.3)).astype(np.float32))
    none = np.zeros(4, np.int64)

    def total(cuts):
        totals = streaming.init(4)
        for part in np.split(np.arange(30), cuts):
            totals = streaming.add_images(totals, codes[part], none + 1, none + 2)
        return totals

    whole = total([])
    by_hand = np.zeros(4)
    for row in codes.toarray().astype(np.float64):
        by_hand = by_hand + row
    assert whole.energy.tobytes() == by_hand.tobytes()
    for cuts in ([1], [7, 19], range(1, 30)):
        parts = total(cuts)
        assert parts.n_images == 30 and parts.fires.tolist() == [len(cuts) + 1] * 4
        assert parts.energy.tobytes() == whole.energy.tobytes()
        assert parts.energy_squared.tobytes() == whole.energy_squared.tobytes()


def test_images_by_energy_where_no_patch_fires():
    energies = sp.csr_array(np.array([[0.0, 2.0], [3.0, 2.0], [5.0, 0.0]]))
    rows = streaming.top_by_energy(energies, 3)
    np.testing.assert_array_equal(rows, [[2, 1, -1], [0, 1, -1]])


def test_sparse_files_are_scipys_and_runs_add_up(tmp_path):
    rng = np.random.default_rng(0)
    parts = [sp.random_array((50, 30), density=0.2, rng=rng, format="csr") for _ in range(3)]
    for i, part in enumerate(parts):
        write_run(tmp_path / f"run-{i}", iter([part[:20], part[20:]]), 30)
    runs = [tmp_path / f"run-{i}" for i in range(3)]
    with CsrWriter(tmp_path / "sum.npz", 30, np.float32) as writer:
        for block in sum_runs(runs, 50, rows_per_block=7):
            writer.append(block)
    got = sp.load_npz(tmp_path / "sum.npz")
    np.testing.assert_allclose(got.toarray(), sum(parts).toarray(), rtol=1e-6)


def test_words_do_not_depend_on_the_order_of_a_hash():
    code = (
        "import numpy as np; from bsjax.stats.words import describe_concepts as d;"
        "captions = [f'lock ink flash camera pen {chr(97 + i)}x' for i in range(6)];"
        "captions += [f'blue tree {chr(97 + i)}y' for i in range(20)];"
        "print(d(captions, np.array([range(6)]))[0])"
    )
    got = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": str(seed)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in range(4)
    }
    assert len(got) == 1
    assert len(got.pop().split(", ")) == 3


def test_merged_totals_are_those_of_the_whole():
    rng = np.random.default_rng(0)
    codes = np.maximum(rng.normal(size=(6, 4, 4)), 0).astype(np.float32)

    def total(part):
        part, mask = jnp.asarray(part), jnp.ones(len(part), bool)
        reduced, _ = streaming.reduce_tokens(lambda codes: codes, part, mask, Grid(0, 2, 2), 4, 4)
        return streaming.update(streaming.init(4), jax.device_get(reduced), np.asarray(mask))

    whole = streaming.finalize(total(codes))
    merged = streaming.finalize(streaming.merge(total(codes[:2]), total(codes[2:])))
    for name, expected in whole.items():
        np.testing.assert_allclose(merged[name], expected, rtol=1e-6)
