"""The page of hand-made artifacts: what it says, and that nothing in a caption can act."""

import base64
import html.parser
import io
import re

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bsjax.core.errors import UserError
from bsjax.data.images import thumbnail
from bsjax.report import figures, page
from bsjax.report.card import reliability
from bsjax.report.correlations import as_text, find
from bsjax.report.figures import chance_line
from bsjax.report.looks import LOOKS, SCHEMES, css_name
from bsjax.report.overlays import heat_uri
from bsjax.report.page import _finding, fold_text, number_text, write_summary
from bsjax.report.style import OTHER
from bsjax.report.tables import rank, read_comparisons
from bsjax.results.comparisons import read_concepts
from bsjax.stats import verdicts
from bsjax.stats.models import Correlation, unknown
from tests.report.artifacts import (
    EVIL,
    RELIABILITY,
    SETTINGS,
    finding,
    finish,
    substitution,
    write_arm,
    write_comparison,
)


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    """test_figures.py looks at these; here they would only take time."""

    def draw(comparison, rankings, places, folder, style, places_are):
        folder.mkdir(parents=True, exist_ok=True)
        drawn = {}
        for name in figures.drawn_of(comparison):
            drawn[name] = folder / f"{comparison.name}_{name}.svg"
            drawn[name].write_text(f"{name} {style}")
            other = f"{comparison.name}_{name}_{OTHER[style]}.png"
            (folder / other).write_text(f"{name} {OTHER[style]}")
        return drawn

    monkeypatch.setattr(page, "draw_all", draw)


def build(workdir, sets, notes=()):
    """The page of `sets`: name -> verdict of each concept."""
    n_concepts = len(next(iter(sets.values())))
    write_arm(workdir, "real", n_concepts)
    for name, kinds in sets.items():
        write_arm(workdir, name, n_concepts)
        write_comparison(workdir, name, kinds, notes)
    comparisons = read_comparisons(workdir, sets)
    return write_summary(
        workdir / "report", comparisons, np.eye(n_concepts, 2), thumbnail
    ).read_text()


