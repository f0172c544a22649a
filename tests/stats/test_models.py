"""Two models against one another: correlation without shared noise, moves, closeness of pairs."""

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.special import ndtri

from bsjax.stats import closeness, models, moves, verdicts

N, K = 1000, 600


def draw(seed, correlation, moved_sd, n=N, n_concepts=K):
    """Codes of the real images and of two models whose true log ratios correlate so."""
    rng = np.random.default_rng(seed)
    frequency = np.exp(rng.normal(np.log(0.03), 0.8, n_concepts)).clip(1e-3, 0.5)
    left, own = rng.standard_normal((2, n_concepts))
    right = correlation * left + np.sqrt(1 - correlation**2) * own
    rates = [frequency, *(frequency * np.exp(moved_sd * each) for each in (left, right))]
    topics = rng.standard_normal((n, 6)) @ rng.standard_normal((6, n_concepts)) / np.sqrt(6)
    shared = np.sqrt(0.45) * topics + np.sqrt(0.35) * rng.standard_normal((n, n_concepts))
    arms = []
    for rate in rates:
        latent = shared + np.sqrt(0.2) * rng.standard_normal((n, n_concepts))
        energy = np.exp(0.8 * rng.standard_normal((n, n_concepts)))
        arms.append(sp.csr_array((latent > -ndtri(rate.clip(max=0.9))) * energy))
    return arms


def naive(real, left, right):
    """r of relative over all pairs, as the paper has it."""
    energies = [np.asarray(arm.sum(axis=0)).ravel() for arm in (real, left, right)]
    frequent = np.asarray((real > 0).sum(axis=0)).ravel() > 10
    energies = [arm[frequent] for arm in energies]
    contrasts = [(arm - energies[0]) / (arm + energies[0]) for arm in energies[1:]]
    return np.corrcoef(*contrasts)[0, 1]


@pytest.mark.parametrize(
    ("correlation", "moved_sd", "error"), [(0, 0.3, 0.05), (0.5, 0.5, 0.04), (0.9, 0.4, 0.03)]
)
def test_the_true_correlation_is_found(correlation, moved_sd, error):
    found = [models.correlate(*draw(seed, correlation, moved_sd)) for seed in range(12)]
    assert np.mean([each.r for each in found]) == pytest.approx(correlation, abs=error)
    assert sum(each.low <= correlation <= each.high for each in found) >= 10
    assert all(0.05 < each.high - each.low < 0.5 for each in found)
    assert all(0.1 < value < 0.8 for each in found for value in each.reliability)
    # Of the same worlds the naive one is wrong: it takes noise for likeness and misses likeness.
    told = np.mean([naive(*draw(seed, correlation, moved_sd)) for seed in range(3)])
    assert correlation == 0.5 or abs(told - correlation) > 0.1


def test_models_that_change_nothing_have_no_correlation():
    """The naive one is 0.5 here, from the noise of the real images that both are held against."""
    for seed in range(3):
        arms = draw(seed, 0.0, 0.0)
        found = models.correlate(*arms)
        assert found.reason == models.TOO_LOW
        assert np.isnan([found.r, found.low, found.high]).all()
        assert np.abs(found.reliability).max() < 0.15
        assert naive(*arms) > 0.4


def test_one_model_that_changes_nothing_is_enough_for_none():
    real, left, right = draw(0, 0.0, 0.5)
    _, same, _ = draw(0, 0.0, 0.0)
    assert models.correlate(real, left, same).reason == models.TOO_LOW
    assert not models.correlate(real, left, right).reason


def test_a_model_with_itself_is_one():
    real, left, _ = draw(1, 0.5, 0.5)
    found = models.correlate(real, left, left)
    assert [found.r, found.low, found.high] == pytest.approx([1, 1, 1], abs=1e-9)
    assert found.reliability[0] == found.reliability[1]


def test_where_there_is_nothing_to_correlate():
    """Models that change nothing at all, and concepts that are all one, have no reliability."""
    real, left, right = draw(0, 0.5, 0.5, n=600, n_concepts=60)
    found = models.correlate(real, real, real)
    assert found.reason == models.TOO_LOW and np.isnan([found.r, *found.reliability]).all()
    one = sp.csr_array(np.tile((np.arange(600) % 3 == 0)[:, None] * 2.0, 60))
    found = models.correlate(one, left, right)
    assert found.reason == models.TOO_LOW and np.isnan([found.r, found.low, found.high]).all()


