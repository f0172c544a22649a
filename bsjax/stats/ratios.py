"""How much more or less a concept is drawn: log ratio of energies, its interval and its factors.

All of it follows from the eight sums. Half an average image (energy e / 2) is added to either arm,
so that the ratio is finite where an arm never shows the concept.
"""

from typing import NamedTuple

import numpy as np
from scipy import stats as scipy_stats

from bsjax.stats.sums import Sums

Z = 1.959963984540054  # of 95 % intervals
TAIL = 0.025
# Images that the median concept lends to each concept's spread of energies.
PSEUDO_IMAGES = 8.0


class Ratios(NamedTuple):
    """Natural logs of ratios generated / real [K]; NaN where neither arm shows the concept."""

    log_ratio: np.ndarray
    se: np.ndarray  # standard error of log_ratio
    low: np.ndarray  # 95 % interval; -inf where the generated arm never shows it
    high: np.ndarray  # inf where the real arm never shows it


class Factors(NamedTuple):
    """Ratios generated / real [K] whose product is exp(log_ratio)."""

    prevalence: np.ndarray  # images that show it
    prevalence_low: np.ndarray  # 95 % interval
    prevalence_high: np.ndarray
    area: np.ndarray  # its tokens per image that shows it; NaN where tokens are not known
    amount: np.ndarray  # energy per such token; per such image where tokens are not known


def log_ratios(sums: Sums) -> Ratios:
    """Log ratio of the energies with a moderated standard error.

    With N firing images of mean energy e, k = 1 + cv^2 of their energies is moderated towards the
    median concept's by 8 pseudo-images. The variance is that of the delta method,
    sum (g_i / G - r_i / R)^2 = Q_g / G^2 + Q_r / R^2 - 2 P / (R G), of which Q is at least
    k S^2 / n: what k makes of the arm's n firing images with their energy S. Where an arm never
    shows the concept, the interval inverts the test of `significance.material` instead, at 2.5 %
    on either side.
    """
    n = sums.n_firing
    is_seen = n > 0
    energy = sums.energy_real + sums.energy_generated
    e = np.divide(energy, n, out=np.ones_like(energy), where=is_seen)
    real, generated = sums.energy_real + e / 2, sums.energy_generated + e / 2
    log_ratio = np.where(is_seen, np.log(generated / real), np.nan)
    k = spread(sums)

    def relative_variance(n_arm: np.ndarray, energy: np.ndarray, square: np.ndarray) -> np.ndarray:
        square = np.maximum(square, k * np.square(energy) / np.maximum(n_arm, 1))
        return (square + k * np.square(e) / 2) / np.square(energy + e / 2)

    variance = (
        relative_variance(sums.n_real, sums.energy_real, sums.square_real)
        + relative_variance(sums.n_generated, sums.energy_generated, sums.square_generated)
        - 2 * sums.product / (real * generated)
    )
    # Where both images of each pair agree to the last bit there is nothing left but rounding.
    se = np.where(is_seen, np.sqrt(np.maximum(variance, 0.0)), np.nan)
    low, high = _open_ended(log_ratio, se, sums.n_real, sums.n_generated)
    return Ratios(log_ratio, se, low, high)


def spread(sums: Sums) -> np.ndarray:
    """k = 1 + cv^2 of each concept's firing energies [K], moderated towards the median concept."""
    n = sums.n_firing
    energy = sums.energy_real + sums.energy_generated
    squares = sums.square_real + sums.square_generated
    raw = np.divide(n * squares, np.square(energy), out=np.ones_like(energy), where=n > 0)
    is_known = n > 1
    median = float(np.median(raw[is_known])) if is_known.any() else 1.0
    return (n * raw + PSEUDO_IMAGES * median) / (n + PSEUDO_IMAGES)


def _open_ended(
    log_ratio: np.ndarray, se: np.ndarray, n_real: np.ndarray, n_generated: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """95 % interval; one end is open where an arm is empty.

    N firing images that all fell to one arm: theta / (1 + theta) to the power of N is 2.5 %.
    """
    low, high = log_ratio - Z * se, log_ratio + Z * se
    n = np.maximum(n_real + n_generated, 1)
    reach = np.log(np.expm1(-np.log(TAIL) / n))
    no_generated, no_real = (n_generated == 0) & (n_real > 0), (n_real == 0) & (n_generated > 0)
    low = np.where(no_generated, -np.inf, np.where(no_real, -reach, low))
    high = np.where(no_real, np.inf, np.where(no_generated, reach, high))
    return low, high


def factors(
    sums: Sums,
    log_ratio: np.ndarray,
    tokens: tuple[np.ndarray, np.ndarray] | None = None,
) -> Factors:
    """What the energy ratio is made of: how many images, how much of each, how strongly.

    Args:
      sums: over the units.
      log_ratio: of `log_ratios`.
      tokens: sums over the units' real and generated images of tokens that fire, [K] each.
    """
    real, generated = sums.n_real + 0.5, sums.n_generated + 0.5
    is_seen = sums.n_firing > 0
    prevalence = np.where(is_seen, np.log(generated / real), np.nan)
    variance = 1 / real + 1 / generated - 2 * sums.n_both / (real * generated)
    se = np.sqrt(np.maximum(variance, 0.0))
    low, high = _open_ended(prevalence, se, sums.n_real, sums.n_generated)
    area = np.full_like(prevalence, np.nan)
    if tokens is not None:
        total = tokens[0] + tokens[1]
        half = np.divide(total, 2 * sums.n_firing, out=np.ones_like(prevalence), where=is_seen)
        area = np.where(is_seen, np.log((tokens[1] + half) / (tokens[0] + half)), np.nan)
        area = area - prevalence
    amount = log_ratio - prevalence - (0.0 if tokens is None else area)
    return Factors(*(np.exp(part) for part in (prevalence, low, high, area, amount)))


def mcnemar(sums: Sums) -> np.ndarray:
    """Two-sided mid-p of McNemar's test [K]: does one arm show the concept in more images?

    Of the b + c pairs of which one image alone shows it, b are real: a fair coin under the null.
    """
    b, c = sums.n_real - sums.n_both, sums.n_generated - sums.n_both
    fewer, total = np.minimum(b, c), b + c
    binomial = scipy_stats.binom
    p = 2 * binomial.cdf(fewer, total, 0.5) - binomial.pmf(fewer, total, 0.5)
    return np.clip(p, np.finfo(np.float64).tiny, 1.0)


def shrink(log_ratio: np.ndarray, se: np.ndarray) -> np.ndarray:
    """Log ratios drawn towards their common mean, for display: rare concepts lose their extremes.

    Empirical Bayes with a normal prior: its mean is the inverse-variance mean, its variance what
    the spread of the estimates exceeds their squared errors by (method of moments).
    """
    known = np.isfinite(log_ratio) & np.isfinite(se)
    if not known.any():
        return log_ratio.copy()
    values = log_ratio[known]
    noise = np.square(np.maximum(se[known], 1e-6))
    mean = np.average(values, weights=1 / (noise + np.var(values)))
    excess = np.square(values - mean) - noise
    prior = max(float(np.average(excess, weights=1 / np.square(noise + np.var(values) + 1e-12))), 0)
    shrunk = log_ratio.copy()
    shrunk[known] = mean + (values - mean) * prior / np.maximum(prior + noise, 1e-300)
    return shrunk
