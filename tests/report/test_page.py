"""The page of hand-made artifacts: what it says, and that nothing in a caption can act."""

import base64
import html.parser
import io
import re

import numpy as np
import pytest
from PIL import Image

from bsjax.core.errors import UserError
from bsjax.data.images import thumbnail
from bsjax.report.figures import no_difference_line
from bsjax.report.model_figures import draw_models, draw_sheet
from bsjax.report.overlays import heat_uri
from bsjax.report.page import write_summary
from bsjax.report.tables import rank, read_comparisons
from bsjax.stats import verdicts
from tests.report.artifacts import EVIL, write_arm, write_comparison


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


def test_headings_say_whether_anything_is_significant(tmp_path):
    page = Page(build(tmp_path / "a", {"generated": KINDS}))
    assert "Most suppressed" in page.text and "Most exaggerated" in page.text
    page = Page(build(tmp_path / "b", {"generated": [verdicts.NO_DIFFERENCE] * 4}))
    assert "None significantly suppressed; the strongest shifts" in page.text
    page = Page(build(tmp_path / "c", {"generated": [verdicts.NOT_ENOUGH_DATA] * 4}))
    assert "strongest shifts" not in page.text
    assert page.text.count("No concept has enough data on this side") == 2


def test_several_sets_are_correlated(tmp_path):
    page = Page(build(tmp_path, {"one": KINDS, "two": KINDS[::-1]}))
    assert "one against real" in page.text and "two against real" in page.text
    assert "How alike are the models?" in page.text


def test_ranking_is_by_strength_within_the_verdict(tmp_path):
    write_arm(tmp_path, "real", 4)
    write_arm(tmp_path, "generated", 4)
    write_comparison(tmp_path, "generated", [KINDS[2], KINDS[0], KINDS[0], KINDS[1]])
    (comparison,) = read_comparisons(tmp_path, ["generated"])
    comparison.columns["delta"][:] = [0.01, 0.05, 0.02, 0.99]
    suppressed, exaggerated = rank(comparison, 5)
    assert suppressed.concepts == [2, 1] and suppressed.n_found == 2
    assert exaggerated.concepts == [3]
    assert rank(comparison, 1)[0].concepts == [2]


def test_an_unfinished_stage_is_named(tmp_path):
    write_arm(tmp_path, "real", 4)
    with pytest.raises(UserError, match="run `bsjax compare` to the end first"):
        read_comparisons(tmp_path, ["generated"])


def test_heat_map_is_brightest_where_the_concept_fires_most():
    uri = heat_uri(np.array([[0.0, 1.0], [2.0, 0.0]]))
    image = Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))
    light = np.asarray(image.convert("L")).astype(int)
    assert light[1, 0] > light[0, 1] > light[0, 0] == light[1, 1]
    assert heat_uri(np.zeros((2, 2))) is None


def test_the_line_of_no_difference_by_hand(tmp_path):
    write_arm(tmp_path, "real", 4)
    write_arm(tmp_path, "generated", 4)
    write_comparison(tmp_path, "generated", KINDS)
    (comparison,) = read_comparisons(tmp_path, ["generated"])
    assert no_difference_line(comparison) is None
    # Energies are 0.5 in both arms; concepts fire 0, 7, 14 and 21 times.
    comparison.columns["standard_error"] = np.array([9.0, 0.1, 0.2, 0.0])
    fires, distance = no_difference_line(comparison)
    np.testing.assert_array_equal(fires, [1, 8, 15, 22])
    bounds = np.array([1.0, 0.196, 0.392, 0.0]) / 0.4
    np.testing.assert_allclose(distance, 1 / (1 + np.exp(-bounds)) - 0.5)


def test_figures_of_two_models_and_sheets(tmp_path):
    build(tmp_path, {"one $": KINDS, "two.5": KINDS[::-1]})
    comparisons = read_comparisons(tmp_path, ("one $", "two.5"))
    drawn = draw_models(tmp_path, comparisons)
    assert list(drawn) == ["images", "models_matrix", "models_one $__two.5"]
    stem, text = draw_sheet(tmp_path, comparisons[1], rank(comparisons[1], 5)[0], thumbnail)
    assert stem == "two.5_sheet_suppressed" and "most suppressed" in text
    for each in (*drawn, stem):
        for suffix in ("png", "svg"):
            assert (tmp_path / f"{each}.{suffix}").stat().st_size > 3000
