"""Captions needed to call a change: by hand, and held to the test itself on simulated worlds."""

import numpy as np
import pytest
import scipy.sparse as sp
from scipy import stats

from bsjax.stats import power, significance
from bsjax.stats.comparison import Rules, compare_codes
from bsjax.stats.ratios import spread
from bsjax.stats.sums import sum_pairs

MARGIN = 1.5


def draw(seed, n, prevalence, fold, together, n_concepts):
    """Concepts [n, K] of both arms: suppressed by `fold` where that is above 1.

    Real images show a concept with probability `prevalence`; of these a share `together` of the
    generated ones that show it have a real image that does, with half of its log energy.
    """
    rng = np.random.default_rng(seed)
    real, generated = [], []
    for _ in range(n_concepts):
        rows = np.unique(rng.integers(0, n, rng.binomial(n, prevalence)))
        log = 0.8 * rng.standard_normal(rows.size)
        kept = rng.random(rows.size) < together / fold
        own = np.sqrt(0.5) * (log + 0.8 * rng.standard_normal(rows.size))
        more = rng.integers(0, n, rng.binomial(n, prevalence * (1 - together) / fold))
        more = np.setdiff1d(more, rows)
        real.append((rows, np.exp(log)))
        energies = np.concatenate([own[kept], 0.8 * rng.standard_normal(more.size)])
        generated.append((np.concatenate([rows[kept], more]), np.exp(energies)))

    def matrix(columns):
        rows, values = (np.concatenate(parts) for parts in zip(*columns, strict=True))
        place = np.repeat(np.arange(n_concepts), [len(part) for part, _ in columns])
        return sp.csc_array((values, (rows, place)), shape=(n, n_concepts))

    return matrix(real), matrix(generated)


def learn(real, generated, captions, called=0.1, **more):
    sums = sum_pairs(sp.csr_array(real), sp.csr_array(generated))
    return power.learn(sums, captions=captions, called=called, margin=MARGIN, fdr=0.05, **more)


def test_images_of_one_energy_are_a_binomial():
    """40 images, 80 % of which are to be seen in one arm at a fold of 4, margin 1.5 at 5 %."""
    # P(X > c) + P(X = c) / 2 at whole numbers, up to the smooth continuation between them.
    for count in (24, 28, 31, 36):
        exact = stats.binom.sf(count, 40, 0.6) + stats.binom.pmf(count, 40, 0.6) / 2
        got = power._tail(np.array([1.0 * count]), np.array([40.0]), 0.6)
        assert got == pytest.approx(exact, abs=0.004)
    level = np.array([0.05])
    share = power._critical_share(np.array([40.0]), level, 0.6)
    assert power._tail(share * 40, np.array([40.0]), 0.6) == pytest.approx(level)
    got = power.power_of(np.array([40.0]), level, 4.0, MARGIN, 0.0)
    assert got == pytest.approx(power._tail(share * 40, np.array([40.0]), 0.8))
    needed = power.effective_images(level, 4.0, MARGIN, 0.8, 0.0)
    assert power.power_of(needed, level, 4.0, MARGIN, 0.0) == pytest.approx(0.8)
    # A normal: ((1.645 sqrt(.24) + .842 sqrt(.16)) / .2)^2 = 32.6.
    assert needed[0] == pytest.approx(32.6, rel=0.05)


def test_more_is_needed_for_less():
    level = np.array([1e-3, 1e-2])
    base = power.effective_images(level, 4.0, MARGIN, 0.8, 0.0)
    assert base[0] > base[1]
    assert (power.effective_images(level, 8.0, MARGIN, 0.8, 0.0) < base).all()
    assert (power.effective_images(level, 4.0, 2.0, 0.8, 0.0) > base).all()
    assert (power.effective_images(level, 4.0, MARGIN, 0.9, 0.0) > base).all()
    assert (power.effective_images(level, 4.0, MARGIN, 0.8, 0.6) < base).all()


