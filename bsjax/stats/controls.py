"""What the tests say where nothing differs, and how small a change they can see."""

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from scipy import stats as scipy_stats

from bsjax.stats import significance

DRAWS = 20
LEVEL = 0.05
POWER = 0.8
FIRING_IMAGES = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)
MEDIAN_CHI2 = scipy_stats.chi2.ppf(0.5, 1)


class Control(NamedTuple):
    """What swapping the arms of whole clusters by chance leads to, mean over the draws."""

    share: float  # of the concepts with p < 0.05; 0.05 if all is well
    called: float  # concepts with q < 0.05; none if all is well
    inflation: (
        float  # median chi-square of the p over its expectation (lambda_GC); 1 if all is well
    )
    eligible: int  # concepts that were tested
    draws: int

    @property
    def is_sound(self) -> bool:
        """Whether no more concepts pass than should, up to three standard errors."""
        return not self.eligible or self.share <= LEVEL + max(0.01, 3 * _share_error(self))


def _share_error(control: Control) -> float:
    # Concepts share images, so their number says too much; draws are independent.
    n = max(min(control.eligible, 100) * control.draws, 1)
    return float(np.sqrt(LEVEL * (1 - LEVEL) / n))


def swap_control(
    real: sp.csc_array,
    generated: sp.csc_array,
    labels: np.ndarray,
    eligible: np.ndarray,
    seed: int,
    draws: int = DRAWS,
) -> Control:
    """Swaps the two arms of randomly chosen clusters and tests the direction of each concept.

    After the swap no arm is the generated one, so whatever is called is false. It fails where rows
    are tested that are repetitions of one another (labels tell which), as these move together.

    Args:
      real, generated: units [n, K] that are tested.
      labels: cluster [n] of each unit.
      eligible: concepts [K] that are tested.
      seed: of the swaps.
      draws: number of swaps of the whole.
    """
    chosen = np.flatnonzero(eligible)
    if not chosen.size:
        return Control(float("nan"), 0.0, float("nan"), 0, draws)
    gaps = significance.differences(real[:, chosen], generated[:, chosen])
    rng = np.random.default_rng(seed)
    signs = rng.choice([-1.0, 1.0], (int(labels.max()) + 1, draws))[labels]  # [n, D]
    _, total = significance.rises(gaps)
    drift = np.abs(gaps.T @ signs)  # [K', D]
    p = significance.two_sided(gaps, (total[:, None] + drift) / 2)
    every = np.ones(chosen.size, bool)
    called = [
        int((significance.q_values(p[:, draw], every) <= LEVEL).sum()) for draw in range(draws)
    ]
    chi2 = scipy_stats.chi2.isf(p, 1)
    return Control(
        share=float((p < LEVEL).mean()),
        called=float(np.mean(called)),
        inflation=float(np.median(chi2) / MEDIAN_CHI2),
        eligible=int(chosen.size),
        draws=draws,
    )


def detectable_fold(spread: float, margin: float, level: float) -> dict[int, float]:
    """Smallest fold told as material with 80 % power, by firing images of both arms together.

    The log ratio of N firing images split at a fold f has about the variance spread (1 / N_real +
    1 / N_generated); the test passes if it is beyond log(margin) by z(level) standard errors.

    Args:
      spread: 1 + cv^2 of firing energies, of the median concept.
      margin: of the material test.
      level: largest p that is called.

    Returns:
      Fold by number of images; inf where even an empty arm does not pass.
    """
    folds = np.exp(np.linspace(np.log(margin), np.log(1e4), 20_000))
    needed = scipy_stats.norm.isf(level) + scipy_stats.norm.ppf(POWER)
    found = {}
    for n in FIRING_IMAGES:
        more = n * folds / (1 + folds)
        se = np.sqrt(spread * (1 / more + 1 / np.maximum(n - more, 0.5)))
        passes = (np.log(folds) - np.log(margin)) >= needed * se
        can = (margin / (1 + margin)) ** n <= level
        found[n] = float(folds[np.argmax(passes)]) if can and passes.any() else float("inf")
    return found
