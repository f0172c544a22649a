"""`bsjax power`: captions needed, from a pilot comparison, which stays as it is."""

import json

import numpy as np
import pytest
from absl.testing import flagsaver

import bsjax
from bsjax import main
from bsjax.analysis import power as analysis
from bsjax.core.errors import UserError
from bsjax.stats import power as statistics
from bsjax.stats.sums import sum_pairs
from tests.benchmarks.simulator import draw_world

N, K = 700, 400


@pytest.fixture(scope="module")
def world():
    return draw_world(3, N, K)


@pytest.fixture(scope="module")
def pilot(world, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("pilot")
    bsjax.compare_codes(world.real, world.generated, [f"c {i}" for i in range(N)]).save(workdir)
    return workdir


@pytest.fixture(autouse=True)
def flags_as_they_were():
    """`main` parses into what all tests share."""
    with flagsaver.flagsaver():
        yield


def printed(capsys, *arguments):
    main.main(["bsjax", "power", *arguments])
    return capsys.readouterr().out


def test_the_table(world, pilot, capsys):
    before = {path: path.stat().st_mtime_ns for path in pilot.rglob("*")}
    text = printed(capsys, f"--workdir={pilot}", "--fold=4")
    assert {path: path.stat().st_mtime_ns for path in pilot.rglob("*")} == before
    lines = text.splitlines()
    assert lines[0] == "generated: captions it takes to call a 4-fold change with 80% power"
    assert lines[1].startswith("pilot of 700 captions; margin 1.5-fold, false discovery rate 5%")
    assert lines[3].split("  ")[0] == "shown by"
    found = json.loads(printed(capsys, f"--workdir={pilot}", "--fold=4", "--json"))["generated"]
    unseen = int((np.asarray((world.real > 0).sum(axis=0)).ravel() == 0).sum())
    assert found["unseen"] == unseen > 0
    assert f"no fires: {unseen} concepts show in no real image of the pilot" in text
    assert f"fewer than 1 in {int(1 / (1 - 0.05 ** (1 / N)))} (95 %)" in text
    assert len(found["concepts"]) == K
    assert sum(band["concepts"] for band in found["bands"]) == K - unseen
    for row, band in zip(lines[4:], found["bands"], strict=False):
        cells = [cell for cell in row.split("  ") if cell.strip()]
        assert int(cells[1].replace(",", "")) == band["concepts"]
        told = int(cells[3].replace(",", ""))
        assert band["suppressed"] <= told <= 1.1 * band["suppressed"] + 1
    table = bsjax.compare_codes(world.real, world.generated).concepts
    verdict = np.array(table["verdict"].to_pylist())
    called = np.isin(verdict, ("suppressed", "exaggerated")).sum()
    judged = (verdict != "not enough data").sum()
    assert called > 0
    expected = statistics.captions_needed(
        statistics.learn(
            sum_pairs(world.real, world.generated),
            captions=N, called=called / judged, margin=1.5, fdr=0.05,
        ),
        4.0,
        0.8,
    )  # fmt: skip
    got = [row["suppressed"] for row in found["concepts"]]
    np.testing.assert_array_equal(
        np.array(got, float), np.where(np.isnan(expected.suppressed), np.nan, expected.suppressed)
    )


def test_concepts_and_power(pilot, capsys):
    text = printed(capsys, f"--workdir={pilot}", "--fold=4", "--concepts", "--power=0.5")
    assert "with 50% power" in text
    rows = text[text.index("concept  shown by") :].splitlines()[1:]
    assert len(rows) == K and rows[-1].split()[0] == str(K - 1)
    assert any(row.split()[1:5] == ["no", "fires", "not", "known"] for row in rows)
    found = bsjax.captions_needed(pilot, 4, power=0.5)
    first = found.concepts.to_pylist()[0]
    shown = "not known" if first["suppressed"] is None else f"{first['suppressed']:,}"
    assert shown in rows[0]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--fold=1.5"], "--fold=1.5 lies within the margin: no number of captions calls"),
        (["--fold=1"], "--fold=1: expected a change above 1; set it so"),
        (["--fold=nan"], "--fold=nan: expected a finite number; set --fold"),
        (["--fold=4", "--power=1"], "--power=1: expected above 0 and below 1"),
        (["--fold=4", "--power=0"], "--power=0: expected above 0 and below 1"),
        ([], "--fold is missing; set --fold=2"),
        (["--fold=x"], "--fold=x: expected a number"),
        (["--fold=4", "--limit=3"], "--limit belongs to"),
    ],
)
def test_mistakes_are_one_line(pilot, arguments, text):
    with pytest.raises(UserError) as caught:
        main.main(["bsjax", "power", f"--workdir={pilot}", *arguments])
    assert str(caught.value).startswith(text) and "\n" not in str(caught.value)


def test_no_pilot_is_told(tmp_path):
    with pytest.raises(UserError, match="--workdir is missing"):
        main.main(["bsjax", "power", "--fold=4"])
    with pytest.raises(UserError, match="no finished comparison; run `bsjax compare` first"):
        main.main(["bsjax", "power", f"--workdir={tmp_path}", "--fold=4"])


def test_from_python(world, pilot):
    result = bsjax.compare_codes(world.real, world.generated)
    found = bsjax.captions_needed(result, 8)
    assert str(found).startswith("generated: captions it takes to call a 8-fold change")
    stored = bsjax.captions_needed(bsjax.open_results(pilot), 8)
    assert stored.concepts["suppressed"].equals(found.concepts["suppressed"])
    assert found.bands[0]["suppressed"] < bsjax.captions_needed(result, 4).bands[0]["suppressed"]
    with pytest.raises(UserError, match="fold=1.2 lies within the margin: .* a larger fold, or"):
        bsjax.captions_needed(result, 1.2)
    # Repeated captions are no more evidence: clusters of four.
    four = bsjax.compare_codes(world.real, world.generated, clusters=[i // 4 for i in range(N)])
    assert bsjax.captions_needed(four, 8).captions == N // 4
    # Half of the captions choose, so twice as many are needed; the pilot is the whole of them.
    half = bsjax.captions_needed(bsjax.compare_codes(world.real, world.generated, confirm=0.5), 8)
    assert half.captions == N
    held = np.array(half.concepts["suppressed"].to_pylist(), float)
    level = np.array(half.concepts["level"].to_pylist(), float)
    assert np.nanmin(held / np.array(found.concepts["suppressed"].to_pylist(), float)) > 1.3
    assert np.nanmax(level) <= 0.05


def test_shares_are_told_in_plain_digits():
    shares = {0: "0", 0.004: "1 in 250", 0.154: "15 %", 0.99: "99 %", 0.994: "99 %", 1: "100 %"}
    assert {share: analysis._share(share) for share in shares} == shares
    assert analysis._share(0.996) == "100 %"