def test_no_fold_is_called_from_fewer_images_than_a_lost_concept_takes():
    """All images in one arm have p = 0.6^M: at p <= 0.001 that takes 13.5, however large a fold."""
    level = np.array([1e-3, 1e-4])
    needed = power.effective_images(level, 1000.0, MARGIN, 0.8, 0.0)
    np.testing.assert_allclose(needed, np.log(level) / np.log(0.6))
    images = np.array([13.0, 14.0])
    found = power.power_of(images, np.full(2, 1e-3), 1000.0, MARGIN, 0.0)
    assert found[0] == 0 < 0.9 < found[1]


def test_how_far_pairs_agree_by_hand():
    """One pair of three shows it in both: 2 * 3 over the smaller of 4 + 9 and 9 + 16."""
    real, generated = np.array([[2.0], [3], [0]]), np.array([[3.0], [0], [4]])
    sums = sum_pairs(sp.csr_array(real), sp.csr_array(generated))
    assert power.pair_share(sums, np.array([0])) == pytest.approx(6 / 13)
    assert power.pair_share(sum_pairs(sp.csr_array(real), sp.csr_array(real)), np.array([0])) == 1
    nothing = sp.csr_array((3, 1))
    assert power.pair_share(sum_pairs(nothing, nothing), np.array([0])) == 0


