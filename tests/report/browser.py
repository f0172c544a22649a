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
        options = {"viewport": {"width": 1200, "height": 800}} | options
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
