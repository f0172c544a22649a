"""The explorer where a browser lacks something, data are missing, or hands are quick."""

import contextlib
import csv
import dataclasses
import io
import shutil

import numpy as np
import pyarrow as pa
import pytest

from bsjax.data.images import thumbnail
from bsjax.report.explorer.bundle import write_static
from bsjax.report.explorer.encode import write_data
from bsjax.report.explorer.site import COLUMNS, columns_payload, site_payload, stamp_of, write_site
from bsjax.report.tables import read_comparisons
from bsjax.stats import verdicts
from tests.report.artifacts import write_arm, write_comparison
from tests.report.browser import (
    BROWSERS,
    MARKS,
    PLOT,
    SOFT_GL,
    downloaded,
    enter,
    go_back,
    launch,
    launched,
    place_of,
    points,
    show_part,
    skip_without_webgl,
    wait_until,
)

pytestmark = MARKS
N = 12
KINDS = [verdicts.KINDS[k % 4] for k in range(N)]
SETS = ("one", "two")
NAMES = ["=1+1", "+x", "-x", "@x", "\tx", "\rx", 'a "b", c', "two\nlines", "x=1", "", "ü", "é,"]
BY = "document.querySelector('.plane')?.dataset.by"
# As Safari does.
LIMIT = """for (const name of ["pushState", "replaceState"]) {
  const old = history[name].bind(history);
  history[name] = (...given) => {
    const now = performance.now();
    window.writes = (window.writes ?? []).filter((then) => now - then < 30000);
    if (window.writes.length >= 100) throw new DOMException("100 times per 30 s", "SecurityError");
    window.writes.push(now);
    return old(...given);
  };
}"""


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("trouble")
    write_arm(workdir, "real", N)
    for name in SETS:
        write_arm(workdir, name, N)
        write_comparison(workdir, name, KINDS)
    comparisons = read_comparisons(workdir, SETS)
    angle = np.linspace(0, 2 * np.pi, N, endpoint=False)
    places = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    figures = [("gone", "a figure")]
    write_site(workdir / "report", comparisons, places, NAMES, [{}] * 2, figures, thumbnail)
    return workdir


@pytest.fixture(scope="module", params=BROWSERS)
def browser(request):
    """One without WebGL."""
    with launched(request.param, has_webgl=False) as browser:
        yield browser


@pytest.fixture
def open_page(browser, workdir):
    pages = []

    def start(address="", folder=None, script=None, ready=True):
        page = browser.new_page(viewport={"width": 1200, "height": 800})
        page.set_default_timeout(20_000)
        page.errors = []
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.on("console", lambda said: said.type == "error" and page.errors.append(said.text))
        if script:
            page.add_init_script(script)
        page.goto(f"{(folder or workdir / 'report').as_uri()}/index.html{address}")
        if ready:
            page.wait_for_selector("body[data-ready]")
        pages.append(page)
        return page

    yield start
    for page in pages:
        page.context.close()


def shown(page, concept):
    wait_until(page, f"document.querySelector('#panel h2 .id')?.textContent.trim() === '{concept}'")


def test_safaris_limit_of_addresses(open_page):
    """More changes than it allows: each is shown, none throws, and the newest is written."""
    page = open_page("#concept=1", script=LIMIT)
    slider = page.locator("#panel .slider input")
    written = slider.evaluate(
        """e => { for (let i = 0; i < 150; i += 1) {
        e.value = (i % 20) / 20; e.dispatchEvent(new Event("input")); }
        return window.writes.length; }"""  # before what waits is written
    )
    assert written == 30
    for _ in range(20):
        page.keyboard.press("ArrowDown")
    shown(page, page.evaluate("document.querySelector('#goto').value"))
    wait_until(page, "location.hash.includes('heat=0.45')")
    concept = page.input_value("#goto")
    wait_until(page, f"location.hash.includes('concept={concept}')")
    assert page.evaluate("window.writes.length") < 60
    assert page.errors == []


