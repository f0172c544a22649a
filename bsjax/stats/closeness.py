"""How close a pair of images is: of what either shows, the share that both show about as much."""

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from scipy import stats as scipy_stats

from bsjax.stats.sparse_codes import active_rows


class Mean(NamedTuple):
    """Mean over clusters with its 95 % interval (Student's t); NaN where there are too few."""

    mean: float
    low: float
    high: float
    n: int  # clusters


def shares(real: sp.csr_array, generated: sp.csr_array, fold: float) -> np.ndarray:
    """Closeness [n] of each pair of image codes [n, K]: the share of its concepts that agree.

    Of the concepts that either image shows those agree whose two energies are within `fold` of one
    another, the edge included; one that a single image shows does not. NaN where neither image
    shows anything.
    """
    real, generated = (active_rows(codes) for codes in (real, generated))
    # Both have the entries that both matrices have, in the same order.
    left = sp.csr_array(real.multiply(generated > 0))
    right = sp.csr_array(generated.multiply(real > 0))
    left.sort_indices()
    right.sort_indices()
    within = np.maximum(left.data, right.data) <= fold * np.minimum(left.data, right.data)
    row = np.repeat(np.arange(left.shape[0]), np.diff(left.indptr))
    agree = np.bincount(row, within, minlength=left.shape[0])
    either = np.diff(real.indptr) + np.diff(generated.indptr) - np.diff(left.indptr)
    return np.divide(agree, either, out=np.full(len(agree), np.nan), where=either > 0)


def mean(values: np.ndarray, labels: np.ndarray) -> Mean:
    """Mean of values [n] that counts each cluster (labels [n], numbered from 0) once; no NaN."""
    known = np.isfinite(values)
    counts = np.bincount(labels[known])
    sums = np.bincount(labels[known], values[known])
    means = sums[counts > 0] / counts[counts > 0]
    n = len(means)
    if n < 2:
        return Mean(float(means[0]) if n else float("nan"), float("nan"), float("nan"), n)
    middle = float(means.mean())
    reach = float(scipy_stats.t.ppf(0.975, n - 1) * means.std(ddof=1) / np.sqrt(n))
    return Mean(middle, middle - reach, middle + reach, n)
