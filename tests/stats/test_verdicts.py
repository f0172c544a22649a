"""Tests of a change, verdicts, clusters and controls: by hand, and on simulated worlds."""

import itertools

import numpy as np
import pytest
import scipy.sparse as sp
from scipy import stats

from bsjax.stats import clusters, controls, significance, verdicts
from bsjax.stats.comparison import Rules, compare_codes
from tests.benchmarks.simulator import draw_world


def column(values):
    return sp.csc_array(np.asarray(values, np.float64)[:, None])


def test_material_by_hand():
    """Twelve firing images, all real: 0.6^12 at a margin of 1.5."""
    real, nothing = column(np.arange(1, 13)), column(np.zeros(12))
    assert significance.material(real, nothing, 1.5)[0] == pytest.approx(0.6**12)
    assert significance.material(nothing, real, 1.5)[0] == pytest.approx(0.6**12)
    assert significance.material(real, nothing, 4.0)[0] == pytest.approx(0.8**12)
    # Equal arms: the sum is far below what 1.5-fold would make of it.
    assert significance.material(real, real, 1.5)[0] > 0.7
    assert significance.material(nothing, nothing, 1.5)[0] == 1.0
    # 20 and 60 images of the same energy: about P(X >= 60) of 80 coins of 0.6.
    real, generated = column([1.0] * 20 + [0.0] * 40), column([1.0] * 60)
    middle = stats.binom.sf(60, 80, 0.6) + stats.binom.pmf(60, 80, 0.6) / 2
    assert significance.material(real, generated, 1.5)[0] == pytest.approx(middle, rel=0.1)


def test_direction_by_hand():
    """Differences 1 to 10 with signs: the share of 2^10 choices as far from balance."""
    gaps = np.array([1, 2, 3, -4, 5, 6, 7, 8, 9, 10.0])
    real, generated = column(np.maximum(-gaps, 0)), column(np.maximum(gaps, 0))
    signs = np.array(list(itertools.product([-1, 1], repeat=10)))
    totals = signs @ np.abs(gaps)
    exact = (np.abs(totals) > gaps.sum()).mean() + (np.abs(totals) == gaps.sum()).mean() / 2
    assert significance.direction(real, generated)[0] == pytest.approx(exact, rel=0.15)
    assert significance.direction(generated, real)[0] == pytest.approx(exact, rel=0.15)
    # Fourteen real images and none generated: 2 * 2^-14, also where all differ alike.
    assert significance.direction(column(np.ones(14)), column(np.zeros(14)))[0] == pytest.approx(
        2.0**-13
    )
    assert significance.direction(column(np.ones(2)), column(np.full(2, 2.0)))[0] == 0.5
    assert significance.direction(column(np.ones(5)), column(np.ones(5)))[0] == 1.0


def test_alignment_and_q_by_hand():
    log_ratio = np.array([0.0, np.log(2), 0.1, np.nan, 0.0])
    p = significance.aligned(log_ratio, np.array([0.2, 0.1, 0.0, np.nan, 0.0]), 2.0)
    assert p[0] == pytest.approx(stats.norm.sf(np.log(2) / 0.2))
    assert p[1] == pytest.approx(0.5)
    assert p[2:].tolist() == [0.0, 1.0, 0.0]
    q = significance.q_values(np.array([0.01, 0.04, 0.03, 0.5]), np.array([1, 1, 1, 0], bool))
    np.testing.assert_allclose(q[:3], [0.03, 0.04, 0.04])
    assert np.isnan(q[3])


def test_a_concept_is_judged_from_eleven_images_on():
    # 2 * 0.6^10 = 0.0121, 2 * 0.6^11 = 0.0073.
    assert verdicts.least_images(1.5) == 11
    assert verdicts.least_images(4.0) == 24
    for n, expected in ((10, "not enough data"), (11, "suppressed")):
        real = np.zeros((30, 2))
        real[:n, 0] = real[:, 1] = 1.0
        generated = np.zeros((30, 2))
        generated[:, 1] = 1.0
        got = compare_codes(sp.csr_array(real), sp.csr_array(generated), Rules())
        assert got.columns["verdict"].tolist() == [expected, "aligned"]


