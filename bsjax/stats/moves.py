"""Where a model moved a concept to, seen from another model and from the real images.

Each word is a conjunction: it is given where both of its tests hold. The larger p of the two is
that of the conjunction (an intersection-union test), and is adjusted over all concepts.
"""

from typing import NamedTuple

import numpy as np

from bsjax.stats import significance, verdicts

TOWARDS, AWAY, ELSEWHERE, NOWHERE = "towards", "away", "elsewhere", ""
MOVES = (TOWARDS, AWAY, ELSEWHERE)


class Tested(NamedTuple):
    """One comparison, [K] each."""

    log_ratio: np.ndarray
    p_material: np.ndarray
    q_material: np.ndarray  # NaN where a concept is not eligible
    verdict: np.ndarray


class Moves(NamedTuple):
    """[K] each."""

    moved: np.ndarray  # towards, away, elsewhere or ""
    q_towards: np.ndarray  # adjusted p of what `towards` needs; NaN without enough data
    q_away: np.ndarray


def judge(change: Tested, first: Tested, second: Tested, fdr: float) -> Moves:
    """What a change from one model to another means for the distance to the real images.

    towards: the change is material, the first model was called against the real images on the side
    that the change leaves, and the second one's estimate is nearer to them and not called.
    away: the change is material, the second model is called against the real images on the side
    that the change goes to, and its estimate is farther from them.
    elsewhere: another material change.

    Args:
      change: the second model against the first.
      first: the first model against the real images.
      second: the second model against the real images.
      fdr: false discovery rate of each of the three words.
    """
    is_material, was_called, is_called = (
        np.isin(each.verdict, verdicts.CALLED) for each in (change, first, second)
    )
    rises = change.log_ratio > 0
    is_nearer = np.abs(second.log_ratio) < np.abs(first.log_ratio)
    leaves = rises == (first.log_ratio < 0)
    goes_to = rises == (second.log_ratio > 0)
    may_towards = leaves & is_nearer
    may_away = goes_to & (np.abs(second.log_ratio) > np.abs(first.log_ratio))
    q_towards = _q(change, first, may_towards)
    q_away = _q(change, second, may_away)

    def passes(q: np.ndarray) -> np.ndarray:
        return is_material & (np.nan_to_num(q, nan=1.0) <= fdr)

    moved = np.full(is_material.shape, NOWHERE, dtype=object)
    moved[is_material] = ELSEWHERE
    moved[passes(q_towards) & was_called & ~is_called & may_towards] = TOWARDS
    moved[passes(q_away) & is_called & may_away] = AWAY
    return Moves(moved, q_towards, q_away)


def _q(change: Tested, real: Tested, may: np.ndarray) -> np.ndarray:
    """Adjusted p of two tests at once; 1 on the other side."""
    p = np.where(may, np.maximum(change.p_material, real.p_material), 1.0)
    eligible = np.isfinite(change.q_material) & np.isfinite(real.q_material)
    return significance.q_values(p, eligible)
