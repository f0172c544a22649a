"""The library as its users meet it: the same numbers as the stages, from whatever holds images."""

import ast
import dataclasses
import gc
import pathlib
import subprocess
import sys

import matplotlib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from etils import epath
from matplotlib import pyplot
from PIL import Image

import bsjax
from bsjax.core.errors import UserError
from bsjax.data.changes import as_jpeg
from bsjax.data.decode import decode_rgb
from bsjax.data.scenes import scene
from bsjax.stages.compare import compare
from bsjax.stages.measure import measure
from tests.api.conftest import N_IMAGES, REAL

matplotlib.use("agg")


def assert_same(got: pa.Table, expected: pa.Table):
    """Equal to the last bit; NaN is NaN."""
    assert got.schema.equals(expected.schema)
    for name in expected.column_names:
        left, right = (np.array(table[name].to_pylist()) for table in (got, expected))
        np.testing.assert_array_equal(left, right, err_msg=name)


def files():
    return sorted((REAL / "images").glob("*.png"))[:N_IMAGES]


def test_importing_takes_no_time_and_everything_is_there_when_asked_for():
    code = (
        "import sys, time; began = time.perf_counter(); import bsjax;"
        " print(time.perf_counter() - began, sorted({m.split('.')[0] for m in sys.modules}))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, _, modules = found.stdout.partition(" ")
    assert float(seconds) < 0.3
    assert not {"jax", "numpy", "absl", "PIL"} & set(ast.literal_eval(modules))
    assert set(bsjax.__all__) == set(bsjax._EXPORTS) <= set(dir(bsjax))
    for name in bsjax.__all__:
        assert getattr(bsjax, name).__module__ == bsjax._EXPORTS[name]
        assert getattr(bsjax, name).__doc__
    with pytest.raises(AttributeError, match="'bsjax' has no attribute 'compere'"):
        bsjax.compere  # noqa: B018


def test_editors_are_told_what_is_exported():
    tree = ast.parse(pathlib.Path(bsjax.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    told = {alias.name: node.module for node in block.body for alias in node.names}
    assert told == bsjax._EXPORTS


def test_a_folder_is_measured_as_the_stage_does(workdir, real):
    folder = workdir / "measures" / "real"
    assert_same(real.concepts, pq.read_table(folder / "concepts.parquet"))
    assert_same(real.images, pq.read_table(folder / "images.parquet"))
    stored = bsjax.open_results(workdir).measures()
    for got, expected in ((real.codes, stored.codes), (real.cooccurrence, stored.cooccurrence)):
        assert (got != expected).nnz == 0
    np.testing.assert_array_equal(real.maps, stored.maps)
    np.testing.assert_array_equal(real.top_rows, stored.top_rows)
    assert real.concepts["fires"].to_numpy().sum() > 0


@pytest.mark.parametrize("kind", ["paths", "PIL", "arrays", "mappings", "records"])
def test_images_in_memory_give_the_same(encoder, sae, real, kind):
    make = {
        "paths": str,
        "PIL": Image.open,
        "arrays": lambda path: np.asarray(decode_rgb(path.read_bytes())),
        "mappings": lambda path: {"image": Image.open(path), "key": path.stem, "caption": "one"},
        "records": lambda path: bsjax.Picture(path.stem, "one", Image.open(path)),
    }[kind]
    images = [make(path) for path in files()]
    told = {"captions": real.captions} if kind in ("paths", "PIL", "arrays") else {}
    measured = bsjax.measure(images, encoder, sae, **told)
    assert_same(measured.concepts, real.concepts)
    assert measured.keys == (
        [f"{row:06d}" for row in range(N_IMAGES)] if kind in ("PIL", "arrays") else real.keys
    )
    assert measured.captions == (real.captions if told else ["one"] * N_IMAGES)


def test_sizes_may_differ_and_an_array_of_all_will_do(encoder, sae):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, shape).astype(np.uint8) for shape in
              ((80, 64, 3), (64, 100), (70, 70, 4), (64, 64, 1))]  # fmt: skip
    assert bsjax.measure(images, encoder, sae).codes.shape == (4, sae.n_concepts)
    stack = rng.integers(0, 256, (5, 64, 64, 3)).astype(np.uint8)
    measured = bsjax.measure(stack, encoder, sae)
    assert measured.images.num_rows == 5
    assert (measured.codes != bsjax.measure(list(stack), encoder, sae).codes).nnz == 0


def test_an_image_that_is_turned_by_its_file_is_turned_in_memory_too(encoder, sae, tmp_path):
    rng = np.random.default_rng(0)
    upright = rng.integers(0, 256, (64, 90, 3)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "a.png"
    Image.fromarray(upright).save(path, exif=exif)
    image = Image.open(path)
    codes = bsjax.measure([image, path], encoder, sae).codes.toarray()
    np.testing.assert_array_equal(codes[0], codes[1])
    assert image.size == (90, 64)  # the user's own stays as it is
    assert np.any(bsjax.measure([upright], encoder, sae).codes.toarray() != codes[0])


def test_compare_equals_the_stage(workdir, real, generated):
    result = bsjax.compare(real, generated)
    folder = workdir / "comparisons" / "generated"
    assert_same(result.concepts, pq.read_table(folder / "concepts.parquet"))
    assert_same(result.pairs, pq.read_table(folder / "datapoints.parquet"))
    stored = bsjax.open_results(workdir).comparison()
    assert result.counts == stored.counts
    assert result.control == stored.control
    assert result.manifest["config"] == stored.manifest["config"]
    assert result.to_arrow() is result.concepts
    default = bsjax.compare(real, generated, form="difference")
    assert default.manifest["config"]["compare.temperature"] == 0.8
    assert default.concepts["delta"].equals(result.concepts["delta_difference"])


def test_controls_are_those_of_the_stages(config, encoder, sae, real, generated, tmp_path):
    images = [as_jpeg(decode_rgb(path.read_bytes())) for path in files()]
    changed = bsjax.measure(images, encoder, sae, keys=real.keys)
    result = bsjax.compare(real, generated, controls={"jpeg": changed})
    asked = config.copy_and_resolve_references()
    asked.measure.controls = "jpeg"
    workdir = epath.Path(tmp_path / "workdir")
    measure(asked, workdir)
    compare(asked, workdir)
    stored = bsjax.open_results(workdir).comparison()
    assert_same(result.concepts, stored.concepts)
    assert_same(result.controls, stored.controls)
    assert np.isfinite(result.concepts["control_log_ratio"].to_numpy()).any()
    # Saved, it is what the stages take for finished.
    folder = epath.Path(result.save(tmp_path / "saved"))
    assert sorted(path.name for path in (folder / "measures").iterdir()) == [
        "control-jpeg", "generated", "real",
    ]  # fmt: skip
    compare(asked, folder)
    assert bsjax.open_results(folder).compared == ("generated",)


def test_a_control_is_of_a_known_kind_and_measured_alike(real, generated):
    with pytest.raises(UserError, match="controls has blur; expected some of jpeg, crop, vae"):
        bsjax.compare(real, generated, controls={"blur": real})
    other = {**real.manifest, "config": real.manifest["config"] | {"encoder.crop": 1}}
    foreign = dataclasses.replace(real, manifest=other)
    with pytest.raises(UserError, match="differ in encoder.crop"):
        bsjax.compare(real, generated, controls={"jpeg": foreign})


def test_what_is_saved_is_what_the_stages_leave(workdir, encoder, sae, real, generated, tmp_path):
    bsjax.compare(real, generated).save(tmp_path / "a")
    for file in sorted((workdir / "measures").rglob("*")) + sorted(
        (workdir / "comparisons").rglob("*")
    ):
        if file.is_file() and file.suffix != ".json":
            saved = tmp_path / "a" / file.relative_to(workdir)
            assert saved.read_bytes() == file.read_bytes(), file
    results = bsjax.open_results(tmp_path / "a")
    assert (results.measured, results.compared) == (("generated", "real"), ("generated",))
    assert_same(
        results.comparison().concepts,
        pq.read_table(workdir / "comparisons/generated/concepts.parquet"),
    )
    # Another of the same name is refused, one of another name stands beside it.
    other = bsjax.compare(real, generated, margin=1.25)
    with pytest.raises(UserError, match=r"compare.margin was 1.5 .*overwrite=True") as error:
        other.save(tmp_path / "a")
    assert "--" not in str(error.value)
    other.save(tmp_path / "a", overwrite=True)
    bsjax.compare(real, generated, name="again").save(tmp_path / "a")
    assert bsjax.open_results(tmp_path / "a").compared == ("again", "generated")
    few = bsjax.measure(str(REAL), encoder, sae, limit=4)
    with pytest.raises(UserError, match="measures/real holds another image set"):
        bsjax.compare(few, few).save(tmp_path / "a")


def test_pictures_in_memory_are_shown_where_they_are_saved(encoder, sae, tmp_path, monkeypatch):
    monkeypatch.setattr("bsjax.report.layout.umap_places", lambda atoms: atoms[:, :2])
    images = [Image.open(path) for path in files()[:4]]
    measured = bsjax.measure(images, encoder, sae, captions=["a", "b", "c", "d"])
    assert measured.paths == [""] * 4
    result = bsjax.compare(measured, measured, name="copies")
    page = pathlib.Path(result.report(tmp_path / "w"))
    assert page == tmp_path / "w" / "report" / "index.html"
    assert page.is_file()
    stored = bsjax.open_results(tmp_path / "w").measures()
    for path, image in zip(stored.paths, images, strict=True):
        assert np.array_equal(np.asarray(Image.open(path)), np.asarray(image))
    card = (tmp_path / "w" / "report" / "summary.html").read_text()
    assert "could not be read" not in card


def test_the_image_of_a_row_wherever_it_lies(workdir, encoder, sae, real, tmp_path):
    expected = np.asarray(decode_rgb(files()[3].read_bytes()))
    assert real.image(3).mode == "RGB"
    assert np.array_equal(np.asarray(real.image(3)), expected)
    stored = bsjax.open_results(workdir).measures()
    assert np.array_equal(np.asarray(stored.image(3)), expected)

    grey = Image.fromarray(np.arange(64 * 80, dtype=np.uint8).reshape(64, 80))
    grey.save(tmp_path / "a.png")
    measured = bsjax.measure([grey, tmp_path / "a.png"], encoder, sae)
    for row in range(2):
        image = measured.image(row)
        assert image.mode == "RGB"
        assert np.array_equal(np.asarray(image)[..., 2], np.asarray(grey))
    scenes = bsjax.measure("1", encoder, sae, source="scenes", limit=2)
    assert np.array_equal(np.asarray(scenes.image(1)), scene(seed=1, index=1).image)

    (tmp_path / "a.png").unlink()
    with pytest.raises(UserError, match=r"image 'a' of .*a\.png cannot be read: .*No such file"):
        measured.image(1)
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="cannot be read: not an image; put it back"):
        measured.image(1)


def test_a_figure_leaves_a_notebook_showing_figures(real, generated, monkeypatch):
    """The backend of a notebook turns interactive mode on when the first figure loads it."""
    result, subplots = bsjax.compare(real, generated), pyplot.subplots

    def load(**settings):
        matplotlib.interactive(True)
        return subplots(**settings)

    for was in (False, True):
        matplotlib.interactive(was)
        axes = result.plot("histogram")
        assert matplotlib.is_interactive() == was
        pyplot.close(axes.figure)
    matplotlib.interactive(False)
    monkeypatch.setattr(pyplot, "subplots", load)
    try:
        pyplot.close(result.plot("histogram").figure)
        assert matplotlib.is_interactive()
    finally:
        matplotlib.interactive(False)


def test_plots(real, generated):
    result = bsjax.compare(real, generated)
    for kind in ("ranking", "histogram", "rarity", "energies"):
        axes = result.plot(kind)
        assert axes.has_data()
        assert result.plot(kind, axes) is axes
        pyplot.close(axes.figure)
    with pytest.raises(UserError, match="kind='pie': expected one of ranking, histogram"):
        result.plot("pie")


def test_measures_in_memory_go_with_the_object(encoder, sae):
    measured = bsjax.measure([np.zeros((64, 64, 3), np.uint8)] * 2, encoder, sae)
    # Two of the same image are one piece of evidence, unless told otherwise.
    folder, result = measured.folder, bsjax.compare(measured, measured, clusters="none")
    del measured
    gc.collect()
    assert folder.is_dir()  # the comparison shows its images
    del result
    gc.collect()
    assert not folder.exists()


def test_measures_are_kept_and_found_again(encoder, sae, real, tmp_path):
    kept = bsjax.measure(str(REAL), encoder, sae, limit=N_IMAGES, workdir=tmp_path, name="real")
    assert_same(kept.concepts, real.concepts)
    written = (tmp_path / "measures/real/manifest.json").stat().st_mtime_ns
    bsjax.measure(str(REAL), encoder, sae, limit=N_IMAGES, workdir=tmp_path, name="real")
    assert (tmp_path / "measures/real/manifest.json").stat().st_mtime_ns == written
    with pytest.raises(UserError, match="images was made anew.*overwrite=True"):
        bsjax.measure(str(REAL), encoder, sae, limit=5, workdir=tmp_path, name="real")


def test_arrays_go_through_encoder_and_sae(encoder, sae, real):
    tokens = encoder.encode([str(path) for path in files()[:9]])
    assert tokens.shape == (9, encoder.grid().n_tokens, encoder.width)
    codes = sae.encode(tokens)
    assert codes.shape == (9, encoder.grid().n_tokens, sae.n_concepts)
    np.testing.assert_allclose(codes.sum(axis=1), real.codes[:9].toarray(), rtol=1e-5, atol=1e-5)
    assert codes[codes > 0].min() >= sae.threshold
    sparse = sae.encode(tokens, sparse=True)
    np.testing.assert_array_equal(sparse.toarray(), codes.reshape(-1, sae.n_concepts))
    x_hat = sae.decode(codes)
    np.testing.assert_allclose(x_hat, codes @ sae.dictionary, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(sae.decode(sparse), x_hat.reshape(-1, sae.width), atol=1e-4)
    assert sae.encode(tokens[0, 0]).shape == (sae.n_concepts,)
    assert sae.encode(tokens[:0]).shape == (0, encoder.grid().n_tokens, sae.n_concepts)


def test_pandas_is_asked_for_where_it_is_missing(real, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UserError, match="pip install pandas"):
        real.to_pandas()


def test_tables_as_pandas_has_them(real, generated):
    pytest.importorskip("pandas")
    frame = bsjax.compare(real, generated).to_pandas()
    assert frame["delta"].between(0, 1).all()
    assert len(real.to_pandas()) == len(frame)
