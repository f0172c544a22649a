"""Real browsers for tests of the explorer, which are skipped where there is none."""

import atexit
import contextlib
import functools
import pathlib
import shlex
import shutil
import sys
import tempfile
import time
from typing import NamedTuple

import pytest

from tests.report import older_firefox
from tests.report.conftest import IN_FIREFOX

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is absent")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FIREFOX = shutil.which("firefox-esr") or shutil.which("firefox")
SOFTWARE_GL = ("--use-gl=swiftshader", "--enable-unsafe-swiftshader")
NO_GL = ("--disable-gpu", "--disable-3d-apis")
MARKS = [
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning"),
]


DARK = {}  # Firefox -> another one, which prefers dark pages
BROWSERS = ("chromium", IN_FIREFOX)


@contextlib.contextmanager
def launched(name="chromium", has_webgl=True):
    """A browser, as `launch` starts it."""
    if {"chromium": CHROMIUM, "firefox": FIREFOX}[name] is None:
        pytest.skip(f"there is no {name} to look with")
    with playwright.sync_playwright() as running:
        with contextlib.closing(launch(getattr(running, name), has_webgl)) as browser:
            yield browser
        if browser in DARK:
            DARK.pop(browser).close()


def launch(kind, has_webgl=True, prefs=None):
    """Chromium, which draws WebGL by software, or the system's own Firefox by WebDriver BiDi.

    Args:
      kind: as a running browser's `browser_type`; one playwright runs at a time.
      has_webgl: whether pages may draw with it.
      prefs: of Firefox.
    """
    if kind.name == "chromium":
        flags = ["--no-sandbox", *(SOFTWARE_GL if has_webgl else NO_GL)]
        return kind.launch(executable_path=CHROMIUM, args=flags)
    prefs = {"webgl.disabled": not has_webgl} | (prefs or {})
    options = {"channel": "moz-firefox", "firefox_user_prefs": prefs}
    try:
        return kind.launch(executable_path=FIREFOX, **options)
    except playwright.Error as error:
        if "unknown command" not in str(error):
            raise
    return kind.launch(executable_path=_older_firefox(), **options)


@functools.cache
def _older_firefox():
    """A program that starts Firefox and answers what it lacks; there until the tests end."""
    program = pathlib.Path(tempfile.mkdtemp(prefix="firefox-")) / "firefox"
    atexit.register(shutil.rmtree, program.parent)
    command = shlex.join([sys.executable, older_firefox.__file__, FIREFOX])
    program.write_text(f'#!/bin/sh\nexec {command} "$@"\n', encoding="utf-8")
    program.chmod(0o700)
    return program


def is_firefox(page_or_browser):
    browser = getattr(page_or_browser, "context", page_or_browser)
    browser = getattr(browser, "browser", browser)
    return browser.browser_type.name == "firefox"


def new_context(browser, color_scheme="light", **options):
    """A context of pages in a colour scheme, which Firefox has as a whole."""
    if is_firefox(browser) and color_scheme == "dark":
        if browser not in DARK:
            dark = {"layout.css.prefers-color-scheme.content-override": 0}
            DARK[browser] = launch(browser.browser_type, prefs=dark)
        browser = DARK[browser]
    return browser.new_context(color_scheme=color_scheme, **options)


def wait_until(page, condition, arg=None, seconds=20):
    """Waits for what an expression or a function of the page says; without the page's own eval,
    which its policy forbids."""
    end = time.monotonic() + seconds
    while True:
        try:
            if page.evaluate(condition, arg):
                return
            fault = "it is not so"
        except playwright.Error as error:  # it was about to go elsewhere
            fault = str(error)
        if time.monotonic() > end:
            raise AssertionError(f"{condition}: {fault} after {seconds} s")
        page.wait_for_timeout(20)


def enter(page, selector, text):
    """Types into a field and presses Enter; Firefox knows no change that nobody typed."""
    field = page.locator(selector)
    field.fill("")
    field.press_sequentially(text)
    field.press("Enter")


def go_back(page):
    """Without waiting for a page to load: none does."""
    page.evaluate("history.back()")


def skip_without_webgl(page):
    """Firefox draws none without a graphics card; Chromium must."""
    if is_firefox(page) and not page.evaluate(
        "!!document.createElement('canvas').getContext('webgl2')"
    ):
        pytest.skip("this Firefox has no WebGL")


class File(NamedTuple):
    """What the page gave to be kept."""

    name: str
    text: str


