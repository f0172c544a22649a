"""Verdicts and palettes are told in one table, which figures, summary and explorer draw on."""

import numpy as np
import pytest

from bsjax.core.dims import Grid
from bsjax.report import figures
from bsjax.report.explorer import site
from bsjax.report.explorer.bundle import STATIC, bundle
from bsjax.report.explorer.site import site_payload, special_names
from bsjax.report.looks import LOOKS, PALETTES
from bsjax.report.tables import read_comparisons
from bsjax.stats import verdicts
from tests.report.artifacts import write_arm, write_comparison


def test_every_verdict_has_a_look_and_no_two_the_same_symbol():
    assert set(LOOKS) == set(verdicts.KINDS)
    assert len({look.symbol for look in LOOKS.values()}) == len(LOOKS)
    assert {kind: look.sign for kind, look in LOOKS.items() if look.sign} == {
        verdicts.SUPPRESSED: -1,
        verdicts.EXAGGERATED: 1,
    }
    assert not LOOKS[verdicts.NOT_ENOUGH_DATA].is_judged


@pytest.mark.parametrize("kind", verdicts.KINDS)
def test_text_in_a_verdicts_colour_can_be_read(kind):
    """WCAG AA: a contrast of 4.5 to 1, on the page and on its cards."""
    look = LOOKS[kind]
    for page in ("#ffffff", "#f7f8f9"):
        assert contrast(look.light, page) >= 4.5
    for page in ("#15171a", "#1f2226"):
        assert contrast(look.dark, page) >= 4.5


def contrast(one, other):
    values = sorted(map(luminance, (one, other)))
    return (values[1] + 0.05) / (values[0] + 0.05)


def luminance(colour):
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


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
