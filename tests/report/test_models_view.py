"""Two models beside one another: which concepts moved where, and on which the two disagree."""

import re

import numpy as np
import pytest

from bsjax.core.artifacts import read_manifest, write_manifest
from bsjax.data.images import thumbnail
from bsjax.report.explorer.moves import (
    WORDS,
    Moved,
    closeness_text,
    moved_payload,
    read_all_moved,
    share,
)
from bsjax.report.explorer.site import write_site
from bsjax.report.tables import read_comparisons
from bsjax.results.columns import MOVED_CONCEPTS, make_table
from bsjax.results.models import folder_of, write_moved
from bsjax.stats import moves, verdicts
from bsjax.stats.models import Correlation
from tests.report.artifacts import EVIL, SETTINGS, write_arm, write_comparison
from tests.report.browser import ABOVE, MARKS, PLOT, points, serious_faults, wait_until

pytestmark = MARKS
SETS = ("base <b>", "dpo", "third")
N = 40
KINDS = [verdicts.KINDS[k % len(verdicts.KINDS)] for k in range(N)]
# Of the change from base to dpo; concept -> (verdict, log ratio, move).
CHANGES = {
    3: (verdicts.SUPPRESSED, -2.0, moves.AWAY),
    8: (verdicts.EXAGGERATED, 3.0, moves.TOWARDS),
    15: (verdicts.EXAGGERATED, 1.5, moves.TOWARDS),
    21: (verdicts.LESS, -0.5, moves.NOWHERE),
    22: (verdicts.SUPPRESSED, -2.5, moves.ELSEWHERE),
}
UNJUDGED = (0, 1)
GAP = {"mean": 0.02, "low": 0.004, "high": 0.036, "n": 4}


def moved_of(names=SETS[:2], near=GAP):
    change = np.array([CHANGES.get(k, ("", 0.0, ""))[1] for k in range(N)])
    kinds = [CHANGES.get(k, (verdicts.ALIGNED,))[0] for k in range(N)]
    for k in UNJUDGED:
        kinds[k] = verdicts.NOT_ENOUGH_DATA
    columns = {column.name: np.zeros(N) for column in MOVED_CONCEPTS}
    columns |= {"concept": np.arange(N), "words": [EVIL] * N, "log_ratio": change,
                "low": change - 0.4, "high": change + 0.4, "verdict": kinds,
                "moved": [CHANGES.get(k, ("", 0, ""))[2] for k in range(N)],
                "log_ratio_a": np.full(N, np.log(0.25)), "verdict_a": kinds, "verdict_b": kinds,
                "log_ratio_b": np.log(0.25) + change}  # fmt: skip
    columns["low"][22] = -np.inf
    table = make_table(MOVED_CONCEPTS, columns)
    manifest = {
        "config": SETTINGS,
        "sets": dict(zip("ab", names, strict=True)),
        "counts": {"pairs": 4},
        "closeness": {"difference": near},
        "notes": [],
    }
    return Moved(table, manifest)


def write_sets(workdir, names):
    write_arm(workdir, "real", N)
    for name, kinds in zip(names, (KINDS, KINDS[::-1], KINDS), strict=False):
        write_arm(workdir, name, N)
        write_comparison(workdir, name, kinds)
    return read_comparisons(workdir, names)


def test_shares_are_of_the_concepts_with_enough_data():
    payload = moved_payload(moved_of())
    assert payload["n"] == N - len(UNJUDGED)
    told = {each["word"]: each for each in payload["shares"]}
    assert list(told) == list(WORDS)
    counts = {moves.TOWARDS: 2, moves.AWAY: 1, moves.ELSEWHERE: 1, moves.NOWHERE: 34}
    assert {word: each["n"] for word, each in told.items()} == counts
    assert told[moves.TOWARDS]["share"] == pytest.approx(2 / 38)
    # Wilson's interval of 2 of 38, by hand: (p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n)
    p, n, z = 2 / 38, 38, 1.959964
    middle, reach = p + z**2 / 76, z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    ends = np.array([middle - reach, middle + reach]) / (1 + z**2 / n)
    assert (told[moves.TOWARDS]["low"], told[moves.TOWARDS]["high"]) == pytest.approx(ends, 1e-5)
    assert share(0, 0) == {"n": 0, "share": None, "low": 0.0, "high": 1.0}


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.004, 0.036, "Images of y are closer to the real ones than those of x: the share"),
        (-0.036, -0.004, "Images of y are less close to the real ones than those of x: the share"),
        (-0.01, 0.01, "Images of x and of y are about as close to the real ones: the share"),
        (0.0, 0.01, "Images of x and of y are about as close"),
        (None, None, "How close the images are to the real ones is not known"),
    ],
)
def test_closeness_is_told_in_words(low, high, words):
    near = {"mean": 0.02, "low": low, "high": high, "n": 4}
    said = closeness_text({"sets": {"a": "x", "b": "y"}, "closeness": {"difference": near}})
    assert said.startswith(words)
    if low is not None:
        assert f"differs by +0.020, 95 % interval {low:+.3f} to {high:+.3f}." in said


