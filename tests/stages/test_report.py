"""The report says what it could not read, forgets what was removed, and moves with its workdir."""

import csv
import json
import shutil

import pyarrow.parquet as pq
import pytest

from bsjax import presets
from bsjax.core.dims import Grid
from bsjax.core.errors import UserError
from bsjax.data.captions import ImageRecord
from bsjax.report import model_figures, style
from bsjax.report.tables import read_comparisons
from bsjax.results.shards import ShardStore
from bsjax.stages.report import report
from bsjax.stages.run import summarise
from bsjax.stats import verdicts
from tests.report.artifacts import (
    finding,
    read_data,
    substitution,
    write_arm,
    write_comparison,
)

KINDS = list(verdicts.KINDS)


@pytest.fixture
def config():
    config = presets.experiment()
    config.sae.weights = "/nowhere/sae.safetensors"  # no map
    return config


@pytest.fixture(autouse=True)
def files_alone(monkeypatch):
    """Figures are files without pixels here: what is in them is looked at elsewhere."""

    def save(figure, folder, stem, other=None):
        folder.mkdir(parents=True, exist_ok=True)
        for kind in ("png",) if other else style.FILES:
            (folder / f"{stem}{f'_{other}' if other else ''}.{kind}").write_bytes(b"")

    monkeypatch.setattr(style, "save", save)
    monkeypatch.setattr(model_figures, "save", save)


@pytest.fixture
def workdir(tmp_path):
    folder = tmp_path / "run [1]*"
    write_arm(folder, "real", len(KINDS))
    for name in ("one", "two"):
        write_arm(folder, name, len(KINDS))
        write_comparison(folder, name, KINDS)
    return folder


def test_pictures_that_cannot_be_read_are_counted(config, workdir):
    report(config, workdir)
    counts = json.loads((workdir / "report" / "manifest.json").read_text())["counts"]
    # Of each arm of four, the last file is gone.
    assert counts == {"pictures": 12, "unreadable": 3}
    told = "2 of 8 pictures could not be read (1 real, 1 of one)"
    assert told in (workdir / "report" / "summary.html").read_text()
    assert told in repr(read_data(workdir / "report" / "data" / "site.js"))


