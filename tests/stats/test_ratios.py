"""The eight sums, log ratios, factors and McNemar's test by hand; coverage on simulated worlds."""

import numpy as np
import pytest
import scipy.sparse as sp
from scipy import stats

from bsjax.stats import ratios, sums
from tests.benchmarks.simulator import draw_world

# Four pairs, three concepts; the second is never generated, the third fires nowhere.
REAL = np.array([[2.0, 1, 0], [0, 3, 0], [4, 0, 0], [0, 0, 0]])
GENERATED = np.array([[1.0, 0, 0], [0, 0, 0], [0, 0, 0], [3, 0, 0]])


def by_hand():
    return sums.sum_pairs(sp.csr_array(REAL), sp.csr_array(GENERATED))


def test_the_eight_sums():
    got = by_hand()
    assert got.n == 4
    for name, expected in {
        "n_real": [2, 2, 0], "n_generated": [2, 0, 0], "n_both": [1, 0, 0],
        "energy_real": [6, 4, 0], "energy_generated": [4, 0, 0],
        "square_real": [20, 10, 0], "square_generated": [10, 0, 0], "product": [2, 0, 0],
    }.items():  # fmt: skip
        assert getattr(got, name).tolist() == expected, name
    stored_zeros = sp.csr_array(REAL)
    stored_zeros.data[:] = 0
    assert sums.sum_pairs(stored_zeros, sp.csr_array(GENERATED)).n_real.tolist() == [0, 0, 0]


def test_sums_of_parts_add_up_to_those_of_all_in_any_order():
    world = draw_world(0, 90, 200)
    parts = [
        sums.sum_pairs(world.real[rows], world.generated[rows])
        for rows in np.array_split(np.random.default_rng(0).permutation(90), 4)
    ]
    expected = sums.sum_pairs(world.real, world.generated)
    forwards, backwards = parts[0], parts[-1]
    for part in parts[1:]:
        forwards = sums.merge(forwards, part)
    for part in parts[-2::-1]:
        backwards = sums.merge(part, backwards)
    for merged in (forwards, backwards):
        for name, values in expected._asdict().items():
            np.testing.assert_allclose(getattr(merged, name), values, rtol=1e-12, err_msg=name)


def test_log_ratio_by_hand():
    got = ratios.log_ratios(by_hand())
    # e = (6 + 4) / 4 = 2.5 and (4 + 0) / 2 = 2.
    assert got.log_ratio[0] == pytest.approx(np.log((4 + 1.25) / (6 + 1.25)))
    assert got.log_ratio[1] == pytest.approx(np.log(1 / 5))
    assert np.isnan(got.log_ratio[2])
    # k: raw 4 * 30 / 100 = 1.2 and 2 * 10 / 16 = 1.25, the median 1.225 lent by 8 images.
    k = (4 * 1.2 + 8 * 1.225) / 12
    np.testing.assert_allclose(ratios.spread(by_hand())[0], k)
    square_real, square_generated = max(20, k * 36 / 2), max(10, k * 16 / 2)
    variance = (square_real + k * 2.5**2 / 2) / 7.25**2
    variance += (square_generated + k * 2.5**2 / 2) / 5.25**2 - 2 * 2 / (7.25 * 5.25)
    assert got.se[0] == pytest.approx(np.sqrt(variance))
    assert got.low[0] == pytest.approx(got.log_ratio[0] - 1.959964 * got.se[0])
    assert got.high[0] == pytest.approx(got.log_ratio[0] + 1.959964 * got.se[0])
    # Both firing images are real ones: (1 + theta)^-2 is 2.5 % at theta = 5.32.
    assert got.high[1] == pytest.approx(np.log(1 / np.sqrt(0.025) - 1))
    assert got.low[1] == -np.inf
    turned = ratios.log_ratios(sums.sum_pairs(sp.csr_array(GENERATED), sp.csr_array(REAL)))
    assert (turned.low[1], turned.high[1]) == (-got.high[1], np.inf)
    np.testing.assert_allclose(turned.log_ratio, -got.log_ratio)
    np.testing.assert_allclose(turned.se, got.se)


def test_factors_multiply_to_the_energy_ratio():
    totals, tokens = by_hand(), (np.array([10.0, 6, 0]), np.array([2.0, 0, 0]))
    found = ratios.log_ratios(totals)
    parts = ratios.factors(totals, found.log_ratio, tokens)
    assert parts.prevalence[:2] == pytest.approx([1.0, 0.5 / 2.5])
    # tau = 12 / 4 = 3 tokens per image: (2 + 1.5) / (10 + 1.5).
    assert parts.area[0] == pytest.approx(3.5 / 11.5)
    product = parts.prevalence * parts.area * parts.amount
    np.testing.assert_allclose(product[:2], np.exp(found.log_ratio[:2]), rtol=1e-12)
    without = ratios.factors(totals, found.log_ratio)
    assert np.isnan(without.area).all()
    np.testing.assert_allclose(
        (without.prevalence * without.amount)[:2], np.exp(found.log_ratio[:2]), rtol=1e-12
    )
    se = np.sqrt(1 / 2.5 + 1 / 2.5 - 2 * 1 / 2.5**2)
    assert parts.prevalence_high[0] == pytest.approx(np.exp(1.959964 * se))
    assert parts.prevalence_low[0] == pytest.approx(np.exp(-1.959964 * se))
    assert (parts.prevalence_low[1], np.isnan(parts.prevalence[2])) == (0.0, True)


def test_mcnemar_by_hand():
    counts = np.array([[9, 4, 3], [5, 5, 1], [0, 0, 0], [14, 0, 0]]).T  # real, generated, both
    totals = by_hand()._replace(
        **dict(zip(("n_real", "n_generated", "n_both"), counts, strict=True))
    )
    got = ratios.mcnemar(totals)
    # 1 of 7 is generated alone: 2 P(X <= 1) - P(X = 1) = (2 * 8 - 7) / 128. 4 of 8: all but 70/256.
    assert got[0] == pytest.approx(9 / 128)
    assert got[1] == pytest.approx(2 * stats.binom.cdf(4, 8, 0.5) - 70 / 256)
    assert got[2] == 1.0
    assert got[3] == pytest.approx(2.0**-14)


def test_shrinking_takes_most_from_what_is_least_known():
    log_ratio = np.array([2.0, 2.0, -1.0, 0.0, 0.1, np.nan])
    got = ratios.shrink(log_ratio, np.array([0.1, 3.0, 0.1, 0.1, 0.1, np.nan]))
    assert 1.9 < got[0] < 2.0
    assert abs(got[1]) < 0.6
    assert np.isnan(got[5])
    same = np.full(4, 0.3)
    np.testing.assert_allclose(ratios.shrink(same, np.full(4, 0.2)), same)


def test_intervals_cover_the_truth_as_often_as_they_say():
    inside = {bounds: [] for bounds in ((1, 10), (11, 20), (21, 50), (51, 10_000))}
    for seed in range(8):
        world = draw_world(seed, 1000, 3000, moved_sd=0.5 * (seed % 2))
        totals = sums.sum_pairs(world.real, world.generated)
        found = ratios.log_ratios(totals)
        covered = (found.low <= world.log_ratio) & (world.log_ratio <= found.high)
        for low, high in inside:
            chosen = (totals.n_firing >= low) & (totals.n_firing <= high)
            inside[low, high].append(covered[chosen])
    shares = {bounds: np.concatenate(parts).mean() for bounds, parts in inside.items()}
    assert shares[1, 10] > 0.95
    for bounds in ((11, 20), (21, 50), (51, 10_000)):
        assert 0.93 < shares[bounds] < 0.975, shares
