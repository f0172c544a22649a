"""Caption words of concepts: Fisher's exact test, and what counts as a word."""

import numpy as np
import pytest
from scipy import stats

from bsjax.stats import words
from bsjax.stats.words import Vocabulary, describe_concepts, split


def test_a_word_is_given_where_chance_does_not_explain_it():
    captions = [f"a crown of metal {row}" for row in range(8)]
    captions += [f"a boat of metal {'abcdefghijklmnopqrstuvwxyz'[row]}x" for row in range(26)]
    top = np.array([[0, 1, 2, 3, 4], [8, 9, 10, -1, -1], [-1] * 5])
    got = describe_concepts(captions, top)
    # All five captions with "crown", of 34 with 8: C(8, 5) / C(34, 5) = 2e-4. "metal" is in all.
    assert got == ["crown", "", ""]
    assert stats.hypergeom.sf(4, 34, 8, 5) * len(Vocabulary(captions).names) < words.LEVEL


def test_the_bound_is_five_percent_over_all_words():
    """k of 6 captions at the top with the word, of 40 with 10: given from the first that passes."""
    filler = [f"{'abcdefghij'[i % 10]}{'klmnopqrst'[i // 10]}" for i in range(40)]
    captions = [f"gold {name}" if i < 10 else f"iron {name}" for i, name in enumerate(filler)]
    n_words = len(Vocabulary(captions).names)
    for k in range(1, 7):
        top = np.array([[*range(k), *range(10, 16 - k)]])
        p = stats.hypergeom.sf(k - 1, 40, 10, 6)
        assert ("gold" in describe_concepts(captions, top)[0].split(", ")) == (p * n_words <= 0.05)


def test_a_caption_that_comes_often_counts_once():
    captions = ["a red cat"] * 30 + [f"a blue thing {'abcdefghijkl'[i]}y" for i in range(12)]
    assert describe_concepts(captions, np.array([list(range(6))])) == [""]


def test_random_top_images_have_no_words():
    rng = np.random.default_rng(0)
    lexicon = [f"{a}{b}" for a in "abcdefgh" for b in "klmnopqr"]
    captions = [" ".join(rng.choice(lexicon, 6)) for _ in range(400)]
    top = rng.integers(0, 400, (200, 24))
    named = sum(bool(text) for text in describe_concepts(captions, top))
    assert named < 20  # at most one in twenty, up to chance


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A red T-shirt, and 12 l’eau", ["red", "t-shirt", "l’eau"]),
        ("café crème", ["café", "crème"]),
        ("cafe\u0301", ["cafe\u0301"]),  # a combining accent belongs to its letter
        ("हिन्दी", ["हिन्दी"]),
        ("日本の猫", ["日本", "本の", "の猫"]),
        ("猫", ["猫"]),
        ("ไทย", ["ไท", "ทย"]),
        ("東京tower", ["東京", "tower"]),
        ("don't", ["don't"]),
        ("", []),
    ],
)
def test_what_counts_as_a_word(text, expected):
    assert list(split(text)) == expected


def test_plurals_are_the_word_that_captions_have_more_often():
    got = Vocabulary(["two crescents", "crescents", "a crescent", "a glass", "boxes", "box", "box"])
    assert sorted(got.names) == ["box", "crescents", "glass", "two"]
    column = got.names.index("crescents")
    assert got.occurs[:, [column]].toarray().ravel().tolist() == [1, 1, 1, 0, 0, 0, 0]
    assert Vocabulary(["cities", "city", "city"]).names == ["city"]
    # Without the singular among the captions nothing is guessed.
    assert Vocabulary(["a news series"]).names == ["news", "series"]
