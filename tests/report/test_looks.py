"""Verdicts for the eye: every one has a look, and can be read on every ground."""

import itertools
import re

import numpy as np
import pytest

from bsjax.core.dims import Grid
from bsjax.core.ranges import STYLES
from bsjax.report import figures
from bsjax.report.explorer import site
from bsjax.report.explorer.bundle import MODULES, STATIC, bundle
from bsjax.report.explorer.site import site_payload
from bsjax.report.explorer.tops import special_names
from bsjax.report.figures import COLOURS
from bsjax.report.looks import LOOKS, PALETTES, RATIO, SCHEMES, meanings, rule
from bsjax.report.model_figures import LINES
from bsjax.report.tables import read_comparisons
from bsjax.stats import verdicts
from tests.report.artifacts import SETTINGS, write_arm, write_comparison

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


def contrast(left, right):
    """Of WCAG 2."""
    low, high = sorted((luminance(left), luminance(right)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", RATIO)
def test_marks_of_the_map_stand_out(scheme):
    """Of every judged concept, by verdict and by ratio: WCAG 2, 3:1 for what is no text."""
    judged = [getattr(look, scheme) for look in LOOKS.values() if look.is_judged]
    for colour in (*judged, *RATIO[scheme]):
        assert min(contrast(colour, ground) for ground in GROUNDS[scheme]) >= 3


# Machado, Oliveira and Fernandes 2009: deuteranopia, of linear RGB.
DEUTERANOPIA = np.array(
    [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ]
)
TO_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)


def lab(colour, is_blind):
    """CIE L*a*b* (D65) of a colour, or of what a deuteranope sees of it."""
    parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    if is_blind:
        linear = np.clip(DEUTERANOPIA @ linear, 0, 1)
    scaled = TO_XYZ @ linear / TO_XYZ.sum(axis=1)
    root = np.where(scaled > 216 / 24389, np.cbrt(scaled), (24389 / 27 * scaled + 16) / 116)
    return np.array([116 * root[1] - 16, 500 * (root[0] - root[1]), 200 * (root[1] - root[2])])


def difference(left, right):
    """CIE 1976, the least that anyone sees; 2.3 is just noticed."""
    return min(
        np.linalg.norm(lab(left, is_blind) - lab(right, is_blind)) for is_blind in (False, True)
    )


@pytest.mark.parametrize("scheme", RATIO)
def test_less_and_more_differ_also_without_green(scheme):
    look = {kind: getattr(each, scheme) for kind, each in LOOKS.items()}
    assert difference(look[verdicts.SUPPRESSED], look[verdicts.EXAGGERATED]) > 60
    assert difference(look[verdicts.LESS], look[verdicts.MORE]) > 35
    for kind in verdicts.CALLED:
        for other in (verdicts.ALIGNED, verdicts.UNDECIDED, verdicts.NOT_ENOUGH_DATA):
            assert difference(look[kind], look[other]) > 20, (kind, other)
    for left, right in itertools.combinations(RATIO[scheme], 2):
        assert difference(left, right) > 15
    lows, middle, highs = RATIO[scheme][:2], RATIO[scheme][2], RATIO[scheme][3:]
    assert all(lab(colour, is_blind=True)[2] < -10 for colour in lows)  # bluish
    assert all(lab(colour, is_blind=True)[2] > 10 for colour in highs)  # yellowish
    assert abs(lab(middle, is_blind=True)[2]) < 8
    steps = [
        abs(lab(colour, is_blind=False)[0] - lab(middle, False)[0]) for colour in (*lows, *highs)
    ]
    assert steps[0] > steps[1] and steps[3] > steps[2]  # further from the middle at the ends


def test_real_and_generated_have_colours_of_their_own():
    for scheme, look in SCHEMES.items():
        found = {"real": look.real, "generated": look.generated}
        assert difference(found["real"], found["generated"]) > 15
        for kind in (*verdicts.CALLED, verdicts.LESS, verdicts.MORE):
            for colour in found.values():
                assert difference(colour, getattr(LOOKS[kind], scheme)) > 10, (kind, colour)
        for colour in found.values():
            assert min(contrast(colour, ground) for ground in GROUNDS[scheme]) >= 3


def test_the_page_and_the_figures_have_one_palette():
    style = (STATIC / "explorer.css").read_text(encoding="utf-8")
    for scheme, block in zip(("light", "dark"), style.split("@media", 1), strict=True):
        found = dict(re.findall(r"--(\w+): (#[0-9a-f]{3,6});", block))
        for name, colour in SCHEMES[scheme]._asdict().items():
            full = (
                found[name]
                if len(found[name]) == 7
                else "#" + "".join(2 * digit for digit in found[name][1:])
            )
            assert colour == full, (scheme, name)
    assert tuple(SCHEMES) == STYLES


@pytest.mark.parametrize("style", SCHEMES)
def test_models_beside_one_another_can_be_told_apart(style):
    ground = SCHEMES[style].paper
    assert all(contrast(colour, ground) >= 3 for colour in LINES[style])
    for left, right in itertools.combinations(LINES[style], 2):
        assert difference(left, right) > 10, (left, right)


def test_no_two_verdicts_look_alike():
    assert tuple(LOOKS) == verdicts.KINDS == tuple(COLOURS)
    for left, right in itertools.combinations(LOOKS.values(), 2):
        assert left.symbol != right.symbol and left.light != right.light


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


def test_the_explorers_scripts_and_styles_name_no_verdict_and_no_colour_of_one():
    texts = bundle() + (STATIC / "explorer.css").read_text(encoding="utf-8")
    for kind in verdicts.KINDS:
        for quote in "\"'`=":
            assert f"{quote}{kind}" not in texts, kind
    for colours in PALETTES.values():
        assert not any(colour in texts for colour in colours)


def test_the_page_is_told_kinds_and_palettes(tmp_path, monkeypatch):
    """A kind that is added to the two tables of Python reaches the page by itself."""
    for arm in ("real", "one"):
        write_arm(tmp_path, arm, 4)
    write_comparison(tmp_path, "one", list(verdicts.KINDS)[:4])
    comparisons = read_comparisons(tmp_path, ["one"])
    places = np.eye(4, 2, dtype=np.float32)
    payload = site_payload(comparisons, places, list("abcd"), [{}], [])
    assert [each["name"] for each in payload["verdicts"]] == list(verdicts.KINDS)
    assert payload["palettes"] == PALETTES
    assert figures.PALETTE(0.0) == pytest.approx((0x65 / 255, 0xC7 / 255, 0xDE / 255, 1))
    look = LOOKS[verdicts.SUPPRESSED]._replace(symbol="!")
    monkeypatch.setattr(verdicts, "KINDS", (*verdicts.KINDS, "new"))
    monkeypatch.setitem(LOOKS, "new", look)
    payload = site_payload(comparisons, places, list("abcd"), [{}], [])
    assert payload["verdicts"][-1] == {"name": "new", **look._asdict()}
    comparisons[0].columns["verdict"] = np.array(["new"] * 4)
    assert site.columns_payload(comparisons[0].columns)["verdict"]["shape"] == [4]


@pytest.mark.parametrize(
    ("grid", "names"),
    [
        (Grid(2, 2, 2), ("class", "register 1", "register 2")),
        (Grid(2, 2, 2, n_class=0), ("register 1", "register 2")),
        (Grid(0, 2, 2, n_class=0), ()),
    ],
)
def test_tokens_in_front_of_the_patches_are_named_as_the_encoder_has_them(grid, names):
    assert grid.special_names == names
    assert len(names) == grid.n_special


def test_measures_that_do_not_name_them_are_of_an_encoder_with_a_class_token(tmp_path):
    write_arm(tmp_path, "real", 2, n_special=3)
    write_arm(tmp_path, "one", 2, n_special=2, special=["register 1", "register 2"])
    write_comparison(tmp_path, "one", list(verdicts.KINDS)[:2])
    (comparison,) = read_comparisons(tmp_path, ["one"])
    assert special_names(comparison.real) == ["class", "register 1", "register 2"]
    assert special_names(comparison.generated) == ["register 1", "register 2"]


def test_modules_of_the_page_share_one_scope_without_a_clash():
    """`bundle` puts them into one: a name that stood twice would be another's."""
    top = re.compile(r"^(?:export )?(?:async )?(?:function|const|let|class) (\w+)", re.MULTILINE)
    names = [
        name
        for module in MODULES
        for name in top.findall((STATIC / f"{module}.js").read_text(encoding="utf-8"))
    ]
    assert len(names) > 100
    assert [name for name in sorted(set(names)) if names.count(name) > 1] == []
