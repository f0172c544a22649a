"""Are rare concepts drawn less? Slope of the log ratio on log frequency.

On the same images rare concepts look suppressed by chance alone: a concept that shows in few real
images by bad luck has a high ratio and seems rare, one that shows in many the other way round, and
estimates of rare ones scatter most. So the captions are halved: one half tells frequencies, the
other log ratios, then they change places. Concepts differ beyond the errors of their ratios, by a
variance tau^2 that is estimated, too (a random-effects meta-regression).
"""

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from scipy import special
from scipy import stats as scipy_stats

from bsjax.stats import ratios
from bsjax.stats.nearest import nearest
from bsjax.stats.sums import sum_pairs

LEAST_FIRES = 5  # real images of one half that show a concept, below which its frequency is vague
LEAST_CONCEPTS = 20
GROUPS = 50  # at most, of concepts whose errors go together
SKETCH_WIDTH = 64
STEPS = 80  # of the bisection for tau^2
LEAST_VARIANCE = 1e-6  # of a log ratio: where all pairs agree to the last bit


class Rarity(NamedTuple):
    """How log ratios go with frequency.

    Attributes:
      slope: natural log of the ratio per ten times the frequency of a concept in real images.
      low, high: 95 % interval of the slope.
      spread: standard deviation of true log ratios about the line.
      concepts: that are frequent enough in a half.
      groups: of concepts, over which the interval is jackknifed.
    """

    slope: float
    low: float
    high: float
    spread: float
    concepts: int
    groups: int


def against_frequency(real: sp.csr_array, generated: sp.csr_array, seed: int) -> Rarity | None:
    """The slope over units [n, K] of both arms; None where fewer than 20 concepts tell of it,
    or all are equally frequent, as far as their counts tell.

    Args:
      real, generated: one row per cluster of pairs.
      seed: of the halves and of the groups.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(real.shape[0])
    halves = [np.sort(part) for part in (order[: order.size // 2], order[order.size // 2 :])]
    sums = [sum_pairs(real[half], generated[half]) for half in halves]
    fits, used = [], np.zeros(real.shape[1], bool)
    for told, judged in (sums, sums[::-1]):
        # By frequency alone: what the other half shows must not decide which concepts it judges.
        chosen = np.flatnonzero((told.n_real >= LEAST_FIRES) & (judged.n_firing > 0))
        if chosen.size < LEAST_CONCEPTS or _are_equal(told.n_real, chosen):
            return None
        found = ratios.log_ratios(judged)
        x = log_frequency(told.n_real)[chosen]
        variance = smooth_variance(x, np.maximum(np.square(found.se[chosen]), LEAST_VARIANCE))
        fits.append(_Fit(chosen, x, found.log_ratio[chosen], variance))
        used[chosen] = True
    groups = np.zeros(real.shape[1], np.int64)
    groups[used] = group_concepts(real[:, used], generated[:, used], rng)
    n_groups = int(groups.max()) + 1
    slopes = sum(fit.slopes(groups, n_groups) for fit in fits) / len(fits)  # [groups + 1]
    slope, left_out = float(slopes[0]), slopes[1:]
    share = (n_groups - 1) / n_groups
    se = np.sqrt(share * np.square(left_out - left_out.mean()).sum())
    reach = float(scipy_stats.t.ppf(0.975, n_groups - 1) * se)
    spread = float(np.sqrt(np.mean([fit.tau2 for fit in fits])))
    return Rarity(slope, slope - reach, slope + reach, spread, int(used.sum()), n_groups)


def _are_equal(counts: np.ndarray, chosen: np.ndarray) -> bool:
    """Whether concepts seem equally frequent: their counts scatter no more than by chance."""
    return np.unique(counts[chosen]).size == 1 or float(counts.var()) <= float(counts.mean())


def log_frequency(counts: np.ndarray) -> np.ndarray:
    """log10 of how frequent each concept is, up to a constant, as far as its count tells.

    A chance-high count belongs to a rarer concept than it says, which would flatten the slope. With
    rates of gamma distribution, whose shape a counts of all concepts tell by their mean m and
    variance s^2 = m + m^2 / a, what is expected of the log of the rate at a count c is digamma(c +
    a) (regression calibration: Carroll et al. 2006).

    Args:
      counts: [K] images that show each concept.
    """
    mean, variance = float(counts.mean()), float(counts.var())
    excess = max(variance - mean, 1e-3 * mean)
    return special.digamma(counts + mean**2 / excess) / np.log(10)


def smooth_variance(x: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Variances [K] as a power of the frequency says them.

    The error of a low ratio is larger than that of a high one of the same frequency, so weights by
    single errors would take from the rare concepts those that are drawn least.

    Args:
      x: [K] log frequencies.
      variance: [K] of the log ratios.
    """
    slope, level = np.polyfit(x - x.mean(), np.log(variance), 1)
    fitted = np.exp(level + slope * (x - x.mean()))
    return fitted * variance.sum() / fitted.sum()


