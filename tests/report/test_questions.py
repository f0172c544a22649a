"""Five questions of a reader, each answered within two clicks of opening the page."""

import contextlib
import dataclasses
import math
import pathlib
import re

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from bsjax.data.images import thumbnail
from bsjax.report.explorer.site import write_site
from bsjax.report.tables import read_comparisons
from bsjax.stats import verdicts
from bsjax.stats.models import Correlation
from tests.report.artifacts import finding, substitution, write_arm, write_comparison
from tests.report.browser import MARKS

pytestmark = MARKS
LITTLE, MUCH = verdicts.SUPPRESSED, verdicts.EXAGGERATED
NAMES = ["crescent", "water", "purple", "ring", "grass", "sand", "wood"]
N = len(NAMES)
KINDS = [
    LITTLE,
    MUCH,
    LITTLE,
    *[verdicts.ALIGNED] * 2,
    verdicts.UNDECIDED,
    verdicts.NOT_ENOUGH_DATA,
]
CAPTIONS = ["a crescent on sand", "a ring on grass", "some water", "wood"]
FINDINGS = [
    finding(1, [0], LITTLE, -3.0, -4.0, -math.log(8), instead=[3], asked=(40, -3.0, -4.0, -2.0)),
    finding(2, [1], MUCH, 2.0, math.log(5), 3.0, instead=[4]),
]
SUBSTITUTIONS = [substitution(0, 3, 27, 0.96), substitution(1, 4, 9, 0.5)]
MOST_CLICKS = 2


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Address of a report of two models."""
    workdir = tmp_path_factory.mktemp("questions")
    for name in ("real", "base", "tuned"):
        write_arm(workdir, name, N)
    for name, found in (("base", FINDINGS), ("tuned", FINDINGS[:1])):
        ratios = np.linspace(-3, 1, N) if name == "base" else np.linspace(-1, 2, N)
        write_comparison(
            workdir, name, KINDS, findings=found, substitutions=SUBSTITUTIONS, log_ratio=ratios
        )
    comparisons = [_with_pairs(each) for each in read_comparisons(workdir, ["base", "tuned"])]
    matrix = {
        ("base", "base"): Correlation(1.0, 1.0, 1.0, (0.9, 0.9), N, 4),
        ("tuned", "tuned"): Correlation(1.0, 1.0, 1.0, (0.8, 0.8), N, 4),
        ("base", "tuned"): Correlation(0.62, 0.41, 0.77, (0.9, 0.8), N, 4),
    }
    places = np.random.default_rng(0).normal(size=(N, 2)).astype(np.float32)
    folder = workdir / "report"
    write_site(folder, comparisons, places, NAMES, [{}] * 2, [], thumbnail, matrix=matrix)
    return (folder / "index.html").as_uri()


def _with_pairs(comparison):
    """Four pairs with what patches say of them; the second is a copy, mirrored."""
    images = pa.table({
        "key": list("abcd"), "caption": CAPTIONS, "path": comparison.real.paths,
    })  # fmt: skip
    real = dataclasses.replace(comparison.real, images=images)
    Image.new("RGB", (30, 30), "teal").save(pathlib.Path(real.paths[0]).with_name("3.png"))
    rows = [(1, 14.2, 0.97, "mirrored"), (0, 0.4, 0.52, ""), (2, -0.3, 0.5, ""), (3, -1.0, 0.4, "")]
    pairs = [
        {
            "key": "abcd"[row], "caption": CAPTIONS[row], "row_real": row, "row_generated": row,
            "cosine": 0.9, "absolute_difference": 1.0, "mean_difference": 0.0, "z": z,
            "patch_similarity": alike, "place": place, "bland": False, "null_mean": 0.3,
            "n_firing": 5, "rank": rank,
        }
        for rank, (row, z, alike, place) in enumerate(rows, start=1)
    ]  # fmt: skip
    return comparison._replace(real=real, datapoints=pairs)


@pytest.fixture
def reader(browser, page):
    """Opens the page and counts clicks."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    with contextlib.closing(context):
        yield Reader(context.new_page(), page)


class Reader:
    def __init__(self, page, address):
        self.page, self.clicks = page, 0
        page.set_default_timeout(20_000)
        page.goto(address)
        page.wait_for_selector("body[data-ready]")

    def click(self, role, name):
        self.clicks += 1
        assert self.clicks <= MOST_CLICKS
        self.page.get_by_role(role, name=name).first.click()

    def sees(self, selector, *texts):
        """An element that bears all the texts, once it is there."""
        found = self.page.locator(selector)
        for text in texts:
            found = found.filter(has_text=text)
        found.first.wait_for()
        assert found.first.is_visible()


def test_which_concepts_can_the_model_not_draw(reader):
    reader.sees("#view h2", "2 findings")
    reader.sees("article.finding", "crescent", "suppressed")
    reader.sees("article.finding", "water", "exaggerated")


def test_how_sure_is_that(reader):
    reader.sees("article.finding", "crescent", "At least 8")
    reader.click("button", re.compile(r"^0\s+crescent"))
    reader.sees("#panel", "of the margin")


def test_what_is_drawn_instead(reader):
    reader.sees("article.finding", "Drawn instead", "ring", "96 %")


def test_which_images_may_be_copies(reader):
    reader.click("tab", "Images")
    first = reader.page.locator("#view figure").first
    first.wait_for()
    for text in ("a ring on grass", "14.2", "mirrored"):
        assert text in first.inner_text()


def test_how_do_two_models_differ(reader):
    reader.click("tab", "Models")
    reader.sees("#view", "0.62 [0.41, 0.77]")
    # The concept on which they disagree most, by name.
    reader.sees("#view table", "crescent")
