"""Copies among pairs, from images to the table: planted ones are found, the unknown is null."""

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp

import bsjax
from bsjax import presets
from bsjax.analysis import copies as analysis
from bsjax.data import scenes
from bsjax.results import measures
from bsjax.results.columns import DATAPOINTS, DUPLICATES
from bsjax.results.comparisons import read_compared
from bsjax.stats import copies

N, COPY, SHIFTED, MIRRORED, TWIN, PLAIN = 40, 5, 6, 7, 30, 39
NEW = ("patch_similarity", "place", "z", "null_mean", "bland")


def shifted_up(image, n=8):
    return np.concatenate([image[n:], image[-n:]])


@pytest.fixture(scope="module")
def tools():
    folder = presets.SCENES
    return bsjax.load_encoder(str(folder / "encoder")), bsjax.load_sae(str(folder / "sae"))


@pytest.fixture(scope="module")
def sets(tools):
    """Scenes and those drawn again, but for a copy of each kind; a twin among the real ones."""
    drawn = [scenes.scene(1, row) for row in range(N)]
    real = [scene.image for scene in drawn]
    again = [scenes.render(s.factors, scenes.generator(9, i))[0] for i, s in enumerate(drawn)]
    again[COPY], again[SHIFTED], again[MIRRORED] = (
        real[COPY], shifted_up(real[SHIFTED]), real[MIRRORED][:, ::-1],
    )  # fmt: skip
    real[TWIN] = np.clip(real[COPY].astype(int) + 2, 0, 255).astype(np.uint8)
    real[PLAIN] = again[PLAIN] = np.full((64, 64, 3), 130, np.uint8)
    captions = [scene.caption for scene in drawn]
    return [bsjax.measure(images, *tools, captions=captions) for images in (real, again)]


@pytest.fixture(scope="module")
def result(sets):
    return bsjax.compare(*sets)


def test_planted_copies_stand_on_top_with_their_place(result):
    assert result.pairs.schema.names == [column.name for column in DATAPOINTS]
    rows = result.pairs.to_pylist()
    assert [row["rank"] for row in rows] == list(range(1, N + 1))
    # Scene 1 was drawn again almost as it was.
    assert {row["row_real"] for row in rows[:4]} == {COPY, SHIFTED, MIRRORED, 1}
    by_row = {row["row_real"]: row for row in rows}
    assert by_row[COPY]["place"] == ""
    assert by_row[SHIFTED]["place"] == "1 up"  # what the real one shows lies one patch higher
    assert by_row[MIRRORED]["place"].endswith("mirrored")
    assert by_row[COPY]["patch_similarity"] > 0.999
    assert all(row["z"] > 3 for row in rows[:4])
    z = [row["z"] for row in rows if not row["bland"]]
    assert z == sorted(z, reverse=True)
    for row in rows:
        both = (result.real.codes[[row["row_real"]]] > 0).multiply(
            result.generated.codes[[row["row_generated"]]] > 0
        )
        assert row["n_firing"] == both.sum()


def test_a_place_in_words():
    assert analysis.describe_place(0, 0, 0) == ""
    assert analysis.describe_place(1, -2, 1) == "1 down, 2 left, mirrored"
    assert analysis.describe_place(-1, 1, 0) == "1 up, 1 right"
    assert analysis.describe_place(0, 0, 1) == "mirrored"


def test_a_plain_pair_is_marked_and_comes_last(result):
    rows = result.pairs.to_pylist()
    assert [row["row_real"] for row in rows if row["bland"]] == [PLAIN]
    assert rows[-1]["row_real"] == PLAIN
    assert rows[-1]["patch_similarity"] > 0.999


def test_near_duplicates_of_real_images_are_listed_and_count_in_no_null(result, sets, tmp_path):
    twins = result.duplicates.to_pylist()
    assert [(row["key"], row["other"]) for row in twins] == [(f"{COPY:06d}", f"{TWIN:06d}")]
    assert twins[0]["patch_similarity"] > 0.95
    by_row = {row["row_real"]: row for row in result.pairs.to_pylist()}
    # The twin's null would hold the copy itself.
    assert by_row[TWIN]["null_mean"] < 0.6
    result.save(tmp_path)
    stored = read_compared(tmp_path, "generated")
    assert stored.duplicates.equals(result.duplicates)
    assert [(f.name, str(f.type)) for f in stored.duplicates.schema] == [
        (column.name, column.type) for column in DUPLICATES
    ]
    assert stored.pairs.equals(result.pairs)


