"""How two arms differ, concept by concept: difference, relative, delta (METHOD section 4)."""

from collections.abc import Mapping

import numpy as np
from scipy.special import expit

from bsjax.core.errors import UserError
from bsjax.stats.verdicts import NOT_ENOUGH_DATA

FORMS = ("relative", "difference")
# The temperatures of the reference code: histograms and maps use the difference with 0.8, the
# rarity plot the relative form with 0.4.
REFERENCE_TEMPERATURE = {"relative": 0.4, "difference": 0.8}


def difference(energy_real: np.ndarray, energy_generated: np.ndarray) -> np.ndarray:
    """Energy of the generated arm minus that of the real one [K], in units of code per image."""
    return energy_generated - energy_real


def relative(energy_real: np.ndarray, energy_generated: np.ndarray) -> np.ndarray:
    """Difference over sum [K], in [-1, 1]; 0 where the concept fires in neither arm.

    Differs: the reference leaves 0/0 as NaN, which then poisons its correlations.
    """
    total = energy_real + energy_generated
    safe = np.where(total > 0, total, 1.0)
    return np.where(total > 0, (energy_generated - energy_real) / safe, 0.0)


def delta(contrast: np.ndarray, temperature: float) -> np.ndarray:
    """sigmoid(contrast / T): 0.5 where the arms agree, 0 suppressed, 1 exaggerated."""
    return expit(np.asarray(contrast, np.float64) / temperature)


def correlation(left: Mapping[str, np.ndarray], right: Mapping[str, np.ndarray]) -> float:
    """Pearson's r of relative(k) of two comparisons over the concepts that both can judge.

    Both models are compared with the same real images, so r is near 0.5 for two models that have
    nothing in common; read it against that, not against 0.

    Args:
      left: columns "relative" and "verdict" [K] of one comparison.
      right: those of another.

    Returns:
      r, or NaN where fewer than three concepts are left or they do not vary.

    Raises:
      UserError: the comparisons have different numbers of concepts.
    """
    if left["relative"].shape != right["relative"].shape:
        raise UserError(
            f"comparisons under different SAEs cannot be correlated: {left['relative'].size} and"
            f" {right['relative'].size} concepts; compare both under one"
        )
    judged = (left["verdict"] != NOT_ENOUGH_DATA) & (right["verdict"] != NOT_ENOUGH_DATA)
    x, y = left["relative"][judged], right["relative"][judged]
    if x.size < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])
