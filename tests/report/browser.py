"""A real browser for tests of the explorer, which are skipped where there is none."""

import pathlib
import shutil

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is absent")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
MARKS = [
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to look with"),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning"),
]


class Watched:
    """A page that remembers what went wrong in it and what it asked for."""

    def __init__(self, browser, folder, address="", base=None, **options):
        # What waits for a condition evaluates it in the page, which the page's policy forbids.
        options = {"viewport": {"width": 1200, "height": 800}, "bypass_csp": True} | options
        context = browser.new_context(**options)
        self.page = context.new_page()
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
        assert self.errors == []
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
    page.wait_for_function(f"{PLOT.removesuffix('.plot')}?.plot.points.ids.length > 0")
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
    page.wait_for_function(text)


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
