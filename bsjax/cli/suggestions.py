"""Did you mean: what among the legal words looks like the one that was given."""

import difflib
from collections.abc import Iterable

SUGGESTED, LEAST_LIKENESS, TIE = 3, 0.75, 0.03


def did_you_mean(word: str, choices: Iterable[str], prefix: str = "") -> str:
    """What to ask of choices that look like the word, as a whole or in their last dotted part.

    Empty where none does; `prefix` stands before each.
    """
    whole = {choice: _likeness(word, choice) for choice in choices}
    scores = whole
    if max(whole.values(), default=0.0) < LEAST_LIKENESS:
        last = word.rpartition(".")[2]
        scores = {choice: _likeness(last, choice.rpartition(".")[2]) for choice in whole}
    best = max(scores.values(), default=0.0)
    if best < LEAST_LIKENESS:
        return ""
    near = [choice for choice, score in scores.items() if score > best - TIE]
    near.sort(key=lambda choice: -scores[choice])
    return f"; did you mean {' or '.join(prefix + choice for choice in near[:SUGGESTED])}?"


def _likeness(word: str, choice: str) -> float:
    return difflib.SequenceMatcher(None, word.lower(), choice.lower()).ratio()
