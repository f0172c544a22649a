"""Verdicts for the eye: every one has a look, and can be read on every ground."""

import itertools

import pytest

from bsjax.report.figures import COLOURS
from bsjax.report.looks import LOOKS, meanings, rule
from bsjax.stats import verdicts
from tests.report.artifacts import SETTINGS

GROUNDS = {"light": ("#ffffff", "#f5f6f8", "#f7f8f9"), "dark": ("#15171a", "#1f2226")}


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
    return sum(weight * x for weight, x in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("kind", verdicts.KINDS)
def test_text_in_its_colour_can_be_read(kind):
    """Contrast of WCAG 2, level AA: 4.5."""
    for scheme, grounds in GROUNDS.items():
        for ground in grounds:
            pair = sorted((luminance(getattr(LOOKS[kind], scheme)), luminance(ground)))
            assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5


def test_no_two_verdicts_look_alike():
    assert tuple(LOOKS) == verdicts.KINDS == tuple(COLOURS)
    for left, right in itertools.combinations(LOOKS.values(), 2):
        assert left.symbol != right.symbol and left.figure != right.figure


def test_signs_are_those_of_the_words():
    signs = {kind: look.sign for kind, look in LOOKS.items() if look.sign}
    assert signs == {"suppressed": -1, "exaggerated": 1, "less": -1, "more": 1}
    assert [kind for kind, look in LOOKS.items() if not look.is_judged] == ["not enough data"]


def test_the_rule_says_what_was_asked_for():
    text = rule(SETTINGS | {"compare.fdr": 0.1, "compare.clusters": "caption"})
    assert "false discovery rate of 0.1 over" in text and "Pairs of one caption count once." in text
    assert "held back" not in text and "here relative with T = 0.4" in text
    text = rule(SETTINGS | {"compare.confirm": 0.5, "compare.clusters": "none"})
    assert "tested on 0.5 of the captions" in text and "Every pair counts." in text
    assert "more than 3-fold" in meanings(SETTINGS | {"compare.margin": 3.0})["suppressed"]


def test_results_of_others_say_nothing_of_tests():
    settings = {"compare.form": "relative", "compare.temperature": 0.4}
    assert "discovery" not in rule(settings)
    assert set(meanings(settings).values()) == {"what was tested is not known here"}
