"""The map and the table of the explorer: what they show first, and how many concepts read."""

import contextlib
import dataclasses
import re

import numpy as np
import pytest

from bsjax.data.images import thumbnail
from bsjax.report.explorer.bundle import write_static
from bsjax.report.explorer.encode import write_data
from bsjax.report.explorer.site import COLUMNS, columns_payload, site_payload, write_site
from bsjax.report.looks import LOOKS, RATIO
from bsjax.report.tables import read_comparisons
from bsjax.results.columns import COMPARED_CONCEPTS
from bsjax.stats import verdicts
from tests.report.artifacts import write_arm, write_comparison
from tests.report.browser import MARKS

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
            context = browser.new_context(
                viewport=dict(zip(("width", "height"), size, strict=True)), **options
            )
            stack.callback(context.close)
            page = context.new_page()
            page.set_default_timeout(20_000)
            if script:
                page.add_init_script(script)
            page.goto(f"{(folder or workdir / 'report').as_uri()}/index.html{address}")
            page.wait_for_selector("body[data-ready]")
            return page

        yield start


def trace(page, number, what):
    return page.evaluate(
        f"""() => {{ const t = document.querySelector('.js-plotly-plot').data[{number}];
        return {what}; }}"""
    )


def texts(page, selector):
    return page.eval_on_selector_all(selector, "all => all.map(e => e.textContent)")


def boxes(page, selector):
    read = """all => all.map(e => { const b = e.getBoundingClientRect();
    return [b.left, b.top, b.right, b.bottom]; })"""
    return page.eval_on_selector_all(selector, read)


@pytest.mark.parametrize("script", [None, NO_GL], ids=["webgl", "svg"])
def test_the_map_shows_what_changed_on_top_and_the_unjudged_small_and_grey(open_page, script):
    page = open_page("#view=map", script=script)
    kind = "scatter" if script else "scattergl"
    assert trace(page, 0, "t.type") == trace(page, 3, "t.type") == kind
    sizes = np.array(trace(page, 0, "[...t.marker.size]"))
    unjudged = np.array([not LOOKS[kind].is_judged for kind in KINDS])
    judged = np.array([k for k in range(7, N) if not unjudged[k]])  # those that fire
    assert np.ptp(sizes[unjudged]) == 0 and sizes[unjudged].max() < sizes[judged].min()
    opacity = np.array(trace(page, 0, "[...t.marker.opacity]"))
    on_top = np.isin(np.arange(N), CHANGED)
    assert (opacity[on_top] == 0).all() and (opacity[~on_top] > 0).all()
    assert opacity[unjudged].max() < opacity[~on_top & ~unjudged].min()
    x = trace(page, 3, "[...t.x]")
    all_x = trace(page, 0, "[...t.x]")
    top = [all_x.index(each) for each in x]
    assert sorted(top) == CHANGED
    assert sorted(top[-len(CALLED) :]) == CALLED  # drawn last
    symbols = trace(page, 3, "[...t.marker.symbol]")
    told = {"suppressed": "triangle-down", "exaggerated": "triangle-up",
            "less": "triangle-down-open", "more": "triangle-up-open"}  # fmt: skip
    assert symbols == [told[KINDS[k]] for k in top]
    upper = trace(page, 3, "[...t.marker.size]")
    assert min(upper) > sizes[unjudged].max()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("colour", ["verdict", "ratio"])
def test_colours_of_the_map(open_page, scheme, colour):
    page = open_page(f"#view=map&colour={colour}", color_scheme=scheme)
    values = trace(page, 0, "[...t.marker.color]")
    scale = trace(page, 0, "t.marker.colorscale")

    def shown(value):
        return [c for place, c in scale if place <= value][-1]

    grey = getattr(LOOKS[verdicts.NOT_ENOUGH_DATA], scheme)
    for k, kind in enumerate(KINDS):
        if not LOOKS[kind].is_judged:
            assert shown(values[k]) == grey
        elif colour == "verdict":
            assert shown(values[k]) == getattr(LOOKS[kind], scheme)
    if colour == "ratio":
        by_kind = dict(zip(KINDS, values, strict=True))
        # Log ratios -3 and 3 lie beyond the ends, of 8 times; 0.5 does not.
        assert by_kind["exaggerated"] == 1 and by_kind["suppressed"] == pytest.approx(0.1)
        assert by_kind["more"] == pytest.approx(0.1 + 0.9 * (0.5 + 0.25 / np.log(8)))
        assert [c for place, c in scale if place >= 0.1] == list(RATIO[scheme])
        assert texts(page, ".ramp span") == ["1/8×", "as real", "8×"]


