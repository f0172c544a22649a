"""Log ratio on log frequency: by hand, and on worlds where rare concepts are drawn less or not."""

import numpy as np
import pytest
import scipy.sparse as sp

from bsjax.stats import rarity, ratios
from bsjax.stats.sums import sum_pairs
from tests.benchmarks import simulator


def world(seed, slope, n=2000, n_concepts=1200):
    """A world whose true log ratios go with log10 of the frequency."""
    return simulator.draw_world(seed, n, n_concepts, planted=0.0, moved_sd=0.5, rarity=slope)


def naive(real, generated):
    """Slope and standard error of weighted least squares, all from the same images."""
    sums = sum_pairs(real, generated)
    seen = sums.n_real > 0
    found = ratios.log_ratios(sums)
    x, y = np.log10(sums.n_real[seen]), found.log_ratio[seen]
    design = np.stack([np.ones_like(x), x], axis=1) / found.se[seen, None]
    inverse = np.linalg.inv(design.T @ design)
    return (inverse @ design.T @ (y / found.se[seen]))[1], np.sqrt(inverse[1, 1])


def test_the_variance_between_concepts_by_hand():
    """Residuals -3, -1, 1, 3 about 0: (9 + 1 + 1 + 9) / (v + tau^2) = 4 - 1."""
    y, design = np.array([-3.0, -1.0, 1.0, 3.0]), np.ones((4, 1))
    got = rarity.between_variance(design, y, np.full(4, 2.0))
    assert got == pytest.approx(20 / 3 - 2, rel=1e-6)
    assert rarity.between_variance(design, y, np.full(4, 20 / 3)) == pytest.approx(0, abs=1e-6)
    assert rarity.between_variance(design, y, np.full(4, 30.0)) == 0.0
    # About a line: residuals -1, 2, -1 of three values and two coefficients.
    line = np.stack([np.ones(3), np.arange(3.0)], axis=1)
    got = rarity.between_variance(line, np.array([-1.0, 2.0, -1.0]), np.full(3, 0.5))
    assert got == pytest.approx(6 - 0.5, rel=1e-6)


def test_frequency_by_hand():
    """Counts of mean 5 and variance 12.5: a = 25 / 7.5; differences of digamma are harmonic."""
    counts = np.array([0.0, 5.0, 10.0, 5.0])
    a = 25 / 7.5
    found = rarity.log_frequency(counts) * np.log(10)
    assert found[2] - found[1] == pytest.approx(sum(1 / (5 + a + i) for i in range(5)))
    # No more scattered than counts of one rate are: nearly all of the differences is chance.
    found = rarity.log_frequency(np.array([100.0, 101.0, 99.0, 100.0]))
    assert np.ptp(found) < 1e-4
    # Far more scattered than chance would: as they say.
    found = rarity.log_frequency(np.array([10.0, 100.0, 1000.0, 10_000.0]))
    np.testing.assert_allclose(np.diff(found), 1, atol=0.02)


def test_the_jackknife_by_hand():
    """Slope 0 of four values; without a group the rest is a line through two points."""
    chosen, variance = np.array([0, 2, 3, 5]), np.ones(4)
    y, x = np.array([0.0, 1.0, 1.0, 0.0]), np.array([0.0, 1.0, 2.0, 3.0])
    fit = rarity._Fit(chosen, x, y, variance)
    groups = np.array([0, 9, 0, 1, 9, 1])
    np.testing.assert_allclose(fit.slopes(groups, 2), [0, -1, 1], atol=1e-12)


def test_weights_have_the_variance_between_concepts():
    """Exact values that disagree tell of such a variance, by which a vague one counts, too."""
    x, y = np.array([0.0, 0.0, 1.0, 1.0]), np.array([-2.0, 2.0, 0.0, 4.0])
    variance = np.array([1e-6, 1e-6, 1e-6, 8.0])
    fit = rarity._Fit(np.arange(4), x, y, variance)
    weights = 1 / (variance + fit.tau2)
    at_one = np.average(y[2:], weights=weights[2:])
    assert fit.tau2 > 1
    assert fit.slopes(np.arange(4), 4)[0] == pytest.approx(at_one)
    assert at_one > 0.5  # by their own errors alone: 0