def without_patches(measured):
    files = {k: v for k, v in measured.manifest["files"].items() if k != measures.PATCHES}
    return dataclasses.replace(measured, manifest={**measured.manifest, "files": files})


def test_sets_without_sketches_are_compared_as_before(result, sets, tmp_path):
    old = bsjax.compare(without_patches(sets[0]), sets[1])
    assert old.duplicates is None
    assert old.pairs.schema.equals(result.pairs.schema)
    for name in NEW:
        assert old.pairs[name].null_count == N
    cosine = old.pairs["cosine"].to_numpy()
    np.testing.assert_array_equal(np.round(cosine, 9), np.sort(np.round(cosine, 9))[::-1])
    for name in result.concepts.column_names:
        np.testing.assert_array_equal(*(np.array(found.concepts[name].to_pylist(), object)
                                        if name in ("verdict", "words") else
                                        found.concepts[name].to_numpy()
                                        for found in (old, result)))  # fmt: skip
    both = [pairs.sort_by("row_real").drop_columns(["rank", *NEW]) for pairs in
            (old.pairs, result.pairs)]  # fmt: skip
    assert both[0].equals(both[1])
    page = old.report(tmp_path)
    assert page.endswith("index.html")
    text = (tmp_path / "report" / "summary.html").read_text()
    assert "Nearest pairs" in text and "unusually alike" not in text


def test_a_report_says_unusually_alike_and_names_the_duplicates(result, tmp_path):
    result.report(tmp_path)
    text = (tmp_path / "report" / "summary.html").read_text()
    assert "Pairs unusually alike for their caption" in text
    assert f"{COPY:06d} = {TWIN:06d}" in text
    assert "memorised" not in text.lower()


def test_a_sketch_of_another_form_is_not_compared(sets, monkeypatch):
    measured = dataclasses.replace(sets[0])
    monkeypatch.setattr(copies, "FORMAT", copies.FORMAT + 1)
    assert measured.patches is None


def test_sketches_do_not_depend_on_how_images_were_divided(tools, sets, tmp_path):
    images = [scenes.scene(1, row).image for row in range(9)]
    made = [
        bsjax.measure(images, *tools, workdir=tmp_path / str(size), images_per_shard=size)
        for size in (2, 5)
    ]
    files = [(one.folder / measures.PATCHES).read_bytes() for one in made]
    assert files[0] == files[1]
    np.testing.assert_array_equal(made[0].patches.values[1:5], sets[0].patches.values[1:5])


def random_sketch(rng, n, shape=(3, 3, 4)):
    values = rng.integers(-127, 128, (n, *shape)).astype(np.int8)
    mean = rng.normal(size=(n, shape[2])).astype(np.float32)
    return copies.Sketch(values, np.full(n, 0.01, np.float32), mean)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_pairs(n):
    rng = np.random.default_rng(n)
    codes = sp.csr_array(rng.random((n, 5)).astype(np.float32))
    sketches = [random_sketch(rng, n) for _ in range(2)]
    keys = [str(row) for row in range(n)]
    judged = analysis.judge_sketches(*sketches, codes, keys, keys)
    assert np.isfinite(judged.scores["patch_similarity"]).all()
    assert np.isfinite(judged.scores["null_mean"]).all() == (n > 1)
    assert np.isfinite(judged.scores["z"]).all() == (n > 2)
    columns = {"rank": np.arange(n), **judged.scores}
    table = analysis.pair_table({name: columns.get(name) for name in columns})
    assert table["z"].null_count == (0 if n > 2 else n)
    assert not any(v != v for name in NEW for v in table[name].to_pylist() if v is not None)


