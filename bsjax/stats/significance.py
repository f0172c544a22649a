"""Tests of a concept's change: is it material, is there one, is it none to speak of?"""

import numpy as np
import scipy.sparse as sp
from scipy import stats as scipy_stats

from bsjax.stats.saddlepoint import upper_tails


def material(real: sp.csc_array, generated: sp.csc_array, margin: float) -> np.ndarray:
    """One-sided p [K] of a change by `margin` or less, towards the side that was seen.

    Given all firing energies of both arms, each belongs to the generated arm with probability
    theta / (1 + theta); at the edge of the margin theta is `margin` or 1 / margin. The arm with
    more of the energy has at least what it has, by saddlepoint; (1 + 1 / margin)^-N where the other
    arm is empty. Testing against a margin is as in TREAT (McCarthy and Smyth 2009).

    Args:
      real, generated: [n, K] of one unit per cluster; no stored zeros.
      margin: fold, 1 or more.
    """
    values = _interleaved(real, generated)
    sums = [np.asarray(arm.sum(axis=0)).ravel() for arm in (real, generated)]
    return upper_tails(*values, np.maximum(*sums), margin / (1 + margin))


def direction(real: sp.csc_array, generated: sp.csc_array) -> np.ndarray:
    """Two-sided p [K] that signs of generated - real are those of fair coins, given their size.

    A sign-flip test: the sum of the differences of the heavier sign among 2^m choices of signs,
    by saddlepoint; 2 * 2^-m where all have one sign. 1 where no pair differs.

    Args:
      real, generated: [n, K] of one unit per cluster.
    """
    gaps = differences(real, generated)
    risen, total = rises(gaps)
    return two_sided(gaps, np.maximum(risen, total - risen))


def differences(real: sp.csc_array, generated: sp.csc_array) -> sp.csc_array:
    """generated - real [n, K] without stored zeros."""
    gaps = sp.csc_array(generated - real)
    gaps.eliminate_zeros()
    return gaps


def rises(gaps: sp.csc_array) -> tuple[np.ndarray, np.ndarray]:
    """Sums [K] of the differences above zero, and of all sizes."""
    total = np.asarray(abs(gaps).sum(axis=0)).ravel()
    risen = np.asarray(gaps.maximum(0).sum(axis=0)).ravel()
    return risen, total


def two_sided(gaps: sp.csc_array, heavier: np.ndarray) -> np.ndarray:
    """p of the sums of the heavier sign, [K] or [K, D], given the sizes of the differences."""
    tails = upper_tails(np.abs(gaps.data), gaps.indptr, heavier, 0.5)
    return np.minimum(2 * tails, 1.0)


def aligned(log_ratio: np.ndarray, se: np.ndarray, fold: float) -> np.ndarray:
    """p [K] that the change is `fold` or more, to either side: two one-sided tests (TOST)."""
    bound = np.log(fold)
    with np.errstate(divide="ignore", invalid="ignore"):
        nearer = (bound - np.abs(log_ratio)) / se
    p = scipy_stats.norm.sf(nearer)
    return np.where(np.isfinite(log_ratio), np.nan_to_num(p, nan=1.0), 1.0)


def q_values(p: np.ndarray, eligible: np.ndarray) -> np.ndarray:
    """Benjamini-Hochberg adjusted p [K] over the eligible concepts; NaN for the others."""
    q = np.full(p.shape, np.nan)
    if eligible.any():
        q[eligible] = scipy_stats.false_discovery_control(p[eligible], method="bh")
    return q


def _interleaved(left: sp.csc_array, right: sp.csc_array) -> tuple[np.ndarray, np.ndarray]:
    """Values of both matrices, concept by concept, and the offsets [K + 1] of the concepts."""
    stacked = sp.vstack([left, right], format="csc")
    return stacked.data, stacked.indptr