def test_each_verdict_says_what_was_established():
    #            material, direction, aligned
    q = np.array(
        [
            [0.01, 0.01, 0.9], [0.01, 0.01, 0.9], [0.06, 0.05, 0.9], [0.9, 0.01, 0.9],
            [0.9, 0.06, 0.05], [0.9, 0.9, 0.9], [0.0, 0.0, 0.0], [0.9, 0.01, 0.01],
        ]
    )  # fmt: skip
    log_ratio = np.array([-2, 2, -0.5, 0.5, 0.1, 0.1, -2, 0.2])
    eligible = np.array([1, 1, 1, 1, 1, 1, 0, 1], bool)
    got = verdicts.judge(verdicts.Tests(log_ratio, *q.T), eligible, 0.05)
    assert got.tolist() == [
        "suppressed", "exaggerated", "less", "more", "aligned", "undecided", "not enough data",
        "more",
    ]  # fmt: skip
    unknown = verdicts.Tests(log_ratio, *np.full((3, 8), np.nan))
    assert set(verdicts.judge(unknown, eligible, 0.05)) == {"undecided", "not enough data"}
    assert verdicts.count(got)["not_enough_data"] == 1
    paper = verdicts.judge_as_paper(np.array([0.09, 0.1, 0.9, 0.91]))
    assert paper.tolist() == ["suppressed", "between", "between", "exaggerated"]


def test_the_near_end_of_an_interval():
    log_ratio, low, high = np.array([[-2.0, -3, -1], [1, 0.2, 3], [-4, -np.inf, -2]]).T
    assert verdicts.near_end(log_ratio, low, high).tolist() == [-1, 0.2, -2]


def test_clusters_by_caption_and_by_image():
    rng = np.random.default_rng(0)
    real = sp.csr_array(rng.random((6, 40)) * (rng.random((6, 40)) < 0.5))
    captions = ["a cat", "a dog", "a cat", "", "", "a bird"]
    assert clusters.find_clusters(captions, None).tolist() == [0, 1, 0, 2, 3, 4]
    repeated = real[[0, 1, 2, 3, 1, 5]]
    repeated.data *= 1.001  # of another size: the cosine is what counts
    assert clusters.find_clusters(None, repeated).tolist() == [0, 1, 2, 3, 1, 4]
    assert clusters.find_clusters(captions, repeated).tolist() == [0, 1, 0, 2, 1, 3]
    # Links join: 0 and 2 by caption, 2 and 5 by image.
    linked = real[[0, 1, 2, 3, 4, 2]]
    assert clusters.find_clusters(captions, linked).tolist() == [0, 1, 0, 2, 3, 0]


def test_twins_that_are_known_take_the_place_of_codes():
    codes = sp.csr_array(np.ones((5, 20)))
    twins = np.array([[0, 3], [3, 4]])
    assert clusters.find_clusters(None, codes, twins=twins).tolist() == [0, 1, 2, 0, 0]
    assert clusters.find_clusters(None, codes).tolist() == [0] * 5
    captions = ["a", "b", "b", "c", "d"]
    assert clusters.find_clusters(captions, codes, twins=twins).tolist() == [0, 1, 1, 0, 0]
    assert clusters.within(twins, np.array([4, 1, 3])).tolist() == [[2, 0]]
    assert clusters.within(None, np.arange(3)) is None


def test_plain_images_are_not_the_same_image():
    """Seven concepts in common are too few to say so; eight are enough; none are none."""
    for n_shared, expected in ((7, [0, 1]), (8, [0, 0]), (0, [0, 1])):
        codes = np.zeros((2, 30))
        codes[:, :n_shared] = 1.0
        assert clusters.find_clusters(None, sp.csr_array(codes)).tolist() == expected


def test_alike_finds_what_the_cosines_say():
    rng = np.random.default_rng(1)
    base = rng.random((40, 300)) * (rng.random((40, 300)) < 0.2)
    noisy = base + base * rng.normal(0, 0.16, base.shape)
    codes = sp.csr_array(np.maximum(np.concatenate([base, noisy]), 0))
    dense = codes.toarray()
    unit = dense / np.linalg.norm(dense, axis=1, keepdims=True)
    left, right = np.nonzero(np.triu(unit @ unit.T >= 0.99, 1))
    assert 5 < left.size < 40  # some of the forty are
    got = clusters.alike(codes, 0.99)
    assert sorted(map(tuple, got)) == sorted(zip(left, right, strict=True))


def test_one_row_of_each_cluster_is_drawn_and_means_are_taken():
    labels = np.array([0, 1, 0, 2, 1, 0])
    drawn = clusters.draw(labels, seed=3)
    assert labels[drawn].tolist() == [0, 1, 2]
    others = {tuple(clusters.draw(labels, seed)) for seed in range(20)}
    assert len(others) > 3
    means = clusters.averages(labels) @ sp.csr_array(np.arange(6.0)[:, None])
    np.testing.assert_allclose(means.toarray().ravel(), [7 / 3, 2.5, 3])


