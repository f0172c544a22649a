"""Image pairs and the page of one image in a real browser, and the data that they stand on."""

import csv
import dataclasses
import io
import pathlib

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp
from PIL import Image

from bsjax.data.images import thumbnail
from bsjax.report.explorer import images
from bsjax.report.explorer.site import CONCEPTS_PER_CHUNK, write_site
from bsjax.report.said import write_csv
from bsjax.report.tables import read_comparisons
from bsjax.stats import verdicts
from tests.report.artifacts import (
    EVIL,
    finding,
    substitution,
    unpack,
    write_arm,
    write_comparison,
)
from tests.report.browser import (
    MARKS,
    Watched,
    downloaded,
    enter,
    go_back,
    serious_faults,
    wait_for_concept,
    wait_until,
)

SETS = ("one", "=two")
N = 140  # concepts, of two chunks
N_IMAGES = 30
CAPTIONS = [EVIL, "A Red Kite", "a red  kite", "", *(f"thing {row}" for row in range(4, N_IMAGES))]
CAPTIONS[5] = "=1+1"
KEYS = [f"k{row}" for row in range(N_IMAGES)]
PLACES = ["mirrored", "1 down", "1 up, 1 left, mirrored", ""]
LITTLE = verdicts.SUPPRESSED
FINDINGS = [
    finding(1, [1, 3], LITTLE, -2.0, -np.inf, -1.0, instead=[2, 4]),
    finding(2, [2], LITTLE, -1.0, -2.0, -0.5),
]
SUBSTITUTIONS = [substitution(1, 2, 27, 0.99), substitution(1, 4, 27, 0.2)]


def with_images(arm, seed, keys=KEYS, captions=CAPTIONS):
    """An arm of N_IMAGES images; the file of the fourth is gone, the last two are one file."""
    rng = np.random.default_rng(seed)
    codes = sp.random_array((N_IMAGES, N), density=0.3, rng=rng, dtype=np.float32).toarray()
    if seed == 2:
        codes[6, 30:] = 0  # an image of few concepts
    codes = sp.csr_array(codes)
    folder = pathlib.Path(arm.paths[0]).parent
    paths = [str(folder / f"{min(row, N_IMAGES - 2)}.png") for row in range(N_IMAGES)]
    for row in range(4, N_IMAGES):
        Image.new("RGB", (30, 30), (8 * row, 20, 60)).save(paths[row])
    table = pa.table({"key": list(keys), "caption": list(captions), "path": paths})
    top = np.full((N, 3), -1)
    by_energy = np.argsort(-codes.toarray(), axis=0, kind="stable")[:2].T
    top[:, :2] = by_energy
    parts = {"cooccurrence.npz": sp.csr_array(codes.T @ codes)}
    return dataclasses.replace(arm, images=table, codes=codes, top_rows=top, parts=parts)


