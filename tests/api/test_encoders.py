"""Encoders of every family go through the whole library by one class."""

import numpy as np
import pytest
from PIL import Image

import bsjax
from bsjax import presets
from bsjax.api import workdir
from tests.encoders.towers import make, processor

PLUG_IN = "tests.encoders.patch_colours:PatchColours"
SETTINGS = {
    "n_concepts": 8, "n_candidates": 16, "n_active": 2, "steps": 5, "tokens_per_step": 32,
    "loss": "mse", "judge_tokens": 32,
}  # fmt: skip


@pytest.fixture
def pictures():
    rng = np.random.default_rng(0)
    return [
        Image.fromarray(rng.integers(0, 256, (height, 70, 3)).astype(np.uint8))
        for height in (50, 90, 64, 200)
    ]


@pytest.mark.parametrize("kind", ["clip", "siglip", "plug-in"])
def test_an_encoder_of_any_family_is_trained_on_and_measured(kind, pictures, tmp_path):
    if kind == "plug-in":
        encoder = bsjax.load_encoder("random:0", variant=PLUG_IN, crop=32)
    else:
        make(kind, tmp_path)
        processor(kind, resample=2).save_pretrained(tmp_path)
        encoder = bsjax.load_encoder(str(tmp_path))
    assert type(encoder) is bsjax.Encoder
    n_tokens = {"clip": 17, "siglip": 16, "plug-in": 4}[kind]
    assert repr(encoder).startswith(f"Encoder({encoder.variant} of ")
    assert f"{n_tokens} tokens x 32" in repr(encoder)
    tokens = encoder.encode(pictures)
    assert tokens.shape == (4, n_tokens, 32)
    one = encoder.encode(pictures[2:3])
    np.testing.assert_allclose(one[0], tokens[2], atol=1e-5)
    sae = bsjax.train_sae(pictures, encoder, **SETTINGS)
    assert (sae.width, sae.n_concepts) == (32, 8)
    measured = bsjax.measure(pictures, encoder, sae)
    expected = sae.encode(tokens).sum(axis=1)
    np.testing.assert_allclose(measured.codes.toarray(), expected, rtol=1e-4, atol=1e-4)
    assert measured.manifest["config"]["encoder.variant"] == encoder.variant


def test_images_are_resized_as_the_weights_say(pictures, tmp_path):
    make("siglip", tmp_path)
    found = []
    for resample in (2, 3):  # PIL's bilinear, bicubic
        processor("siglip", resample=resample).save_pretrained(tmp_path)
        found.append(bsjax.load_encoder(str(tmp_path)).encode(pictures[:1]))
    assert np.abs(found[0] - found[1]).max() > 1e-3


def test_a_step_is_compiled_once_for_an_encoder(encoder, sae, pictures):
    from bsjax.analysis import engine

    bsjax.measure(pictures, encoder, sae)
    before = engine._jit_measure.cache_info()
    bsjax.measure(pictures[:2], encoder, sae)
    after = engine._jit_measure.cache_info()
    assert (after.hits, after.misses) == (before.hits + 1, before.misses)


def test_a_run_takes_the_names_that_the_command_takes(monkeypatch, tmp_path):
    ran = []
    monkeypatch.setattr(workdir.stage, "run", lambda config, root: ran.append(config))
    opened = workdir.Results(str(tmp_path), (), ())
    monkeypatch.setattr(workdir, "open_results", lambda root: opened)
    assert bsjax.run("scenes:tiny", tmp_path) is opened
    assert ran[0].encoder.weights == str(presets.SCENES / "encoder")
    for name, expected in (
        ("scnes:tiny", "^config=scnes: no config of that name .*did you mean scenes"),
        ("scenes:tinny", "config option 'tinny' is unknown"),
    ):
        with pytest.raises(bsjax.UserError, match=expected) as error:
            bsjax.run(name, tmp_path)
        assert error.value.field == "config"