def test_only_what_was_made_of_these_comparisons_is_shown(tmp_path, caplog):
    names = ("one", "two")
    comparisons = write_sets(tmp_path, names)
    assert read_all_moved(tmp_path, comparisons) == {}
    moved, folder = moved_of(names), folder_of(tmp_path, *names)
    sums = {f"comparisons/{c.name}": c.manifest["config_hash"] for c in comparisons}
    folder.mkdir(parents=True)
    write_moved(folder, moved.table, moved.manifest, sums)
    assert list(read_all_moved(tmp_path, comparisons)) == [names]
    manifest = dict(read_manifest(folder, "compare"))
    write_manifest(folder, stage="compare", config=manifest["config"], counts={},
                   parents=sums | {"comparisons/two": "of before"})  # fmt: skip
    assert read_all_moved(tmp_path, comparisons) == {}
    assert "run `bsjax compare --against=one` again" in caplog.text


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("models")
    comparisons = write_sets(workdir, SETS)
    r = Correlation(0.512, 0.401, 0.604, (0.5, 0.6), 33, 4)
    matrix = {(a, b): r for a in SETS for b in SETS}
    places, names = np.random.default_rng(0).uniform(size=(N, 2)), [f"name {k}" for k in range(N)]
    write_site(workdir / "report", comparisons, places, names, [{}] * 3, [], thumbnail,
               matrix=matrix, moved={SETS[:2]: moved_of()})  # fmt: skip
    return workdir / "report"


def texts(page, selector):
    found = page.eval_on_selector_all(selector, "all => all.map(e => e.textContent)")
    return [re.sub(r"\s+", " ", text).strip() for text in found]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["forward", "backward"])
def test_shares_and_disagreements_are_of_the_held_pair(open_page, order):
    """Whichever of the two was chosen first."""
    a, b = (["base+%3Cb%3E", "dpo"][k] for k in order)
    page = open_page(f"#view=models&model={a}&second={b}")
    assert texts(page, ".moved h3") == ["From base <b> to dpo: 4 of 38 concepts moved"]
    rows = texts(page, ".moved li")
    assert rows[0].startswith("towards the real images2: 5.3 %95 % interval 1.5 % to 17.3 %")
    assert rows[1].startswith("away from the real images1: 2.6 %")
    assert rows[3].startswith("no change beyond the margin is established34: 89.5 %")
    wide = page.eval_on_selector_all(".shares i", "all => all.map(e => e.offsetWidth)")
    assert np.array(wide) / sum(wide) == pytest.approx(np.array([2, 1, 1, 34]) / 38, abs=0.01)
    assert "Images of dpo are closer to the real ones than those of base <b>" in page.inner_text(
        ".moved"
    )
    # By the near end of the interval: 2.6, 2.1 (whose far end is open), 1.6, 1.1, 0.1.
    listed = [int(text.split()[0]) for text in texts(page, ".disagree td:first-child")]
    assert listed == [8, 22, 3, 15, 21]
    cells = texts(page, ".disagree tbody tr:first-child td")
    assert cells == ["8 name 8", "20× more", "4× less", "5× more", "towards"]
    assert texts(page, ".disagree tbody tr:last-child td")[-1] == "not beyond the margin"
    heads = texts(page, ".disagree th")
    assert heads == ["concept", "dpo against base <b>", "base <b> against real",
                     "dpo against real", "moved"]  # fmt: skip


