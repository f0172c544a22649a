"""How two arms differ, concept by concept: difference, relative, delta (METHOD section 4)."""

import numpy as np
from scipy.special import expit

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