class Page(html.parser.HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


KINDS = list(verdicts.KINDS)


def test_a_caption_is_text_and_the_network_is_not_asked(tmp_path):
    text = build(tmp_path, {"generated": KINDS}, notes=["<script>alert(2)</script>"])
    page = Page(text)
    assert EVIL in page.text
    assert "<script>alert(2)</script>" in page.text
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe")
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith(("data:", "#"))
    assert not re.search(r"https?:", re.sub(r"data:image/[^\"]*", "", text))


def test_a_file_that_is_gone_is_said(tmp_path):
    page = Page(build(tmp_path, {"generated": KINDS}))
    # The second top image of both arms of both concepts shown, and of one pair of copies.
    assert page.text.count("image file is gone") == 5


def test_generated_images_bear_the_caption_of_their_real_one(tmp_path):
    page = Page(build(tmp_path, {"generated": KINDS}))
    assert page.text.count("four") == 4


def test_findings_come_first_with_their_images(tmp_path):
    for name in ("real", "generated"):
        write_arm(tmp_path, name, 7)
    found = [
        finding(1, [0], verdicts.SUPPRESSED, -2.0, -4.0, -1.0, instead=[1], words=EVIL),
        finding(2, [1, 4], verdicts.EXAGGERATED, 2.0, np.log(5), 3.0, words="water"),
    ]
    replaced = [substitution(0, 1, 27, 0.99)]
    write_comparison(tmp_path, "generated", KINDS, findings=found, substitutions=replaced)
    comparisons = read_comparisons(tmp_path, ["generated"])
    path = write_summary(tmp_path / "report", comparisons, np.eye(7, 2), thumbnail)
    page = Page(path.read_text())
    words = " ".join(page.text.replace("\xa0", " ").split())
    told = [
        "2 findings among 6 concepts judged; 1 seen too rarely to judge.",
        "▲ exaggerated · finding 2", "water", "Drawn at least 5× too much. Concept 1, which tells",
        "Left: generated images that show it most.", "image file is gone", EVIL,
        "In place of: no single concept stands out.", "Asked for? Not known",
        f"Concepts: 1 {EVIL}; 4",
        "▼ suppressed · finding 1", EVIL, "Drawn at least 2.7× too little. It is in 50.0 % of",
        "Best estimate 7.4×, 95 % interval 2.7× to 55×.",
        "Left: real images that show it most.", EVIL, "Drawn instead: 1", "in 99 % more of the 27"
        " pairs that miss it than of other pairs (finding 2)",
        "Verdicts", "Most suppressed",
    ]  # fmt: skip
    place = 0
    for text in told:
        assert text in words[place:], text
        place = words.index(text, place) + len(text)
    heats = [attributes for _, attributes in page.tags if attributes.get("class") == "heat"]
    # Of the exaggerated one the image that would be coloured is gone; two top images of each arm
    # of two concepts, of which the second is gone, follow.
    assert len(heats) == 1 + 4


def test_the_arms_of_a_finding_are_not_swapped(tmp_path):
    for name in ("real", "generated"):
        write_arm(tmp_path, name, 7)
    found = [
        finding(1, [0], verdicts.SUPPRESSED, -2.0, -4.0, -1.0),
        finding(2, [1], verdicts.EXAGGERATED, 2.0, 1.5, 3.0),
    ]
    write_comparison(tmp_path, "generated", KINDS, findings=found)
    (comparison,) = read_comparisons(tmp_path, ["generated"])
    shown = [_finding(comparison, each, 6, lambda path, *_: path) for each in comparison.told]
    real, generated = comparison.real.paths[0], comparison.generated.paths[3]
    assert [each["pairs"][0]["images"] for each in shown] == [[generated, real], [real, generated]]


def test_a_page_without_findings_says_what_it_would_have_taken(tmp_path):
    text = Page(build(tmp_path, {"generated": [verdicts.UNDECIDED] * 4})).text
    assert "No findings among 4 concepts judged; 0 seen too rarely to judge." in text
    assert "Of 4 concepts judged, none is drawn too little or too much" in text
    assert "no change below 100× would have been called." in " ".join(text.split())


def test_headings_say_whether_anything_is_established(tmp_path):
    page = Page(build(tmp_path / "a", {"generated": KINDS}))
    assert "Most suppressed" in page.text and "Most exaggerated" in page.text
    page = Page(build(tmp_path / "b", {"generated": [verdicts.UNDECIDED] * 4}))
    assert "None established as suppressed; the strongest shifts" in page.text
    page = Page(build(tmp_path / "c", {"generated": [verdicts.NOT_ENOUGH_DATA] * 4}))
    assert "strongest shifts" not in page.text
    assert page.text.count("No concept has enough data on this side") == 2


def test_several_sets_are_correlated(tmp_path):
    page = Page(build(tmp_path, {"one": KINDS, "two": KINDS[::-1]}))
    assert "one against real" in page.text and "two against real" in page.text
    assert "How alike are the models?" in page.text
    assert "not known: no image codes" in page.text
    comparisons = read_comparisons(tmp_path, ("one", "two"))
    matrix = {("one", "two"): Correlation(0.512, 0.401, 0.604, (0.5, 0.625), 33, 4)}
    places = np.zeros((len(KINDS), 2))
    path = write_summary(tmp_path / "again", comparisons, places, thumbnail, matrix=matrix)
    text = path.read_text()
    assert "<td>one</td><td>two</td><td>0.51 [0.40, 0.60]</td><td>33</td>" in text


def test_a_correlation_is_told_with_its_interval_or_why_there_is_none():
    known = Correlation(0.512, 0.401, 0.604, (0.5, 0.625), 33, 4)
    matrix = {("a", "b"): known, ("a", "a"): known._replace(r=1.0)}
    assert as_text(find(matrix, "b", "a")) == "0.51 [0.40, 0.60]"
    assert find(matrix, "b", "a").reliability == (0.625, 0.5)
    assert as_text(find(matrix, "a", "a"), is_self=True) == "reliability 0.50"
    low = unknown("reliability too low")._replace(reliability=(0.041, -0.02))
    assert as_text(low) == "reliability too low: 0.04, -0.02"
    assert as_text(low, is_self=True) == "reliability too low: 0.04"
    assert as_text(unknown("no statistics")) == as_text(unknown("no statistics"), True)
    assert as_text(find(None, "a", "b")) == "not known: no image codes"


def test_ranking_is_by_strength_within_the_verdict(tmp_path):
    write_arm(tmp_path, "real", 4)
    write_arm(tmp_path, "generated", 4)
    write_comparison(tmp_path, "generated", [KINDS[2], KINDS[0], KINDS[0], KINDS[1]])
    (comparison,) = read_comparisons(tmp_path, ["generated"])
    # By the near end of the interval: an estimate far off with a wide one is no strong finding.
    comparison.columns["log_ratio"][:] = [-9.0, -5.0, -2.0, 3.0]
    comparison.columns["near"][:] = [-8.0, -0.5, -1.5, 2.0]
    suppressed, exaggerated = rank(comparison, 5)
    assert suppressed.concepts == [2, 1] and suppressed.n_found == 2
    assert exaggerated.concepts == [3]
    assert rank(comparison, 1)[0].concepts == [2]


def test_what_stands_in_where_nothing_is_established(tmp_path):
    write_arm(tmp_path, "real", 7)
    write_arm(tmp_path, "generated", 7)
    kinds = [verdicts.ALIGNED, verdicts.NOT_ENOUGH_DATA, *[verdicts.UNDECIDED] * 3, "less", "more"]
    write_comparison(tmp_path, "generated", kinds)
    (comparison,) = read_comparisons(tmp_path, ["generated"])
    comparison.columns["difference"][:] = [9, 9, -0.1, -0.3, -0.2, -0.01, 0.01]
    suppressed, exaggerated = rank(comparison, 5)
    # Of undecided ones no change lies inside the interval: the larger difference comes first.
    assert suppressed.concepts == [5, 3, 4, 2] and suppressed.n_found == 0
    assert exaggerated.concepts == [6]


def test_the_near_end_is_none_where_no_change_lies_inside(tmp_path):
    write_arm(tmp_path, "real", 7)
    write_arm(tmp_path, "generated", 7)
    write_comparison(tmp_path, "generated", KINDS)
    (comparison,) = read_comparisons(tmp_path, ["generated"])
    near = dict(zip(KINDS, comparison.columns["near"].tolist(), strict=True))
    assert near == pytest.approx(
        {"suppressed": -2.6, "exaggerated": 2.6, "less": -0.1, "more": 0.1}
        | {"aligned": 0, "undecided": 0, "not enough data": -0.8}
    )


def test_numbers_as_a_reader_takes_them():
    low, high = np.log(0.05), np.log(0.314)
    assert fold_text(np.log(0.12), low, high) == "0.12 [0.05, 0.314]"
    assert fold_text(np.log(0.12), -np.inf, high) == "0.12 [0, 0.314]"
    assert fold_text(np.log(12), np.log(3), np.inf) == "12 [3, ∞]"
    assert fold_text(np.nan, np.nan, np.nan) == "–"
    assert (number_text(1.23456), number_text(0.0456, 2), number_text(np.nan)) == (
        "1.23", "0.046", "–",
    )  # fmt: skip


def test_every_verdict_is_counted_and_explained(tmp_path):
    text = build(tmp_path, {"generated": [*KINDS, "less"]})
    page = Page(text)
    words = " ".join(page.text.split())
    for kind, meaning in verdicts.explain({"compare.margin": 1.5, "compare.aligned": 2.0}).items():
        assert f"{LOOKS[kind].symbol} {kind}{1 + (kind == 'less')}{meaning}" in words
    for kind in KINDS:
        assert re.search(rf"class=\"{css_name(kind)}\"", text)
    assert "nan" not in words and "inf" not in words.replace("information", "")
    assert "clusters of pairs, which count once3" in words
    assert "Pairs of one caption or of one real image count once." in words


def test_what_the_verdicts_rest_on(tmp_path):
    words = " ".join(Page(build(tmp_path, {"generated": KINDS})).text.split())
    assert "passed: where nothing differs, hardly anything is called. Of 30 concepts 5.1 %" in words
    assert "pass at 5 % and 0.05 are called" in words
    assert "50: 6.1-fold, 100: 3.2-fold; fewer: none below 100-fold" in words
    assert "20: 4.6e+02-fold" not in words
    assert "the median concept is drawn 0.80 times as much as in real images" in words
    assert "ten times rarer concepts are drawn 0.50 times as much, compared with" in words
    assert "[0.25, 0.80] (1: rare ones are drawn as faithfully" in words


def test_a_control_that_fails_is_said_in_words():
    failing = RELIABILITY["control"] | {"is_sound": False, "share": 0.262, "called": 1131.0}
    said = reliability(RELIABILITY | {"control": failing})["control: arms swapped by chance"]
    assert said.startswith(
        "failed: more than 5 % of swapped concepts pass, so images are repeated or pairs are not"
        " exchangeable; do not rely on the verdicts. Of 30 concepts 26.2 % pass"
    )
    assert reliability({}) == {}
    near = {"mean": 0.4987, "low": 0.457, "high": 0.54, "n": 198}
    assert reliability({"closeness": near})["closeness of pairs"].startswith("0.499 [0.457, 0.540]")
    assert reliability({"closeness": near | {"low": None}}) == {}
    nothing = {"control": RELIABILITY["control"] | {"eligible": 0}, "global_shift": None}
    assert reliability(nothing) == {}
    assert reliability({"rarity": None}) == {}  # too few concepts tell of it
    folds = reliability({"detectable_fold": {"10": None}})
    assert list(folds.values()) == [
        "fewer: none below 100-fold (of the median concept, in 80 % of cases)"
    ]


def test_an_unfinished_stage_is_named(tmp_path):
    write_arm(tmp_path, "real", 4)
    with pytest.raises(UserError, match="run `bsjax compare` to the end first"):
        read_comparisons(tmp_path, ["generated"])


def test_a_comparison_of_before_is_named(tmp_path):
    for name in ("real", "generated"):
        write_arm(tmp_path, name, 7)
    write_comparison(tmp_path, "generated", KINDS)
    folder = tmp_path / "comparisons" / "generated"
    table = pq.read_table(folder / "concepts.parquet")
    pq.write_table(table.drop_columns(["log_ratio", "low"]), folder / "concepts.parquet")
    for file in ("findings", "substitutions"):
        (folder / f"{file}.parquet").unlink()
    finish(folder, "compare", SETTINGS)
    for read in (read_concepts, lambda _: read_comparisons(tmp_path, ["generated"])):
        with pytest.raises(UserError, match=r"lacks log_ratio, low: another version .*--overwrite"):
            read(folder)


def test_heat_map_is_brightest_where_the_concept_fires_most():
    uri = heat_uri(np.array([[0.0, 1.0], [2.0, 0.0]]))
    image = Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))
    light = np.asarray(image.convert("L")).astype(int)
    assert light[1, 0] > light[0, 1] > light[0, 0] == light[1, 1]
    assert heat_uri(np.zeros((2, 2))) is None


