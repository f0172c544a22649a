"""A browser for the tests of pages, and pages that nothing may go wrong in."""

import pytest

IN_FIREFOX = pytest.param("firefox", marks=[pytest.mark.slow, pytest.mark.firefox])


@pytest.fixture(scope="module", params=["chromium", IN_FIREFOX])
def browser(request):
    """Each browser in turn."""
    from tests.report.browser import launched  # skips where there is no playwright

    with launched(request.param) as browser:
        yield browser


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
