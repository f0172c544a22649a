"""Concepts of two SAEs matched by their codes, and whether verdicts hold: by hand and simulated."""

import numpy as np
import pytest
import scipy.sparse as sp

from bsjax.stats import replication, verdicts
from bsjax.stats.replication import DIRECTION, NOT_HERE, NOT_THERE, OPPOSITE, SAME, UNMATCHED
from tests.benchmarks.simulator import draw_world

S, E, L, A = verdicts.SUPPRESSED, verdicts.EXAGGERATED, verdicts.LESS, verdicts.ALIGNED
FEW = verdicts.NOT_ENOUGH_DATA


def another_sae(codes, seed, drop=0.2, noise=0.4):
    """The same concepts in another order, with other energies, some images missed, some concepts
    split in two; and which concept each is."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(codes.shape[1])
    moved = sp.csr_array(codes[:, order]).copy()
    moved.data = moved.data * np.exp(noise * rng.standard_normal(moved.data.size))
    moved.data[rng.random(moved.data.size) < drop] = 0
    return moved, order


def test_correlation_is_pearsons_over_all_images():
    rng = np.random.default_rng(0)
    left = rng.gamma(1, 1, (60, 5)) * (rng.random((60, 5)) < 0.5)
    right = left[:, ::-1] + 0.3 * rng.gamma(1, 1, (60, 5)) * (rng.random((60, 5)) < 0.3)
    found = replication.match(sp.csr_array(left), sp.csr_array(right))
    assert found.other.tolist() == [4, 3, 2, 1, 0]
    for k in range(5):
        assert found.correlation[k] == pytest.approx(np.corrcoef(left[:, k], right[:, 4 - k])[0, 1])


def test_a_match_is_mutual_and_one_to_one():
    """Two concepts here are nearest to one there: the nearer gets it, the other nothing."""
    base = np.zeros(40)
    base[:12] = np.arange(1, 13)
    near, other = base.copy(), np.zeros(40)
    near[11] = 3
    other[20:30] = 1
    left = sp.csr_array(np.stack([near, base, other], axis=1))
    right = sp.csr_array(np.stack([other, base], axis=1))
    found = replication.match(left, right)
    assert found.other.tolist() == [-1, 1, 0]
    assert np.isnan(found.correlation[0]) and found.correlation[1:] == pytest.approx(1)
    assert replication.match(right, left).other.tolist() == [2, 1]
    # Of equals the lowest numbers, whichever side has them.
    twice = sp.csr_array(np.stack([base, base, other], axis=1))
    assert replication.match(twice, right).other.tolist() == [1, -1, 0]
    assert replication.match(right, twice).other.tolist() == [2, 0]


def test_floors_of_a_match():
    """Five images that show both are enough, four are not; nor is a correlation below 0.5."""
    for n, expected in ((5, 0), (4, -1)):
        codes = np.zeros((50, 1))
        codes[:n] = 1.0
        assert replication.match(sp.csr_array(codes), sp.csr_array(codes)).other[0] == expected
    left, right = np.zeros((400, 1)), np.zeros((400, 1))
    left[:80], right[31:111] = 1.0, 1.0  # 49 of 80: (49 / 400 - 0.04) / 0.16 = 0.516
    for codes, expected in ((right, 0), (np.roll(right, 2), -1)):  # 47: 0.484
        assert replication.match(sp.csr_array(left), sp.csr_array(codes)).other[0] == expected
    same = sp.csr_array(np.full((50, 1), 2.0))  # shown alike by every image
    assert replication.match(same, same).other[0] == -1


def test_blocks_and_order_change_nothing(monkeypatch):
    world = draw_world(0, 600, 300)
    other, order = another_sae(world.real, 1)
    found = replication.match(world.real, other)
    matched = found.other >= 0
    assert matched.mean() > 0.15
    assert (order[found.other[matched]] == np.flatnonzero(matched)).mean() > 0.99
    assert replication.match_by_chance(world.real, other) <= 1
    for name in ("BLOCK", "PAIRS"):
        monkeypatch.setattr(replication, name, 7)
    again = replication.match(world.real, other)
    assert again.other.tolist() == found.other.tolist()
    back = replication.match(other, world.real)
    assert all(back.other[found.other[k]] == k for k in np.flatnonzero(matched))


def test_what_replicates():
    here = np.array([S, S, E, S, S, FEW, A, A], object)
    there = np.array([S, L, S, FEW, None, S, A, L], object)
    ratio = np.array([-1.0, -1, 1, -1, -1, -1, 0.1, 0.1])
    other = np.array([-2.0, -0.2, -1, -1, np.nan, -1, -0.1, -0.4])
    assert replication.relate(here, ratio, there, other).tolist() == [
        SAME, DIRECTION, OPPOSITE, NOT_THERE, UNMATCHED, NOT_HERE, SAME, OPPOSITE,
    ]  # fmt: skip
    shares = replication.shares(here, ratio, there, other)
    same, way = shares["same_verdict"], shares["same_direction"]
    # Three called concepts that both judge: S-S, S-L, E-S. Counterparts of the five that both
    # judge: 2 S, 2 L, 1 A; signs: all five below 0.
    assert (same.agree, same.of, way.agree) == (1, 3, 2)
    assert same.chance == pytest.approx((2 * 2 / 5 + 0) / 3)
    assert way.chance == pytest.approx((2 * 1.0 + 0) / 3)
    nothing = replication.shares(here[5:], ratio[5:], there[5:], other[5:])["same_verdict"]
    assert (nothing.agree, nothing.of, nothing.low, nothing.high) == (0, 0, 0.0, 1.0)
    assert np.isnan(nothing.share) and np.isnan(nothing.chance)


def test_chance_is_what_dealing_out_anew_gives():
    rng = np.random.default_rng(0)
    kinds = np.array([S, E, L, A], object)
    here, there = (
        rng.choice(kinds, 400, p=p) for p in ([0.3, 0.2, 0.2, 0.3], [0.1, 0.4, 0.2, 0.3])
    )
    ratio = rng.standard_normal(400)
    expected = replication.shares(here, ratio, there, ratio)["same_verdict"].chance
    dealt = [
        replication.shares(here, ratio, rng.permutation(there), ratio)["same_verdict"].share
        for _ in range(300)
    ]
    assert np.mean(dealt) == pytest.approx(expected, abs=0.005)
