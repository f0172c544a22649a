"""A browser for the tests of pages, and pages that nothing may go wrong in."""

import contextlib

import pytest

FLAGS = ("--no-sandbox", "--use-gl=swiftshader", "--enable-unsafe-swiftshader")


@pytest.fixture(scope="module")
def browser():
    """Chromium, which draws WebGL by software."""
    from tests.report.browser import CHROMIUM, playwright  # skips where there is none

    if CHROMIUM is None:
        pytest.skip("there is no Chromium to look with")
    with (
        playwright.sync_playwright() as running,
        contextlib.closing(
            running.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        ) as chromium,
    ):
        yield chromium


@pytest.fixture
def open_page(browser, folder):
    """Opens the report in `folder` at an address; at the end nothing has failed in any page."""
    from tests.report.browser import Watched

    pages = []

    def start(address="", **options):
        pages.append(Watched(browser, folder, address, **options))
        return pages[-1].page

    yield start
    for page in pages:
        page.close()
