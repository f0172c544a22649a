"""Shares of counted things, and how sure they are."""

import numpy as np

from bsjax.stats.ratios import Z


def wilson(agree: int, n: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927); from 0 to 1 of none."""
    return wilson_interval(agree / n, n) if n else (0.0, 1.0)


def wilson_interval(share: float, n: float) -> tuple[float, float]:
    """The same of a share of `n` observations, which need not be a whole number."""
    extra = Z**2 / n
    middle = (share + extra / 2) / (1 + extra)
    reach = Z / (1 + extra) * np.sqrt(share * (1 - share) / n + extra / (4 * n))
    return max(float(middle - reach), 0.0), min(float(middle + reach), 1.0)
