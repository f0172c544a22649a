"""Every file of a workdir has the columns that are told of it, and one reader."""

import ast
import dataclasses
import pathlib
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
from etils import epath

import bsjax
from bsjax import presets
from bsjax.analysis.models import correlate_all
from bsjax.core.artifacts import require_manifest
from bsjax.core.errors import UserError
from bsjax.data.captions import ImageRecord
from bsjax.report.tables import read_comparisons
from bsjax.results import columns, measures
from bsjax.results.measures import read_measured
from bsjax.results.models import read_all_statistics, write_matrix
from bsjax.stages import compare as stage
from bsjax.stages.compare import compare
from bsjax.stages.measure import measure

PACKAGE = pathlib.Path(bsjax.__file__).parent


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    config = presets.experiment()
    presets.on_scenes(config, 12)
    config.generator = presets.no_generator()
    config.generated = config.real.copy_and_resolve_references()
    config.generated.path = "2"
    config.measure.rank_concept = 3
    folder = epath.Path(tmp_path_factory.mktemp("results"))
    measure(config, folder)
    compare(config, folder)
    other = tmp_path_factory.mktemp("results") / "other"
    shutil.copytree(folder, other)
    compare(config, folder, replicate=str(other))
    other = folder / "comparisons" / "other"
    shutil.copytree(folder / "comparisons" / "generated", other)
    compare(config, folder, against="other")
    read = read_all_statistics(folder, ("other", "generated"))
    write_matrix(folder / "report", correlate_all(read))
    shutil.rmtree(other)
    return pathlib.Path(folder)


def names_and_types(schema):
    return [(field.name, str(field.type)) for field in schema]


@pytest.mark.parametrize("table", columns.TABLES)
def test_files_have_exactly_these_columns(workdir, table):
    words = {"set": "generated", "concept": "3", "A": "other", "B": "generated", "other": "other"}
    path = table
    for word, name in words.items():
        path = path.replace(f"<{word}>", name)
    path = workdir / path
    expected = [(column.name, column.type) for column in columns.TABLES[table]]
    if path.suffix == ".csv":
        assert pa_csv.read_csv(path).column_names == [name for name, _ in expected]
    else:
        assert names_and_types(pq.read_schema(path)) == expected
    for column in columns.TABLES[table]:
        assert column.meaning, column.name
        is_float = column.type == "double"
        assert bool(column.unit) or not is_float, f"{column.name} has no unit"
        assert f"| {column.name} | {column.type} |" in columns.describe_tables()


def test_the_table_for_people_has_the_same(workdir):
    folder = workdir / "comparisons" / "generated"
    expected = [column.name for column in columns.COMPARED_CONCEPTS]
    assert pa_csv.read_csv(folder / "concepts.csv").column_names == expected


def test_other_columns_are_no_table_of_ours(tmp_path):
    known = columns.RANKING
    table = pa.table({c.name: pa.array([], c.type) for c in known})
    assert columns.require_columns(table, known) is table
    more = table.append_column("note", pa.array([], pa.string()))
    assert columns.require_columns(more, known, with_more=True) is more
    for wrong in (
        table.drop_columns("images"),
        table.select(table.column_names[::-1]),
        table.set_column(1, "images", pa.array([], pa.int32())),
        more,
    ):
        with pytest.raises(ValueError, match="expected the columns"):
            columns.require_columns(wrong, known)
    with pytest.raises(ValueError, match="expected further columns of text"):
        columns.require_columns(
            table.append_column("n", pa.array([], pa.int64())), known, with_more=True
        )
    # Further columns of a caption table stand behind those of every table, as text.
    record = ImageRecord("a", "/a.png", "b", {"place": "x", "key": "ignored"})
    measures.write_images(tmp_path, [record])
    written = pq.read_table(tmp_path / "images.parquet")
    assert written.column_names == ["row", "key", "caption", "path", "place"]
    assert written.to_pylist()[0] == {
        "row": 0, "key": "a", "caption": "b", "path": "/a.png", "place": "x",
    }  # fmt: skip


def test_there_is_one_reader_of_a_measured_set(workdir):
    folder = workdir / "measures" / "real"
    read = stage._read(folder, require_manifest(folder, "measure"))
    (shown,) = read_comparisons(workdir, ["generated"])
    assert type(read) is type(shown.real) is measures.Measured
    np.testing.assert_array_equal(read.top_rows, shown.real.top_rows)
    assert read.images.equals(shown.real.images)
    assert read.paths == shown.real.paths
    # No other module opens these files.
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).as_posix()
        if name.startswith("results/"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                files = (*measures.FILES, "datapoints.parquet")
                is_generated = name == "data/image_shards.py"  # images/<set>/, with a table too
                assert node.value not in files or is_generated, f"{name}: {node.value}"


def test_large_parts_are_read_when_they_are_asked_for_and_checked_then(workdir, tmp_path):
    shutil.copytree(workdir, tmp_path / "w")
    folder = tmp_path / "w" / "measures" / "real"
    measured = read_measured(folder)
    data = bytearray((folder / "cooccurrence.npz").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "cooccurrence.npz").write_bytes(data)
    assert measured.concepts.num_rows == measured.codes.shape[1]
    assert measured.maps.shape[:2] == measured.top_rows.shape == measured.special.shape[:2]
    with pytest.raises(UserError, match="cooccurrence.npz is damaged.*bsjax measure"):
        _ = measured.together
    with pytest.raises(UserError, match="cooccurrence.npz is damaged"):
        read_comparisons(tmp_path / "w", ["generated"])
    other = dataclasses.replace(measured, top_rows=measured.top_rows[:, :1])
    assert other.top_rows.shape[1] == 1


def test_rows_that_do_not_belong_together_are_refused(workdir, tmp_path, monkeypatch):
    folder = workdir / "measures" / "real"
    manifest = require_manifest(folder, "measure")
    codes = measures._read_csr(folder / "image_codes.npz")
    for wrong, text in ((codes[:-1], "11 images x 512"), (codes[:, :-1], "12 images x 511")):
        with monkeypatch.context() as patch:
            patch.setattr(measures, "_read_csr", lambda _, wrong=wrong: sp.csr_array(wrong))
            with pytest.raises(UserError, match=f"{text} concepts, the tables 12 x 512"):
                read_measured(folder, manifest)


def test_a_saved_set_says_where_its_images_lie_from_its_new_place(workdir, tmp_path):
    record = ImageRecord("a", str(tmp_path / "old" / "a.png"), "", {})
    source = tmp_path / "old" / "measures" / "real"
    shutil.copytree(workdir / "measures" / "real", source)
    measured = read_measured(source)
    measures.write_images(source, [record])
    assert pq.read_table(source / "images.parquet")["path"].to_pylist() == ["./a.png"]
    moved = dataclasses.replace(measured, images=pq.read_table(source / "images.parquet"))
    shutil.copy(workdir / "measures/real/images.parquet", source / "images.parquet")
    folder = measures.write_measured(moved, tmp_path / "new", "real")
    kept = pq.read_table(folder / "images.parquet")["path"].to_pylist()
    assert kept == [str(tmp_path / "old" / "a.png")]
