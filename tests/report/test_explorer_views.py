"""The map and the table of the explorer: what they show first, and how many concepts read."""

import contextlib
import dataclasses
import io
import re

import numpy as np
import pytest
from PIL import Image

from bsjax.data.images import thumbnail
from bsjax.report.explorer.bundle import write_static
from bsjax.report.explorer.encode import write_data
from bsjax.report.explorer.site import COLUMNS, columns_payload, site_payload, write_site
from bsjax.report.looks import LOOKS, PALETTES, RATIO, SCHEMES
from bsjax.report.tables import read_comparisons
from bsjax.results.columns import COMPARED_CONCEPTS
from bsjax.stats import verdicts
from tests.report.artifacts import write_arm, write_comparison
from tests.report.browser import (
    ABOVE,
    BELOW,
    FADED,
    MARKS,
    PLOT,
    SOFT_GL,
    SYMBOLS,
    is_firefox,
    new_context,
    place_of,
    points,
    show_part,
    skip_without_webgl,
    wait_until,
)

pytestmark = MARKS
N = 280
KINDS = [verdicts.KINDS[k % len(verdicts.KINDS)] for k in range(N)]
CHANGED = [k for k in range(N) if LOOKS[KINDS[k]].sign]
CALLED = [k for k in range(N) if KINDS[k] in verdicts.CALLED]
MANY = 5000
NO_GL = """HTMLCanvasElement.prototype.getContext = (old => function (kind, ...more) {
return kind.includes("webgl") ? null : old.call(this, kind, ...more);
})(HTMLCanvasElement.prototype.getContext);"""


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("views")
    write_arm(workdir, "real", N)
    write_arm(workdir, "one", N)
    write_comparison(workdir, "one", KINDS)
    comparisons = read_comparisons(workdir, ["one"])
    places = np.random.default_rng(0).uniform(size=(N, 2)).astype(np.float32)
    names = [f"words {k}" for k in range(N)]
    write_site(workdir / "report", comparisons, places, names, [{}], [], thumbnail)
    return workdir