def test_findings_are_told_in_the_order_of_the_page(config, tmp_path):
    """In findings.csv of the report, and by what `run` prints last."""
    for name in ("real", "one"):
        write_arm(tmp_path, name, len(KINDS))
    found = [
        finding(1, [0], verdicts.SUPPRESSED, -2.0, -4.0, -1.0, instead=[1, 2], words="purple"),
        *(finding(k, [1], verdicts.EXAGGERATED, 2.0, 1.0 + k / 10, 3.0) for k in range(2, 7)),
    ]
    replaced = [substitution(0, 1, 27, 0.99), substitution(0, 2, 27, 0.5)]
    words = [f"word {k // 3}" for k in range(len(KINDS))]
    write_comparison(
        tmp_path, "one", KINDS, ["a note"], findings=found, substitutions=replaced, words=words
    )
    report(config, tmp_path)
    with (tmp_path / "report" / "findings.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["finding"] for row in rows] == ["6", "5", "4", "3", "2", "1"]
    assert rows[-1]["set"] == "one" and rows[-1]["instead"] == "word 0"
    lines = summarise(tmp_path, "one").splitlines()
    assert lines[:3] == [
        "",
        "! a note",
        "4 pairs of images. 6 findings among 6 concepts judged; 1 seen too rarely to judge.",
    ]
    assert lines[3].startswith("  (no typical word): exaggerated. Drawn at least 4.9× too much. It")
    assert "in 50.0 % of the real images" in lines[3]
    assert lines[4] == "      asked for? Not known: no word of the captions goes with it."
    assert lines[-2] == "  ... and 1 more" and lines[-1].startswith("report: ")
    assert len(lines) == 3 + 2 * 5 + 2
    write_comparison(
        tmp_path, "two", KINDS, findings=found[:1], substitutions=replaced, words=words
    )
    told = summarise(tmp_path, "two")
    assert "  purple: suppressed. Drawn at least 2.7× too little." in told
    assert "\n      drawn instead: word 0\n" in told
    write_comparison(tmp_path, "none", [verdicts.UNDECIDED] * 3)
    assert "Of 3 concepts judged, none is drawn too little" in summarise(tmp_path, "none")


def test_a_set_that_was_removed_leaves_the_report(config, workdir, caplog):
    report(config, workdir)
    folder = workdir / "report"
    (folder / "mine.txt").write_text("kept")

    def files_of(name):
        found = {path.name for path in folder.rglob("*") if path.name.startswith(name)}
        return found | {path.name for path in (folder / "data" / "columns").iterdir()}

    assert {"two__card.json", "two__enriched.json", "two_map.svg", "1.js"} <= files_of("two")
    shutil.rmtree(workdir / "measures" / "two")
    report(config, workdir)
    assert "its measures were removed" in caplog.text
    assert files_of("two") == {"0.js"}
    assert "one_map.svg" in files_of("one") and (folder / "mine.txt").read_text() == "kept"
    assert [each["name"] for each in read_data(folder / "data" / "site.js")["sets"]] == ["one"]
    listed = json.loads((folder / "manifest.json").read_text())["files"]
    assert "data/columns/1.js" not in listed and "data/columns/0.js" in listed
    shutil.rmtree(workdir / "measures" / "one")
    with pytest.raises(UserError, match="holds no comparison"):
        report(config, workdir)


def test_a_map_without_the_dictionary_says_what_it_is(config, workdir):
    report(config, workdir)
    told = read_data(workdir / "report" / "data" / "site.js")["places_are"]
    assert told.startswith("fires across, energy upwards")
    assert f"The concepts; {told}." in (workdir / "report" / "summary.html").read_text()


def test_the_config_chooses_the_style_of_the_figures(config, workdir):
    for chosen, other in (("light", "dark"), ("dark", "light")):
        config.report.style = chosen
        report(config, workdir)
        names = {path.name for path in (workdir / "report" / "figures").iterdir()}
        for stem in ("one_map", "one_sheet_suppressed", "images", "models_one__two"):
            found = {name for name in names if name.startswith((f"{stem}.", f"{stem}_{chosen}",
                                                                f"{stem}_{other}"))}  # fmt: skip
            assert found == {f"{stem}.{kind}" for kind in style.FILES} | {f"{stem}_{other}.png"}
        told = read_data(workdir / "report" / "data" / "site.js")["figures"]
        (text,) = (text for stem, text, _ in told if stem == "one_map")
        assert text.startswith("one: ") and "fires across, energy upwards" in text
        assert [chosen] * len(told) == [style for _, _, style in told]
        assert {stem for stem, *_ in told} == {
            name.removesuffix(".svg") for name in names if name.endswith(".svg")
        }


def test_a_moved_workdir_keeps_its_pictures(config, workdir, tmp_path):
    moved = tmp_path / "elsewhere"
    workdir.rename(moved)
    report(config, moved)
    counts = json.loads((moved / "report" / "manifest.json").read_text())["counts"]
    assert counts == {"pictures": 12, "unreadable": 3}


def test_measured_images_say_where_they_lie_from_the_workdir(tmp_path):
    folder = tmp_path / "w" / "measures" / "real"
    folder.mkdir(parents=True)
    places = (tmp_path / "w" / "mine" / "a.png", tmp_path / "w2" / "b.png")
    records = [ImageRecord(path.stem, str(path), "", {}) for path in places]
    ShardStore(folder, 3, Grid(4, 8, 8))._write_images(records)
    kept = pq.read_table(folder / "images.parquet")["path"].to_pylist()
    assert kept == ["./mine/a.png", str(places[1])]


def test_comparisons_of_other_measures_are_refused(workdir):
    path = workdir / "measures" / "one" / "images.parquet"
    table = pq.read_table(path)
    pq.write_table(table.slice(0, 3), path)
    with pytest.raises(
        UserError, match=r"images.parquet is damaged or another file: .*`bsjax meas"
    ):
        read_comparisons(workdir, ["one"])