def test_fewer_than_ten_concepts_are_not_correlated():
    rng = np.random.default_rng(0)
    arms = [sp.csr_array((rng.random((90, 10)) < 0.8) * rng.random((90, 10))) for _ in range(3)]
    assert models.correlate(*arms).n_concepts == 10
    assert "expected 10" not in models.correlate(*arms).reason
    found = models.correlate(*(arm[:, :9] for arm in arms))
    assert found.reason.startswith("9 concepts are frequent enough, expected 10 or more")


def test_order_does_not_matter_and_seeds_do_little():
    real, left, right = draw(2, 0.5, 0.5)
    one, other = models.correlate(real, left, right), models.correlate(real, right, left)
    assert one.r == pytest.approx(other.r, abs=1e-9)
    assert one.reliability == pytest.approx(other.reliability[::-1])
    assert models.correlate(real, left, right) == one
    assert models.correlate(real, left, right, seed=1).r == pytest.approx(one.r, abs=0.08)


def test_repeated_captions_stay_in_one_half():
    """Five copies of a pair in both halves would make noise reliable."""
    arms = [sp.csr_array(sp.vstack([arm] * 5)) for arm in draw(3, 0.0, 0.0)]
    labels = np.tile(np.arange(N), 5)
    assert models.correlate(*arms, labels=labels).reason == models.TOO_LOW
    assert models.correlate(*arms).r > 0.3  # taken as rows: the naive one again
    once = models.correlate(*draw(3, 0.5, 0.5))
    arms = [sp.csr_array(sp.vstack([arm] * 5)) for arm in draw(3, 0.5, 0.5)]
    again = models.correlate(*arms, labels=labels)
    assert again.r == pytest.approx(once.r) and again.n_concepts == once.n_concepts
    assert again.n_pairs == 5 * N