@pytest.fixture(scope="module")
def many(workdir, tmp_path_factory):
    """A report of many concepts without images: a third of them lies on one spot."""
    folder, rng = tmp_path_factory.mktemp("many"), np.random.default_rng(0)
    (small,) = read_comparisons(workdir, ["one"])
    columns = {name: rng.random(MANY) for name in COLUMNS}
    kinds = np.array([verdicts.NOT_ENOUGH_DATA] * MANY, dtype=object)
    kinds[::50], kinds[7::50] = verdicts.SUPPRESSED, verdicts.ALIGNED
    columns |= {"verdict": kinds, "verdict_paper": verdicts.judge_as_paper(columns["delta"])}
    real = dataclasses.replace(small.real, top_rows=np.zeros((MANY, 12), np.int32))
    places = rng.uniform(size=(MANY, 2))
    places[: MANY // 3] = rng.normal(0.5, 0.01, size=(MANY // 3, 2))
    write_static(folder)
    names = [f"words {k}" for k in range(MANY)]
    site = site_payload([small._replace(columns=columns, real=real)], places, names, [{}], [])
    write_data(folder / "data", "site", site)
    write_data(folder / "data", "columns/0", columns_payload(columns))
    return folder


@pytest.fixture
def open_page(browser, workdir):
    with contextlib.ExitStack() as stack:

        def start(address, folder=None, script=None, size=(1280, 800), **options):
            options["viewport"] = dict(zip(("width", "height"), size, strict=True))
            context = new_context(browser, **options)
            stack.callback(context.close)
            page = context.new_page()
            page.set_default_timeout(20_000)
            if script:
                page.add_init_script(script)
            page.goto(f"{(folder or workdir / 'report').as_uri()}/index.html{address}")
            page.wait_for_selector("body[data-ready]")
            return page

        yield start


def texts(page, selector):
    return page.eval_on_selector_all(selector, "all => all.map(e => e.textContent)")


def boxes(page, selector):
    read = """all => all.map(e => { const b = e.getBoundingClientRect();
    return [b.left, b.top, b.right, b.bottom]; })"""
    return page.eval_on_selector_all(selector, read)


@pytest.mark.parametrize(("script", "by"), [(SOFT_GL, "webgl"), (NO_GL, "pixels")])
def test_the_map_shows_what_changed_on_top_and_the_unjudged_small_and_grey(open_page, script, by):
    page = open_page("#view=map", script=script)
    drawn = points(page)
    if by == "webgl":
        skip_without_webgl(page)
    assert page.get_attribute(".plane", "data-by") == by
    assert sorted(each["id"] for each in drawn) == list(range(N))
    layers = [each["layer"] for each in drawn]
    assert layers == sorted(layers)
    below = [each for each in drawn if each["layer"] == BELOW]
    above = [each for each in drawn if each["layer"] == ABOVE]
    assert len(below) + len(above) == N
    unjudged = [each for each in below if not LOOKS[KINDS[each["id"]]].is_judged]
    judged = [each for each in below if LOOKS[KINDS[each["id"]]].is_judged and each["id"] >= 7]
    assert len({each["size"] for each in unjudged}) == 1  # those judged fire, from 7 on
    assert unjudged[0]["size"] < min(each["size"] for each in judged)
    assert max(e["opacity"] for e in unjudged) < min(e["opacity"] for e in judged)
    grey = LOOKS[verdicts.NOT_ENOUGH_DATA].light
    assert {tuple(each["rgb"]) for each in unjudged} == {rgb(grey)}
    assert below[: len(unjudged)] == unjudged  # and lie lowest
    assert {SYMBOLS[each["symbol"]] for each in below} == {"disc"}
    assert sorted(each["id"] for each in above) == CHANGED
    assert sorted(each["id"] for each in above[-len(CALLED) :]) == CALLED  # drawn last
    told = {"suppressed": "down", "exaggerated": "up", "less": "open down", "more": "open up"}
    for each in above:
        assert SYMBOLS[each["symbol"]] == told[KINDS[each["id"]]]
        assert each["size"] > unjudged[0]["size"] and each["opacity"] >= 0.79


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("script", [SOFT_GL, NO_GL], ids=["webgl", "pixels"])
def test_points_are_drawn_where_and_as_they_are_told(open_page, script, scheme):
    """A called concept's own colour at its place, the paper where nothing is."""
    page = open_page("#view=map", script=script, color_scheme=scheme)
    drawn = points(page)
    page.evaluate("document.querySelector('.labels').style.display = 'none'")
    picture = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"), np.int64)
    paper = rgb(SCHEMES[scheme].paper)
    for each in drawn[-10:]:  # nothing lies on these but one another
        x, y = np.rint(place_of(page, each["id"])).astype(int)
        others = [e for e in drawn[drawn.index(each) + 1 :] if is_near(page, e, (x, y), 14)]
        if others:
            continue
        assert np.abs(picture[y - 1 : y + 2, x - 1 : x + 2] - rgb_of(each)).max() < 12
        # Outside the symbol lies a line of the paper's colour.
        around = picture[y - 9 : y + 10, x - 10 : x + 11].reshape(-1, 3)
        assert (np.abs(around - paper).max(axis=1) < 12).sum() > 10
    corner = page.locator(".plane").bounding_box()
    left, bottom = int(corner["x"]) + 3, int(corner["y"] + corner["height"]) - 4
    assert tuple(picture[bottom, left]) == paper


def is_near(page, point, place, reach):
    return np.hypot(*np.subtract(place_of(page, point["id"]), place)) < reach


def rgb_of(point):
    return np.array(point["rgb"])


def rgb(colour):
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("colour", ["verdict", "ratio", "paper"])
def test_colours_of_the_map(open_page, scheme, colour):
    page = open_page(f"#view=map&colour={colour}", color_scheme=scheme)
    shown = {each["id"]: tuple(each["rgb"]) for each in points(page)}
    grey = rgb(getattr(LOOKS[verdicts.NOT_ENOUGH_DATA], scheme))
    ramp = [rgb(each) for each in RATIO[scheme]]
    for k, kind in enumerate(KINDS):
        if colour == "paper":
            continue
        if not LOOKS[kind].is_judged:
            assert shown[k] == grey
        elif colour == "verdict":
            assert shown[k] == rgb(getattr(LOOKS[kind], scheme))
    by_kind = {kind: shown[k] for k, kind in enumerate(KINDS)}
    if colour == "ratio":
        # Log ratios -3 and 3 lie beyond the ends, of 8 times; 0.5 does not.
        assert by_kind["exaggerated"] == ramp[-1] and by_kind["suppressed"] == ramp[0]
        at = 4 * (0.5 + 0.25 / np.log(8))
        mixed = np.array(ramp[2]) + (at - 2) * np.subtract(ramp[3], ramp[2])
        assert np.abs(mixed - by_kind["more"]).max() <= 0.51
        assert texts(page, ".ramp span") == ["1/8×", "as real", "8×"]
    if colour == "paper":
        delta = [rgb(each) for each in PALETTES["paper"]]
        for kind, at in (("suppressed", 0.08), ("exaggerated", 3.88), ("less", 1.8)):
            low = int(at)
            mixed = np.array(delta[low]) + (at - low) * np.subtract(delta[low + 1], delta[low])
            assert np.abs(mixed - by_kind[kind]).max() <= 0.51


@pytest.mark.parametrize("script", [SOFT_GL, NO_GL], ids=["webgl", "pixels"])
def test_names_on_the_map_do_not_overlap(open_page, script):
    page = open_page("#view=map", script=script)
    for _ in range(2):
        found, names = boxes(page, ".label"), texts(page, ".label")
        assert len(found) >= 5 and set(names) <= {f"words {k}" for k in CALLED}
        left, top, right, bottom = np.array(found).T
        apart = (
            (left[:, None] >= right) | (right[:, None] <= left)
            | (top[:, None] >= bottom) | (bottom[:, None] <= top)
        )  # fmt: skip
        assert (apart | np.eye(len(found), dtype=bool)).all()
        ((x0, y0, x1, y1),) = boxes(page, ".plot")
        assert left.min() >= x0 and right.max() <= x1 and top.min() >= y0 and bottom.max() <= y1
        # The name is as wide as it was taken for.
        assert page.eval_on_selector_all(
            ".label", "all => all.every(e => e.scrollWidth <= e.offsetWidth)"
        )
        show_part(page, 0.4, 0.8, 0.4, 0.8)
        page.wait_for_selector(".labels", state="hidden")
        page.wait_for_selector(".labels")


def test_the_legend_counts_and_filters_and_a_chip_takes_the_filter_away(open_page):
    page = open_page("#view=map")
    said = [re.sub(r"\s+", " ", text) for text in texts(page, ".legend button")]
    symbols = [LOOKS[kind].symbol if LOOKS[kind].sign else "●" for kind in verdicts.KINDS]
    assert said == [
        f"{symbol} {kind} {KINDS.count(kind)}"
        for symbol, kind in zip(symbols, verdicts.KINDS, strict=True)
    ]
    assert texts(page, ".chip") == []
    page.click(".legend button >> nth=2")
    page.wait_for_selector(".chip")
    n = KINDS.count(verdicts.LESS)
    wait_until(page, f"[...{PLOT}.points.kind].filter((kind) => kind >= 16).length === {n}")
    assert texts(page, ".chip span >> nth=0") == ["verdict: ▽ less"]
    assert texts(page, ".legend .count")[:3] == ["0 of 40", "0 of 40", "40 of 40"]
    assert page.get_attribute(".legend button >> nth=2", "aria-pressed") == "true"
    others = [each for each in points(page) if each["layer"] != ABOVE]
    assert {each["layer"] for each in others} == {FADED}
    assert max(each["opacity"] for each in others) <= 0.06
    page.click("#tab-table")
    page.wait_for_selector("#rows .chip")
    assert page.locator("#rows tbody tr").count() == n
    page.click("#rows .chip button")
    wait_until(
        page,
        f"document.querySelector('#rows .hint').textContent.startsWith('{len(CHANGED)} of {N}')",
    )
    page = open_page("#view=map&q=words+1&low=0.1&fires=70")
    assert [text.rstrip("✕") for text in texts(page, ".chip")] == [
        "search: words 1", "delta from 0.1 to 1", "fires at least 70 times in real images",
    ]  # fmt: skip
    page.click("text=clear all filters")
    wait_until(page, "!document.querySelector('.chip')")
    assert page.url.endswith("#view=map")


def test_many_points_are_no_opaque_mass(open_page, workdir, many):
    """Where they are crowded they shine through and are smaller; zoomed in they are clear."""
    few = open_page("#view=map")
    page = open_page("#view=map", many)
    points(few), points(page)
    read = f"(() => {{ {PLOT}.draw(); return {PLOT}.weights; }})()"
    usual, crowded = few.evaluate(read), page.evaluate(read)
    assert crowded["fade"][BELOW] < 0.75 * usual["fade"][BELOW]
    assert crowded["shrink"][BELOW] < 0.85 * usual["shrink"][BELOW]
    assert crowded["fade"][FADED] == min(1, 2 * crowded["fade"][BELOW])
    show_part(page, 0.1, 0.2, 0.1, 0.2)
    clear = page.evaluate(read)
    assert clear["fade"][BELOW] > crowded["fade"][BELOW] + 0.1
    assert clear["shrink"][BELOW] > crowded["shrink"][BELOW]


def view_of(page):
    return page.evaluate(f"{PLOT}.view")


def test_the_map_moves_with_the_hand(open_page):
    page = open_page("#view=map")
    box = page.locator(".plane").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    before = view_of(page)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 60, y + 30, steps=3)
    after = view_of(page)
    unit = (before["right"] - before["left"]) / box["width"]
    assert after["left"] == pytest.approx(before["left"] - 60 * unit)
    assert after["high"] == pytest.approx(before["high"] + 30 * unit)
    assert not page.locator(".labels").is_visible()
    page.mouse.up()
    page.wait_for_selector(".labels")
    assert "concept" not in page.url
    page.mouse.move(x + 100, y)
    page.mouse.wheel(0, -100)
    wait_until(page, f"{PLOT}.view.left !== {after['left']}")
    zoomed = view_of(page)
    share = (x + 100 - box["x"]) / box["width"]  # what lies there stays there
    at = [each["left"] + share * (each["right"] - each["left"]) for each in (after, zoomed)]
    assert at[0] == pytest.approx(at[1], abs=1e-6)
    wide, narrow = (each["right"] - each["left"] for each in (after, zoomed))
    assert wide / narrow == pytest.approx(np.exp(0.4), rel=1e-6)
    tall, low = (each["high"] - each["low"] for each in (after, zoomed))
    assert tall / low == pytest.approx(np.exp(0.4), rel=1e-6)
    if is_firefox(page):  # counts no clicks of WebDriver's
        page.dispatch_event(".plane", "dblclick")
    else:
        page.mouse.dblclick(box["x"] + 4, box["y"] + box["height"] - 20)
    wait_until(page, f"{PLOT}.view.left === {before['left']}")


