"""Do verdicts hold under another SAE? Concepts of two SAEs matched, and their verdicts compared.

Concepts of two SAEs have no names in common, only images: two are the same if they fire on the same
real images. Only real images match them, so that no match is made by what the model draws.
"""

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from bsjax.stats import verdicts
from bsjax.stats.proportions import wilson
from bsjax.stats.sparse_codes import active_columns

LEAST = 0.5  # correlation of two concepts' codes over images, below which they are no match
# Real images that show both, below which a correlation is chance: two concepts of three images
# each, of tens of thousands, meet in two of them somewhere.
LEAST_TOGETHER = 5
BLOCK = 128  # concepts correlated at once with all of the other SAE's
PAIRS = 4096  # candidates looked at at once

SAME, DIRECTION, OPPOSITE = "same verdict", "same direction", "opposite"
UNMATCHED, NOT_THERE, NOT_HERE = "unmatched", "not judged there", "not judged here"
MEANINGS = {
    SAME: "the other SAE's concept has the same verdict",
    DIRECTION: "another verdict, the log ratios have one sign",
    OPPOSITE: "another verdict, the log ratios have opposite signs",
    NOT_THERE: "the other SAE's concept has not enough data",
    UNMATCHED: "the other SAE has no such concept",
    NOT_HERE: "the concept itself has not enough data",
}


class Match(NamedTuple):
    """Concepts of one SAE [K] and their counterparts in another."""

    other: np.ndarray  # number of the counterpart, -1 where there is none
    correlation: np.ndarray  # of their codes; NaN where there is none


class Share(NamedTuple):
    """How many of some concepts agree."""

    agree: int
    of: int
    share: float  # NaN of none
    low: float  # 95 % interval (Wilson)
    high: float
    chance: float  # share if counterparts were dealt out at random


def match(left: sp.csr_array, right: sp.csr_array, least: float = LEAST) -> Match:
    """Matches the concepts of two SAEs by Pearson's correlation of their codes over the images.

    A match is mutual: each of the two has no nearer counterpart. So it is one to one, no concept is
    given what is left over (as an assignment of all would), and neither order nor numbers matter.

    Args:
      left: [n, K] image codes, 0 or more.
      right: [n, L] of the same images by another SAE.
      least: correlation of a match.
    """
    n = left.shape[0]
    arms = [active_columns(arm) for arm in (left, right)]
    means, spreads = zip(*(_moments(arm) for arm in arms), strict=True)
    found = [np.empty((3, 0))]
    for start in range(0, left.shape[1], BLOCK):
        block = arms[0][:, start : start + BLOCK]
        products = sp.coo_array(block.T @ arms[1])
        rows, columns = products.row + start, products.col
        scale = spreads[0][rows] * spreads[1][columns]
        covariance = products.data / n - means[0][rows] * means[1][columns]
        # A concept of one value for all images goes with nothing.
        correlation = np.divide(covariance, scale, out=np.zeros_like(scale), where=scale > 0)
        keep = correlation >= least
        rows, columns, correlation = rows[keep], columns[keep], correlation[keep]
        keep = _together(arms, rows, columns) >= LEAST_TOGETHER
        found.append(np.stack([rows[keep], columns[keep], correlation[keep]]))
    rows, columns, correlation = np.concatenate(found, axis=1)
    return _mutual(rows.astype(np.int64), columns.astype(np.int64), correlation, left.shape[1])


def _mutual(rows: np.ndarray, columns: np.ndarray, correlation: np.ndarray, n: int) -> Match:
    """Of candidates those that are the best of both; of equals the lowest numbers."""
    order = np.lexsort((columns, rows, -correlation))
    rows, columns, correlation = rows[order], columns[order], correlation[order]
    best = [np.zeros(rows.size, bool) for _ in range(2)]
    for is_best, side in zip(best, (rows, columns), strict=True):
        is_best[np.unique(side, return_index=True)[1]] = True
    chosen = best[0] & best[1]
    other, value = np.full(n, -1), np.full(n, np.nan)
    other[rows[chosen]], value[rows[chosen]] = columns[chosen], correlation[chosen]
    return Match(other, value)


def _moments(codes: sp.csc_array) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation [K] over all images."""
    n = codes.shape[0]
    mean = np.asarray(codes.sum(axis=0)).ravel() / n
    square = np.asarray(codes.power(2).sum(axis=0)).ravel() / n
    variance = square - np.square(mean)
    return mean, np.sqrt(np.where(variance > 1e-12 * square, variance, 0.0))


def _together(arms: list[sp.csc_array], rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Images that show both concepts of each pair."""
    counts = np.zeros(rows.size, np.int64)
    for start in range(0, rows.size, PAIRS):
        part = slice(start, start + PAIRS)
        both = arms[0][:, rows[part]].multiply(arms[1][:, columns[part]])
        counts[part] = np.asarray((both > 0).sum(axis=0)).ravel()
    return counts


def relate(
    here: np.ndarray, ratio_here: np.ndarray, there: np.ndarray, ratio_there: np.ndarray
) -> np.ndarray:
    """Whether each verdict replicates [K], one of `MEANINGS`.

    Args:
      here, ratio_here: verdicts and log ratios [K].
      there, ratio_there: of the counterparts [K]; None and NaN where there is none.
    """
    found = np.where(np.sign(ratio_here) * np.sign(ratio_there) < 0, OPPOSITE, DIRECTION)
    found = found.astype(object)
    found[here == there] = SAME
    found[there == verdicts.NOT_ENOUGH_DATA] = NOT_THERE
    found[np.array([verdict is None for verdict in there], bool)] = UNMATCHED
    found[here == verdicts.NOT_ENOUGH_DATA] = NOT_HERE
    return found


def shares(
    here: np.ndarray, ratio_here: np.ndarray, there: np.ndarray, ratio_there: np.ndarray
) -> dict[str, Share]:
    """Of the suppressed and exaggerated concepts that both SAEs judge: same verdict, direction.

    `chance` deals the counterparts of all concepts that both judge out anew: of concepts with a
    verdict as many agree then as that verdict is frequent among the counterparts.

    Args:
      here, ratio_here, there, ratio_there: as of `relate`.
    """
    is_judged = np.isin(there, verdicts.KINDS) & (there != verdicts.NOT_ENOUGH_DATA)
    is_judged &= here != verdicts.NOT_ENOUGH_DATA
    called = is_judged & np.isin(here, verdicts.CALLED)
    found = {}
    for name, left, right in (
        ("same_verdict", here, there),
        ("same_direction", np.sign(ratio_here), np.sign(ratio_there)),
    ):
        kinds = np.array([left[called] == kind for kind in set(left[called].tolist())])
        dealt = [float((right[is_judged] == kind).mean()) for kind in set(left[called].tolist())]
        n = int(called.sum())
        chance = float(np.sum(kinds.sum(axis=1) * dealt) / n) if n else float("nan")
        agree = int((left[called] == right[called]).sum())
        found[name] = Share(agree, n, agree / n if n else float("nan"), *wilson(agree, n), chance)
    return found


def match_by_chance(left: sp.csr_array, right: sp.csr_array, seed: int = 0) -> int:
    """Concepts that find a match where the images of one SAE are shuffled: all are chance."""
    order = np.random.default_rng(seed).permutation(right.shape[0])
    return int((match(left, right[order]).other >= 0).sum())