def test_concepts_are_chosen_by_a_frequency_from_elsewhere_where_it_is_known():
    real, left, right = draw(4, 0.5, 0.5)
    shown = np.asarray((real > 0).mean(axis=0)).ravel()
    found = models.correlate(real, left, right, frequency=shown)
    assert found.n_concepts == (shown * (N // 2) >= 5).sum()
    assert found.r == pytest.approx(0.5, abs=0.1)
    # No third part is lost to the choice.
    assert found.reliability[0] > models.correlate(real, left, right).reliability[0]
    edge = models.correlate(real, left, right, frequency=np.full(K, 5 / (N // 2)))
    assert edge.n_concepts == K  # expected in five images of a half, at the very edge
    none = models.correlate(real, left, right, frequency=np.zeros(K))
    assert "0 concepts are frequent enough" in none.reason and np.isnan(none.r)


def test_no_data_for_the_choice_is_used_for_the_estimate():
    parts = models._split(100, models.SPLITS, 0, 3)
    assert parts.shape == (100, models.SPLITS)
    assert all(sorted(np.bincount(part)) == [33, 33, 34] for part in parts.T)
    labels = np.arange(100) // 2 % 50
    weights = models._weights(models._split(50, 4, 0, 3), labels)
    assert set(np.unique(weights)) == {0, 0.5}  # a cluster of two counts once
    assert (weights[:, :4] * weights[:, 4:] == 0).all()
    np.testing.assert_array_equal(weights[::2], weights[1::2])


def test_the_estimate_by_hand():
    """One split, four concepts in two groups."""
    a1, a2 = np.array([1.0, -1, 2, -2]), np.array([2.0, -2, 1, -1])
    b1, b2 = np.array([1.0, 1, -1, -1]), np.array([2.0, 0, 0, -2])
    a, b = (np.stack([one, two], axis=1)[:, :, None] for one, two in ((a1, a2), (b1, b2)))
    moments = models._moments(a, b, np.ones((4, 1), bool), np.array([0, 0, 1, 1]))
    ab, aa, bb, var_a, var_b = models._covariances(moments.sum(axis=0))
    # All means are 0. a1 b2: (2 + 0 + 0 + 4) / 4; a2 b1: (2 - 2 - 1 + 1) / 4 = 0.
    assert ab == pytest.approx((1.5 + 0) / 2)
    assert aa == pytest.approx((2 + 2 + 2 + 2) / 4)
    assert bb == pytest.approx((2 + 0 + 0 + 2) / 4)
    assert var_a == pytest.approx((10 / 4 + 10 / 4) / 2)
    assert var_b == pytest.approx((4 / 4 + 8 / 4) / 2)
    # Without the first group: a (2, -2), (1, -1), b (-1, -1), (0, -2).
    ab, aa, bb, *_ = models._covariances(moments[1])
    assert (ab, aa, bb) == (pytest.approx(1.0), pytest.approx(2.0), pytest.approx(0.0))
    # Two values 1 and 3 without each group: sqrt(1/2 (1 + 1)).
    assert models._jackknife(np.array([[1.0], [3.0]])) == pytest.approx([1.0])
    found = models._estimate(np.concatenate([moments] * 20), models.unknown("", 7))
    assert found.r == pytest.approx(0.75 / np.sqrt(2)) and found.n_pairs == 7
    assert found.reliability == (pytest.approx(2 / 2.5), pytest.approx(1 / 1.5))
    # 40 groups of two kinds, so that leaving one out gives one of two values; t(39) is 2.0227.
    without = [moments.sum(axis=0) * 20 - group for group in moments]
    one, other = (c[0] / np.sqrt(c[1] * c[2]) for c in map(models._covariances, without))
    error = np.sqrt(39 / 40 * 20 * 2 * ((one - other) / 2) ** 2)
    assert found.low == pytest.approx(found.r - 2.0227 * error, rel=1e-4)
    assert found.high == pytest.approx(found.r + 2.0227 * error, rel=1e-4)


def test_a_log_ratio_of_a_half_by_hand():
    """Energies 1 + 3 against 2 + 0 over three images that show it: half an average image is 1."""
    real, generated = sp.csr_array([[1.0], [3.0]]), sp.csr_array([[2.0], [0.0]])
    weights = np.array([[1.0, 0.0], [1.0, 0.0]])  # all in the first half
    totals = [models._totals(arm, weights) for arm in (real, generated)]
    ratios = models._log_ratios(*totals)
    assert ratios.shape == (1, 2, 1)
    assert ratios[0, :, 0] == pytest.approx([np.log(3 / 5), 0.0])


def test_concepts_that_fire_together_are_one_group():
    rng = np.random.default_rng(0)
    sources = rng.random((600, 40)) < 0.2
    codes = sp.csr_array(np.repeat(sources, 5, axis=1).astype(np.float32))
    chosen = np.arange(200) != 3
    groups = models.group_concepts(codes, chosen).reshape(40, 5)
    assert groups[0, 3] == -1 and groups.max() < models.MOST_GROUPS
    groups[0, 3] = groups[0, 0]
    assert (groups == groups[:, :1]).all()
    assert len(np.unique(groups[:, 0])) > 30
    np.testing.assert_array_equal(models.group_concepts(codes, chosen)[3:5], [-1, groups[0, 4]])


def test_concepts_that_are_the_same_are_one_group_on_any_machine():
    rows = np.random.default_rng(0).random((600, 1)) < 0.3
    for n_concepts in (60, 61, 63):  # the last columns of a product are often made by other code
        same = sp.csr_array(np.tile(rows, n_concepts).astype(np.float32))
        assert not models.group_concepts(same, np.ones(n_concepts, bool)).any()


def test_closeness_by_hand():
    real = sp.csr_array([[1.0, 2.0, 0, 4.0], [0, 0, 0, 0], [1.0, 0, 0, 0]])
    # Within twofold: the first at its very edge; the second is not; one alone counts as apart.
    generated = sp.csr_array([[2.0, 0.99, 3.0, 0], [0, 0, 0, 0], [0.5, 0, 0, 0]])
    found = closeness.shares(real, generated, 2.0)
    assert found[[0, 2]] == pytest.approx([1 / 4, 1]) and np.isnan(found[1])
    np.testing.assert_array_equal(closeness.shares(generated, real, 2.0), found)
    assert closeness.shares(real, generated, 2.1)[0] == pytest.approx(2 / 4)
    told = closeness.mean(np.array([0.2, 0.4, np.nan, 0.5]), np.array([0, 0, 1, 2]))
    # Clusters 0.3 and 0.5, of which one has no value: 0.4 +- t(1) x 0.1414 / sqrt(2).
    assert told.mean == pytest.approx(0.4) and told.n == 2
    assert told.high - told.mean == pytest.approx(12.7062 * 0.1, rel=1e-4)
    assert told.mean - told.low == pytest.approx(told.high - told.mean)
    alone = closeness.mean(np.array([0.25, np.nan]), np.array([0, 1]))
    assert alone.mean == 0.25 and np.isnan(alone.low) and alone.n == 1
    assert np.isnan(closeness.mean(np.array([np.nan]), np.array([0])).mean)


def test_the_interval_of_closeness_covers():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        of_clusters = rng.beta(2, 3, 40)
        labels = np.repeat(np.arange(40), rng.integers(1, 6, 40))
        values = of_clusters[labels] + 0.01 * rng.standard_normal(labels.size)
        told = closeness.mean(values, labels)
        hits += told.low <= 0.4 <= told.high
    assert 0.92 <= hits / 300 <= 0.98


MOVES = [
    # change, first, second: log ratio and whether it is called
    ("towards", (1.5, 1), (-2.0, 1), (-0.5, 0)),  # the gap closes
    ("elsewhere", (1.5, 1), (-2.0, 0), (-0.5, 0)),  # nobody established that there was a gap
    ("", (1.5, 0), (-2.0, 1), (-0.5, 0)),  # nor that it closed
    ("elsewhere", (3.0, 1), (-2.0, 1), (1.0, 1)),  # from one gap into another, though a smaller one
    ("elsewhere", (1.0, 1), (-2.0, 1), (-1.0, 1)),  # nearer, and still a gap
    ("away", (-1.5, 1), (-0.5, 0), (-2.0, 1)),  # a gap opens
    ("away", (3.5, 1), (-1.0, 1), (2.5, 1)),  # to a farther place on the other side
    ("elsewhere", (-1.5, 1), (-0.5, 0), (-2.0, 0)),  # nobody established that it is one
    ("", (-1.5, 0), (-0.5, 0), (-2.0, 1)),
    ("towards", (-2.0, 1), (1.5, 1), (-0.5, 0)),  # the same from above
]  # fmt: skip


def outcome(values):
    log_ratio = np.array([value for value, _ in values])
    called = np.array([bool(flag) for _, flag in values])
    side = np.where(log_ratio < 0, verdicts.SUPPRESSED, verdicts.EXAGGERATED)
    verdict = np.where(called, side, verdicts.UNDECIDED).astype(object)
    p = np.where(called, 1e-6, 0.4)
    return moves.Tested(log_ratio, p, p, verdict)


def test_moves_case_by_case():
    found = moves.judge(*(outcome([case[i] for case in MOVES]) for i in (1, 2, 3)), 0.05)
    assert found.moved.tolist() == [case[0] for case in MOVES]


def test_both_tests_of_a_move_have_to_pass_over_all_concepts():
    """One of 100 concepts with p 0.004 against the real images is no more than chance has."""
    n = 100
    change = moves.Tested(np.full(n, 1.5), np.full(n, 1e-9), np.full(n, 1e-9),
                          np.full(n, verdicts.EXAGGERATED, object))  # fmt: skip
    p = np.full(n, 0.5)
    p[0] = 0.004
    first = moves.Tested(np.full(n, -2.0), p, p, np.full(n, verdicts.SUPPRESSED, object))
    second = moves.Tested(np.full(n, -0.5), p, p, np.full(n, verdicts.UNDECIDED, object))
    found = moves.judge(change, first, second, 0.05)
    assert found.q_towards[0] == pytest.approx(0.4)
    assert set(found.moved) == {moves.ELSEWHERE}
    p[0] = 0.0004
    assert moves.judge(change, first, second, 0.05).moved[0] == moves.TOWARDS
    # A concept without enough data in one of the comparisons has no q and no word.
    unknown = first._replace(q_material=np.full(n, np.nan))
    found = moves.judge(change, unknown, second, 0.05)
    assert np.isnan(found.q_towards).all() and moves.TOWARDS not in found.moved


def test_a_concept_that_its_own_comparison_does_not_call_is_not_called_by_the_conjunction():
    """Over the fewer concepts that two comparisons can judge a p may pass that did not over all."""
    change, first, second = (outcome([case[i] for case in MOVES]) for i in (1, 2, 3))
    undecided = np.full(len(MOVES), verdicts.UNDECIDED, object)
    found = moves.judge(change, first._replace(verdict=undecided), second, 0.05)
    assert moves.TOWARDS not in found.moved and moves.AWAY in found.moved
    found = moves.judge(change, first, second._replace(verdict=undecided), 0.05)
    assert moves.AWAY not in found.moved and moves.TOWARDS in found.moved