def pairs_of(real, generated, n):
    """Rows of datapoints.parquet, the first the most unusually alike; the last is bland."""
    return [
        {
            "key": KEYS[row], "row_real": row, "row_generated": row, "cosine": 0.3 + 0.02 * row,
            "absolute_difference": 5.0 - 0.1 * row, "mean_difference": 0.1, "z": 20.5 - row,
            "patch_similarity": 0.9, "place": PLACES[row % 4], "bland": row == n - 1,
        }
        for row in range(n)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def comparisons(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("images")
    kinds = [verdicts.KINDS[k % len(verdicts.KINDS)] for k in range(N)]
    for name in ("real", *SETS):
        write_arm(workdir, name, N)
    for name in SETS:
        write_comparison(workdir, name, kinds, findings=FINDINGS, substitutions=SUBSTITUTIONS)
    one, two = read_comparisons(workdir, SETS)
    real = with_images(one.real, 0)
    keys = [*KEYS[:-1], "nobody's"]
    one = one._replace(
        real=real, generated=with_images(one.generated, 1),
        datapoints=pairs_of(real, one.generated, N_IMAGES),
        duplicates=[{"key": "k1", "other": "k4", "patch_similarity": 0.97}],
    )  # fmt: skip
    two = two._replace(
        real=real, generated=with_images(two.generated, 2, keys),
        datapoints=pairs_of(real, two.generated, N_IMAGES - 1)[1:],
    )  # fmt: skip
    return [one, two]


@pytest.fixture(scope="module")
def folder(comparisons, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    places = np.random.default_rng(0).normal(size=(N, 2)).astype(np.float32)
    names = [f"words {k}" for k in range(N)]
    write_site(folder, comparisons, places, names, [{}] * 2, [], thumbnail)
    write_csv(folder / "findings.csv", {c.name: c.told for c in comparisons}, names)
    return folder


pytestmark = MARKS


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("", ""), ("mirrored", "mirrored"), ("1 up", "shifted by a patch up"),
        ("1 down, 1 left", "shifted by a patch down and left"),
        ("1 down, 2 left, mirrored", "mirrored, shifted by 1 and 2 patches down and left"),
    ],
)  # fmt: skip
def test_places_in_words(place, said):
    assert images.say_place(place) == said


@pytest.mark.parametrize("size", [1, 7, 128, 200])
def test_which_images_show_a_concept(comparisons, size):
    codes = comparisons[0].real.codes.copy()
    codes.data[::5] = 0  # stored, but not shown
    arm = dataclasses.replace(comparisons[0].real, codes=codes)
    found = []
    for chunk, payload in images.showing_payloads(arm, size):
        ends, steps = unpack(payload["ends"]), unpack(payload["rows"])
        assert len(ends) == min(size, N - chunk * size)
        found += [np.cumsum(part) - 1 for part in np.split(steps, ends[:-1])]
    assert len(found) == N
    for k, rows in enumerate(found):
        np.testing.assert_array_equal(rows, np.flatnonzero(codes.toarray()[:, k] > 0))


def test_the_strongest_concepts_of_an_image(comparisons):
    arm = comparisons[0].real
    codes = arm.codes.toarray()
    codes[3] = 0  # of which nothing is seen
    codes[4, 5:] = 0
    arm = dataclasses.replace(arm, codes=sp.csr_array(codes))
    parts = list(images.strongest_payloads(arm, 8))
    assert [chunk for chunk, _ in parts] == [0, 1, 2, 3]
    ids, shares, slots, counts = (
        np.concatenate([unpack(part[name]) for _, part in parts])
        for name in ("concepts", "shares", "slots", "count")
    )
    assert ids.shape == (N_IMAGES, images.N_STRONGEST)
    np.testing.assert_array_equal(counts, (codes > 0).sum(axis=1))
    for row in range(N_IMAGES):
        n = min(images.N_STRONGEST, counts[row])
        assert (ids[row, n:] == -1).all() and (shares[row, n:] == 0).all()
        wanted = np.argsort(-codes[row], kind="stable")[:n]
        np.testing.assert_array_equal(ids[row, :n], wanted)
        share = codes[row, wanted] / max(codes[row].sum(), 1e-9)
        np.testing.assert_allclose(shares[row, :n] / images.WHOLE, share, atol=1 / images.WHOLE)
        for k, slot in zip(ids[row, :n], slots[row, :n], strict=True):
            there = arm.top_rows[k].tolist()
            assert slot == (there.index(row) if row in there else images.NO_SLOT)
    assert (slots[ids >= 0] != images.NO_SLOT).any()


def test_what_belongs_together(comparisons):
    one, two = comparisons
    labels = images.repeats(one.real)
    same = labels[:, None] == labels[None]
    assert same[1, 2]  # of a caption, whatever its case and blanks
    assert same[-1, -2]  # of a file
    assert len(set(labels.tolist())) == N_IMAGES - 2
    table = one.real.images.set_column(1, "caption", pa.array([""] * N_IMAGES))
    labels = images.repeats(dataclasses.replace(one.real, images=table))
    assert len(set(labels.tolist())) == N_IMAGES - 1  # "" is no caption
    found = images.counterparts_payload(two)
    assert found["keys"] == {str(N_IMAGES - 1): "nobody's"}
    # Image 0 has a counterpart of its key, though the table of pairs lacks it.
    expected = [*range(N_IMAGES - 1), -1]
    np.testing.assert_array_equal(unpack(found["generated"]), expected)
    np.testing.assert_array_equal(unpack(found["real"]), expected)
    moved = one._replace(datapoints=[one.datapoints[0] | {"row_generated": 7}])
    assert unpack(images.counterparts_payload(moved)["generated"])[0] == 7
    without = images.counterparts_payload(one._replace(datapoints=[]))
    assert (unpack(without["generated"]) == -1).all()


def tiles(page):
    return page.eval_on_selector_all(
        "#view .pair[data-pair]", "all => all.map(e => +e.dataset.pair)"
    )


def status(page):
    return page.inner_text("#view [role=status]")


def wait_for_pairs(page, n):
    wait_until(
        page,
        "text => document.querySelector('#view [role=status]').textContent === text",
        arg=f"{n} of {N_IMAGES} pairs",
    )


def test_pairs_are_told_by_z_and_place_and_none_is_called_a_copy(open_page):
    page = open_page("#view=images")
    first = page.locator("#view .pair[data-pair]")
    assert tiles(page) == list(range(24))  # in the order of the table
    assert "z 20.5, mirrored" in first.nth(0).inner_text()
    assert "z 19.5, shifted by a patch down\n" in first.nth(1).inner_text()
    assert "z 18.5, mirrored, shifted by a patch up and left" in first.nth(2).inner_text()
    assert "z 17.5\n" in first.nth(3).inner_text()
    page.click("text=6 more")
    assert len(tiles(page)) == N_IMAGES
    plain = page.locator("#view .bland")
    assert plain.count() == 1
    assert plain.locator("xpath=ancestor::figure").get_attribute("data-pair") == str(N_IMAGES - 1)
    text = page.inner_text("#view")
    assert "not that one is a copy" in text and "is a copy)" not in text
    page.select_option("text=rank by >> select", "cosine")
    wait_until(
        page, f"document.querySelector('.pair[data-pair]').dataset.pair === '{N_IMAGES - 1}'"
    )
    assert tiles(page) == list(range(N_IMAGES - 1, 5, -1))
    assert "score=cosine" in page.url
    page.click("text=What the numbers mean")
    meanings = page.locator("#view .help dt").all_inner_texts()
    assert meanings[0] == "z" and len(meanings) == 5
    for option in page.locator("text=rank by >> select").locator("option").all_inner_texts():
        assert "copy" not in option


def test_a_duplicate_stands_beside_with_its_picture(open_page):
    page = open_page("#view=images")
    twins = page.locator("#view .twin")
    wait_until(page, "document.querySelectorAll('#view .twin img').length === 2")
    owners = [twins.nth(n).locator("xpath=ancestor::figure") for n in (0, 1)]
    assert [owner.get_attribute("data-pair") for owner in owners] == ["1", "4"]
    assert "nearly the same real image: k4" in twins.nth(0).inner_text()
    address = twins.nth(0).locator("img").get_attribute("src")
    assert owners[1].locator(".two img").first.get_attribute("src") == address
    twins.nth(0).locator("button").click()
    page.wait_for_selector("#view .large")
    assert "image=k4" in page.url


def test_the_caption_filters_and_its_hits_are_marked(open_page):
    page = open_page("#view=images")
    page.locator("#caption").press_sequentially("RED", delay=10)
    wait_for_pairs(page, 2)
    assert tiles(page) == [1, 2] and "caption=RED" in page.url
    assert page.locator("#caption").evaluate("e => e === document.activeElement")
    marks = page.eval_on_selector_all("#view mark", "all => all.map(e => e.textContent)")
    assert marks == ["Red", "red"]
    texts = page.locator("#view .pair[data-pair] figcaption > bdi").all_text_contents()
    assert texts == CAPTIONS[1:3]
    page.click("[aria-label='clear the filter: caption']")
    wait_for_pairs(page, N_IMAGES)
    assert page.input_value("#caption") == "" and page.url.endswith("#view=images")
    page = open_page("#view=images&caption=%3Cimg")
    wait_for_pairs(page, 1)
    page.fill("#caption", "er")
    wait_until(page, "document.querySelectorAll('#view mark').length === 2")
    assert page.locator("#view .pair bdi").first.inner_text() == EVIL
    assert page.locator("img[src='x']").count() == 0


@pytest.mark.parametrize("concept", [3, CONCEPTS_PER_CHUNK, N - 1])
def test_a_concept_filters(open_page, comparisons, concept):
    real, generated = (
        arm.codes.toarray()[:, concept] > 0
        for arm in (comparisons[0].real, comparisons[0].generated)
    )
    page = open_page("#view=images")
    enter(page, "#shows", str(concept))
    for arm, keep in (
        ("both", real & generated), ("real", real), ("generated", generated),
        ("missed", real & ~generated), ("added", generated & ~real),
    ):  # fmt: skip
        page.select_option("text=shown by >> select", arm)
        wait_for_pairs(page, keep.sum())
        assert tiles(page) == np.flatnonzero(keep)[:24].tolist(), arm
    assert f"shows={concept}" in page.url and "arm=added" in page.url
    assert f"concept {concept} words {concept} in the generated image alone" in page.inner_text(
        "#view .chip"
    )
    page.click("#view .chip button")
    wait_for_pairs(page, N_IMAGES)
    assert page.input_value("#shows") == ""
    page = open_page(f"#view=images&shows={N}")
    assert "there is no concept 140; they run from 0 to 139" in page.inner_text("#view .chip")
    wait_for_pairs(page, N_IMAGES)


def test_the_panel_leads_to_the_images_of_its_concept(open_page, comparisons):
    page = open_page("#concept=5")
    wait_for_concept(page, 5)
    page.click("#panel >> text=its images")
    one = comparisons[0]
    both = (one.real.codes[:, [5]].minimum(one.generated.codes[:, [5]]).toarray() > 0).sum()
    page.wait_for_selector("#view .listing .chip")
    wait_for_pairs(page, both)


def figures(page):
    return page.locator("#view .large figure")


def test_the_page_of_an_image_shows_what_all_sets_drew(open_page):
    page = open_page("#view=images&image=k1")
    assert page.inner_text("#view h2") == "A Red Kite"
    assert page.locator("#view .help").count() == 1
    told = figures(page).all_inner_texts()
    assert len(told) == 3
    assert told[0].startswith("real image")
    assert told[1].startswith("generated by one") and "z 19.5, shifted by a patch down" in told[1]
    assert told[2].startswith("generated by =two") and "z 19.5" in told[2]
    beside = page.locator("#view h3 + .hint + .pairs, #view h3 + .pairs")
    wait_until(page, "document.querySelectorAll('#view .pairs img').length >= 4")
    near = page.locator("h3:text('nearly the same') ~ .pairs").first
    assert "image k4" in near.inner_text() and "no evidence of copying" in page.inner_text("#view")
    others = page.locator("h3:text('Other images of this caption') + .pairs")
    assert "image k2" in others.inner_text() and beside.count() == 2
    page = open_page("#view=images&image=k0")
    assert "Not ranked" in figures(page).nth(2).inner_text()
    assert page.locator("img[src='x']").count() == 0 and page.inner_text("#view h2") == EVIL


def test_images_without_a_partner_and_none(open_page):
    page = open_page(f"#view=images&image=k{N_IMAGES - 1}")
    assert figures(page).count() == 2  # set two has none of that key
    page = open_page("#view=images&image=nobody's")
    assert figures(page).count() == 1
    assert "image nobody's without a real counterpart" in figures(page).inner_text()
    assert "not in the list" in page.inner_text(".steps")
    page = open_page("#view=images&image=7")  # a row
    assert "image k7" in page.inner_text("#view")
    page = open_page("#view=images&image=k9999")
    assert "There is no image k9999" in page.inner_text("#view [role=alert]")
    page.click("text=back to the list")
    page.wait_for_selector("#view .listing")


def test_the_strongest_concepts_and_where_they_fire(open_page, comparisons):
    row = 6
    arms = [comparisons[0].real, *(c.generated for c in comparisons)]
    shares = np.stack([arm.codes.toarray()[row] / arm.codes.toarray()[row].sum() for arm in arms])
    page = open_page(f"#view=images&image=k{row}")
    lines = page.locator(".energies tbody tr")
    assert lines.count() == 10
    page.click("#view >> text=/^all \\d+$/")
    kept = []
    for each in shares:
        top = np.argsort(-each, kind="stable")[: images.N_STRONGEST]
        kept.append(set(top[each[top] > 0].tolist()))
    # Those first that the real image or that of the chosen set shows most.
    most = [max(share * (k in top) for share, top in zip(shares[:2, k], kept[:2], strict=True))
            for k in range(N)]  # fmt: skip
    expected = sorted(set.union(*kept), key=lambda k: (-most[k], k))
    found = lines.locator("th .id").all_inner_texts()
    assert [int(text) for text in found] == expected
    for place in (0, 3, len(expected) - 1):
        cells = lines.nth(place).locator("td").all_inner_texts()[:3]
        for cell, share, top in zip(cells, shares[:, expected[place]], kept, strict=True):
            if expected[place] in top:
                assert float(cell.strip().rstrip("%\u00a0")) == pytest.approx(100 * share, abs=0.06)
            else:  # of an image with more concepts than are kept nothing else is known
                is_known = len(top) < images.N_STRONGEST
                bound = float(cell.split()[1].rstrip("%\u00a0")) / 100 if not is_known else 0
                assert share <= bound + 0.0006
                assert cell == "not shown" if is_known else cell.startswith("under ")
    both = list(zip(arms, kept, strict=True))
    has_map = [k for k in expected if any(row in a.top_rows[k] and k in top for a, top in both)]
    assert has_map and len(has_map) < len(expected)
    buttons = page.locator("button.where")
    assert [int(b.get_attribute("value")) for b in buttons.all()] == has_map
    k = has_map[0]
    page.click(f"button.where[value='{k}']")
    page.wait_for_selector("#view .whole .heat")
    assert f"mark={k}" in page.url
    assert page.get_attribute(f"button.where[value='{k}']", "aria-pressed") == "true"
    for place, arm in enumerate(arms):
        is_there = row in arm.top_rows[k]
        assert figures(page).nth(place).locator(".heat").count() == is_there
        assert (
            f"No map of concept {k} is kept" in figures(page).nth(place).inner_text()
        ) != is_there
    page.click(f"button.where[value='{k}']")
    wait_until(page, "!document.querySelector('#view .whole .heat')")
    lines.nth(1).locator("th button").click()
    wait_for_concept(page, expected[1])
    assert f"mark={expected[1]}" in page.url
    # A concept that the image does not show stands there, too.
    silent = int(np.flatnonzero(shares.max(axis=0) == 0)[0])
    page = open_page(f"#view=images&image=k{row}&mark={silent}")
    assert lines.page is not page
    first = page.locator(".energies tbody tr").first.inner_text()
    assert first.startswith(f"{silent} ") and first.count("not shown") == 1
    assert "Nothing is coloured" in page.inner_text(".marks")


def test_stepping_and_the_way_back_to_where_the_list_was(open_page):
    page = open_page("#view=images&caption=thing")
    wait_for_pairs(page, N_IMAGES - 5)
    page.click("text=1 more")
    last = page.locator("#view .pair[data-pair='28'] .opens").first
    last.scroll_into_view_if_needed()
    page.evaluate("scrollBy(0, -150)")
    last.hover()  # scrolls to it, where that put it out of sight
    top = page.evaluate("scrollY")
    assert top > 300
    last.click()
    page.wait_for_selector("#view .large")
    assert page.evaluate("scrollY") == 0
    assert page.locator("#view h2").evaluate("e => e === document.activeElement")
    page.keyboard.press("Escape")
    wait_until(page, "document.activeElement.closest('.pair')?.dataset.pair === '28'")
    assert page.evaluate("scrollY") == top
    last.click()
    page.wait_for_selector("#view .large")
    assert "24 of 25 in the list" in page.inner_text(".steps")
    assert page.locator("#view h2 mark").inner_text() == "thing"
    page.click("text=next ›")
    wait_until(page, "document.querySelector('.steps').textContent.includes('25 of 25')")
    assert page.locator("[aria-label='next image']").is_disabled()
    page.keyboard.press("ArrowLeft")
    wait_until(page, "document.querySelector('.steps').textContent.includes('24 of 25')")
    page.keyboard.press("ArrowLeft")
    wait_until(page, "document.querySelector('.steps').textContent.includes('23 of 25')")
    assert "image=k27" in page.url
    page.click("text=← back to the list")
    page.wait_for_selector("#view .listing")
    wait_until(page, "document.activeElement.closest('.pair')?.dataset.pair === '27'")
    assert len(tiles(page)) == 25 and page.evaluate("scrollY") == pytest.approx(top, abs=400)
    go_back(page)
    page.wait_for_selector("#view .large")
    page.keyboard.press("Escape")
    page.wait_for_selector("#view .listing")
    # A page that opens on an image leads to its place in the list, too.
    page = open_page("#view=images&image=k28")
    page.click("text=← back to the list")
    wait_until(page, "document.activeElement.closest('.pair')?.dataset.pair === '28'")


def test_images_of_findings_and_panel_open_their_page(open_page, comparisons):
    page = open_page()
    card = page.locator("#finding-2 .strip .opens").first
    card.click()
    page.wait_for_selector("#view .large")
    assert "mark=2" in page.url and "view=images" in page.url
    page.click("text=← back to the findings")
    wait_until(page, "document.activeElement.id === 'finding-2'")
    page = open_page("#view=table&all=true&concept=9")
    page.locator("#panel .opens").nth(1).click()  # what was generated for the top real image
    page.wait_for_selector("#view .large")
    row = comparisons[0].real.top_rows[9, 0]
    assert f"image=k{row}&" in page.url and "mark=9" in page.url
    page.wait_for_selector("#view .whole .heat")
    assert page.locator("#panel .numbers").is_visible()
    page.click("text=← back to the concepts")
    page.wait_for_selector("#rows tr.selected[data-concept='9']")


def test_on_a_phone_the_panel_gives_way_and_comes_back(open_page):
    page = open_page("#view=table&all=true&concept=9", viewport={"width": 390, "height": 800})
    page.locator("#panel .opens").first.click()
    page.wait_for_selector("#view .large")
    assert not page.locator("#panel").is_visible()
    page.click("text=← back to the concepts")
    wait_for_concept(page, 9)


def read(file):
    return list(csv.DictReader(io.StringIO(file.text)))


def test_pairs_as_csv(open_page, comparisons):
    page = open_page("#view=images&caption=1")
    wait_for_pairs(page, 13)
    given = downloaded(page, "text=CSV of these pairs")
    assert given.name == "one_pairs.csv"
    rows = read(given)
    keys = ["k0", "k5", *(f"k{n}" for n in range(10, 20)), "k21"]
    assert [row["key"] for row in rows] == keys
    told = {row["key"]: row for row in comparisons[0].datapoints}
    for row in rows:
        true = told[row["key"]]
        assert row["caption"] == ("'=1+1" if row["key"] == "k5" else CAPTIONS[true["row_real"]])
        assert float(row["z"]) == pytest.approx(true["z"], rel=1e-6)
        assert float(row["cosine"]) == pytest.approx(true["cosine"], rel=1e-6)
        assert row["place"] == images.say_place(true["place"])
        assert row["bland"] == str(true["bland"]).lower()


def test_findings_as_csv(open_page, folder):
    page = open_page(f"#model={SETS[1].replace('=', '%3D')}")
    given = downloaded(page, "text=CSV of the findings")
    told = list(csv.DictReader((folder / "findings.csv").open(encoding="utf-8", newline="")))
    told = [row for row in told if row["set"] == f"'{SETS[1]}"]
    found = read(given)
    assert len(found) == len(told) == 2
    for row, expected in zip(found, told, strict=True):
        assert list(row) == list(expected)
        for name in row:
            if name in ("low", "log_ratio", "high"):
                assert float(row[name]) == pytest.approx(float(expected[name]), rel=1e-6)
            else:
                assert row[name] == expected[name], name


def test_the_matrix_as_csv(open_page):
    page = open_page("#view=models")
    given = downloaded(page, "text=CSV of the matrix")
    rows = read(given)
    assert [(row["a"], row["b"]) for row in rows] == [
        ("one", "one"), ("one", "'=two"), ("'=two", "one"), ("'=two", "'=two"),
    ]  # fmt: skip


def test_hits_of_the_tables_search_are_marked(open_page):
    page = open_page("#view=table&q=words+13")
    marks = page.eval_on_selector_all("#rows mark", "all => all.map(e => e.textContent)")
    assert marks == ["words 13"] * 11  # 13, 130 to 139
    page.fill("#search", "Red K")
    page.wait_for_selector("#rows .hint mark")
    texts = page.eval_on_selector_all(
        "#rows tbody tr bdi bdi", "all => all.map(e => e.textContent)"
    )
    assert set(texts) <= {"…Red Kite", "…red  kite"} and texts
    concept = page.get_attribute("#rows tbody tr", "data-concept")
    page.click(f"#rows tr[data-concept='{concept}'] button")
    wait_for_concept(page, concept)
    assert page.locator("#panel figcaption mark").first.inner_text().lower() == "red k"
    page = open_page("#view=table&q=words+13&concept=13")
    assert page.locator("#panel h2 mark").inner_text() == "words 13"
    page = open_page("#view=map&q=words")
    page.wait_for_selector(".label mark")
    assert set(page.locator(".label mark").all_text_contents()) == {"words"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    "address", ["#view=images&caption=a&shows=3", "#view=images&image=k1&mark=3&concept=3"]
)
def test_no_serious_fault_of_accessibility(open_page, address, scheme):
    page = open_page(address, color_scheme=scheme)
    page.wait_for_timeout(500)
    assert serious_faults(page) == []


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("address", ["#view=images&shows=3", "#view=images&image=k1&mark=3"])
def test_it_fits(open_page, address, width):
    page = open_page(address, viewport={"width": width, "height": 800})
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


MANY = 10_000


@pytest.mark.slow
def test_10000_pairs_answer_at_once(browser, comparisons, tmp_path):
    """No interaction holds the page up for 0.1 s on two shared cores, nor shows all pairs."""
    one, rng = comparisons[0], np.random.default_rng(0)
    keys = [f"{row:09d}" for row in range(MANY)]
    texts = [f"a photo of thing {row} beside thing {7 * row % 1000}" for row in range(MANY)]
    arms = []
    for arm in (one.real, one.generated):
        codes = sp.random_array((MANY, N), density=0.1, format="csr", rng=rng, dtype=np.float32)
        table = pa.table({"key": keys, "caption": texts, "path": [f"{row}" for row in range(MANY)]})
        arms.append(dataclasses.replace(arm, images=table, codes=codes))
    rows = [
        one.datapoints[0] | {"key": keys[row], "row_real": row, "row_generated": row, "z": float(z)}
        for z, row in enumerate(rng.permutation(MANY).tolist())
    ]
    many = one._replace(real=arms[0], generated=arms[1], datapoints=rows, duplicates=[])
    picture = Image.effect_noise((128, 128), 60).convert("RGB")
    places = rng.normal(size=(N, 2))
    write_site(tmp_path, [many], places, ["x"] * N, [{}], [], lambda *_: picture)
    watched = Watched(browser, tmp_path, "#view=images")
    page = watched.page
    page.wait_for_timeout(2000)
    page.evaluate(
        """() => { window.held = []; const take = list => {
        for (const each of list.getEntries()) held.push(each.duration); };
        new PerformanceObserver(take).observe({type: 'longtask'}); }"""
    )
    for act in (
        lambda: page.locator("#caption").press_sequentially("thing 77", delay=40),
        lambda: page.fill("#caption", ""),
        lambda: page.select_option("text=rank by >> select", "cosine"),
        lambda: enter(page, "#shows", "12"),
        lambda: page.select_option("text=shown by >> select", "missed"),
        lambda: page.click("#view .chip button"),
        lambda: page.locator("#view .opens").nth(20).click(),
        lambda: page.click("text=next ›"),
        lambda: page.click("text=← back to the list"),
    ):
        act()
        page.wait_for_timeout(1000)
        assert page.locator("#view .pair[data-pair]").count() <= 24
    assert [each for each in page.evaluate("held") if each > 100] == []  # of a shared machine
    watched.close()
