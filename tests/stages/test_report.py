"""The report says what it could not read, forgets what was removed, and moves with its workdir."""

import json
import shutil

import pyarrow.parquet as pq
import pytest

from bsjax import presets
from bsjax.core.dims import Grid
from bsjax.core.errors import UserError
from bsjax.data.captions import ImageRecord
from bsjax.report.tables import read_comparisons
from bsjax.results.shards import ShardStore
from bsjax.stages.report import report
from bsjax.stats import verdicts
from tests.report.artifacts import write_arm, write_comparison

KINDS = list(verdicts.KINDS)


@pytest.fixture
def config():
    config = presets.experiment()
    config.sae.weights = "/nowhere/sae.safetensors"  # no map
    return config


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
    assert told in (workdir / "report" / "data" / "site.js").read_text()


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
    assert '"name":"two"' not in (folder / "data" / "site.js").read_text()
    assert '"name":"one"' in (folder / "data" / "site.js").read_text()
    listed = json.loads((folder / "manifest.json").read_text())["files"]
    assert "data/columns/1.js" not in listed and "data/columns/0.js" in listed
    shutil.rmtree(workdir / "measures" / "one")
    with pytest.raises(UserError, match="holds no comparison"):
        report(config, workdir)


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