def test_without_that_comparison_estimates_are_told_as_such(open_page):
    page = open_page("#view=models&model=third&second=dpo")
    assert "bsjax compare --workdir=DIR --against=third" in page.inner_text("#view")
    assert texts(page, "#view h3")[-1] == "Where their estimates differ most"
    assert "how sure it is, is not known" in page.inner_text("#view")
    listed = [int(text.split()[0]) for text in texts(page, ".disagree td:first-child")]
    size = {kind: value for kind, value in zip(verdicts.KINDS, (-3.0, 3.0, -0.5, 0.5, 0.05, -0.2,
                                                                -1.2), strict=True)}  # fmt: skip
    here, there = (
        np.array([size[kind] for kind in KINDS]),
        np.array([size[kind] for kind in KINDS[::-1]]),
    )
    judged = [verdicts.NOT_ENOUGH_DATA not in pair for pair in zip(KINDS, KINDS[::-1], strict=True)]
    called = [bool({*pair} & {*verdicts.CALLED}) for pair in zip(KINDS, KINDS[::-1], strict=True)]
    wanted = [k for k in range(N) if judged[k] and called[k]]
    wanted.sort(key=lambda k: (-abs(here[k] - there[k]), k))
    assert listed == wanted[:15]
    page.click(f"text=show all {len(wanted)}")
    assert page.locator(".disagree tbody tr").count() == len(wanted)


def test_axes_speak_in_words_and_the_diagonal_is_drawn(open_page):
    page = open_page("#view=models&second=dpo")

    def ticks(kind):
        return texts(page, f".tick.{kind}")

    for kind in ("across", "up"):
        assert "the same" in ticks(kind) and {"10× less", "10× more"} <= {*ticks(kind)}
    assert texts(page, ".axis") == [f"{name}, compared with real images" for name in SETS[:2]]
    view = page.evaluate(f"{PLOT}.view")
    assert view["left"] == -view["right"] == view["low"] == -view["high"]
    judged = [k for k in range(N) if verdicts.NOT_ENOUGH_DATA not in (KINDS[k], KINDS[N - 1 - k])]
    shown = points(page)
    assert sorted(each["id"] for each in shown) == judged
    for each in shown:
        kinds = (KINDS[each["id"]], KINDS[N - 1 - each["id"]])
        n_called = sum(kind in verdicts.CALLED for kind in kinds)
        assert (each["layer"] == ABOVE) == (n_called > 0)
        size = dict(zip(verdicts.KINDS, (-3.0, 3.0, -0.5, 0.5, 0.05, -0.2, -1.2), strict=True))
        assert [each["x"], each["y"]] == pytest.approx([size[kind] for kind in kinds])
    # The diagonal goes from corner to corner.
    drawn = page.evaluate(
        """() => { const canvas = document.querySelector('.plot canvas.over');
        const { width: w, height: h } = canvas, context = canvas.getContext('2d');
        let n = 0;
        for (let i = 10; i < 90; i += 1) {
          const at = [Math.round(w * i / 100) - 1, Math.round(h * (1 - i / 100)) - 1, 3, 3];
          n += context.getImageData(...at).data.some((value) => value > 0); }
        return n; }"""
    )
    assert drawn > 40
    page.select_option("#view .toolbar select", "delta")
    wait_until(page, "document.querySelector('.axis')?.textContent.startsWith('delta')")
    view = page.evaluate(f"{PLOT}.view")
    assert (view["left"] + view["right"]) / 2 == pytest.approx(0.5)
    assert "x=delta" in page.url


def test_a_cell_of_the_matrix_opens_its_models(open_page):
    page = open_page("#view=models&second=dpo")
    assert texts(page, ".matrix td.self") == ["reliability 0.50"] * 3
    page.click(".matrix tbody tr:nth-child(3) td:nth-child(3) button")
    wait_until(page, "document.querySelector('#view h2').textContent.startsWith('third')")
    assert texts(page, "#view h2")[0] == "third and dpo: r = 0.51 [0.40, 0.60]"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_view_can_be_read_by_all_and_fits(open_page, scheme, width):
    page = open_page("#view=models&second=dpo", color_scheme=scheme,
                     viewport={"width": width, "height": 900})  # fmt: skip
    page.wait_for_timeout(300)
    assert serious_faults(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