@pytest.mark.parametrize("script", [None, NO_GL], ids=["webgl", "svg"])
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
        page.evaluate(
            """() => Plotly.relayout(document.querySelector('.js-plotly-plot'),
            {'xaxis.range': [0.4, 0.8], 'yaxis.range': [0.4, 0.8]})"""
        )
        page.wait_for_timeout(100)


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
    page.wait_for_function(f"document.querySelector('.js-plotly-plot').data[3].x.length === {n}")
    assert texts(page, ".chip span >> nth=0") == ["verdict: ▽ less"]
    assert texts(page, ".legend .count")[:3] == ["0 of 40", "0 of 40", "40 of 40"]
    assert page.get_attribute(".legend button >> nth=2", "aria-pressed") == "true"
    opacity = trace(page, 0, "[...t.marker.opacity]")
    assert max(opacity) <= 0.06
    page.click("#tab-table")
    page.wait_for_selector("#rows .chip")
    assert page.locator("#rows tbody tr").count() == n
    page.click("#rows .chip button")
    page.wait_for_function(
        f"document.querySelector('#rows .hint').textContent.startsWith('{len(CHANGED)} of {N}')"
    )
    page = open_page("#view=map&q=words+1&low=0.1&fires=70")
    assert [text.rstrip("✕") for text in texts(page, ".chip")] == [
        "search: words 1", "delta from 0.1 to 1", "fires at least 70 times in real images",
    ]  # fmt: skip
    page.click("text=clear all filters")
    page.wait_for_function("!document.querySelector('.chip')")
    assert page.url.endswith("#view=map")


def test_many_points_are_no_opaque_mass(open_page, workdir, many):
    """Where they are crowded they shine through and are smaller; zoomed in they are clear."""
    few = open_page("#view=map")
    page = open_page("#view=map", many)
    read = "[t.marker.opacity[6], t.marker.size[6]]"  # without enough data in both
    usual, (opacity, size) = trace(few, 0, read), trace(page, 0, read)
    assert opacity < 0.75 * usual[0] and size < 0.85 * usual[1]
    page.evaluate(
        """() => Plotly.relayout(document.querySelector('.js-plotly-plot'),
        {'xaxis.range': [0.1, 0.2], 'yaxis.range': [0.1, 0.2]})"""
    )
    page.wait_for_function(
        f"document.querySelector('.js-plotly-plot').data[0].marker.opacity[6] > {opacity + 0.1}"
    )
    assert trace(page, 0, read)[1] > size


def test_the_map_is_moved_as_a_picture_and_then_drawn(open_page):
    page = open_page("#view=map")
    ranges = "document.querySelector('.js-plotly-plot')._fullLayout.xaxis.range"
    length = page.evaluate("document.querySelector('.js-plotly-plot')._fullLayout.xaxis._length")
    ((x0, y0, x1, y1),) = boxes(page, ".plot")
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    before = page.evaluate(ranges)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 60, y, steps=3)
    moved = page.evaluate("document.querySelector('.gl-container').style.transform")
    assert moved.startswith("translate(60px, 0px)")
    assert page.evaluate(ranges) == before  # not drawn yet
    page.mouse.up()
    page.wait_for_function(f"{ranges}[0] !== {before[0]}")
    page.wait_for_function("!document.querySelector('.gl-container').style.transform")
    after = page.evaluate(ranges)
    shift = -60 * (before[1] - before[0]) / length
    np.testing.assert_allclose(after, np.add(before, shift), rtol=1e-6)
    assert "concept" not in page.url
    assert page.locator(".labels").is_visible()
    page.mouse.move(x + 100, y)
    page.mouse.wheel(0, -100)
    page.wait_for_function(f"{ranges}[0] !== {after[0]}")
    zoomed = page.evaluate(ranges)
    offset = page.evaluate("document.querySelector('.js-plotly-plot')._fullLayout.xaxis._offset")
    share = (x + 100 - x0 - offset) / length  # what lies there stays there
    at = [low + share * (high - low) for low, high in (after, zoomed)]
    assert at[0] == pytest.approx(at[1], abs=1e-6)
    assert (after[1] - after[0]) / (zoomed[1] - zoomed[0]) == pytest.approx(np.exp(0.4), rel=1e-6)


def test_the_table_shows_what_changed_until_one_asks_for_all(open_page):
    page = open_page("#view=table")
    assert page.inner_text("#rows .hint").startswith(f"{len(CHANGED)} of {N} concepts")
    assert page.get_attribute("role=button[name='all that changed']", "aria-pressed") == "true"
    page.click(f"text=show all {N}")
    page.wait_for_function(
        f"document.querySelector('#rows .hint').textContent.startsWith('{N} of {N}')"
    )
    assert "all=true" in page.url
    assert page.get_attribute("role=button[name='all'] >> nth=0", "aria-pressed") == "true"
    page.click("role=button[name='all that changed']")
    page.wait_for_function(
        f"document.querySelector('#rows .hint').textContent.startsWith('{len(CHANGED)} of')"
    )
    # A search looks through all of them.
    page.fill("#search", f"words {N - 1}")
    page.wait_for_function("document.querySelectorAll('#rows tbody tr').length === 1")
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
    page.wait_for_function("document.querySelector('#rows tr[data-concept=\"6\"]')")
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
    page.wait_for_function("location.hash.includes('concept=')")
    first = page.get_attribute("#rows tbody tr >> nth=0", "data-concept")
    assert page.get_attribute("#rows tr.selected", "data-concept") == first
