"""Which caption words go with a concept: log-odds with an informative Dirichlet prior.

Monroe, Colaresi and Quinn (2008), "Fightin' Words": words of the captions of a concept's top images
against the words of all captions, scaled by their uncertainty.
"""

import re
from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp

WORD = re.compile(r"[^\W\d_]{2,}", re.UNICODE)
STOP_WORDS = frozenset(
    [
        "an",
        "and",
        "are",
        "as",
        "at",
        "be",
        "by",
        "for",
        "from",
        "has",
        "in",
        "into",
        "is",
        "it",
        "its",
        "of",
        "on",
        "or",
        "that",
        "the",
        "this",
        "to",
        "up",
        "with",
        "was",
        "were",
        "his",
        "her",
        "their",
        "our",
        "your",
        "my",
    ]
)


def describe_concepts(
    captions: Sequence[str], top_rows: np.ndarray, n_words: int = 3, min_z: float = 0.5
) -> list[str]:
    """Up to `n_words` caption words a concept, most typical first, joined by ", ".

    Args:
      captions: one caption an image.
      top_rows: [K, L] rows of the concept's top images, -1 where none.
      n_words: words kept.
      min_z: smallest z score of a word's log-odds to count as typical.
    """
    vocabulary: dict[str, int] = {}
    rows, columns = [], []
    for row, caption in enumerate(captions):
        for word in sorted(set(WORD.findall(caption.lower())) - STOP_WORDS):
            rows.append(row)
            columns.append(vocabulary.setdefault(word, len(vocabulary)))
    words = np.array(list(vocabulary), dtype=object)
    if not vocabulary:
        return [""] * len(top_rows)
    shape = (len(captions), len(vocabulary))
    occurs = sp.csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)  # [n, V]
    concept, slot = np.nonzero(top_rows >= 0)
    chosen = sp.csr_array(
        (np.ones(concept.size), (concept, top_rows[concept, slot])),
        shape=(len(top_rows), len(captions)),
    )
    counts = sp.csr_array(chosen @ occurs)  # [K, V] captions of the concept with the word
    z = _log_odds_z(counts, np.asarray(occurs.sum(axis=0)))
    described = []
    for k in range(counts.shape[0]):
        part = slice(counts.indptr[k], counts.indptr[k + 1])
        order = np.argsort(-z[part], kind="stable")[:n_words]
        typical = [i for i in order if z[part][i] >= min_z]
        described.append(", ".join(words[counts.indices[part][typical]]))
    return described


def _log_odds_z(counts: sp.csr_array, background: np.ndarray) -> np.ndarray:
    """z score of every stored entry of `counts`, the corpus being the prior."""
    concept = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    n_concept = np.asarray(counts.sum(axis=1))[concept]
    total = background.sum()
    prior = background[counts.indices]
    inside = counts.data + prior
    inside_rest = np.maximum(n_concept + total - inside, 1.0)
    outside_rest = np.maximum(total - prior, 1.0)
    log_odds = np.log(inside / inside_rest) - np.log(prior / outside_rest)
    return log_odds / np.sqrt(1 / inside + 1 / prior)