def test_the_control_passes_pairs_and_fails_repetitions():
    world = draw_world(4, 200, 400, planted=0.3)
    once = compare_codes(world.real, world.generated, Rules(), seed=1)
    assert 0.03 < once.control.share < 0.07 and once.control.is_sound
    rows = np.repeat(np.arange(200), 5)
    repeated = world.real[rows], world.generated[rows]
    as_rows = compare_codes(*repeated, Rules(), repeats=rows, seed=1)
    assert as_rows.control.share > 0.15 and not as_rows.control.is_sound
    assert as_rows.control.inflation > 2
    assert as_rows.control.called > 3
    told = compare_codes(*repeated, Rules(), labels=rows, seed=1)
    assert told.control.is_sound
    for name in ("log_ratio", "se", "p_material", "p_direction", "n_both"):
        np.testing.assert_allclose(told.columns[name], once.columns[name], err_msg=name)


def test_the_detectable_fold_by_hand():
    got = controls.detectable_fold(spread=1.0, margin=1.5, level=0.05)
    # At 100 images and fold f the standard error is sqrt((1 + f) / 100 f + (1 + f) / 100).
    f = got[100]
    se = np.sqrt((1 + f) / (100 * f) + (1 + f) / 100)
    assert np.log(f / 1.5) == pytest.approx((1.6449 + 0.8416) * se, rel=2e-3)
    assert got[10] > got[100] > got[1000] > 1.5
    strict = controls.detectable_fold(spread=1.0, margin=1.5, level=1e-4)
    assert strict[10] == np.inf  # 0.6^10 is above it
    assert strict[100] > got[100]


def test_calls_are_right_and_found_on_a_simulated_world():
    """False discoveries, wrong signs and power of what is called, over a few worlds."""
    false, called, wrong, directed, found, planted = 0, 0, 0, 0, 0, 0
    for seed in range(4):
        world = draw_world(seed, 1000, 1500)
        columns = compare_codes(world.real, world.generated, Rules(), seed=seed).columns
        is_called = np.isin(columns["verdict"], verdicts.CALLED)
        called += is_called.sum()
        false += (is_called & (np.abs(world.log_ratio) < np.log(1.5))).sum()
        is_directed = np.nan_to_num(columns["q_direction"], nan=1) <= 0.05
        directed += is_directed.sum()
        wrong += (is_directed & (columns["log_ratio"] * world.log_ratio <= 0)).sum()
        eightfold = np.isclose(np.abs(world.log_ratio), np.log(8))
        planted += eightfold.sum()
        found += (is_called & eightfold).sum()
    assert called > 40 and directed > 2 * called / 1.5
    assert false / called < 0.05
    assert wrong / directed < 0.09
    assert found / planted > 0.28


def test_what_was_held_back_confirms():
    world = draw_world(5, 1000, 800, planted=0.2)
    rules = Rules(confirm=0.5)
    got = compare_codes(world.real, world.generated, rules, seed=2)
    assert got.units == 500
    tested = np.isfinite(got.columns["q_material"])
    everything = compare_codes(world.real, world.generated, Rules(), seed=2)
    assert 0 < tested.sum() < np.isfinite(everything.columns["q_material"]).sum() / 2
    assert np.isin(got.columns["verdict"], verdicts.CALLED).sum() > 5
    # The paper's numbers are those of all pairs.
    np.testing.assert_array_equal(got.columns["delta"], everything.columns["delta"])


def test_no_pair_no_verdict():
    codes = sp.csr_array(np.ones((3, 2)))
    with pytest.raises(ValueError, match="at least 2 clusters of pairs, got 1"):
        compare_codes(codes, codes, Rules(), labels=np.zeros(3, int))
    nothing = sp.csr_array((5, 3))
    got = compare_codes(nothing, nothing, Rules())
    assert set(got.columns["verdict"]) == {"not enough data"}
    assert np.isnan(got.columns["log_ratio"]).all()
    assert (got.columns["delta"] == 0.5).all()
    assert got.control.eligible == 0 and got.control.is_sound
    one_arm = compare_codes(sp.csr_array(np.ones((40, 3))), sp.csr_array((40, 3)), Rules())
    assert set(one_arm.columns["verdict"]) == {"suppressed"}


def test_columns_do_not_depend_on_the_order_of_the_pairs():
    world = draw_world(6, 150, 200)
    order = np.random.default_rng(0).permutation(150)
    one = compare_codes(world.real, world.generated, Rules()).columns
    other = compare_codes(world.real[order], world.generated[order], Rules()).columns
    for name in ("log_ratio", "se", "p_material", "p_direction", "q_aligned"):
        np.testing.assert_allclose(other[name], one[name], rtol=1e-7, err_msg=name)
    assert one["verdict"].tolist() == other["verdict"].tolist()
