"""The explorer in a real browser: from disk and over HTTP, by mouse, keys and address."""

import csv
import dataclasses
import functools
import http.server
import io
import json
import math
import re
import threading

import numpy as np
import pytest

from bsjax.core.errors import UserError
from bsjax.data.images import thumbnail
from bsjax.report.card import CONTROL
from bsjax.report.exchange import FIELDS, imported, read_enriched, write_enriched
from bsjax.report.explorer.bundle import write_static
from bsjax.report.explorer.encode import write_data
from bsjax.report.explorer.site import COLUMNS, columns_payload, site_payload, write_site
from bsjax.report.looks import LOOKS, rule
from bsjax.report.tables import read_comparisons
from bsjax.stats import verdicts
from bsjax.stats.models import Correlation, unknown
from tests.report.artifacts import EVIL, SETTINGS, write_arm, write_comparison
from tests.report.browser import (
    MARKS,
    PLOT,
    Watched,
    downloaded,
    enter,
    go_back,
    is_firefox,
    place_of,
    serious_faults,
    wait_for_concept,
    wait_until,
)

pytestmark = MARKS
SETS = ("one #1 100%", "two & more")
N = 40
KINDS = [verdicts.KINDS[k % len(verdicts.KINDS)] for k in range(N)]
N_SUPPRESSED = KINDS.count(verdicts.SUPPRESSED)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A report of two sets in a folder with an awkward name."""
    workdir = tmp_path_factory.mktemp("a b#c%d")
    write_arm(workdir, "real", N)
    for name, kinds in zip(SETS, (KINDS, KINDS[::-1]), strict=True):
        write_arm(workdir, name, N)
        write_comparison(workdir, name, kinds, notes=[f"<b>{name}</b>"])
    comparisons = read_comparisons(workdir, SETS)
    angle = np.linspace(0, 2 * np.pi, N, endpoint=False)
    places = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    names = [f"name {k} {EVIL if k == 3 else ''}" for k in range(N)]
    cards = [{CONTROL: "failed: images are repeated", "captions": EVIL}] * 2
    r = Correlation(0.512, 0.401, 0.604, (0.5, 0.6), 33, 4)
    low = unknown("reliability too low")._replace(reliability=(0.041, 0.041))
    matrix = {(SETS[0], SETS[0]): r, SETS: r, (SETS[1], SETS[1]): low}
    write_site(workdir / "report", comparisons, places, names, cards, [], thumbnail, matrix=matrix)
    return workdir / "report"


def test_an_encoder_of_patches_alone_has_no_bars(browser, folder, open_page, tmp_path):
    """Neither class token nor registers; and images that the encoder saw whole."""
    assert open_page("#concept=0").locator("figure .bars").first.is_visible()
    for name in ("real", "one"):
        write_arm(tmp_path, name, 4, n_special=0, resize=-1)
    write_comparison(tmp_path, "one", KINDS[:4])
    comparisons = read_comparisons(tmp_path, ["one"])
    places, names = np.eye(4, 2, dtype=np.float32), list("abcd")
    write_site(tmp_path / "report", comparisons, places, names, [{}], [], thumbnail)
    watched = Watched(browser, tmp_path / "report", "#concept=0")
    try:
        watched.page.locator("figure.pair canvas.heat").first.wait_for()
        assert watched.page.locator("figure .bars").count() == 0
    finally:
        watched.close()


def test_registers_without_a_class_token_are_called_registers(browser, tmp_path):
    for name in ("real", "one"):
        write_arm(tmp_path, name, 4, n_special=2, special=["register 1", "register 2"])
    write_comparison(tmp_path, "one", KINDS[:4])
    comparisons = read_comparisons(tmp_path, ["one"])
    places, names = np.eye(4, 2, dtype=np.float32), list("abcd")
    write_site(tmp_path / "report", comparisons, places, names, [{}], [], thumbnail)
    watched = Watched(browser, tmp_path / "report", "#concept=0")
    try:
        bars = watched.page.locator("figure .bars").first
        bars.wait_for()
        label = bars.get_attribute("aria-label")
        assert label.endswith("register 1 100 %, register 2 100 %") and "class" not in label
    finally:
        watched.close()


def rgb(colour):
    return "rgb({}, {}, {})".format(*(int(colour[i : i + 2], 16) for i in (1, 3, 5)))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_verdicts_are_told_by_symbol_and_colour(open_page, scheme):
    page = open_page("#view=table&all=true", color_scheme=scheme)
    meanings = verdicts.explain(SETTINGS)
    for kind in verdicts.KINDS:
        cell = page.locator(f"#rows tr[data-verdict='{kind}'] .verdict").first
        assert cell.inner_text() == f"{LOOKS[kind].symbol} {kind}"
        assert cell.get_attribute("title") == meanings[kind]
        shown = cell.evaluate("cell => getComputedStyle(cell).color")
        assert shown == rgb(getattr(LOOKS[kind], scheme))


def test_ready_made_views_are_those_of_the_verdicts(open_page):
    page = open_page("#view=table")
    group = page.locator("[aria-label='ready-made views'] button")
    calls = [kind for kind in verdicts.KINDS if LOOKS[kind].sign]
    assert group.all_inner_texts() == ["all that changed", *calls, verdicts.NOT_ENOUGH_DATA, "all"]
    for kind, is_down in ((verdicts.LESS, False), (verdicts.MORE, True)):
        page.click(f"role=button[name='{kind}']")
        wait_until(
            page,
            "n => document.querySelectorAll('#rows tbody tr').length === n",
            arg=KINDS.count(kind),
        )
        assert ("down=true" in page.url) == is_down and f"verdict={kind}" in page.url


def test_open_ends_and_unknown_numbers(open_page):
    page = open_page("#view=table&all=true")
    row = page.locator("#rows tr[data-verdict='not enough data']").first
    assert re.search(r"0\.301 \[0, 0\.449\]", row.inner_text())  # exp(-1.2), exp(-0.8)
    assert "–" in row.inner_text()  # q, which is not known
    for text in ("NaN", "Infinity", "null", "undefined"):
        assert text not in page.inner_text("#rows")


def test_the_list_begins_with_what_is_established_most(open_page):
    """And holds what changed alone, until one asks for all."""
    told = ({"suppressed", "exaggerated"}, {"less", "more"})
    for address, ends in (
        ("#view=table", told),
        ("#view=table&all=true", (*told, {"aligned", "undecided"}, {"not enough data"})),
    ):
        page = open_page(address)
        read = "all => all.map(e => e.dataset.verdict)"
        order = page.eval_on_selector_all("#rows tbody tr", read)
        firsts = list(dict.fromkeys(order))
        for kinds in ends:
            assert set(firsts[: len(kinds)]) == kinds
            firsts = firsts[len(kinds) :]
        assert firsts == []


def test_the_panel_tells_verdict_ratio_and_the_papers_word(open_page):
    page = open_page("#concept=0")
    text = page.inner_text("#panel .numbers")
    assert "▼ suppressed: drawn less, by more than 1.5-fold" in text
    assert "0.0498 [0.0334, 0.0743]" in text  # exp(-3), exp(-3.4), exp(-2.6)
    said = page.locator("#panel dt:text('the paper') + dd")
    assert said.inner_text() == "suppressed"
    page = open_page("#concept=2")
    assert said.page is not page
    assert page.locator("#panel dt:text('the paper') + dd").inner_text() == "between"


def test_the_run_card_tells_all_verdicts_and_their_rule(open_page):
    page = open_page("#view=card")
    text = page.inner_text("#view")
    assert rule(SETTINGS) in text
    for meaning in verdicts.explain(SETTINGS).values():
        assert meaning in text
    heads = page.eval_on_selector_all("#view h3", "all => all.map(e => e.textContent)")
    assert heads == ["Data", "Controls"]
    lines = page.eval_on_selector_all(".lines dd", "all => all.map(e => e.textContent)")
    assert lines == [EVIL, "✗ failed: images are repeated"]


def click_point(page, concept):
    """Clicks where the map shows a concept."""
    page.mouse.click(*place_of(page, concept))


def shown_concept(page):
    return page.inner_text("#panel h2 .id").strip()


def test_from_disk_by_click_id_and_address(open_page):
    page = open_page("#view=map")
    click_point(page, 7)
    wait_for_concept(page, 7)
    assert "concept=7" in page.url
    enter(page, "#goto", "0")
    wait_for_concept(page, 0)
    go_back(page)
    wait_for_concept(page, 7)
    page = open_page("#concept=0")
    assert shown_concept(page) == "0"
    page = open_page("#concept=4000")
    assert "There is no concept 4000" in page.inner_text("#panel")


@pytest.fixture
def served(folder):
    """Address of the report on a server."""
    handler = functools.partial(QuietHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_pages_policy_allows_all_that_it_does(open_page):
    """And no code made of text, nor anything of elsewhere."""
    page = open_page("#view=findings")  # a breach is an error of the console
    policy = page.get_attribute("meta[http-equiv]", "content")
    assert "script-src 'self';" in policy and "unsafe" not in policy
    parts = {"map": ".plane canvas", "models": ".square canvas", "table": "#rows",
             "images": ".pairs", "figures": "#view > *", "card": ".lines"}  # fmt: skip
    for view, shown in parts.items():
        page.click(f"#tab-{view}")
        page.wait_for_selector(shown, state="attached")
    page.click("#tab-map")
    page.mouse.click(*place_of(page, 5))
    page.wait_for_selector("#panel .histogram")


def test_over_http(open_page, served):
    page = open_page("#concept=5", base=served)
    wait_for_concept(page, 5)
    page.click("#tab-images")
    page.wait_for_selector("#view .pair img")


def test_link_caption_and_image_are_copied(open_page, served):
    permissions = ["clipboard-read", "clipboard-write"]
    page = open_page("#concept=5", base=served, permissions=permissions)
    wait_for_concept(page, 5)
    for label, expected in (("this caption", None), ("a link to this concept", page.url)):
        page.locator(f"#panel [aria-label='copy {label}']").first.click()
        wait_until(page, "document.getElementById('status').textContent === 'copied'")
        copied = page.evaluate("navigator.clipboard.readText()")
        assert copied == (expected or page.locator("#panel figcaption bdi").first.inner_text())
    page.evaluate("document.getElementById('status').textContent = ''")
    page.locator("#panel [aria-label='copy this image']").first.click()
    wait_until(page, "document.getElementById('status').textContent === 'copied'")
    size = page.evaluate(
        """async () => { const [item] = await navigator.clipboard.read();
        if (!item) return null;
        const image = await createImageBitmap(await item.getType("image/png"));
        return [image.width, image.height]; }"""
    )
    shown = page.evaluate(
        """() => { const image = document.querySelector("#panel .frame img");
        return [image.naturalWidth, image.naturalHeight]; }"""
    )
    # Firefox without a screen keeps no images on its clipboard.
    assert size == shown or (size is None and is_firefox(page))


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def test_models_one_by_one_and_side_by_side(open_page):
    page = open_page("#view=map&concept=0")
    assert verdicts.KINDS[0] in page.inner_text("#panel .numbers")
    page.select_option("#model", SETS[1])
    wait_until(
        page, f"document.querySelector('#panel .numbers').textContent.includes('{KINDS[-1]}')"
    )
    assert page.inner_text("#notes") == f"<b>{SETS[1]}</b>"
    page.select_option("#second", SETS[0])
    wait_until(page, "document.querySelectorAll('.plot .plane').length === 2")
    shown = page.eval_on_selector_all("#view figcaption", "all => all.map(e => e.textContent)")
    assert shown == [SETS[1], SETS[0]]
    page.click("#tab-models")
    page.wait_for_selector(".matrix")
    told = page.eval_on_selector_all(".matrix td.r", "all => all.map(e => e.textContent)")
    assert told == ["reliability 0.50", "0.51 [0.40, 0.60]", "0.51 [0.40, 0.60]",
                    "reliability too low: 0.04"]  # fmt: skip
    assert "r = 0.51 [0.40, 0.60]" in page.inner_text("#view h2 >> nth=0")


def read_csv(file):
    return list(csv.DictReader(io.StringIO(file.text)))


def test_filter_sort_and_csv(open_page, folder):
    page = open_page("#view=table&all=true")
    rows = page.locator("#rows tbody tr")
    assert rows.count() == N
    suppressed = f"document.querySelectorAll('#rows tbody tr').length === {N_SUPPRESSED}"
    page.click("role=button[name='suppressed']")
    wait_until(page, suppressed)
    page.fill("#search", "name 14 ")
    wait_until(page, "document.querySelectorAll('#rows tbody tr').length === 1")
    page.fill("#search", "")
    wait_until(page, suppressed)
    found = read_csv(downloaded(page, "text=CSV of this view"))
    assert [row["verdict"] for row in found] == ["suppressed"] * N_SUPPRESSED
    page.click("role=button[name='all']")
    wait_until(page, f"document.querySelectorAll('#rows tbody tr').length === {N}")
    found = read_csv(downloaded(page, "text=CSV of this view"))
    (comparison,) = read_comparisons(folder.parent, [SETS[0]])
    wanted = comparison.columns
    assert len(found) == N
    for row in found:
        true = {name: values[int(row["concept"])] for name, values in wanted.items()}
        assert row["verdict"] == true["verdict"]
        assert row["verdict_paper"] == true["verdict_paper"]
        for name in COLUMNS:
            value = float(row[name]) if row[name] else math.nan
            assert value == pytest.approx(true[name], rel=1e-6, nan_ok=True), name


def test_filters_by_numbers(open_page):
    page = open_page("#view=table&fires=140&low=0.3")
    page.wait_for_selector("#rows tbody tr")
    ids = page.eval_on_selector_all("#rows tbody tr", "all => all.map(e => +e.dataset.concept)")
    assert sorted(ids) == [
        k for k in range(20, N) if KINDS[k] != verdicts.SUPPRESSED
    ]  # each fires 7 k times


def test_lasso(open_page):
    page = open_page("#view=map&all=true")
    page.click("role=button[name='lasso: draw around concepts to filter by them']")
    box = page.locator(".plane").bounding_box()
    left, top, width, height = (box[name] for name in ("x", "y", "width", "height"))
    corners = [(0.02, 0.02), (0.98, 0.02), (0.98, 0.5), (0.02, 0.5), (0.02, 0.02)]
    points = [(left + x * width, top + y * height) for x, y in corners]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=12)
    page.mouse.up()
    page.wait_for_timeout(500)
    page.click("#tab-table")
    page.wait_for_selector("#rows tbody tr")
    n_caught = page.locator("#rows tbody tr").count()
    assert N / 4 < n_caught < 3 * N / 4
    page.click("#tab-map")
    page.click("text=clear the lasso")
    page.click("#tab-table")
    wait_until(page, f"document.querySelectorAll('#rows tbody tr').length === {N}")


def test_opacity_of_the_heat_changes_pixels(open_page):
    page = open_page("#concept=2&heat=0")
    page.wait_for_selector("#panel .frame canvas")
    frame = page.locator("#panel .frame:has(canvas)").first
    frame.scroll_into_view_if_needed()
    without = frame.screenshot()
    page.locator("#panel .slider input").evaluate(
        "e => { e.value = 1; e.dispatchEvent(new Event('input')); }"
    )
    page.wait_for_timeout(200)
    assert frame.screenshot() != without
    assert "heat=1" in page.url


def test_keys(open_page):
    page = open_page("#view=table&sort=concept")
    page.keyboard.press("ArrowDown")
    wait_for_concept(page, 0)
    page.keyboard.press("ArrowDown")
    wait_for_concept(page, 1)
    page.keyboard.press("ArrowUp")
    wait_for_concept(page, 0)
    page.keyboard.press("/")
    wait_until(page, "document.activeElement.id === 'search'")
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    wait_until(page, "!document.body.classList.contains('open')")


def test_captions_and_names_are_text(open_page):
    for address in ("#concept=3", "#view=table", "#view=images", "#view=card"):
        page = open_page(address)
        page.wait_for_timeout(300)
        assert EVIL in page.inner_text("body")
        assert page.locator("img[src='x']").count() == 0


def test_an_image_that_is_gone_is_said(open_page):
    page = open_page("#view=images")
    page.wait_for_selector("#view .pair .gone")
    assert page.inner_text("#view .pair .gone") == "image file is gone"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_follow_the_system(open_page, scheme):
    page = open_page("#view=map&concept=1", color_scheme=scheme)
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    light = [int(v) for v in paper[4:-1].split(",")]
    assert (sum(light) > 384) == (scheme == "light")
    drawn = page.evaluate(
        """() => { const canvas = document.querySelector('.plot canvas.points');
        return [...canvas.getContext('2d').getImageData(2, canvas.height - 3, 1, 1).data]; }"""
    )
    assert drawn == [*light, 255]


@pytest.mark.parametrize(
    "view", ["findings", "map", "table", "models", "images", "figures", "card"]
)
def test_a_phone_shows_all_without_scrolling_sideways(browser, folder, view):
    phone = {"width": 390, "height": 800}
    watched = Watched(browser, folder, f"#view={view}&concept=1", viewport=phone)
    watched.page.wait_for_timeout(600)
    assert watched.page.evaluate("document.documentElement.scrollWidth") <= 390
    # Which view it is can be seen.
    tab = watched.page.locator("[role=tab][aria-selected=true]").bounding_box()
    assert tab["x"] >= 0 and tab["x"] + tab["width"] <= 390
    watched.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    "view", ["findings", "map", "table", "models", "images", "figures", "card"]
)
def test_no_serious_fault_of_accessibility(open_page, view, scheme):
    page = open_page(f"#view={view}&concept=1", color_scheme=scheme)
    page.wait_for_timeout(400)
    assert serious_faults(page) == []


def test_enriched_json(folder, tmp_path):
    (comparison,) = read_comparisons(folder.parent, [SETS[0]])
    places = np.random.default_rng(0).normal(size=(N, 2))
    write_enriched(tmp_path, comparison, places)
    path = tmp_path / f"{SETS[0]}__enriched.json"
    content = read_enriched(path)
    assert list(content) == list(FIELDS)
    assert content == json.loads(path.read_text())
    columns = comparison.columns
    np.testing.assert_array_equal(np.stack([content["umap_x"], content["umap_y"]], 1), places)
    for field, column in (
        ("energy", "energy_real"), ("nb_fire", "fires_real"), ("energy_diff", "difference"),
        ("relative_energy_diff", "relative"),
    ):  # fmt: skip
        np.testing.assert_array_equal(content[field], columns[column])
    assert content["is_dead"] == [k == 0 for k in range(N)]
    assert content["umap_scale"][-1] == 1.0 and content["umap_scale"][0] == 0.0
    assert content["top_original_image"] == content["top_ai_image"] == ["a"] * N
    assert content["umap_colors"] == content["color_relative_diff"]
    low, high = content["umap_colors"][0], content["umap_colors"][1]  # suppressed, exaggerated
    assert low[2] > low[0] and high[0] > high[2]
    # Codes are 0, 1, 2 in turn: Z^T Z by hand for the strongest companion of concept 1.
    pairs = comparison.real.cooccurrence.toarray()
    cosine = pairs[1] / np.sqrt(np.maximum(pairs[1, 1] * np.diag(pairs), 1e-12))
    cosine[1] = -1
    assert content["connections_val"][1][0] == pytest.approx(cosine.max())
    assert content["connections_idx"][1][0] == cosine.argmax()


def test_results_of_the_reference_are_shown(browser, folder, tmp_path):
    (ours,) = read_comparisons(folder.parent, [SETS[0]])
    write_enriched(tmp_path, ours, np.zeros((N, 2)))
    path = tmp_path / f"{SETS[0]}__enriched.json"
    comparison = imported(path)
    assert comparison.name == SETS[0]
    for name in ("relative", "difference", "energy_real", "fires_real"):
        np.testing.assert_array_equal(comparison.columns[name], ours.columns[name])
    both = [ours, comparison._replace(name="theirs")]
    places = np.random.default_rng(1).normal(size=(N, 2))
    report = tmp_path / "report"
    write_site(report, both, places, [f"n {k}" for k in range(N)], [{}, {}], [], thumbnail)
    watched = Watched(browser, report, "#model=theirs&concept=1")
    wait_for_concept(watched.page, 1)
    assert "Imported from" in watched.page.inner_text("#notes")
    assert "not enough data" in watched.page.inner_text("#panel .numbers")
    watched.page.click("#tab-images")
    watched.page.wait_for_selector("#view .pairs", state="attached")
    watched.close()
    content = json.loads(path.read_text())
    del content["umap_x"]
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="lacks umap_x"):
        imported(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"energy": 5}, "expected lists as energy"),
        ({"energy": [0.5]}, "fields have different numbers of concepts"),
        ({"energy_diff": [1, "x"]}, "energy_diff of concept 1 is x, no number"),
        ({"nb_fire": [None, 1]}, "nb_fire of concept 0 is None, no number"),
        ({"nb_fire": [1, 2**63]}, "nb_fire of concept 1 is 9223372036854775808, no number"),
        ({"nb_fire": [1, float("nan")]}, "nb_fire of concept 1 is nan, no number"),
        ({"nb_fire": [True, 1]}, "nb_fire of concept 0 is True, no number"),
        ({"connections_idx": [[], [2]]}, "the connections of concept 1"),
        ({"connections_idx": [[-1], [0]]}, "the connections of concept 0"),
        ({"connections_idx": [[], [0, 1]]}, "the connections of concept 1"),
        ({"connections_idx": [1, [0]]}, "the connections of concept 0"),
        ({"connections_val": [[], ["x"]]}, "the connections of concept 1"),
        ({"connections_val": [[], [None]]}, "the connections of concept 1"),
    ],
)
def test_results_of_another_kind_are_one_line(tmp_path, change, said):
    content = dict.fromkeys(FIELDS, [0, 0])
    content |= {"connections_idx": [[], [0]], "connections_val": [[], [0.5]]}
    path = tmp_path / "x__enriched.json"
    path.write_text("\ufeff" + json.dumps(content), encoding="utf-8")
    assert len(imported(path).columns["relative"]) == 2  # whoever saved it with a mark
    path.write_text(json.dumps(content | change))
    with pytest.raises(UserError, match=f"{path}: {said}.*; write it again"):
        imported(path)
    for text, said in (("[1]", "expected a JSON object, got a list"), ("{", "cannot be read as")):
        path.write_text(text)
        with pytest.raises(UserError, match=f"{said}.*; write it again"):
            imported(path)


@pytest.mark.slow
def test_32000_concepts_and_8_models(browser, tmp_path):
    """Less than 40 MB; first paint below 2 s; the map answers to zooming."""
    n, rng = 32_000, np.random.default_rng(0)
    workdir = tmp_path / "small"
    write_arm(workdir, "real", 4)
    write_arm(workdir, "m", 4)
    write_comparison(workdir, "m", list(verdicts.KINDS))
    (small,) = read_comparisons(workdir, ["m"])
    columns = {name: rng.random(n) for name in COLUMNS}
    columns |= {"verdict": np.array(verdicts.KINDS)[rng.integers(0, len(verdicts.KINDS), n)]}
    columns |= {"verdict_paper": verdicts.judge_as_paper(columns["delta"])}
    real = dataclasses.replace(small.real, top_rows=np.zeros((n, 12), np.int32))
    sets = [small._replace(name=f"m{i}", columns=columns, real=real) for i in range(8)]
    folder = tmp_path / "report"
    write_static(folder)
    names = [f"some words {k}" for k in range(n)]
    places = rng.normal(size=(n, 2))
    write_data(folder / "data", "site", site_payload(sets, places, names, [{}] * 8, []))
    for i in range(8):
        write_data(folder / "data", f"columns/{i}", columns_payload(columns))
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert size < 40e6
    watched = Watched(browser, folder, "#view=map")
    paint = watched.page.evaluate(
        "performance.getEntriesByName('first-contentful-paint')[0].startTime"
    )
    assert paint < 2000
    spent = watched.page.evaluate(
        f"""() => {{ const plot = {PLOT}, started = performance.now();
        for (let i = 1; i <= 10; i += 1) {{
          plot.setView({{left: -3 / i, right: 3 / i, low: -3 / i, high: 3 / i}}); plot.draw(); }}
        return (performance.now() - started) / 10; }}"""
    )
    assert spent < 50  # ms a frame, by software on two cores
    watched.close()
