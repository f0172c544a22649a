"""Which caption words go with a concept: those that its top images' captions share beyond chance.

Fisher's exact test on distinct captions: of N distinct captions, n are those of the top images and
M have the word; the tail of the hypergeometric distribution says how likely as many as were found
are among them. A word is given if that is below 5 % over all words (Bonferroni); where none is,
none is given.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import regex
import scipy.sparse as sp
from scipy import stats as scipy_stats

LEVEL = 0.05
# Letters with the marks that belong to them; hyphens and apostrophes within a word.
WORD = regex.compile(r"\p{L}[\p{L}\p{M}]*(?:['’\-]\p{L}[\p{L}\p{M}]*)*")
# Scripts that write no spaces: two letters at a time stand for words.
UNSPACED = regex.compile(
    r"[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}\p{Script=Lao}"
    r"\p{Script=Khmer}\p{Script=Myanmar}ー][\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}"
    r"\p{Script=Thai}\p{Script=Lao}\p{Script=Khmer}\p{Script=Myanmar}\p{M}ー]*"
)
LETTER = regex.compile(r"\X")  # with its marks
# fmt: off
STOP_WORDS = frozenset([
    "an", "and", "are", "as", "at", "be", "by", "for", "from", "has", "in", "into", "is",
    "it", "its", "of", "on", "or", "that", "the", "this", "to", "up", "with", "was", "were",
    "his", "her", "their", "our", "your", "my",
])
# fmt: on


def describe_concepts(captions: Sequence[str], top_rows: np.ndarray, n_words: int = 3) -> list[str]:
    """Up to `n_words` caption words per concept, most typical first, joined by ", "; "" for none.

    Args:
      captions: one caption per image.
      top_rows: [K, L] rows of the concept's top images, -1 where none.
      n_words: words kept.
    """
    distinct = {caption: place for place, caption in enumerate(dict.fromkeys(captions))}
    vocabulary = Vocabulary(list(distinct))
    if not vocabulary.names:
        return [""] * len(top_rows)
    place = np.array([distinct[caption] for caption in captions])
    concept, slot = np.nonzero(top_rows >= 0)
    chosen = sp.csr_array(
        (np.ones(concept.size), (concept, place[top_rows[concept, slot]])),
        shape=(len(top_rows), len(distinct)),
    )
    chosen.data[:] = 1.0  # a caption counts once
    counts = sp.csr_array(chosen @ vocabulary.occurs)  # [K, V] captions with the word
    counts.sort_indices()
    p = _tails(counts, np.diff(chosen.indptr), vocabulary.occurs)
    described = []
    for k in range(counts.shape[0]):
        part = slice(counts.indptr[k], counts.indptr[k + 1])
        typical = np.flatnonzero(p[part] * len(vocabulary.names) <= LEVEL)
        order = typical[np.lexsort((-counts.data[part][typical], p[part][typical]))][:n_words]
        described.append(", ".join(vocabulary.names[i] for i in counts.indices[part][order]))
    return described


class Vocabulary:
    """The words of captions, forms of the same word being one.

    Attributes:
      names: [V] the most frequent form of each word.
      occurs: [n, V] one where a caption has the word.
    """

    def __init__(self, captions: Sequence[str]):
        found = [sorted(set(split(caption))) for caption in captions]
        forms = Counter(form for words in found for form in words)
        stems = {form: _singular(form, forms) for form in forms}
        places: dict[str, int] = {}
        for form in forms:
            places.setdefault(stems[form], len(places))
        self.names = list(places)
        for form, _ in sorted(forms.items(), key=lambda each: each[1]):
            self.names[places[stems[form]]] = form
        rows = [row for row, words in enumerate(found) for _ in words]
        columns = [places[stems[form]] for words in found for form in words]
        occurs = sp.csr_array(
            (np.ones(len(rows)), (rows, columns)), shape=(len(found), len(places))
        )
        self.occurs = sp.csr_array(occurs.minimum(1.0))


def split(text: str) -> Iterator[str]:
    """The words of a text, in lower case, without those that every text has.

    A hyphenated word is one; of scripts without spaces every two neighbouring letters are one.
    """
    for part in WORD.findall(text.lower()):
        rest = part
        for run in UNSPACED.findall(part):
            letters = LETTER.findall(run)
            yield from ("".join(pair) for pair in zip(letters, letters[1:], strict=False))
            if len(letters) == 1:
                yield run
            rest = rest.replace(run, " ")
        for word in rest.split():
            if len(word) > 1 and word not in STOP_WORDS:
                yield word


def _singular(form: str, forms: Counter) -> str:
    """The singular of an English plural, if the captions have that too."""
    endings = (("ies", "y"), ("es", ""), ("s", ""))
    for ending, instead in endings:
        shorter = form.removesuffix(ending) + instead
        if form.endswith(ending) and len(shorter) > 2 and shorter in forms:
            return shorter
    return form


def _tails(counts: sp.csr_array, n_top: np.ndarray, occurs: sp.csr_array) -> np.ndarray:
    """Tail of the hypergeometric distribution for every stored entry of `counts`."""
    with_word = np.asarray(occurs.sum(axis=0)).astype(np.int64)
    of_concept = np.repeat(n_top.astype(np.int64), np.diff(counts.indptr))
    found = counts.data.round().astype(np.int64)
    # Millions of entries, but few that differ; scipy takes each of its own.
    sizes = (int(found.max(initial=0)) + 1, int(with_word.max(initial=0)) + 1,
             int(n_top.max(initial=0)) + 1)  # fmt: skip
    numbers = np.ravel_multi_index((found, with_word[counts.indices], of_concept), sizes)
    distinct, place = np.unique(numbers, return_inverse=True)
    found, with_word, of_concept = np.unravel_index(distinct, sizes)
    return scipy_stats.hypergeom.sf(found - 1, occurs.shape[0], with_word, of_concept)[place]
