"""The landing page in a real browser: what the model cannot draw, how sure, what instead, asked."""

import dataclasses
import math

import numpy as np
import pyarrow as pa
import pytest

from bsjax.data.images import thumbnail
from bsjax.report import said
from bsjax.report.explorer.site import stamp_of, write_site
from bsjax.report.tables import read_comparisons, top_pairs
from bsjax.stats import verdicts
from tests.report.artifacts import EVIL, finding, substitution, write_arm, write_comparison
from tests.report.browser import (
    MARKS,
    Watched,
    go_back,
    serious_faults,
    wait_for_concept,
    wait_until,
)

pytestmark = MARKS
SETS = ("found", "nothing found")
N = 10
LITTLE, MUCH = verdicts.SUPPRESSED, verdicts.EXAGGERATED
KINDS = [LITTLE, MUCH, LITTLE, LITTLE, *[verdicts.UNDECIDED] * 5, verdicts.NOT_ENOUGH_DATA]
NOTHING = [verdicts.UNDECIDED] * 4 + [verdicts.NOT_ENOUGH_DATA] * 6
FINDINGS = [
    finding(1, [0, 3], LITTLE, -2.0, -4.0, -1.0, instead=[1, 5], asked=(40, -2.0, -3.0, -1.5)),
    finding(2, [1], MUCH, 2.0, math.log(5), 3.0, instead=[0], asked=(7, 0.1, -0.2, 0.3)),
    finding(3, [2], LITTLE, -3.0, -math.inf, -0.5),
]
SUBSTITUTIONS = [
    substitution(0, 1, 27, 0.99), substitution(0, 5, 27, 0.2), substitution(1, 0, 8, 0.5),
    substitution(3, 6, 5, 0.4),
]  # fmt: skip
FACTORS = {"prevalence_ratio": 0.2, "amount_ratio": 0.5, "area_ratio": 0.498}
NAMES = ["", "water", "third", f"purple {EVIL}", *(f"name {k}" for k in range(4, N))]


