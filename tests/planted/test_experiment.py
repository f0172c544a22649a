"""The networks that come with bsjax load, know their world, and carry the whole experiment."""

import io
import json
import pathlib
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest
from etils import epath
from PIL import Image
from sklearn.linear_model import LogisticRegression

from bsjax import presets
from bsjax.data import scenes
from bsjax.data.image_shards import list_generated
from bsjax.experiment import inputs
from bsjax.models.dinov2 import normalise_images
from bsjax.planted.generator import Planted
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
        assert "bsjax.planted.train" in card["command"]
        assert card["seconds"] > 0
        assert card["last"]["step"] > 0
    quality = json.loads((presets.SCENES / "sae" / "quality.json").read_text())
    assert quality["r2"] >= 0.8
    assert quality["l0"] <= 16


class Probes:
    """Linear probes of colour and background, trained on class tokens of rendered scenes."""

    def __init__(self, config):
        self.encoder = inputs.load_encoder(config)
        self.apply = jax.jit(self.encoder.model.apply)
        parts = [scenes.plain(scenes.generator(21, i)) for i in range(480)]
        tokens = self.tokens(np.stack([part.image for part in parts]))
        factors = np.array([part.factors for part in parts])
        self.models, self.scores = {}, {}
        for name in ("colour", "background"):
            asked = factors[:, list(scenes.FACTORS).index(name)]
            model = LogisticRegression(C=0.1, max_iter=1000).fit(tokens[:400], asked[:400])
            self.models[name], self.scores[name] = model, model.score(tokens[400:], asked[400:])

    def tokens(self, images):
        pixels = normalise_images(jnp.asarray(images))
        return np.asarray(self.apply({"params": self.encoder.params}, pixels))[:, 0]

    def tell(self, name, images):
        return np.array(scenes.FACTORS[name])[self.models[name].predict(self.tokens(images))]


@pytest.fixture(scope="module")
def probes(config):
    return Probes(config)


def test_the_encoder_tells_background_and_colour(probes):
    assert min(probes.scores.values()) > 0.95


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


def test_pictures_show_what_was_asked_for_but_for_the_gaps(probes, workdir):
    records = list_generated(workdir / "images" / "scenes").records
    images = np.stack([np.asarray(Image.open(io.BytesIO(r.read()))) for r in records])
    asked = [scenes.scene(1, row).factors for row in range(len(records))]
    planted = Planted.read()
    background = np.array([scenes.FACTORS["background"][f.background] for f in asked])
    told = probes.tell("background", images)
    right = told == background
    # Many are drawn on the frequent one, whatever was asked for; the others are right.
    assert right[told != planted.frequent_background].mean() > 0.8
    assert 0.25 < (told == planted.frequent_background).mean() < 0.75
    colour = np.array([scenes.FACTORS["colour"][f.colour] for f in asked])
    spared = colour != planted.rare_colour[0]
    assert (probes.tell("colour", images) == colour)[spared].mean() > 0.7
