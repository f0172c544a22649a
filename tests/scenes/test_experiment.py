"""The networks that come with bsjax load, know their world, and carry the whole experiment."""

import json
import pathlib
import runpy

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
from etils import epath

from bsjax import presets
from bsjax.data import scenes
from bsjax.models.dinov2 import normalise_images
from bsjax.scenes.generator import Planted
from bsjax.stages import inputs
from bsjax.stages.run import run

REPO = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def config():
    return runpy.run_path(str(REPO / "configs" / "scenes.py"))["get_config"]("tiny")


@pytest.fixture(scope="module")
def workdir(config, tmp_path_factory):
    folder = epath.Path(tmp_path_factory.mktemp("scenes"))
    run(config, folder)
    return folder


def test_what_is_shipped_is_small_and_says_how_it_was_made():
    files = [path for path in presets.SCENES.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 25e6
    for part in (
        "encoder/card",
        "generator/card",
        "generator/vae/autoencoder",
        "generator/vae/decoder",
    ):
        card = json.loads((presets.SCENES / f"{part}.json").read_text())
        assert "bsjax.scenes.train" in card["command"]
        assert card["seconds"] > 0
        assert card["last"]["step"] > 0
    quality = json.loads((presets.SCENES / "sae" / "quality.json").read_text())
    assert quality["r2"] >= 0.8
    assert quality["l0"] <= 16


def test_the_encoder_tells_background_and_colour(config, tmp_path):
    """Nearest mean of class tokens, on scenes that the means were not taken from."""
    encoder = inputs.load_encoder(config)
    parts = [scenes.plain(scenes.generator(21, i)) for i in range(320)]
    images = normalise_images(np.stack([part.image for part in parts]))
    apply = jax.jit(encoder.model.apply)
    tokens = np.asarray(apply({"params": encoder.params}, images))[:, 0]
    factors = np.array([part.factors for part in parts])
    for column, name in ((1, "colour"), (2, "background")):
        known, asked = factors[:240, column], factors[240:, column]
        means = np.stack(
            [tokens[:240][known == i].mean(axis=0) for i in range(len(scenes.FACTORS[name]))]
        )
        gaps = np.square(tokens[240:, None] - means[None]).sum(axis=2)
        assert (gaps.argmin(axis=1) == asked).mean() > 0.9, name


def test_the_whole_path(config, workdir):
    comparison = workdir / "comparisons" / "scenes"
    manifest = json.loads((comparison / "manifest.json").read_text())
    assert manifest["counts"]["pairs"] == 40
    assert manifest["notes"] == []  # nothing is untrained
    rows = pq.read_table(comparison / "concepts.parquet").to_pylist()
    assert len(rows) == inputs.load_rasae(config.sae.weights).n_concepts
    page = (workdir / "report" / "summary.html").read_text()
    assert "scenes against real" in page


def test_concepts_of_registers_have_top_images_too(workdir):
    """A count is no matter of one place: what stands for it fires on no patch."""
    folder = workdir / "measures" / "real"
    fires = pq.read_table(folder / "concepts.parquet")["fires"].to_numpy()
    with np.load(folder / "top_images.npz") as top:
        has_images, has_map = top["images"][:, 0] >= 0, top["maps"].any(axis=(1, 2, 3))
    np.testing.assert_array_equal(has_images, fires > 0)
    assert (has_images & ~has_map).any()


def test_pictures_show_what_was_asked_for_but_for_the_gaps(config, workdir):
    """The mean colour of what differs from the background is the one asked for, mostly."""
    records = inputs.load_set(config, "real").images.records
    rows = pq.read_table(workdir / "measures" / "scenes" / "images.parquet").to_pylist()
    assert [row["caption"] for row in rows] == [record.caption for record in records]
    datapoints = pq.read_table(workdir / "comparisons" / "scenes" / "datapoints.parquet")
    cosines = dict(zip(datapoints["key"].to_pylist(), datapoints["cosine"].to_pylist(),
                       strict=True))  # fmt: skip
    planted = Planted.read()
    gone = planted.never_shape[0]
    others = [cosines[row["key"]] for row in rows if gone not in row["caption"]]
    # A pair shares its caption: its codes are more alike than those of two pictures at random.
    assert np.median(others) > 0.5