@pytest.fixture(scope="module")
def comparisons(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("found")
    for name in ("real", *SETS):
        write_arm(workdir, name, N)
    columns = {name: np.full(N, value) for name, value in FACTORS.items()}
    columns |= {f"prevalence_{arm}": np.array([0.5] * 8 + [share, 0.5])
                for arm, share in (("real", 0.1175), ("generated", 0.1125))}  # fmt: skip
    columns |= {"asked_n": np.array([40, 7, *[0] * 8])}
    columns |= {"asked_log_ratio": np.array([-2.0, 0.1, *[math.nan] * 8])}
    columns |= {"asked_low": np.array([-3.0, -0.2, *[math.nan] * 8])}
    columns |= {"asked_high": np.array([-1.5, 0.3, *[math.nan] * 8])}
    write_comparison(
        workdir, SETS[0], KINDS, findings=FINDINGS, substitutions=SUBSTITUTIONS, **columns
    )
    write_comparison(workdir, SETS[1], NOTHING)
    return read_comparisons(workdir, SETS)


@pytest.fixture(scope="module")
def folder(comparisons, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    places = np.random.default_rng(0).normal(size=(N, 2)).astype(np.float32)
    write_site(folder, comparisons, places, NAMES, [{}] * 2, [], thumbnail)
    return folder


def card(page, number):
    return page.locator(f"#finding-{number}")


def test_the_page_opens_on_findings_those_first_that_changed_most_beyond_doubt(open_page):
    page = open_page()
    assert page.get_attribute("#tab-findings", "aria-selected") == "true"
    assert page.inner_text("#view h2") == (
        "3 findings among 9 concepts judged; 1 seen too rarely to judge."
    )
    order = page.eval_on_selector_all("article.finding", "all => all.map(e => e.id)")
    assert order == ["finding-2", "finding-1", "finding-3"]
    titles = [card(page, number).locator("h3").inner_text() for number in (2, 1, 3)]
    assert titles == ["water", f"purple {EVIL}", "third"]  # of the first concept with a name
    assert page.locator("img[src='x']").count() == 0


def test_a_card_answers_what_how_sure_what_instead_and_whether_asked(open_page):
    page = open_page()
    text = card(page, 1).inner_text()
    for told in (
        "▼ suppressed · finding 1",
        "Drawn at least 2.7× too little.",
        "Concept 0, which tells it best, is in 50.0\u00a0% of the real images",
        "Best estimate 7.4×, 95 % interval 2.7× to 55×.",
        "Where the generated image misses it (27 pairs), there appears:",
        "in 99 % more of them than of other pairs → finding 2",
        "in 20 % more of them",
        "Yes, and there too at least 4.4× too little: in the 40 pairs whose caption asks for it.",
    ):
        assert told in text, told
    label = card(page, 1).locator(".interval").get_attribute("aria-label")
    assert label == "Best estimate 7.4×, 95 % interval 2.7× to 55×."
    assert "Drawn right when asked for, added elsewhere" in card(page, 2).inner_text()
    third = card(page, 3).inner_text()
    assert "no generated image shows it" in third and "Not known" in third
    assert "No single concept stands out." in third


def test_images_stand_beside_their_counterparts(open_page):
    """The only pair is real image 0 and generated image 3, whose file is gone."""
    page = open_page()
    for number, gone in ((1, 1), (2, 0)):
        frames = card(page, number).locator(".strip .frame")
        frames.nth(1).wait_for()
        assert frames.count() == 2
        assert frames.nth(gone).inner_text() == "image file is gone"
        assert frames.nth(1 - gone).locator("img").get_attribute("src").startswith("data:image")
        assert frames.first.locator("canvas.heat").count() == 1
        assert card(page, number).locator("figcaption").inner_text() == EVIL
        assert "Coloured: where it fires." in card(page, number).inner_text()


def test_which_pairs_are_shown(comparisons):
    (found, _) = comparisons
    assert top_pairs(found, 0, LITTLE, 6) == [(0, 0, 3)]
    assert top_pairs(found, 0, MUCH, 6) == [(1, 3, 0)]
    pairs = [{"key": str(k), "row_real": k, "row_generated": 3 - k} for k in range(4)]
    real = dataclasses.replace(found.real, top_rows=np.tile([2, 1, 0], (N, 1)))
    several = found._replace(datapoints=pairs, real=real)
    assert top_pairs(several, 4, LITTLE, 6) == [(0, 2, 1), (1, 1, 2), (2, 0, 3)]
    assert top_pairs(several, 4, LITTLE, 2) == [(0, 2, 1), (1, 1, 2)]
    captions = real.images.column("caption").to_pylist()
    captions[1] = captions[2]  # of one caption the strongest image alone
    place = real.images.column_names.index("caption")
    images = real.images.set_column(place, "caption", pa.array(captions))
    several = several._replace(real=dataclasses.replace(real, images=images))
    assert [pair.row for pair in top_pairs(several, 4, LITTLE, 6)] == [2, 0]


def test_links_lead_to_findings_and_concepts_and_back(open_page):
    page = open_page()
    card(page, 1).locator("text=→ finding 2").click()
    wait_until(page, "document.activeElement.id === 'finding-2'")
    assert "finding=2" in page.url
    go_back(page)
    wait_until(page, "!location.hash.includes('finding')")
    card(page, 2).locator(".concepts button").click()
    wait_for_concept(page, 1)
    assert page.locator("#view article.finding").count() == 3


def test_the_address_names_a_finding(open_page):
    page = open_page("#finding=3")
    wait_until(page, "document.activeElement.id === 'finding-3'")
    for address in ("#finding=99", "#finding=x", "#view=findings&finding=-1"):
        page = open_page(address)
        assert page.locator("article.finding").count() == 3


def test_the_findings_are_those_of_the_chosen_set(open_page):
    page = open_page("#finding=2")
    page.select_option("#model", SETS[1])
    wait_until(page, "!document.querySelector('article.finding')")
    assert "finding=" not in page.url
    text = page.inner_text("#view")
    assert "No findings among 4 concepts judged; 6 seen too rarely to judge." in text
    assert "none is drawn too little or too much by more than 1.5-fold beyond doubt" in text
    assert "Where up to 10 images show a concept, no change below 100×" in text
    page.click("text=all concepts, by what changed most")
    page.wait_for_selector("#rows tbody tr")
    page = open_page("#model=nothing found")
    assert page.inner_text("#view h2").startswith("No findings")


def test_the_panel_tells_the_verdict_in_words_first(open_page):
    page = open_page("#concept=0")
    section = page.locator("#panel .numbers")
    text = section.inner_text()
    order = [
        "▼ suppressed: drawn less, by more than 1.5-fold",
        "Drawn at least 13× too little.",  # exp(2.6)
        "It is in 50.0\u00a0% of the real images and in 50.0\u00a0% of the generated ones.",
        "Best estimate 20×, 95 % interval 13× to 30×.",
        "0.0498 [0.0334, 0.0743], which is",
        "0.2", "images that show it", "× 0.5", "strength per token", "× 0.498", "area",
        "Where the generated image misses it (27 pairs)",
        "1 water", "in 99 % more", "→ finding 2",
        "Yes, and there too at least 4.4× too little",
        "→ finding 1", f"purple {EVIL}",
        "q (false discovery)",
    ]  # fmt: skip
    places = [text.find(told) for told in order]
    assert -1 not in places and places == sorted(places), list(zip(order, places, strict=True))
    assert math.prod(FACTORS.values()) == pytest.approx(math.exp(-3), rel=1e-3)
    page.click("#tab-map")
    section.locator("text=→ finding 1").click()
    wait_until(page, "document.activeElement.id === 'finding-1'")


def test_the_panel_of_a_concept_that_was_not_called(open_page):
    page = open_page("#concept=4&all=true")
    text = page.inner_text("#panel .numbers")
    assert "? undecided" in text and "It is in 50.0\u00a0% of the real images" in text
    assert "Asked for?" not in text and "Drawn at least" not in text
    page.click("#tab-table")
    row = page.locator("#rows tr[data-concept='8']")
    assert "11.8\u00a0%" in row.inner_text() and "11.3\u00a0%" in row.inner_text()
    page = open_page("#concept=3")  # called, replaced by what is no finding
    assert "6 name 6" in page.inner_text("#panel .answers")
    assert "Not known" in page.inner_text("#panel .answers")


@pytest.mark.parametrize("width", [390, 1280, 1920])
def test_it_fits_and_the_panel_is_in_sight(open_page, width):
    page = open_page(viewport={"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    last = card(page, 3).locator(".concepts button")
    last.scroll_into_view_if_needed()
    last.click()
    wait_for_concept(page, 2)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    box = page.locator("#panel h2").bounding_box()
    assert 0 <= box["y"] <= 780 and last.is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("address", ["#concept=0", "#model=nothing found"])
def test_no_serious_fault_of_accessibility(open_page, address, scheme):
    page = open_page(address, color_scheme=scheme)
    page.wait_for_timeout(300)
    assert serious_faults(page) == []


def test_findings_are_part_of_the_stamp(comparisons):
    (found, nothing) = comparisons
    stamp = stamp_of([found, nothing])
    assert stamp_of([found._replace(findings=found.findings[1:]), nothing]) != stamp
    assert stamp_of([found._replace(substitutions=()), nothing]) != stamp


def test_the_page_and_the_table_tell_the_same(open_page, comparisons):
    page = open_page()
    for told in comparisons[0].told:
        text = card(page, told.finding).inner_text()
        assert told.change in text and told.sure in text and told.asked in text
    assert said.headline(comparisons[0].manifest["counts"], 3) == page.inner_text("#view h2")


def test_many_findings_come_as_one_scrolls(browser, comparisons, tmp_path):
    many = [finding(k, [k % N], LITTLE, -2.0, -3.0, -1.0) for k in range(1, 201)]
    few = comparisons[0]._replace(findings=many, name="many")
    write_site(tmp_path, [few], np.zeros((N, 2), np.float32), NAMES, [{}], [], thumbnail)
    watched = Watched(browser, tmp_path)
    page, cards = watched.page, "document.querySelectorAll('article.finding').length"
    assert 24 <= page.evaluate(cards) < 100
    page.evaluate("location.hash = '#finding=60'")
    page.wait_for_selector("#finding-60")
    assert page.evaluate(cards) < 200
    wait_until(
        page, f"() => {{ window.scrollTo(0, document.body.scrollHeight); return {cards} === 200; }}"
    )
    watched.close()
