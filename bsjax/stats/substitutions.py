"""What was drawn instead of a suppressed concept, and whose place an exaggerated one takes.

Where the real image shows concept c and the generated one does not, some other concept may appear
in the generated image that the real one lacks. Its rise there, beyond its rise in all other pairs,
is the evidence: whatever the model adds everywhere cancels.
"""

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from scipy import stats as scipy_stats

from bsjax.stats.significance import q_values

LEAST_PAIRS = 5
LEAST_LIFT = 0.1
KEPT = 5


class Substitution(NamedTuple):
    """One concept in the place of another."""

    concept: int  # suppressed (or exaggerated)
    instead: int  # drawn in its place (or whose place it takes)
    n: int  # pairs in which the concept is missing (or added)
    lift: float  # share of these in which the other appears (disappears), beyond all other pairs
    z: float  # lift in standard errors
    q: float  # adjusted over all concepts


def find_substitutions(
    real: sp.csr_array, generated: sp.csr_array, concepts: np.ndarray, signs: np.ndarray, fdr: float
) -> list[Substitution]:
    """The strongest substitutions of each concept, at most five, strongest first.

    Args:
      real, generated: [n, K] one pair of each cluster.
      concepts: ids to look at.
      signs: of each, -1 suppressed, 1 exaggerated.
      fdr: false discovery rate, for each concept over the others.
    """
    shows = [sp.csr_array((arm > 0).astype(np.float64)) for arm in (real, generated)]
    change = sp.csr_array(shows[1] - shows[0])  # 1 appears, -1 disappears
    change.eliminate_zeros()
    n_concepts = change.shape[1]
    total = _sums(change, np.arange(change.shape[0]), n_concepts)
    columns = [arm.tocsc() for arm in shows]
    found: list[Substitution] = []
    for concept, sign in zip(concepts.tolist(), signs.tolist(), strict=True):
        has, lacks = (columns if sign < 0 else columns[::-1]).copy()
        rows = np.setdiff1d(_rows_of(has, concept), _rows_of(lacks, concept))
        found += _of_concept(change, total, rows, concept, -sign, fdr)
    return found


def _of_concept(
    change: sp.csr_array,
    total: tuple[np.ndarray, np.ndarray],
    rows: np.ndarray,
    concept: int,
    sign: int,
    fdr: float,
) -> list[Substitution]:
    """`sign`: 1 looks for what appears in the rows, -1 for what disappears."""
    n, n_other = rows.size, change.shape[0] - rows.size
    if n < LEAST_PAIRS or n_other < LEAST_PAIRS:
        return []
    first, second = _sums(change, rows, change.shape[1])
    means = first / n, (total[0] - first) / n_other
    squares = second / n, (total[1] - second) / n_other
    # At least the variance that one more pair of the other kind would bring: none is certain.
    variances = [
        np.maximum(square - np.square(mean), 1 / (count + 1)) / count
        for square, mean, count in zip(squares, means, (n, n_other), strict=True)
    ]
    lift = sign * (means[0] - means[1])
    z = lift / np.sqrt(variances[0] + variances[1])
    others = np.arange(lift.size) != concept
    q = q_values(scipy_stats.t.sf(z, n - 1), others)
    chosen = np.flatnonzero(others & (np.nan_to_num(q, nan=1.0) <= fdr) & (lift >= LEAST_LIFT))
    order = chosen[np.argsort(-z[chosen], kind="stable")][:KEPT]
    return [
        Substitution(concept, int(k), int(n), float(lift[k]), float(z[k]), float(q[k]))
        for k in order
    ]


def _rows_of(codes: sp.csc_array, concept: int) -> np.ndarray:
    return codes.indices[codes.indptr[concept] : codes.indptr[concept + 1]]


def _sums(change: sp.csr_array, rows: np.ndarray, n_concepts: int) -> tuple[np.ndarray, np.ndarray]:
    """Sums [K] over some rows of the changes, and of their squares."""
    part = change[rows]
    first = np.bincount(part.indices, part.data, minlength=n_concepts)
    return first, np.bincount(part.indices, np.square(part.data), minlength=n_concepts)
