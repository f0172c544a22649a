"""Drawing, training and running from Python give what the stages give."""

import io

import numpy as np
import pytest
from etils import epath
from PIL import Image

import bsjax
from bsjax import presets
from bsjax.data.image_shards import list_generated
from bsjax.stages.generate import generate
from bsjax.stages.train_sae import train_sae
from tests.api.conftest import REAL

SETTINGS = {
    "n_concepts": 32, "n_candidates": 64, "steps": 30, "tokens_per_step": 256,
    "peak_learning_rate": 1e-2, "loss": "mse", "max_tokens": 1500,
}  # fmt: skip


def test_a_generator_draws_what_the_stage_draws(tmp_path):
    config = presets.experiment()
    presets.on_scenes(config, 6)
    config.generator.steps, config.generator.batch_per_device = 2, 1
    config.seed = 3
    generate(config, epath.Path(tmp_path))
    records = list_generated(epath.Path(tmp_path / "images" / "scenes")).records
    source = str(presets.SCENES / "generator")
    model = bsjax.load_generator(source, steps=2, guidance=1.5, dtype="float32")
    captions, keys = [r.caption for r in records], [r.key for r in records]
    pictures = model.generate(captions, keys=keys, seed=3)
    assert [(p.key, p.caption) for p in pictures] == list(zip(keys, captions, strict=True))
    for picture, record in zip(pictures, records, strict=True):
        drawn = np.asarray(Image.open(io.BytesIO(record.read())))
        np.testing.assert_array_equal(np.asarray(picture.image), drawn)
    again = model.generate(captions[:2], seed=4)
    assert [picture.key for picture in again] == ["000000", "000001"]
    assert np.any(np.asarray(again[0].image) != np.asarray(pictures[0].image))


def test_training_on_images_is_that_of_the_stage_and_on_tokens_goes_on(encoder, tmp_path):
    config = presets.experiment()
    presets.on_scenes(config, 20)
    config.generator, config.sae.weights, config.seed = presets.no_generator(), "", 5
    config.encoder.batch_per_device = -1
    config.real.source, config.real.path = "folder", str(REAL)
    config.real.limit = 20
    config.train.update(SETTINGS)
    train_sae(config, epath.Path(tmp_path))
    paths = sorted((REAL / "images").glob("*.png"))[:20]
    sae = bsjax.train_sae([str(path) for path in paths], encoder, seed=5, **SETTINGS)
    stored = bsjax.load_sae(str(tmp_path))
    assert (sae.n_concepts, sae.width, sae.digest) == (32, 192, stored.digest)
    assert sae.threshold == stored.threshold

    tokens = encoder.encode([str(path) for path in paths])
    kept = bsjax.train_sae(tokens, workdir=tmp_path / "w", **SETTINGS)
    assert 0 < (kept.encode(tokens) > 0).mean() < 0.5
    assert bsjax.load_sae(str(tmp_path / "w")).digest == kept.digest
    assert bsjax.train_sae(tokens, workdir=tmp_path / "w", **SETTINGS).digest == kept.digest
    with pytest.raises(bsjax.UserError, match="seed was 0 and is now 1.*overwrite=True"):
        bsjax.train_sae(tokens, workdir=tmp_path / "w", seed=1, **SETTINGS)
    assert kept.dictionary.shape == (32, 192)


def test_a_config_runs_and_its_results_open(tmp_path, monkeypatch):
    monkeypatch.setattr("bsjax.report.layout.umap_places", lambda atoms: atoms[:, :2])
    path = tmp_path / "mine.py"
    path.write_text(
        "from bsjax import presets\n"
        "def get_config(arg=''):\n"
        "    config = presets.experiment()\n"
        "    presets.on_scenes(config, int(arg))\n"
        "    config.generator = presets.no_generator()\n"
        "    config.generated = config.real.copy_and_resolve_references()\n"
        "    config.generated.path = '2'\n"
        "    return config\n"
    )
    results = bsjax.run(f"{path}:12", tmp_path / "w")
    assert results.compared == ("generated",)
    assert results.comparison().counts["pairs"] == 12
    assert results.measures("generated").codes.shape == (12, 512)
    with pytest.raises(bsjax.UserError, match="no comparison name='other'; expected one of gen"):
        results.comparison("other")
    page = results.report()
    assert epath.Path(page).is_file()
    shown = bsjax.show(results, height=300)
    assert shown.height == 300
