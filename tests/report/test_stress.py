"""Stress tests on a finding's card: what was drawn, best and worst, and which tests are shown."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bsjax.data.images import thumbnail
from bsjax.report.explorer.site import write_site
from bsjax.report.explorer.stress import stress_payload
from bsjax.report.tables import read_comparisons
from bsjax.results.columns import STRESS_PROMPTS, STRESS_SAMPLES, make_table
from bsjax.results.stress import Stressed, write_stressed
from bsjax.stats import verdicts
from tests.report.artifacts import EVIL, finding, finish, write_arm, write_comparison
from tests.report.browser import MARKS, Watched

pytestmark = MARKS
LITTLE, N = verdicts.SUPPRESSED, 6
KINDS = [LITTLE, LITTLE, *[verdicts.UNDECIDED] * 4]
FINDINGS = [finding(1, [0], LITTLE, -2.0, -4.0, -1.0), finding(2, [1], LITTLE, -2.0, -4.0, -1.0)]


def write_test(workdir, name, digest, energies, texts=(EVIL, "second"), **rates):
    """Two prompts of two images each, of which the last file is gone."""
    root = workdir / "stress" / "found"
    folder = root / name
    write_arm(root, "generated", N)
    arm = root / "measures" / "generated"
    folder.mkdir()
    arm.rename(folder / "generated")
    (root / "measures").rmdir()
    table = pq.read_table(folder / "generated" / "images.parquet")
    paths = [str(folder / "generated" / f"{row}.png") for row in range(4)]
    table = table.set_column(table.column_names.index("path"), "path", pa.array(paths))
    pq.write_table(table, folder / "generated" / "images.parquet")
    finish(folder / "generated", "measure", {"encoder.resize": 28, "encoder.crop": 28})
    fires = [energy > 0 for energy in energies]
    passes = [sum(fires[:2]), sum(fires[2:])]
    prompts = make_table(STRESS_PROMPTS, {
        "prompt": [0, 1], "text": texts, "n": [2, 2], "passes": passes,
        "pass_at_1": [c / 2 for c in passes], "pass_at_n": [float(c > 0) for c in passes],
        "real_n": [0, 0], "real_rate": [None, None],
    })  # fmt: skip
    samples = make_table(STRESS_SAMPLES, {
        "prompt": [0, 0, 1, 1], "sample": [0, 1, 0, 1], "fires": fires, "energy": energies,
        "concepts": [int(each) for each in fires], "image": ["a", "b", "c", "d"],
    })  # fmt: skip
    share = {"share": sum(passes) / 4, "low": 0.0, "high": 0.5, "n_effective": 2.0}
    write_stressed(folder, Stressed(prompts, samples, {
        "config": {}, "parents": {"comparisons/found": digest}, "notes": [],
        "target": {"label": "finding 1", "concept": 0, "concepts": [0], "words": "moons",
                   "verdict": LITTLE},
        "captions": {"how": "given", "words": [], "held_out": False, "told": "Told."},
        "counts": {"prompts": 2, "images": 4, "passes": sum(passes), "tries": 2,
                   "prompts_passed": 1, "prompts_with_real": 0},
        "rates": {"image": share, "at_least_once": share, "real": None, "these": [0.0, 0.5]},
        "pass_at": {},
    }))  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("tested")
    for name in ("real", "found"):
        write_arm(workdir, name, N)
    write_comparison(workdir, "found", KINDS, findings=FINDINGS)
    comparison = read_comparisons(workdir, ["found"])[0]
    digest = comparison.manifest["config_hash"]
    write_test(workdir, "finding-1", digest, [0.0, 2.0, 3.0, 0.0])
    write_test(workdir, "finding-1-prompts", digest, [0.0, 0.0, 0.0, 0.0])
    write_test(workdir, "finding-2", "another", [1.0, 1.0, 1.0, 1.0])
    return workdir, comparison


def test_best_and_worst_are_one_a_prompt_and_old_tests_are_left_out(made, caplog):
    found = stress_payload(*made, thumbnail)
    assert list(found) == [1]
    first, own = found[1]
    assert first["headline"] == "2 of 4" and own["headline"] == "0 of 4"
    assert first["told"].startswith("finding 1 (moons): drawn in 2 of 4 images [0 %, 50 %]")
    # The strongest first; of each prompt one.
    assert [each["prompt"] for each in first["best"]] == ["second", EVIL]
    assert sorted(each["prompt"] for each in first["worst"]) == sorted(["second", EVIL])
    assert [each["image"] is None for each in first["best"]] == [False, False]
    gone = {each["prompt"]: each["image"] is None for each in first["worst"]}
    assert gone == {"second": True, EVIL: False}  # the fourth file is gone
    assert own["best"] == [] and len(own["worst"]) == 2
    assert "finding-2 is left out: it is of another comparison" in caplog.text


def test_a_card_tells_of_its_tests(made, tmp_path, browser):
    workdir, comparison = made
    tests = {"found": stress_payload(workdir, comparison, thumbnail)}
    places = np.zeros((N, 2), np.float32)
    write_site(tmp_path, [comparison], places, [""] * N, [{}], [], thumbnail, stress=tests)
    watched = Watched(browser, tmp_path, "")
    page = watched.page
    card = page.locator("#finding-1")
    heads = card.locator("details.stress summary").all_inner_texts()
    assert heads == [
        "Stress test: drawn in 2 of 4 images", "Stress test: drawn in 0 of 4 images",
    ]  # fmt: skip
    assert page.locator("#finding-2 details.stress").count() == 0
    first = card.locator("details.stress").first
    first.locator("summary").click()
    assert first.locator("figure img").count() == 3
    assert first.locator(".gone").inner_text() == "image file is gone"
    assert first.locator("figcaption").all_inner_texts()[:2] == ["second", EVIL]
    assert page.locator("img[src='x']").count() == 0
    second = card.locator("details.stress").nth(1)
    second.locator("summary").click()
    assert "No image shows it." in second.inner_text()
    watched.close()
