"""From a hundred called concepts to a handful of findings: which of them tell of the same change?

The concept with the most evidence leads. Of the others that changed the same way, those belong to
it that fire largely where it fires and whose change is no longer established on the pairs where it
does not fire. The rest goes on in the same way.
"""

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from bsjax.stats import ratios, significance, verdicts
from bsjax.stats.sparse_codes import active_columns
from bsjax.stats.sums import sum_pairs

LEAST_OVERLAP = 0.3


class Finding(NamedTuple):
    """Concepts that tell of one change, the one with the most evidence first."""

    concepts: tuple[int, ...]
    verdict: str
    log_ratio: float  # of the energies of all of them, each in units of its mean
    low: float  # 95 % interval
    high: float


class Called(NamedTuple):
    """The called concepts of a comparison, [C] each."""

    concepts: np.ndarray
    verdict: np.ndarray
    log_ratio: np.ndarray
    se: np.ndarray


def find(
    real: sp.csr_array, generated: sp.csr_array, called: Called, margin: float, level: float
) -> list[Finding]:
    """Groups the called concepts into findings, those with the most evidence first.

    Args:
      real, generated: [n, K] one pair of each cluster.
      called: those with a material change.
      margin: of the material test.
      level: largest p that is called material.
    """
    if not called.concepts.size:
        return []
    left, right = (_columns(arm, called.concepts) for arm in (real, generated))
    shows = ((left > 0) + (right > 0)).tocsc()  # [n, C] in either image
    counts = np.diff(shows.indptr)
    evidence = (np.abs(called.log_ratio) - np.log(margin)) / np.maximum(called.se, 1e-12)
    is_open = np.ones(called.concepts.size, bool)
    found = []
    for lead in np.lexsort((called.concepts, -evidence)).tolist():
        if not is_open[lead]:
            continue
        is_open[lead] = False
        shown = np.zeros(shows.shape[0], bool)
        shown[shows.indices[shows.indptr[lead] : shows.indptr[lead + 1]]] = True
        overlap = (shows.T @ shown.astype(np.float64)) / np.maximum(counts, 1)
        near = is_open & (called.verdict == called.verdict[lead]) & (overlap > LEAST_OVERLAP)
        members = np.flatnonzero(near)
        if members.size:
            apart = _is_apart(left[~shown][:, members], right[~shown][:, members], margin, level)
            same_way = apart[1] == np.sign(called.log_ratio[members])
            members = members[~(apart[0] & same_way)]
            is_open[members] = False
        order = members[np.argsort(-evidence[members], kind="stable")]
        found.append(_pool(left, right, np.append(lead, order), called))
    return found


def _is_apart(
    left: sp.csc_array, right: sp.csc_array, margin: float, level: float
) -> tuple[np.ndarray, np.ndarray]:
    """Whether each change is established on these pairs alone, and its sign."""
    enough = np.diff(left.indptr) + np.diff(right.indptr) >= verdicts.least_images(margin)
    p = significance.material(left, right, margin)
    rise = np.asarray(right.sum(axis=0)).ravel() - np.asarray(left.sum(axis=0)).ravel()
    return enough & (p <= level), np.sign(rise)


def _pool(left: sp.csc_array, right: sp.csc_array, places: np.ndarray, called: Called) -> Finding:
    """One log ratio of several concepts: their energies, in units of their means, added up."""
    totals = sum_pairs(sp.csr_array(left[:, places]), sp.csr_array(right[:, places]))
    weights = totals.n_firing / (totals.energy_real + totals.energy_generated)
    arms = [sp.csr_array((arm[:, places] @ weights)[:, None]) for arm in (left, right)]
    ratio = ratios.log_ratios(sum_pairs(*arms))
    return Finding(
        tuple(called.concepts[places].tolist()),
        str(called.verdict[places[0]]),
        *(float(value[0]) for value in (ratio.log_ratio, ratio.low, ratio.high)),
    )


def _columns(codes: sp.csr_array, concepts: np.ndarray) -> sp.csc_array:
    return active_columns(codes.tocsc()[:, concepts])
