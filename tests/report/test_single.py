"""The explorer inside a notebook that reaches no port: one page with everything in it."""

import numpy as np
import pytest

from bsjax.core.errors import UserError
from bsjax.data.images import thumbnail
from bsjax.report.explorer import single
from bsjax.report.explorer.site import write_site
from bsjax.report.tables import read_comparisons
from bsjax.stages.explore import show
from bsjax.stats import verdicts
from tests.report.artifacts import EVIL, finding, write_arm, write_comparison
from tests.report.browser import MARKS, enter, is_firefox

pytestmark = MARKS
N = 14
KINDS = [verdicts.KINDS[k % len(verdicts.KINDS)] for k in range(N)]
ENDING = "</script><script>document.title='broken'</script><!--"


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("single")
    for name in ("real", "one"):
        write_arm(workdir, name, N)
    found = [finding(1, [0], verdicts.SUPPRESSED, -2.0, -4.0, -1.0)]
    write_comparison(workdir, "one", KINDS, findings=found)
    names = [f"{ENDING} {EVIL} {k}" for k in range(N)]
    write_site(
        workdir / "report", read_comparisons(workdir, ["one"]), np.eye(N)[:, :2], names, [{}], [],
        thumbnail,
    )  # fmt: skip
    return workdir


@pytest.mark.parametrize("place", ["JUPYTERHUB_SERVICE_PREFIX", "KAGGLE_KERNEL_RUN_TYPE"])
def test_where_no_port_is_reached_the_page_stands_in_the_notebook(workdir, place, monkeypatch):
    assert not hasattr(show(workdir), "page")
    monkeypatch.setenv(place, "/user/me/")
    shown = show(workdir, height=400)._repr_html_()
    assert shown.startswith('<iframe srcdoc="&lt;!doctype html&gt;') and 'height="400"' in shown
    assert shown.count("<") == 2  # nothing of the report ends the attribute
    assert not hasattr(show(workdir, inline=False), "page")


def test_a_report_that_no_notebook_should_hold_is_refused(workdir, monkeypatch):
    monkeypatch.setattr(single, "MOST_MEGABYTES", 0.1)
    with pytest.raises(UserError, match=r"report is 0 MB, more than .*run `bsjax explore`"):
        show(workdir, inline=True)


def test_the_page_works_in_its_frame(workdir, browser, tmp_path):
    (tmp_path / "notebook.html").write_text(
        f"<!doctype html><title>notebook</title>{show(workdir, inline=True)._repr_html_()}",
        encoding="utf-8",
    )
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    page, errors, asked = context.new_page(), [], []
    page.set_default_timeout(30_000)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    page.on("request", lambda request: asked.append(request.url))
    if not is_firefox(page):  # which keeps its scripts out of such a frame, and says so by itself
        moved = "history.pushState = history.replaceState = () => console.error('moved')"
        page.add_init_script(moved)
    page.goto((tmp_path / "notebook.html").as_uri())
    frame = page.frame_locator("iframe")
    frame.locator("body[data-ready]").wait_for()
    for tab, shown in (("map", ".plot canvas.points"), ("table", "#rows tbody tr"),
                       ("images", "#view figure img"), ("findings", "#view article")):  # fmt: skip
        frame.locator(f"#tab-{tab}").click()
        frame.locator(shown).first.wait_for()
    enter(frame, "#goto", "3")
    frame.locator("#panel h2 .id").wait_for()
    assert frame.locator("#panel h2 .id").inner_text().strip() == "3"
    assert frame.locator("#panel .head button").all_inner_texts() == ["its images", "close"]
    assert page.title() == "notebook" and errors == []
    assert [url for url in asked if not url.startswith(("data:", "blob:", "about:", "file:"))] == []
    from_disk = [url for url in asked if url.startswith("file:")]  # which Firefox does not tell
    assert from_disk == ([] if is_firefox(page) else [(tmp_path / "notebook.html").as_uri()])
    context.close()
