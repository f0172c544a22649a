"""Was the model asked for a concept? Tells "cannot draw it" from "was not told to".

Words of captions that go with a concept are learnt on the real images of one half of the pairs; in
the other half those captions that have such a word ask for it. The halves then change places, so
that no pair is judged by words that it taught.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from scipy import stats as scipy_stats

from bsjax.stats import ratios, words
from bsjax.stats.sums import sum_pairs

LEVEL = 0.05  # over all words, by Bonferroni
# Of the captions with the word, whose real image must show the concept; and in shares of the word
# of which most do: "number" in "a crown number 7" is not what asks for a crown.
LEAST_SHARE, OF_BEST = 0.5, 0.8
LEAST_CAPTIONS = 5  # with the word, in the half that teaches


class Asked(NamedTuple):
    """[C] each."""

    n: np.ndarray  # pairs whose caption asks for the concept
    log_ratio: np.ndarray  # over these pairs; NaN where there are none
    low: np.ndarray
    high: np.ndarray


def ratios_where_asked(
    real: sp.csr_array,
    generated: sp.csr_array,
    captions: Sequence[str],
    concepts: np.ndarray,
    seed: int = 0,
) -> Asked:
    """Log ratios over the pairs whose captions ask for each concept.

    Args:
      real, generated: [n, K] one pair of each cluster.
      captions: [n].
      concepts: [C] ids to look at.
      seed: of the halves.
    """
    n = len(captions)
    vocabulary = words.Vocabulary(captions)
    columns = [sp.csc_array(arm.tocsc()[:, concepts]) for arm in (real, generated)]
    shows = sp.csr_array((columns[0] > 0).astype(np.float64))  # [n, C]
    order = np.random.default_rng(seed).permutation(n)
    asks = np.zeros((n, concepts.size), bool)
    for taught, judged in ((order[: n // 2], order[n // 2 :]), (order[n // 2 :], order[: n // 2])):
        told = _telling(vocabulary.occurs[taught], shows[taught])  # [V, C]
        asks[judged] = (vocabulary.occurs[judged] @ told).toarray() > 0
    counts, found = asks.sum(axis=0), np.full((3, concepts.size), np.nan)
    for place in np.flatnonzero(counts).tolist():
        arms = [sp.csr_array(arm[asks[:, place]][:, [place]]) for arm in columns]
        ratio = ratios.log_ratios(sum_pairs(*arms))
        found[:, place] = ratio.log_ratio[0], ratio.low[0], ratio.high[0]
    return Asked(counts, *found)


def find_asking(
    captions: Sequence[str], shows: np.ndarray, others: Sequence[str]
) -> tuple[list[str], np.ndarray]:
    """Which other captions ask for a concept, by words that these captions teach.

    Args:
      captions: [n] that teach.
      shows: [n] whether the real image of each shows the concept.
      others: [M] captions.

    Returns:
      The words, in order of the alphabet; none where none goes with the concept. And [M] whether
      each of the others has one of them.
    """
    n, vocabulary = len(captions), words.Vocabulary([*captions, *others])
    column = sp.csr_array(np.asarray(shows, np.float64).reshape(-1, 1))
    told = _telling(vocabulary.occurs[:n], column)  # [V, 1]
    asks = (vocabulary.occurs[n:] @ told).toarray().ravel() > 0
    return sorted(vocabulary.names[word] for word in told.indices), asks


def _telling(occurs: sp.csr_array, shows: sp.csr_array) -> sp.csc_array:
    """Words [V, C] that tell of a concept: one where the hypergeometric test says so, else none."""
    n, n_words = occurs.shape
    both = sp.coo_array(occurs.T @ shows)
    with_word = np.asarray(occurs.sum(axis=0)).ravel()[both.row]
    with_concept = np.asarray(shows.sum(axis=0)).ravel()[both.col]
    p = scipy_stats.hypergeom.sf(both.data - 1, n, with_concept, with_word)
    keep = (p * max(n_words, 1) <= LEVEL) & (with_word >= LEAST_CAPTIONS)
    share = both.data / with_word
    best = np.zeros(both.shape[1])
    np.maximum.at(best, both.col[keep], share[keep])
    keep &= share >= np.maximum(OF_BEST * best[both.col], LEAST_SHARE)
    entries = (np.ones(int(keep.sum())), (both.row[keep], both.col[keep]))
    return sp.csc_array(entries, shape=both.shape)
