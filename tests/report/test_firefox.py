"""The explorer in Firefox by its own protocol, from disk and over HTTP: what the other tests of
pages, which speak WebDriver BiDi to it, cannot see, such as the files that it writes."""

import csv
import io
import shutil
import urllib.parse

import numpy as np
import pytest

from bsjax.data.images import thumbnail
from bsjax.report.explorer.site import write_site
from bsjax.report.tables import read_comparisons
from bsjax.stages.explore import show
from bsjax.stats import verdicts
from tests.report.artifacts import finding, write_arm, write_comparison

marionette = pytest.importorskip("marionette_driver.marionette", reason="marionette is absent")
from marionette_driver import By, Wait  # noqa: E402

FIREFOX = shutil.which("firefox-esr") or shutil.which("firefox")
pytestmark = [
    pytest.mark.skipif(FIREFOX is None, reason="there is no Firefox to look with"),
    pytest.mark.filterwarnings(
        "ignore::ResourceWarning",
        "ignore::DeprecationWarning",
        # It is started by fork, and becomes another program at once.
        "ignore:os.fork:RuntimeWarning",
    ),
]
N = 70
KINDS = [verdicts.KINDS[k % len(verdicts.KINDS)] for k in range(N)]
FOUND = [finding(1, [0], verdicts.SUPPRESSED, -2.0, -4.0, -1.0)]
TABS = {  # what each shows
    "findings": "#view article",
    "map": "#view .plot canvas.points",
    "table": "#rows tbody tr",
    "models": "#view .matrix td",
    "images": "#view figure img",
    "figures": "#view > *",
    "card": "#view > *",
}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("firefox")
    for name in ("real", "one", "two"):
        write_arm(workdir, name, N)
    for name in ("one", "two"):
        write_comparison(workdir, name, KINDS, findings=FOUND)
    comparisons = read_comparisons(workdir, ["one", "two"])
    places = np.random.default_rng(0).uniform(size=(N, 2)).astype(np.float32)
    names = [f"words {k}" for k in range(N)]
    write_site(workdir / "report", comparisons, places, names, [{}, {}], [], thumbnail)
    return workdir


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def firefox(tmp_path_factory, downloads):
    log = tmp_path_factory.mktemp("gecko") / "log"
    prefs = {"browser.download.folderList": 2, "browser.download.dir": str(downloads)}
    browser = marionette.Marionette(bin=FIREFOX, headless=True, gecko_log=str(log), prefs=prefs)
    browser.start_session()
    yield browser
    browser.cleanup()


@pytest.fixture(scope="module", params=["file", "http"])
def page(request, firefox, workdir):
    """The page, open."""
    address = (workdir / "report" / "index.html").as_uri()
    if request.param == "http":
        served = urllib.parse.urlsplit(show(workdir, height=500).src)
        address = f"http://{served.netloc}/index.html"
    firefox.navigate(address)
    wait_for(firefox, "body[data-ready]")
    return firefox


def wait_for(page, selector):
    Wait(page, timeout=30).until(
        lambda page: page.execute_script(
            "return Boolean(document.querySelector(arguments[0]))", [selector]
        ),
        message=f"{selector} did not appear",
    )


def is_without_fault(page):
    return page.execute_script("return document.getElementById('fault').hidden")


def test_every_tab_opens(page):
    for tab, shown in TABS.items():
        page.find_element(By.ID, f"tab-{tab}").click()
        wait_for(page, shown)
        assert page.execute_script("return location.hash.includes(arguments[0])", [tab]) or (
            tab == "findings"
        )
        assert is_without_fault(page), tab


def test_a_concept_opens_and_a_search_narrows(page):
    page.find_element(By.ID, "tab-table").click()
    wait_for(page, "#rows tbody tr")
    before = count(page)
    page.find_element(By.ID, "search").send_keys("words 21")
    Wait(page, timeout=20).until(lambda page: 0 < count(page) < before)
    page.execute_script("document.querySelector('#rows tbody tr').click()")
    wait_for(page, "#panel h2 .id")
    Wait(page, timeout=20).until(
        lambda page: page.execute_script(
            "return document.querySelector('#panel h2 .id').textContent.trim() === '21'"
        )
    )
    assert is_without_fault(page)


def test_a_table_is_written_as_csv(page, downloads):
    page.find_element(By.ID, "tab-table").click()
    wait_for(page, "#rows tbody tr")
    (button,) = (
        each
        for each in page.find_elements(By.TAG_NAME, "button")
        if each.text == "CSV of this view"
    )
    button.click()
    file = downloads / "one.csv"
    Wait(page, timeout=20).until(lambda page: file.is_file() and file.stat().st_size)
    heads, *rows = csv.reader(io.StringIO(file.read_text(encoding="utf-8-sig"), newline=""))
    assert heads[:2] == ["concept", "name"] and len(rows) == count(page) > 0
    file.unlink()
    assert is_without_fault(page)


def count(page):
    return page.execute_script("return document.querySelectorAll('#rows tbody tr').length")