def test_the_line_of_chance_by_hand(tmp_path):
    write_arm(tmp_path, "real", 4)
    write_arm(tmp_path, "generated", 4)
    write_comparison(tmp_path, "generated", KINDS)
    (comparison,) = read_comparisons(tmp_path, ["generated"])
    # Energies are 0.5 in both arms; concepts fire 0, 7, 14, ... times, and 1 is added.
    comparison.columns["se"][:] = [9.0, 0.1, 0.2, 0.0, 0.4, 0.4, np.nan]
    fires, distance = chance_line(comparison)
    np.testing.assert_array_equal(fires, [1, 8, 15, 22, 29, 36])
    bounds = np.tanh(1.96 * np.array([9.0, 0.1, 0.2, 0.0, 0.4, 0.4]) / 2) / 0.4
    np.testing.assert_allclose(distance, 1 / (1 + np.exp(-bounds)) - 0.5)
    comparison.columns["se"][:] = np.nan
    assert chance_line(comparison) is None


@pytest.mark.parametrize("style", ["light", "dark"])
def test_figures_follow_the_readers_scheme(tmp_path, style):
    for arm in ("real", "one"):
        write_arm(tmp_path, arm, 7)
    write_comparison(tmp_path, "one", KINDS)
    comparisons = read_comparisons(tmp_path, ["one"])
    places = np.eye(7, 2)
    path = write_summary(tmp_path / "report", comparisons, places, thumbnail, style=style)
    found = Page(path.read_text())
    sources = [attributes for tag, attributes in found.tags if tag == "source"]
    assert {each["media"] for each in sources} == {f"(prefers-color-scheme: {OTHER[style]})"}
    told = [base64.b64decode(each["srcset"].split(",")[1]).decode() for each in sources]
    assert told == [f"{name} {OTHER[style]}" for name in figures.drawn_of(comparisons[0])]
    shown = [base64.b64decode(each["src"].split(",")[1]) for tag, each in found.tags
             if tag == "img" and each["src"].startswith("data:image/svg")]  # fmt: skip
    assert [each.decode() for each in shown] == [text.replace(OTHER[style], style) for text in told]
    text = path.read_text()
    for scheme, look in SCHEMES.items():
        for name, colour in look._asdict().items():
            assert f"--{name}: {colour};" in text, (scheme, name)