def downloaded(page, selector):
    """The file that a click gives."""
    if not is_firefox(page):
        with page.expect_download() as waiting:
            page.click(selector)
        content = pathlib.Path(waiting.value.path()).read_bytes()
        return File(waiting.value.suggested_filename, content.decode())
    # Of a blob it tells nothing by BiDi; that it is written is tested in test_firefox.py.
    page.evaluate(
        """() => {
        const make = URL.createObjectURL, press = HTMLAnchorElement.prototype.click;
        window.given = {};
        URL.createObjectURL = (blob) => {
          blob.arrayBuffer().then((found) => { given.bytes = [...new Uint8Array(found)]; });
          return make.call(URL, blob);
        };
        HTMLAnchorElement.prototype.click = function () {
          given.name = this.download; press.call(this);
        };
        }"""
    )
    page.click(selector)
    wait_until(page, "given.bytes && given.name")
    given = page.evaluate("given")
    return File(given["name"], bytes(given["bytes"]).decode())


class Watched:
    """A page that remembers what went wrong in it and what it asked for."""

    def __init__(self, browser, folder, address="", base=None, **options):
        options = {"viewport": {"width": 1200, "height": 800}} | options
        self.page = new_context(browser, **options).new_page()
        self.page.set_default_timeout(20_000)
        self.errors, self.requests = [], []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self._on_console)
        self.page.on("dialog", lambda dialog: (self.errors.append("dialog"), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))
        base = base or folder.as_uri()
        self.base = base
        self.page.goto(f"{base}/index.html{address}")
        self.page.wait_for_selector("body[data-ready]")

    def _on_console(self, message):
        if message.type == "error":
            self.errors.append(message.text)

    def close(self):
        """Nothing failed, and nothing was asked of anyone else."""
        # A screenshot hides the caret by a style of its own, which the page's policy refuses.
        is_own = "(style-src-elem)" if is_firefox(self.page) else None
        errors = [error for error in self.errors if not is_own or is_own not in error]
        assert errors == [], errors
        own = ("data:", "blob:", self.base)
        assert [url for url in self.requests if not url.startswith(own)] == []
        self.page.context.close()


# The plot that is shown, and what of it tests look at.
PLOT = "document.querySelector('.plot').plot"
POINTS = """() => {
  const { ids, place, size, colour, kind } = document.querySelector('.plot').plot.points;
  return [...ids].map((id, p) => ({
    id, x: place[2 * p], y: place[2 * p + 1], size: size[p], opacity: colour[4 * p + 3] / 255,
    rgb: [...colour.slice(4 * p, 4 * p + 3)], symbol: kind[p] % 8, layer: Math.floor(kind[p] / 8),
  }));
}"""
SYMBOLS = ("disc", "up", "down", "open up", "open down")
BELOW, FADED, ABOVE = range(3)  # layers
# Chromium without a graphics card draws WebGL by software, which the page does without.
SOFT_GL = """HTMLCanvasElement.prototype.getContext = (old => function (kind, options) {
return old.call(this, kind, {...options, failIfMajorPerformanceCaveat: false});
})(HTMLCanvasElement.prototype.getContext);"""


def points(page):
    """Of the first plot, in the order in which they are drawn."""
    wait_until(page, f"{PLOT.removesuffix('.plot')}?.plot.points.ids.length > 0")
    return page.evaluate(POINTS)


def place_of(page, concept):
    """Pixels of the page at which the first plot shows a concept, once it does."""
    for _ in range(200):
        place = _place_of(page, concept)
        if place is not None:
            return place
        page.wait_for_timeout(100)
    raise AssertionError(f"the plot does not show concept {concept}")


def _place_of(page, concept):
    return page.evaluate(
        """k => { const { plane, points, at } = document.querySelector('.plot')?.plot ?? {};
        const p = points?.ids.indexOf(k) ?? -1;
        if (p < 0) return null;
        const { left, top } = plane.getBoundingClientRect();
        const { x, y } = at(points.place[2 * p], points.place[2 * p + 1]);
        return [left + x, top + y]; }""",
        concept,
    )


def show_part(page, left, right, low, high):
    """Zooms the first plot to a part."""
    part = f"{{left: {left}, right: {right}, low: {low}, high: {high}}}"
    page.evaluate(f"() => {{ {PLOT}.setView({part}); }}")


def wait_for_concept(page, concept):
    text = f"document.querySelector('#panel h2 .id')?.textContent.trim() === '{concept}'"
    wait_until(page, text)


def serious_faults(page):
    """Faults of accessibility that axe calls serious or critical, with the elements at fault."""
    axe = pytest.importorskip("axe_playwright_python", reason="axe is absent")
    page.evaluate(pathlib.Path(axe.__file__).with_name("axe.min.js").read_text())
    found = page.evaluate("axe.run(document, {preload: false})")["violations"]
    return [
        (fault["id"], [node["html"][:120] for node in fault["nodes"]][:3])
        for fault in found
        if fault["impact"] in ("serious", "critical")
    ]