@pytest.mark.parametrize(
    ("fold", "together", "prevalence"),
    [(2.0, 0.6, 0.1), (4.0, 0.0, 0.02), (4.0, 0.6, 0.02), (8.0, 0.6, 0.01)],
)
def test_the_test_itself_has_the_power_that_was_asked_for(fold, together, prevalence):
    """Concepts that changed by the fold at the captions that a pilot without change recommends."""
    pilot = learn(*draw(0, 1000, prevalence, 1.0, together, 300), captions=1000)
    need = power.captions_needed(pilot, fold, 0.8)
    middle = [band for band in need.bands if band.low < prevalence <= band.high][0]
    n = round(middle.suppressed * middle.prevalence / prevalence)
    seen = {}
    for captions in (n, n // 2):
        real, generated = draw(1, captions, prevalence, fold, together, 600)
        p = significance.material(real, generated, MARGIN)
        less = np.asarray(real.sum(axis=0) > generated.sum(axis=0)).ravel()
        seen[captions] = float(((p <= middle.level) & less).mean())
    assert seen[n] == pytest.approx(0.8, abs=0.07)
    assert seen[n // 2] < 0.62


def test_an_exaggerated_concept_takes_as_many_images_of_the_other_arm():
    pilot = learn(*draw(0, 1000, 0.03, 1.0, 0.6, 300), captions=1000)
    need = power.captions_needed(pilot, 4.0, 0.8)
    np.testing.assert_allclose(need.exaggerated, need.suppressed / 4, rtol=0.01)
    n = round(np.median(need.exaggerated * pilot.prevalence) / 0.03)
    generated, real = draw(1, n, 0.12, 4.0, 0.6, 600)
    p = significance.material(real, generated, MARGIN)
    assert (p <= np.median(need.level)).mean() == pytest.approx(0.8, abs=0.07)


def test_verdicts_at_the_recommended_captions():
    """The whole of a comparison, BH included, of a pilot in which as many are called."""

    def world(seed, n):
        same = draw(seed, n, 0.03, 1.0, 0.6, 270)
        fewer = draw(seed + 1, n, 0.03, 5.0, 0.6, 30)
        return tuple(sp.csr_array(sp.hstack(arms)) for arms in zip(same, fewer, strict=True))

    arms = world(0, 1200)
    shown, shares = (arms[0] > 0).mean(axis=0), {}
    for called in (0.08, 0.03):  # as many as will be, and as a smaller pilot would find
        need = power.captions_needed(learn(*arms, captions=1200, called=called), 5.0, 0.8)
        n = round(np.median(need.suppressed[:270] * shown[:270]) / 0.03)
        found = [compare_codes(*world(10 * seed, n), Rules()).columns for seed in range(1, 5)]
        shares[called] = np.mean([each["verdict"][270:] == "suppressed" for each in found])
    assert shares[0.08] == pytest.approx(0.8, abs=0.08)
    assert shares[0.08] < shares[0.03] < 0.95  # rather too many captions than too few


def test_the_level_is_that_of_the_size():
    """5 % of the share that is called and of one more, over the concepts with enough data then."""
    pilot = power.Pilot(
        captions=100, prevalence=np.full(40, 0.1), other=np.full(40, 0.1), spread=np.full(40, 2.0),
        pairing=np.zeros(40), called=0.1, margin=MARGIN, fdr=0.05,
    )  # fmt: skip
    need = power.captions_needed(pilot, 4.0, 0.8)
    np.testing.assert_allclose(need.level, 0.05 * (0.1 + 1 / 40))
    images = power.effective_images(need.level[:1], 4.0, MARGIN, 0.8, 0.0)[0]
    assert need.suppressed[0] == pytest.approx(2.0 * images / (0.1 * 1.25), rel=0.01)
    assert need.exaggerated[0] == pytest.approx(need.suppressed[0] / 4, rel=0.02)
    nothing = power.captions_needed(pilot._replace(called=0.0), 4.0, 0.8)
    np.testing.assert_allclose(nothing.level, 0.05 / 40)
    assert (nothing.suppressed > need.suppressed).all()
    # Tests rest on half of the captions where half were used to choose.
    half = power.captions_needed(pilot._replace(tested=0.5), 4.0, 0.8)
    np.testing.assert_allclose(half.suppressed, 2 * need.suppressed, rtol=0.01)
    # A concept is judged from 11 images on, whatever the test says: at 100-fold 11 suffice.
    always = pilot._replace(spread=np.full(40, 0.2), called=1.0)
    assert power.captions_needed(always, 100.0, 0.5).suppressed[0] == np.ceil(11 / (0.1 * 1.01))


def test_what_was_never_seen_is_not_extrapolated():
    prevalence = np.array([0.2] * 30 + [0.01] * 5 + [0.0] * 7)
    pilot = power.Pilot(
        captions=100, prevalence=prevalence, other=np.full(42, 0.02), spread=np.full(42, 2.0),
        pairing=np.zeros(42), called=0.1, margin=MARGIN, fdr=0.05,
    )  # fmt: skip
    need = power.captions_needed(pilot, 4.0, 0.8)
    assert need.unseen == 7 and np.isnan(need.suppressed[35:]).all()
    assert np.isfinite(need.suppressed[:35]).all()
    # A concept of this prevalence fires in none of 100 images in 5 % of cases.
    assert (1 - need.unseen_below) ** 100 == pytest.approx(0.05)
    assert need.unseen_above == pytest.approx(need.suppressed[30] * 0.01 / need.unseen_below)
    told = [(band.low, band.high, band.concepts) for band in need.bands]
    assert told == [(0.1, 0.3, 30), (0.003, 0.01, 5)]
    enough = need.suppressed[0]
    many = power.captions_needed(pilot._replace(captions=int(enough)), 4.0, 0.8)
    assert [band.ready for band in many.bands] == [30, 0]
    empty = power.captions_needed(pilot._replace(prevalence=np.zeros(42)), 4.0, 0.8)
    assert empty.bands == () and np.isnan(empty.unseen_above)


def test_a_fold_within_the_margin_is_refused():
    pilot = learn(*draw(0, 200, 0.1, 1.0, 0.6, 30), captions=200)
    assert spread(sum_pairs(*map(sp.csr_array, draw(0, 200, 0.1, 1.0, 0.6, 30)))) == pytest.approx(
        pilot.spread
    )
    for fold in (1.5, 1.0):
        with pytest.raises(ValueError, match="margin"):
            power.captions_needed(pilot, fold, 0.8)
