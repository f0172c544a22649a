"""From tests to words. Each verdict says what was established, and nothing says "no difference"."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

SUPPRESSED = "suppressed"
EXAGGERATED = "exaggerated"
LESS = "less"
MORE = "more"
ALIGNED = "aligned"
UNDECIDED = "undecided"
NOT_ENOUGH_DATA = "not enough data"
# What each is: `{margin}` and `{aligned}` are those of the comparison.
MEANINGS = {
    SUPPRESSED: "drawn less, by more than {margin:g}-fold",
    EXAGGERATED: "drawn more, by more than {margin:g}-fold",
    LESS: "drawn less; by how much is open",
    MORE: "drawn more; by how much is open",
    ALIGNED: "within {aligned:g}-fold of the real images",
    UNDECIDED: "neither a change nor its absence is established",
    NOT_ENOUGH_DATA: "shown by too few images for any verdict",
}
KINDS = tuple(MEANINGS)
CALLED = (SUPPRESSED, EXAGGERATED)


def explain(settings: Mapping[str, Any]) -> dict[str, str]:
    """What each verdict says in a comparison of these settings, as its manifest has them."""
    values = {name: settings.get(f"compare.{name}", float("nan")) for name in ("margin", "aligned")}
    return {kind: meaning.format(**values) for kind, meaning in MEANINGS.items()}


# The paper's: delta beyond these, of whatever concept.
PAPER_SUPPRESSED, PAPER_EXAGGERATED = 0.1, 0.9
BETWEEN = "between"
# A concept is judged if a one-armed one of as many images could pass: p of all N in one arm.
LARGEST_P = 0.01


class Tests(NamedTuple):
    """[K] each."""

    log_ratio: np.ndarray
    q_material: np.ndarray
    q_direction: np.ndarray
    q_aligned: np.ndarray


def least_images(margin: float) -> int:
    """Firing images, both arms together, from which on a concept is judged: 11 at a margin of 1.5.

    The smallest N with 2 (margin / (1 + margin))^N <= 0.01.
    """
    share = margin / (1 + margin)
    return int(np.ceil(np.log(LARGEST_P / 2) / np.log(share)))


def judge(tests: Tests, eligible: np.ndarray, fdr: float) -> np.ndarray:
    """One verdict per concept [K]; the first of `MEANINGS` that its tests establish.

    Args:
      tests: q values, NaN where a concept is not eligible.
      eligible: concepts shown by enough images.
      fdr: false discovery rate of each of the three tests.
    """
    is_less = tests.log_ratio < 0

    def passes(q: np.ndarray) -> np.ndarray:
        return eligible & (np.nan_to_num(q, nan=1.0) <= fdr)

    verdict = np.full(is_less.shape, UNDECIDED, dtype=object)
    verdict[passes(tests.q_aligned)] = ALIGNED
    for q, below, above in (
        (tests.q_direction, LESS, MORE),
        (tests.q_material, SUPPRESSED, EXAGGERATED),
    ):
        verdict[passes(q) & is_less] = below
        verdict[passes(q) & ~is_less] = above
    verdict[~eligible] = NOT_ENOUGH_DATA
    return verdict


def judge_as_paper(delta: np.ndarray) -> np.ndarray:
    """The paper's word per concept [K], by the thresholds on delta alone."""
    verdict = np.full(delta.shape, BETWEEN, dtype=object)
    verdict[delta < PAPER_SUPPRESSED] = SUPPRESSED
    verdict[delta > PAPER_EXAGGERATED] = EXAGGERATED
    return verdict


def near_end(log_ratio: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The end of the interval that is nearer to no change [K]; beyond it where that is inside.

    Lists sort by it: the concept that changed most beyond doubt comes first, not the one that
    chance moved most.
    """
    return np.where(log_ratio < 0, high, low)


def count(verdict: np.ndarray) -> dict[str, int]:
    """Concepts of each verdict."""
    return {kind.replace(" ", "_"): int((verdict == kind).sum()) for kind in KINDS}