def test_a_refused_address_is_written_later(open_page):
    script = """const old = history.replaceState.bind(history); window.isRefusing = true;
    history.replaceState = (...given) => {
      if (window.isRefusing) throw new DOMException("no", "SecurityError");
      return old(...given); };"""
    page = open_page("#view=table", script=script)
    page.fill("#search", "x=1")
    wait_until(page, "document.querySelectorAll('#rows tbody tr').length === 1")
    assert "q=" not in page.url
    page.evaluate("window.isRefusing = false")
    wait_until(page, "location.hash.includes('q=x')")
    assert page.errors == []


def test_the_way_back_wins_over_what_was_to_be_written(open_page):
    page = open_page("#concept=1")
    enter(page, "#goto", "2")
    shown(page, 2)
    page.locator("#panel .slider input").evaluate(
        """e => { for (let i = 0; i < 60; i += 1) {
        e.value = (i % 20) / 20; e.dispatchEvent(new Event("input")); } }"""
    )
    go_back(page)
    shown(page, 1)
    page.wait_for_timeout(700)
    assert page.url.endswith("#concept=1")


@pytest.mark.parametrize(
    "script",
    [
        None,
        # A browser that has WebGL, but not what the page needs of it.
        """HTMLCanvasElement.prototype.getContext = (old => function (kind, ...more) {
        return kind.includes("webgl") ? {getExtension: () => null} : old.call(this, kind, ...more);
        })(HTMLCanvasElement.prototype.getContext);""",
        """HTMLCanvasElement.prototype.getContext = (old => function (kind, ...more) {
        if (kind.includes("webgl")) throw new Error("no");
        return old.call(this, kind, ...more); })(HTMLCanvasElement.prototype.getContext);""",
    ],
)
def test_a_map_without_webgl(open_page, script):
    page = open_page("#view=map", script=script)
    assert page.evaluate(BY) == "pixels"
    assert len(points(page)) == N and n_coloured(page) > 20 * N
    assert "WebGL" not in page.inner_text("#view")
    page.mouse.click(*place_of(page, 7))
    shown(page, 7)
    page.select_option("#second", SETS[1])
    wait_until(page, "document.querySelectorAll('.plane').length === 2")
    page.click("#tab-models")
    page.wait_for_selector(".square .plane")
    judged = sum(kind != verdicts.NOT_ENOUGH_DATA for kind in KINDS)
    assert len(points(page)) == judged and page.evaluate(BY) == "pixels"
    assert page.errors == []


def n_coloured(page):
    """Pixels of the first plot that are not of the paper's colour."""
    return page.evaluate(
        """() => { const plot = document.querySelector('.plot').plot; plot.draw();
        const canvas = plot.plane.querySelector('canvas.points');
        const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        let n = 0;
        for (let at = 0; at < data.length; at += 4) {
          n += [0, 1, 2].some((part) => data[at + part] !== data[part]); }
        return n; }"""
    )


