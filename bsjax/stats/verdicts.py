"""From numbers to words: suppressed, exaggerated, no difference, not enough data."""

import numpy as np

SUPPRESSED = "suppressed"
EXAGGERATED = "exaggerated"
NO_DIFFERENCE = "no difference"
NOT_ENOUGH_DATA = "not enough data"
KINDS = (SUPPRESSED, EXAGGERATED, NO_DIFFERENCE, NOT_ENOUGH_DATA)


def judge(
    delta: np.ndarray,
    q: np.ndarray,
    eligible: np.ndarray,
    *,
    suppressed: float,
    exaggerated: float,
    fdr: float,
) -> np.ndarray:
    """One verdict a concept [K].

    A concept is suppressed if its delta is below `suppressed` and the arms differ at a false
    discovery rate of `fdr`; likewise exaggerated. A concept seen in too few images to tell is
    "not enough data": with no true difference at all, hundreds of rare concepts pass the
    thresholds on delta alone.
    """
    sure = eligible & (np.nan_to_num(q, nan=1.0) <= fdr)
    verdict = np.full(delta.shape, NO_DIFFERENCE, dtype=object)
    verdict[sure & (delta < suppressed)] = SUPPRESSED
    verdict[sure & (delta > exaggerated)] = EXAGGERATED
    verdict[~eligible] = NOT_ENOUGH_DATA
    return verdict


def count_called(verdict: np.ndarray) -> dict[str, int]:
    """Of the verdicts [K], those with enough data (eligible) and those that call a difference."""
    called = np.isin(verdict.astype(str), (SUPPRESSED, EXAGGERATED))
    eligible = verdict != NOT_ENOUGH_DATA
    return {"eligible": int(eligible.sum()), "called": int(called.sum())}