def group_concepts(
    real: sp.csr_array, generated: sp.csr_array, rng: np.random.Generator
) -> np.ndarray:
    """Labels [K] from 0 on of concepts whose log ratios err together.

    A pair adds g / G - r / R to the log ratio of a concept; concepts are put to the one of up to 50
    others, drawn by chance, with which that correlates most over the pairs, by a random projection.
    """
    n, n_concepts = real.shape
    parts = []
    for arm in (generated, real):
        totals = np.asarray(arm.sum(axis=0), np.float64)
        scale = np.divide(1.0, totals, out=np.zeros(n_concepts), where=totals > 0)
        parts.append(sp.csr_array(arm.astype(np.float64).multiply(scale[None])))
    sketch = (parts[0] - parts[1]).T @ rng.standard_normal((n, SKETCH_WIDTH))  # [K, W]
    sketch /= np.maximum(np.linalg.norm(sketch, axis=1, keepdims=True), 1e-30)
    n_groups = min(GROUPS, n_concepts // 2)
    leaders = rng.choice(n_concepts, n_groups, replace=False)
    labels = nearest(sketch, sketch[leaders])
    labels[leaders] = np.arange(n_groups)
    return labels


class _Fit:
    """Weighted least squares of log ratios on log frequency, with variance between concepts."""

    def __init__(self, chosen: np.ndarray, x: np.ndarray, y: np.ndarray, variance: np.ndarray):
        self.chosen = chosen
        self.design = np.stack([np.ones_like(x), x], axis=1)  # [K, 2]
        self.y, self.variance = y, variance
        self.tau2 = between_variance(self.design, y, variance)

    def slopes(self, groups: np.ndarray, n_groups: int) -> np.ndarray:
        """Slope over all concepts, then without each group [groups + 1]."""
        weights = 1 / (self.variance + self.tau2)
        left, right = np.zeros((n_groups, 2, 2)), np.zeros((n_groups, 2))
        weighted = self.design * weights[:, None]
        of = groups[self.chosen]
        np.add.at(left, of, weighted[:, :, None] * self.design[:, None, :])
        np.add.at(right, of, weighted * self.y[:, None])
        lefts = np.concatenate([left.sum(axis=0)[None], left.sum(axis=0) - left])
        rights = np.concatenate([right.sum(axis=0)[None], right.sum(axis=0) - right])
        # Without a group all others may be equally frequent; then it tells of no slope.
        return (np.linalg.pinv(lefts, hermitian=True) @ rights[:, :, None])[:, 1, 0]


def between_variance(design: np.ndarray, y: np.ndarray, variance: np.ndarray) -> float:
    """tau^2 with which the weighted squares of the residuals are what they should be, K - p.

    Paule and Mandel 1982, for a regression DerSimonian and Kacker 2007; 0 where the known variances
    explain the residuals.

    Args:
      design: [K, p].
      y: [K].
      variance: [K] known, above 0.
    """
    expected = len(y) - design.shape[1]

    def excess(tau2: float) -> float:
        weights = 1 / (variance + tau2)
        root = np.sqrt(weights)
        beta = np.linalg.lstsq(design * root[:, None], y * root, rcond=None)[0]
        return float(weights @ np.square(y - design @ beta)) - expected

    if excess(0.0) <= 0:
        return 0.0
    low, high = 0.0, float(np.var(y)) + 1e-12
    while excess(high) > 0:
        high *= 2
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return (low + high) / 2
