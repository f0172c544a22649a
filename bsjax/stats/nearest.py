"""Which of several directions is nearest, the same on any machine."""

import numpy as np

DIGITS = 9  # of a cosine: machines differ in the last bits of a product


def nearest(rows: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Of each row the centre with the largest cosine, of equal ones the first.

    Args:
      rows: directions [n, W] of length 1, float64.
      centres: directions [m, W], likewise.

    Returns:
      Numbers [n] of centres.
    """
    return np.argmax(np.round(rows @ centres.T, DIGITS), axis=1)
