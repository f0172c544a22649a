"""Changes that no model made: how far JPEG, a crop or an autoencoder alone moves each concept.

A control is the real images of the pairs, changed. A concept is the model's only beyond every
control: it is called if the generated images differ from the real ones *and* from those of each
control, to the same side. The largest of these p values is one of the whole claim, an
intersection-union test (Berger 1982), with the uncertainty of all arms in it.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from bsjax.stats import clusters, ratios, significance, sums

Arms = tuple[sp.csc_array, sp.csc_array]


class Changed(NamedTuple):
    """The real images of n pairs, changed.

    Attributes:
      codes: [n, K].
      is_known: [n] pairs whose changed image there is; rows of the others are empty.
    """

    codes: sp.csr_array
    is_known: np.ndarray

    def take(self, rows: np.ndarray) -> "Changed":
        """Some of the pairs."""
        return Changed(sp.csr_array(self.codes[rows]), self.is_known[rows])


class Against(NamedTuple):
    """p [K] of the generated images against those of a control."""

    p_material: np.ndarray
    p_direction: np.ndarray


class Shift(NamedTuple):
    """What a control alone does, [K] each, and what it took away.

    Attributes:
      ratios: log ratio of energies control / real, with its interval.
      tests: of the generated images against the control.
      pairs: whose changed image there is.
      taken: concepts called by the real images that are not called by these and this control.
    """

    ratios: ratios.Ratios
    tests: Against
    pairs: int
    taken: int


def side(left: sp.csc_array, right: sp.csc_array) -> np.ndarray:
    """[K] 1 where `right` [n, K] has more energy, -1 where less, 0 where both have as much."""
    totals = [np.asarray(arm.sum(axis=0)).ravel() for arm in (left, right)]
    return np.sign(totals[1] - totals[0])


def against(control: Arms, sides: np.ndarray, margin: float) -> Against:
    """Tests generated against control; p is 1 where they differ to the other side than from real.

    Args:
      control: units [n, K] of the changed and of the generated images, without stored zeros.
      sides: [K] to which the generated images differ from the real ones, of `side`.
      margin: fold of the material test.
    """
    is_other = side(*control) * sides < 0
    return Against(
        np.where(is_other, 1.0, significance.material(*control, margin)),
        np.where(is_other, 1.0, significance.direction(*control)),
    )


def estimate(
    real: sp.csr_array, changed: Changed, labels: np.ndarray, units: np.ndarray
) -> ratios.Ratios:
    """Log ratios control / real over the means of clusters, by the estimator of every other.

    Args:
      real: codes [n, K] of the pairs.
      changed: the control.
      labels: cluster [n] of each pair.
      units: labels of the clusters that the comparison rests on.
    """
    rows = np.flatnonzero(changed.is_known & np.isin(labels, units))
    averages = clusters.averages(clusters.number(labels[rows]))
    arms = (averages @ sp.csr_array(arm[rows]) for arm in (real, changed.codes))
    return ratios.log_ratios(sums.sum_pairs(*map(sp.csr_array, arms)))


def largest(log_ratio: np.ndarray, shifts: Mapping[str, Shift]) -> tuple[np.ndarray, np.ndarray]:
    """The control that moves each concept furthest to the side of its own change.

    Args:
      log_ratio: [K] generated / real.
      shifts: by control.

    Returns:
      Its log ratio [K] and its name; NaN and "" where neither real images nor a control show it.
    """
    names = np.array([*shifts, ""], dtype=object)
    moved = np.stack([shift.ratios.log_ratio for shift in shifts.values()])
    reach = np.where(log_ratio < 0, -1.0, 1.0) * moved
    which = np.argmax(np.where(np.isnan(reach), -np.inf, reach), axis=0)
    found = np.take_along_axis(moved, which[None], axis=0)[0]
    return found, names[np.where(np.isnan(found), len(names) - 1, which)]