def test_variances_follow_the_frequency():
    x = np.array([0.0, 1.0, 2.0, 3.0])
    exact = 8 * 10.0**-x
    np.testing.assert_allclose(rarity.smooth_variance(x, exact), exact)
    pairs = np.array([1.0, 4.0, 1.0, 4.0])  # the same frequencies, larger and smaller errors
    np.testing.assert_allclose(rarity.smooth_variance(np.array([0, 0, 1, 1.0]), pairs), 2.5)


def test_concepts_that_err_together_are_a_group():
    """Two concepts of the same errors are with each other, whoever leads."""
    rng = np.random.default_rng(0)
    real = rng.gamma(1, 1, (300, 30)) * (rng.random((300, 30)) < 0.3)
    generated = rng.gamma(1, 1, (300, 30)) * (rng.random((300, 30)) < 0.3)
    real[:, 15:], generated[:, 15:] = 3 * real[:, :15], 3 * generated[:, :15]
    arms = sp.csr_array(real), sp.csr_array(generated)
    labels = rarity.group_concepts(*arms, np.random.default_rng(1))
    assert set(labels) == set(range(15))
    leaders = np.random.default_rng(1)
    leaders.standard_normal((300, rarity.SKETCH_WIDTH))
    free = set(range(30)) - set(leaders.choice(30, 15, replace=False).tolist())
    together = [labels[k] == labels[(k + 15) % 30] for k in free if (k + 15) % 30 not in free]
    assert len(together) >= 5 and all(together)


def test_concepts_that_are_the_same_follow_the_first_leader():
    rng = np.random.default_rng(0)
    for n_concepts in (60, 61, 63):  # the last columns of a product are often made by other code
        arms = [sp.csr_array(np.tile(rng.gamma(1, 1, (300, 1)), n_concepts)) for _ in range(2)]
        labels = rarity.group_concepts(*arms, np.random.default_rng(1))
        n_groups = n_concepts // 2
        counts = np.bincount(labels, minlength=n_groups)
        assert counts.tolist() == [n_concepts - n_groups + 1] + [1] * (n_groups - 1)


def test_no_slope_is_no_slope_where_the_naive_one_is():
    found, fooled = [], []
    for seed in range(12):
        arms = world(seed, 0.0)
        found.append(rarity.against_frequency(arms.real, arms.generated, seed))
        slope, se = naive(arms.real, arms.generated)
        fooled.append(abs(slope) > 1.96 * se)
    assert sum(each.low <= 0 <= each.high for each in found) >= 10
    assert abs(np.mean([each.slope for each in found])) < 0.06
    assert np.mean([each.high - each.low for each in found]) < 0.6
    assert sum(fooled) >= 9
    assert np.mean([each.spread for each in found]) == pytest.approx(0.5 * np.log(2), abs=0.07)


def test_a_planted_slope_is_found():
    """Ten times rarer concepts are drawn exp(-0.7) times as much."""
    found = []
    for seed in range(12):
        arms = world(seed, 0.7)
        found.append(rarity.against_frequency(arms.real, arms.generated, seed))
    assert np.mean([each.slope for each in found]) == pytest.approx(0.7, abs=0.1)
    assert sum(each.low <= 0.7 <= each.high for each in found) >= 10
    assert sum(each.low > 0 for each in found) >= 11


def test_too_little_to_tell():
    arms = world(0, 0.0, n=40)
    assert rarity.against_frequency(arms.real, arms.generated, 0) is None
    same = sp.csr_array(np.ones((40, 30)))  # all are equally frequent
    assert rarity.against_frequency(same, same, 0) is None
    # Counts of one frequency scatter by chance; a slope on that would be anything (-970 here).
    rng = np.random.default_rng(0)
    arms = [sp.csr_array((rng.random((200, 40)) < 0.3) * 1.0) for _ in range(2)]
    assert rarity.against_frequency(*arms, 0) is None
    two = sp.csr_array(np.ones((2, 30)))
    assert rarity.against_frequency(two, two, 0) is None


def test_equal_arms_have_no_slope():
    arms = world(0, 0.0, n=600)
    found = rarity.against_frequency(arms.real, arms.real, 0)
    assert found.slope == found.low == found.high == found.spread == 0.0