def test_the_map_answers_keys_and_buttons(open_page):
    page = open_page("#view=map")
    points(page)
    before = view_of(page)
    width = before["right"] - before["left"]
    page.focus(".plane")
    page.keyboard.press("ArrowRight")
    assert view_of(page)["left"] == pytest.approx(before["left"] + 0.15 * width)
    page.keyboard.press("+")
    shown = view_of(page)
    assert shown["right"] - shown["left"] == pytest.approx(width / 1.4)
    page.keyboard.press("0")
    assert view_of(page) == before
    page.click("role=button[name='zoom in']")
    shown = view_of(page)
    assert shown["right"] - shown["left"] == pytest.approx(width / 1.5)
    assert (shown["right"] + shown["left"]) == pytest.approx(before["right"] + before["left"])
    page.click("role=button[name='show all points']")
    assert view_of(page) == before
    page.set_viewport_size({"width": 900, "height": 700})  # all stays all
    wait_until(page, f"{PLOT}.width < 880")
    found, view = points(page), view_of(page)
    assert all(view["left"] < each["x"] < view["right"] for each in found)
    assert all(view["low"] < each["y"] < view["high"] for each in found)


def test_two_fingers_zoom(open_page):
    page = open_page("#view=map", has_touch=True)
    if is_firefox(page):
        pytest.skip("fingers are sent by Chromium's own protocol")
    points(page)
    box, before = page.locator(".plane").bounding_box(), view_of(page)
    x, y = box["x"] + 400, box["y"] + 200
    session = page.context.new_cdp_session(page)

    def touch(kind, *places):
        found = [{"x": each, "y": y, "id": i} for i, each in enumerate(places)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": found})

    touch("touchStart", x - 50, x + 50)
    touch("touchMove", x - 100, x + 100)
    touch("touchEnd")
    after = view_of(page)
    span = [each["right"] - each["left"] for each in (before, after)]
    assert span[0] / span[1] == pytest.approx(2, rel=0.02)
    share = 400 / box["width"]  # what lay between the fingers stays there
    at = [v["left"] + share * s for v, s in zip((before, after), span, strict=True)]
    assert at[0] == pytest.approx(at[1], abs=0.02 * span[0])


def test_what_one_points_at_is_told(open_page):
    page = open_page("#view=map")
    top = points(page)[-1]["id"]
    page.mouse.move(*place_of(page, top))
    page.wait_for_selector(".tip")
    said = page.inner_text(".tip").split("\n")
    assert said[0] == f"{top} words {top}" and said[1].startswith("generated / real ")
    assert said[-1] == f"{LOOKS[KINDS[top]].symbol} {KINDS[top]}"
    box = page.locator(".plane").bounding_box()
    tip = page.locator(".tip").bounding_box()
    assert tip["x"] >= box["x"] and tip["x"] + tip["width"] <= box["x"] + box["width"]
    page.mouse.move(box["x"] + 2, box["y"] - 20)
    page.wait_for_selector(".tip", state="hidden")


def test_two_maps_show_the_same_part(open_page, both):
    page = open_page("#view=map&second=one", both)
    points(page)
    assert page.locator(".plane").count() == 2
    page.locator(".plane").nth(1).focus()
    page.keyboard.press("+")
    views = page.evaluate("[...document.querySelectorAll('.plot')].map((box) => box.plot.view)")
    assert views[0] == views[1]
    assert views[0]["right"] - views[0]["left"] < 1
    caught = page.evaluate("document.querySelectorAll('.plot')[0].plot.weights")
    assert caught["shrink"][BELOW] <= 1


@pytest.fixture(scope="module")
def both(workdir, tmp_path_factory):
    """A report of the set and its twin."""
    folder = tmp_path_factory.mktemp("both")
    (one,) = read_comparisons(workdir, ["one"])
    places = np.random.default_rng(0).uniform(size=(N, 2)).astype(np.float32)
    names = [f"words {k}" for k in range(N)]
    sets = [one._replace(name="zero"), one]
    write_site(folder, sets, places, names, [{}] * 2, [], thumbnail)
    return folder


def test_the_table_shows_what_changed_until_one_asks_for_all(open_page):
    page = open_page("#view=table")
    assert page.inner_text("#rows .hint").startswith(f"{len(CHANGED)} of {N} concepts")
    assert page.get_attribute("role=button[name='all that changed']", "aria-pressed") == "true"
    page.click(f"text=show all {N}")
    wait_until(page, f"document.querySelector('#rows .hint').textContent.startsWith('{N} of {N}')")
    assert "all=true" in page.url
    assert page.get_attribute("role=button[name='all'] >> nth=0", "aria-pressed") == "true"
    page.click("role=button[name='all that changed']")
    wait_until(
        page, f"document.querySelector('#rows .hint').textContent.startsWith('{len(CHANGED)} of')"
    )
    # A search looks through all of them.
    page.fill("#search", f"words {N - 1}")
    wait_until(page, "document.querySelectorAll('#rows tbody tr').length === 1")
    assert KINDS[N - 1] == verdicts.NOT_ENOUGH_DATA


def test_numbers_stand_right_and_intervals_are_bars(open_page):
    page = open_page("#view=table")
    heads = texts(page, "#rows th")
    row = page.locator("#rows tr[data-verdict='suppressed']").first
    align = row.locator("td").evaluate_all("all => all.map(e => getComputedStyle(e).textAlign)")
    for head, how in zip(heads, align, strict=True):
        is_text = head in ("name", "verdict", "95 % interval")
        assert (how == "right") == (not is_text), head
    assert {"fires in real", "fires in generated"} <= set(heads)
    bar = row.locator("[role=img]")
    assert bar.get_attribute("aria-label") == "0.0498 [0.0334, 0.0743]"  # exp of -3, -3.4, -2.6
    style = bar.locator(".range").evaluate("e => [e.style.left, e.style.width]")
    scale = np.log(32)
    left, width = (float(each.rstrip("%")) for each in style)
    assert left == pytest.approx(50 - 50 * 3.4 / scale, abs=1e-3)
    assert width == pytest.approx(50 * 0.8 / scale, abs=1e-3)
    page.fill("#search", "words 6")  # without enough data, its low end open
    wait_until(page, "document.querySelector('#rows tr[data-concept=\"6\"]')")
    assert page.locator("#rows tr[data-concept='6'] .range").evaluate("e => e.style.left") == "0%"


def test_columns_are_explained_by_the_tables_own_list(open_page):
    page = open_page("#view=table")
    page.click("text=What the columns mean")
    said = page.inner_text(".help")
    meanings = {column.name: column.meaning for column in COMPARED_CONCEPTS}
    for name in ("log_ratio", "low", "q_material", "prevalence_real", "fires_generated", "delta"):
        assert f"{name} {meanings[name]}" in said
    title = page.get_attribute("th >> text=q of the margin", "title")
    assert title == f"q_material: {meanings['q_material']}"


def test_many_rows_are_there_as_they_come_in_sight(open_page, many):
    page = open_page("#view=table&all=true&sort=concept", many)
    assert page.inner_text("#rows .hint").startswith(f"{MANY} of {MANY}")
    rows = "#rows tbody tr[data-concept]"
    assert page.locator(rows).count() < 120
    scroll = page.locator("#rows .scroll")
    tall = scroll.evaluate("e => e.scrollHeight")
    one = page.locator(rows).first.bounding_box()["height"]
    assert tall == pytest.approx(MANY * one, rel=0.01)
    for part in (0.5, 1):
        scroll.evaluate(f"e => {{ e.scrollTop = {part} * e.scrollHeight; }}")
        page.wait_for_timeout(200)
        ids = page.eval_on_selector_all(rows, "all => all.map(e => +e.dataset.concept)")
        assert len(ids) < 120 and ids == list(range(ids[0], ids[-1] + 1))
        assert ids[0] < part * MANY <= ids[-1] + 1
        head, frame = boxes(page, "#rows thead th")[0], boxes(page, "#rows .scroll")[0]
        assert head[1] == pytest.approx(frame[1], abs=1)  # the head stays
        assert scroll.evaluate("e => e.scrollHeight") == pytest.approx(tall, rel=0.01)
    number = page.get_attribute(f"{rows} >> nth=-1", "aria-rowindex")
    assert number == page.get_attribute("#rows table", "aria-rowcount") == str(MANY + 1)


def in_sight(page, concept):
    """Whether its row lies in the table's frame and under nothing."""
    return page.evaluate(
        """k => { const row = document.querySelector(`#rows tr[data-concept="${k}"]`);
        if (!row) return false; const b = row.getBoundingClientRect();
        const [x, y] = [b.left + 20, (b.top + b.bottom) / 2];
        return row.contains(document.elementFromPoint(Math.max(x, 30), y)); }""",
        concept,
    )


@pytest.mark.parametrize("size", [(1280, 800), (390, 800)])
def test_the_row_stays_in_sight(open_page, size):
    page = open_page("#view=table&all=true&sort=concept", size=size)
    row = page.locator("#rows tr[data-concept='12']")
    row.scroll_into_view_if_needed()
    row.locator("button").click()
    page.wait_for_selector("#panel .numbers")
    page.wait_for_timeout(200)
    assert in_sight(page, 12)
    for _ in range(30):
        page.keyboard.press("ArrowDown")
    page.wait_for_selector("#rows tr.selected[data-concept='42']")
    assert in_sight(page, 42)
    page = open_page("#view=table&all=true&sort=concept&concept=250", size=size)
    page.wait_for_timeout(200)
    assert in_sight(page, 250)


def test_arrows_move_where_a_list_is_shown_alone(open_page):
    page = open_page("#view=map")
    page.keyboard.press("ArrowDown")
    page.wait_for_timeout(100)
    assert "concept" not in page.url
    page.click("#tab-table")
    page.wait_for_selector("#rows tbody tr")
    page.focus("#rows .scroll")
    page.keyboard.press("ArrowRight")  # scrolls the list
    page.wait_for_timeout(100)
    assert "concept" not in page.url
    page.keyboard.press("ArrowDown")
    wait_until(page, "location.hash.includes('concept=')")
    first = page.get_attribute("#rows tbody tr >> nth=0", "data-concept")
    assert page.get_attribute("#rows tr.selected", "data-concept") == first
