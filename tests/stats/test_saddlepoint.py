"""Tails of weighted sums against enumeration, the binomial, and numpy's own saddlepoint."""

import itertools

import numpy as np
import pytest
from scipy import optimize, special, stats

from bsjax.stats import saddlepoint


def upper_tails(weights, offsets, observed, probability):
    return saddlepoint.upper_tails(
        np.asarray(weights), np.asarray(offsets), np.asarray(observed), probability
    )


def offsets_of(lengths):
    return np.concatenate([[0], np.cumsum(lengths)])


def enumerated(weights, observed, probability):
    """P(S >= s) less half of P(S = s), over all outcomes."""
    outcomes = np.array(list(itertools.product([0, 1], repeat=weights.size)))
    sums = outcomes @ weights
    chances = np.prod(np.where(outcomes, probability, 1 - probability), axis=1)
    beyond = chances[sums > observed + 1e-9].sum()
    return beyond + chances[np.abs(sums - observed) <= 1e-9].sum() / 2


@pytest.mark.parametrize("probability", [0.3, 0.5, 0.6])
def test_near_the_exact_tail_of_a_dozen_weights(probability):
    rng = np.random.default_rng(0)
    for _ in range(10):
        weights = rng.lognormal(0, 0.8, 12)
        for share in (0.25, 0.5, 0.7, 0.85):
            observed = float(weights[: int(12 * share)].sum())
            (got,) = upper_tails(weights, [0, 12], [observed], probability)
            assert got == pytest.approx(enumerated(weights, observed, probability), rel=0.25)


def by_numpy(weights, observed, probability):
    """Lugannani and Rice's formula with a root of scipy's."""
    odds = np.log(probability / (1 - probability))

    def slope(t):
        return (weights * special.expit(t * weights + odds)).sum() - observed

    reach = 60 / weights.min()
    t = optimize.brentq(slope, -reach, reach, xtol=1e-15)
    share = special.expit(t * weights + odds)
    logs = np.log1p(-probability), np.log(probability) + t * weights
    generating = np.logaddexp(*logs).sum()
    w = np.sign(t) * np.sqrt(2 * (t * observed - generating))
    u = t * np.sqrt((weights**2 * share * (1 - share)).sum())
    return stats.norm.sf(w) + stats.norm.pdf(w) * (1 / u - 1 / w)


def test_is_the_formula_for_every_length():
    rng = np.random.default_rng(1)
    lengths = np.array([3, 16, 17, 200, 33, 1000])
    weights = rng.lognormal(0, 1, lengths.sum())
    offsets = offsets_of(lengths)
    parts = [weights[a:b] for a, b in itertools.pairwise(offsets)]
    observed = np.array([0.8 * part.sum() for part in parts])
    got = upper_tails(weights, offsets, observed, 0.6)
    expected = [by_numpy(p, s, 0.6) for p, s in zip(parts, observed, strict=True)]
    np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize("n", [40, 500])
def test_equal_weights_are_a_binomial(n):
    heads = np.array([0.45, 0.6, 0.7, 0.8]) * n
    got = upper_tails(np.full(4 * n, 2.5), offsets_of([n] * 4), 2.5 * heads, 0.6)
    middle = stats.binom.sf(heads, n, 0.6) + stats.binom.pmf(heads, n, 0.6) / 2
    np.testing.assert_allclose(got, middle, rtol=0.1)


def test_the_ends_are_exact_and_no_tail_is_zero():
    weights = np.concatenate([np.arange(1.0, 12.0), np.ones(5000), np.ones(3)])
    offsets = offsets_of([11, 5000, 3, 0])
    got = upper_tails(weights, offsets, [66.0, 5000.0, 0.0, 0.0], 0.6)
    assert got[0] == pytest.approx(0.6**11, rel=1e-12)
    assert got[1] == saddlepoint.TINY
    assert got[2:].tolist() == [1.0, 1.0]
    # The sum of all, added in another order.
    (tail,) = upper_tails(np.full(7, 0.1), [0, 7], [np.float64(0.7)], 0.5)
    assert tail == pytest.approx(2.0**-7, rel=1e-12)


def test_at_its_mean_and_beside_it_the_tail_is_smooth():
    weights = np.random.default_rng(2).lognormal(0, 0.5, 60)
    mean = 0.6 * weights.sum()
    sd = np.sqrt(0.24 * (weights**2).sum())
    places = mean + sd * np.array([-2e-4, -5e-5, 0.0, 5e-5, 2e-4])
    got = upper_tails(np.tile(weights, 5), offsets_of([60] * 5), places, 0.6)
    assert (np.diff(got) <= 1e-12).all()
    assert np.ptp(got) < 3e-4  # four thousandths of a standard deviation apart
    third = 0.6 * 0.4 * (1 - 1.2) * (weights**3).sum() / sd**3
    assert got[2] == pytest.approx(0.5 - third / (6 * np.sqrt(2 * np.pi)), rel=1e-6)


def test_several_sums_of_the_same_weights_and_any_unit():
    rng = np.random.default_rng(3)
    weights, offsets = rng.lognormal(0, 1, 50), np.array([0, 20, 50])
    observed = np.array([[3.0, 9.0], [20.0, 1.0]])
    got = upper_tails(weights, offsets, observed, 0.5)
    assert got.shape == (2, 2)
    for draw in range(2):
        one = upper_tails(weights, offsets, observed[:, draw], 0.5)
        np.testing.assert_array_equal(got[:, draw], one)
    scaled = upper_tails(1e9 * weights, offsets, 1e9 * observed, 0.5)
    np.testing.assert_allclose(scaled, got, rtol=1e-8)


def test_weights_of_very_different_size_are_solved():
    weights = np.concatenate([np.full(20, 1e-4), [1.0, 50.0, 1000.0]])
    for observed in (1e-3, 1.001, 50.5, 1001.0):
        (got,) = upper_tails(weights, [0, 23], [observed], 0.6)
        assert got == pytest.approx(by_numpy(weights, observed, 0.6), rel=1e-5)