def test_many_points_without_webgl(open_page, workdir, tmp_path):
    """All are there, crowded ones as density; the lasso catches all that lie in it."""
    n, rng = 12_000, np.random.default_rng(0)
    comparisons = read_comparisons(workdir, SETS)
    columns = {name: rng.random(n) for name in COLUMNS}
    kinds = np.array([verdicts.UNDECIDED] * n, dtype=object)
    kinds[::6] = verdicts.SUPPRESSED
    columns |= {"verdict": kinds, "verdict_paper": verdicts.judge_as_paper(columns["delta"])}
    real = dataclasses.replace(comparisons[0].real, top_rows=np.zeros((n, 12), np.int32))
    sets = [each._replace(columns=columns, real=real) for each in comparisons]
    write_static(tmp_path)
    names = [f"words {k}" for k in range(n)]
    places = rng.uniform(size=(n, 2))
    places[: n // 3] = rng.normal(0.2, 0.01, size=(n // 3, 2))
    write_data(tmp_path / "data", "site", site_payload(sets, places, names, [{}] * 2, []))
    for i in range(2):
        write_data(tmp_path / "data", f"columns/{i}", columns_payload(columns))
    page = open_page("#view=map", folder=tmp_path)
    drawn = points(page)
    assert sorted(each["id"] for each in drawn) == list(range(n))
    assert n_coloured(page) > 3 * n
    thick, thin = (
        page.evaluate(
            """([x, y]) => { const { plane, at } = document.querySelector('.plot').plot;
            const place = at(x, y), canvas = plane.querySelector('canvas.points');
            const { data } = canvas.getContext('2d').getImageData(place.x - 5, place.y - 5, 11, 11);
            let least = 0;
            for (let at = 0; at < data.length; at += 4) least += data[at];
            return least / 121; }""",
            where,
        )
        for where in ((0.2, 0.2), (0.7, 0.7))
    )
    assert thick < thin - 20  # darker on white
    box = page.locator(".plane").bounding_box()
    show_part(page, -0.3, 1.3, -0.3, 1.3)
    ends = [
        page.evaluate(f"{PLOT}.at({x}, {y})") for x, y in ((-0.2, -0.2), (1.2, -0.2), (-0.2, 1.2))
    ]
    page.keyboard.down("Shift")
    for each, act in zip(ends, (page.mouse.down, None, None), strict=True):
        page.mouse.move(box["x"] + each["x"], box["y"] + each["y"], steps=4)
        if act:
            act()
    page.mouse.up()
    page.keyboard.up("Shift")
    page.click("#tab-table")
    n_caught = int((places.sum(axis=1) < 1).sum())
    page.wait_for_selector("#rows .hint")
    caught = int(page.inner_text("#rows .hint").split()[0])
    assert caught == pytest.approx(n_caught, abs=40)  # to a pixel
    page.click("#tab-models")
    page.wait_for_selector(".square .plane")
    assert len(points(page)) == n
    assert page.errors == []


def test_a_lost_graphics_card(browser, workdir):
    with contextlib.closing(launch(browser.browser_type)) as other:
        page = other.new_page()
        page.add_init_script(SOFT_GL)
        page.goto((workdir / "report" / "index.html").as_uri() + "#view=map")
        page.wait_for_selector("body[data-ready]")
        skip_without_webgl(page)
        assert page.evaluate(BY) == "webgl" and len(points(page)) == N
        page.evaluate(
            """document.querySelector(".plane canvas.points").getContext("webgl2")
            .getExtension("WEBGL_lose_context").loseContext()"""
        )
        wait_until(page, f"{BY} === 'pixels'")
        assert n_coloured(page) > 20 * N
        assert page.locator("#fault").is_hidden()


def test_software_webgl_is_left_alone(browser, workdir):
    """It is slower than pixels by hand."""
    with contextlib.closing(launch(browser.browser_type)) as other:
        page = other.new_page()
        page.goto((workdir / "report" / "index.html").as_uri() + "#view=map")
        page.wait_for_selector("body[data-ready]")
        assert page.evaluate(BY) == "pixels"


@pytest.mark.parametrize("view", ["images", "models", "figures", "card"])
def test_arrows_where_nothing_is_listed(open_page, view):
    page = open_page("#view=table")  # whose rows are loaded from now on
    page.click(f"#tab-{view}")
    wait_until(page, f"document.getElementById('view').dataset.view === '{view}'")
    for key in ("ArrowDown", "ArrowUp", "ArrowLeft", "ArrowRight"):
        page.keyboard.press(key)
    page.wait_for_timeout(100)
    assert page.url.endswith(f"#view={view}")
    assert not page.locator("#panel").is_visible()
    assert page.locator("#fault").is_hidden()
    assert [error for error in page.errors if "ERR_FILE_NOT_FOUND" not in error] == []


def test_tabs_by_arrows(open_page):
    page = open_page("#view=constructor")
    page.focus("#tab-findings")
    for name in ("map", "table", "models", "images", "figures", "card", "findings"):
        page.keyboard.press("ArrowRight")
        wait_until(page, f"document.activeElement.id === 'tab-{name}'")
        wait_until(page, f"document.getElementById('view').dataset.view === '{name}'")
    assert page.locator("#fault").is_hidden()


@pytest.mark.parametrize(
    "address",
    ["concept=1.5", "concept=", "concept=-7", "colour=constructor&size=x", "view=models&x=toString",
     "view=images&score=valueOf", "view=table&sort=__proto__&verdict=x&low=&high=NaN",
     "model=none&second=none", "heat=9&fires=1e999"],
)  # fmt: skip
def test_any_address_is_a_page(open_page, address):
    page = open_page(f"#{address}")
    page.wait_for_timeout(100)
    assert page.errors == []
    assert page.inner_text("#view").strip()
    assert not page.locator("#panel h2").is_visible()


def test_quick_hands_end_where_they_went(open_page):
    slow = """HTMLHeadElement.prototype.append = function (script) {
    setTimeout(() => this.appendChild(script), script.src.includes("pairs") ? 600 : 0); };"""
    page = open_page(script=slow)
    page.evaluate(
        """async () => { for (const name of ["models", "map", "images", "table"]) {
        document.getElementById(`tab-${name}`).click();
        await new Promise((done) => setTimeout(done, 20)); } }"""
    )
    wait_until(page, f"document.querySelectorAll('#rows tbody tr').length === {N}")
    page.wait_for_timeout(900)
    assert page.locator("#view .pair, #view .plane").count() == 0
    assert page.errors == []


def test_csv_holds_no_formula(open_page):
    page = open_page("#view=table&sort=concept")
    text = downloaded(page, "text=CSV of this view").text
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    names = [f"'{name}" if name[:1] in tuple("=+-@\t\r") else name for name in NAMES]
    assert [row["name"] for row in rows] == names
    assert rows[0]["relative"].startswith("-")  # a number stays one


@pytest.mark.parametrize("damage", ["absent", "cut"])
@pytest.mark.parametrize(
    ("file", "address"),
    [("data/site.js", ""), ("data/columns/0.js", "#view=map"), ("data/findings/0.js", ""),
     ("data/called/0.js", "#concept=1"), ("data/columns/0.js", "#view=table"),
     ("data/pairs/0.js", "#view=images"), ("data/concepts/0/0.js", "#view=table&concept=1"),
     ("data/maps/0/0.js", "#view=table&concept=1"),
     ("data/thumbnails/1/0.js", "#view=images"), ("explorer.js", "")],
)  # fmt: skip
def test_what_is_missing_is_said(open_page, workdir, tmp_path, file, address, damage):
    folder = shutil.copytree(workdir / "report", tmp_path / "report")
    whole = (folder / file).read_bytes()
    (folder / file).unlink()
    if damage != "absent":
        (folder / file).write_bytes(whole[: len(whole) // 2])
    page = open_page(address, folder, ready=False)
    if file == "explorer.js":
        page.wait_for_timeout(300)
        assert "explorer.js beside it is missing or damaged" in page.inner_text("#view")
        return
    wait_until(page, "!document.getElementById('fault').hidden")
    assert file in page.inner_text("#fault")
    assert "bsjax report" in page.inner_text("#fault")
    page.click("#no-fault")
    assert page.locator("#fault").is_hidden()
    page.wait_for_timeout(100)
    assert page.inner_text("#view").strip()


def test_a_damaged_array_is_said(open_page, workdir, tmp_path):
    for name, old, new in (
        ("columns/0", '"shape":[12]', '"shape":[13]'),
        ("columns/1", '"shape":[12]', '"shape":[11]'),
        ("pairs/0", '"data":"', '"data":"*'),
        ("concepts/0/0", '"data":"', '"data":"*'),
    ):
        folder = shutil.copytree(workdir / "report", tmp_path / name.replace("/", "_"))
        path = folder / "data" / f"{name}.js"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
        page = open_page("#view=images&concept=1", folder, ready=False)
        wait_until(page, "!document.getElementById('fault').hidden")
        assert "an array of the report is damaged" in page.inner_text("#fault")


MADE_ANEW = "the report was made anew: reload the page"


@pytest.fixture
def reports(workdir, tmp_path):
    """Writes a report of some of the sets, in some order, over the one that is there."""

    def write(*names):
        comparisons = read_comparisons(workdir, names)
        places = np.zeros((N, 2), np.float32)
        cards = [{}] * len(names)
        shutil.rmtree(tmp_path / "report" / "data", ignore_errors=True)
        return write_site(
            tmp_path / "report", comparisons, places, NAMES, cards, [], thumbnail
        ).parent

    return write


@pytest.mark.parametrize(
    ("after", "address", "action"),
    [
        (("two", "one"), "#view=table", lambda page: page.click("#tab-images")),
        (("two", "one"), "#view=table", lambda page: enter(page, "#goto", "1")),
        # Of one set alone: the chunks of the other, which is shown, are missing.
        (("one",), "#view=table&model=two", lambda page: page.click("#tab-images")),
        (("one",), "#view=table&model=two", lambda page: enter(page, "#goto", "1")),
    ],
)
def test_a_page_of_an_earlier_report_says_so(open_page, reports, after, address, action):
    page = open_page(address, reports("one", "two"))
    reports(*after)
    action(page)
    wait_until(page, "!document.getElementById('fault').hidden")
    assert page.inner_text("#fault span").startswith(MADE_ANEW)
    page.wait_for_timeout(300)
    place = "#panel" if "concept" in page.url else "#view"
    assert page.inner_text(place).count(MADE_ANEW) == 1  # in one line, whatever it kept away
    page.reload()
    wait_until(page, "document.querySelector('#view img, #panel img')")
    assert page.locator("#fault").is_hidden()


def test_the_same_report_written_again_is_no_other(open_page, reports):
    page = open_page("#view=table", reports("one", "two"))
    reports("one", "two")
    enter(page, "#goto", "1")
    shown(page, 1)
    page.click("#tab-images")
    page.wait_for_selector("#view .pairs", state="attached")
    assert page.locator("#fault").is_hidden()


def test_a_file_that_is_missing_is_not_told_as_another_report(open_page, reports):
    folder = reports("one", "two")
    page = open_page("#view=table", folder)
    (folder / "data" / "pairs" / "0.js").unlink()
    page.click("#tab-images")
    wait_until(page, "!document.getElementById('fault').hidden")
    assert "data/pairs/0.js is missing" in page.inner_text("#fault span")


def test_the_stamp_tells_what_does_not_go_together(workdir):
    one, two = read_comparisons(workdir, SETS)
    stamp = stamp_of([one, two])
    assert stamp_of(read_comparisons(workdir, SETS)) == stamp
    assert stamp_of([two, one]) != stamp != stamp_of([one])
    assert stamp_of([one._replace(name="x"), two]) != stamp
    columns = one.columns | {"q_material": one.columns["q_material"] + 1}
    assert stamp_of([one._replace(columns=columns), two]) != stamp
    images = one.real.images
    keys = pa.array(["x", *one.real.keys[1:]])
    renamed = images.set_column(images.column_names.index("key"), "key", keys)
    for change in ({"images": renamed}, {"top_rows": one.real.top_rows + 1},
                   {"manifest": {"config_hash": "x"}}):  # fmt: skip
        real = dataclasses.replace(one.real, **change)
        assert stamp_of([one._replace(real=real), two]) != stamp
        other = dataclasses.replace(two.generated, **change)
        assert stamp_of([one, two._replace(generated=other)]) != stamp


def test_a_missing_figure_and_a_wrong_number_are_said(open_page):
    page = open_page("#view=figures")
    page.wait_for_selector("#view .gone")
    assert page.inner_text("#view .gone") == "figures/gone.png is missing"
    enter(page, "#goto", "12 apples")
    wait_until(page, "document.getElementById('status').textContent")
    assert "run from 0 to 11" in page.inner_text("#status")
    assert "concept" not in page.url


def test_errors_that_nobody_caught_are_shown(open_page):
    page = open_page()
    page.evaluate("void setTimeout(() => { throw new Error('out of place'); })")
    wait_until(page, "!document.getElementById('fault').hidden")
    assert page.inner_text("#fault span") == "This page went wrong: out of place"
    page.click("#no-fault")
    page.evaluate("void Promise.reject(new Error('later'))")
    wait_until(page, "!document.getElementById('fault').hidden")
    assert "later" in page.inner_text("#fault span")
