"""What missing images could do to a finding, and whether their captions differ from the others'.

Nobody knows what an image shows that is not there. Bounds take the worst for granted (Manski,
1990): every one shows the concept, or none does. They are of prevalence, the share of images that
show a concept, since the energy of an unknown image has no bound.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats as scipy_stats

from bsjax.stats import significance, verdicts
from bsjax.stats.words import Vocabulary


class Missing(NamedTuple):
    """How many images are missing, of captions of which one arm or none is there.

    Of several generated images of one caption each counts as its share of them.
    """

    real: int | float = 0  # real images, where the generated one is there
    generated: int | float = 0  # generated images, where the real one is there
    both: int | float = 0  # captions of which neither is


class Bound(NamedTuple):
    """What the missing images could do to a finding.

    Attributes:
      low: natural log of the prevalence ratio generated / real, at worst.
      high: the same at the other end.
      share: of the missing images that would have to show the concept, until its prevalence is
        within the margin: those of the generated set if it is suppressed, else the real ones.
        Infinite where all of them would not do; 0 where its prevalence is within the margin as it
        is; NaN where none is missing.
    """

    low: float
    high: float
    share: float


class Word(NamedTuple):
    """A word that captions of missing images have more often than the others."""

    word: str
    share_missing: float
    share_kept: float
    q: float


def bound(
    n_real: int | float, n_generated: int | float, missing: Missing, verdict: str, margin: float
) -> Bound:
    """Bounds of the prevalence ratio of one concept.

    Args:
      n_real: real images known to show it, those without partner included.
      n_generated: generated images known to show it, likewise; counted as those of `missing`.
      missing: images that are not known.
      verdict: suppressed or exaggerated.
      margin: fold beyond which it is one.
    """
    no_real, no_generated = missing.real + missing.both, missing.generated + missing.both
    low = _log_ratio(n_generated, n_real + no_real)
    high = _log_ratio(n_generated + no_generated, n_real)
    fewer, more, unknown = n_generated, n_real, no_generated
    if verdict == verdicts.EXAGGERATED:
        fewer, more, unknown = n_real, n_generated, no_real
    lacking = more / margin - fewer  # images that would have to show it
    if not no_real + no_generated:
        share = math.nan
    elif lacking <= 0:
        share = 0.0
    else:
        share = lacking / unknown if unknown >= lacking else math.inf
    return Bound(low, high, share)


def _log_ratio(above: float, below: float) -> float:
    if above == 0 and below == 0:
        return math.nan
    if above == 0:
        return -math.inf
    return math.log(above / below) if below else math.inf


def words_of_missing(
    missing: Sequence[str], kept: Sequence[str], level: float = 0.05, most: int = 10
) -> list[Word]:
    """Words that captions of missing images have beyond chance, the surest first.

    Fisher's exact test, one-sided, on distinct captions; adjusted over all words as verdicts are
    (`significance.q_values`). A caption that stands in both lists counts as missing.

    Args:
      missing: captions of which an image is missing.
      kept: captions of which both are there.
      level: false discovery rate.
      most: words told.
    """
    lost = list(dict.fromkeys(filter(None, missing)))
    rest = [each for each in dict.fromkeys(filter(None, kept)) if each not in set(lost)]
    if not lost or not rest:
        return []
    vocabulary = Vocabulary([*lost, *rest])
    if not vocabulary.names:
        return []
    n_lost = np.asarray(vocabulary.occurs[: len(lost)].sum(axis=0)).ravel()
    n_all = np.asarray(vocabulary.occurs.sum(axis=0)).ravel()
    p = scipy_stats.hypergeom.sf(n_lost - 1, len(lost) + len(rest), n_all, len(lost))
    q = significance.q_values(p, np.ones(len(p), bool))
    order = [i for i in np.lexsort((-n_lost, p)) if q[i] <= level][:most]
    return [
        Word(
            vocabulary.names[i],
            float(n_lost[i] / len(lost)),
            float((n_all[i] - n_lost[i]) / len(rest)),
            float(q[i]),
        )
        for i in order
    ]
