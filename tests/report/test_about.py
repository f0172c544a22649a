"""The explorer's figures: in the reader's colours, with files to take away."""

import shutil
import urllib.parse

import numpy as np
import pytest

from bsjax.data.images import thumbnail
from bsjax.report.explorer.site import write_site
from bsjax.report.style import draw
from bsjax.report.tables import read_comparisons
from bsjax.stats import verdicts
from tests.report.artifacts import write_arm, write_comparison
from tests.report.browser import MARKS, Watched, serious_faults, wait_until

pytestmark = MARKS
STEM = "one #1 100%_findings"


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """A report in either style, whose only figure is an empty one."""
    workdir = tmp_path_factory.mktemp("figures")
    for arm in ("real", "one"):
        write_arm(workdir, arm, 7)
    write_comparison(workdir, "one", list(verdicts.KINDS))
    comparisons = read_comparisons(workdir, ["one"])
    places, names = np.eye(7, 2), list("abcdefg")
    found = {}
    for style in ("light", "dark"):
        found[style] = workdir / style
        draw(found[style] / "figures", STEM, (3, 2), lambda axes, style: None, style)
        shown = [(STEM, "what it shows", style)]
        write_site(found[style], comparisons, places, names, [{}], shown, thumbnail)
    return found


@pytest.mark.parametrize("style", ["light", "dark"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_figures_are_in_the_readers_colours_and_can_be_taken_away(browser, reports, style, scheme):
    folder = reports[style]
    watched = Watched(browser, folder, "#view=figures", color_scheme=scheme)
    page = watched.page
    wait_until(page, "document.querySelector('#view img').naturalWidth")
    other = {"light": "dark", "dark": "light"}[style]
    shown = urllib.parse.unquote(page.evaluate("document.querySelector('#view img').currentSrc"))
    name = STEM if scheme == style else f"{STEM}_{other}"
    assert shown.endswith(f"/figures/{name}.png")
    links = page.eval_on_selector_all(
        ".files a", "all => all.map(e => [e.textContent, e.getAttribute('href'), e.download])"
    )
    assert [link[0] for link in links] == ["PNG", "SVG", "PDF", f"PNG, {other}"]
    for _, address, download in links:
        assert (folder / urllib.parse.unquote(address)).is_file()
        assert address == f"figures/{urllib.parse.quote(download, safe='')}"
    assert page.get_attribute("#view figure", "class") == "wide"
    assert serious_faults(page) == []
    watched.close()


def test_a_figure_that_is_gone_is_said(browser, reports, tmp_path):
    folder = tmp_path / "report"
    shutil.copytree(reports["light"], folder)
    (folder / "figures" / f"{STEM}.png").unlink()
    page = browser.new_page(color_scheme="light")
    page.goto(f"{folder.as_uri()}/index.html#view=figures")
    page.wait_for_selector("#view .gone")
    assert page.inner_text("#view .gone") == f"figures/{STEM}.png is missing"
    page.close()