def test_images_of_one_colour_give_numbers():
    n = 6
    flat = copies.Sketch(np.zeros((n, 3, 3, 4), np.int8), np.zeros(n, np.float32),
                         np.ones((n, 4), np.float32))  # fmt: skip
    keys = [str(row) for row in range(n)]
    for codes in (sp.csr_array((n, 5), dtype=np.float32), sp.csr_array(np.ones((n, 5), "f4"))):
        judged = analysis.judge_sketches(flat, flat, codes, keys, keys)
        # Each is the mean of all: nothing is left to compare, and nothing is unusual.
        assert set(judged.scores.pop("place")) == {""}
        assert all(np.isfinite(values).all() for values in judged.scores.values())
        np.testing.assert_array_equal(judged.scores["z"], 0)
        assert judged.scores["bland"].all()


def test_the_nearest_are_those_of_a_dense_product(monkeypatch):
    monkeypatch.setattr(analysis, "BLOCK", 7)
    rng = np.random.default_rng(0)
    dense = (rng.random((40, 12)) * (rng.random((40, 12)) < 0.4)).astype(np.float32)
    captions = [f"{' A ' if row % 2 else 'a'}  b {row // 2 % 15}" for row in range(40)]
    captions[3] = captions[9] = ""  # nobody's: not the same
    near = analysis.nearest(sp.csr_array(dense), captions)
    unit = dense / np.maximum(np.linalg.norm(dense, axis=1, keepdims=True), 1e-12)
    cosines = unit.astype(np.float64) @ unit.T
    same = np.array([[" ".join(a.lower().split()) == " ".join(b.lower().split()) for b in captions]
                     for a in captions])  # fmt: skip
    same[3, 9] = same[9, 3] = False
    for found, left_out in ((near.all, np.eye(40, dtype=bool)), (near.other_captions, same)):
        allowed = np.where(left_out, -1, cosines)
        got = np.take_along_axis(allowed, found, axis=1)
        np.testing.assert_allclose(
            got, np.sort(allowed, axis=1)[:, ::-1][:, : found.shape[1]], atol=1e-6
        )
    few = analysis.nearest(sp.csr_array(dense[:3]), ["a", "b", "b"])
    assert (few.other_captions[1] >= 0).sum() == 1 and (few.all[1] >= 0).sum() == 2


def test_many_duplicates_are_not_held_against_one_another():
    """Twelve of one image: more than are looked for as its nearest, and of other captions each."""
    n, same = 24, 12
    rng = np.random.default_rng(0)
    dense = rng.random((n, 9)).astype(np.float32)
    dense[:same] = dense[0] + 0.01 * rng.random((same, 9))
    real = random_sketch(rng, n, (5, 5, 8))
    real.values[:same] = real.values[0]
    real.mean[:same] = real.mean[0]
    keys = [str(row) for row in range(n)]
    judged = analysis.judge_sketches(real, real, sp.csr_array(dense), keys, keys)
    table = judged.duplicates
    assert {*table["key"].to_pylist(), *table["other"].to_pylist()} == set(keys[:same])
    assert judged.scores["null_mean"].max() < 0.5  # of a duplicate it would be near 1


def test_several_images_of_one_real_image_are_one_row():
    real = np.array([[1.0, 2], [1, 2], [1, 2], [0, 3]])
    generated = np.array([[2.0, 0], [1, 2], [0, 1], [1, 3]])
    result = bsjax.compare_codes(real, generated, clusters=["x", "x", "y", "y"])
    # The third has the same code, but its cluster is another's.
    assert result.pairs["row_generated"].to_pylist() == [1, 3, 2]
    assert result.pairs["rank"].to_pylist() == [1, 2, 3]
    assert bsjax.compare_codes(real, generated).pairs.num_rows == 4


def test_the_file_is_read_by_numpy_alone(sets):
    with np.load(sets[0].folder / measures.PATCHES) as arrays:
        assert arrays["values"].shape == (N, 8, 8, copies.N_DIMS)
        assert arrays["scale"].shape == (N,) and arrays["mean"].shape == (N, copies.N_DIMS)
    assert isinstance(sets[0].patches, copies.Sketch)
    assert pq.read_table(sets[0].folder / "images.parquet").num_rows == N
    assert isinstance(sets[0].images, pa.Table)
