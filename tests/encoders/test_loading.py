"""An encoder is found by what its weights say, wherever they lie."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from bsjax import presets
from bsjax.convert.dinov2 import load_dinov2
from bsjax.core.errors import UserError
from bsjax.encoders import load_encoder
from bsjax.encoders.dinov2 import DinoV2Encoder
from bsjax.experiment import inputs
from bsjax.experiment.encoder import encoder_to_plan, open_encoder
from bsjax.models.dinov2 import VARIANTS, normalise_images
from tests.convert.hub_server import Answer, serve
from tests.encoders.towers import make, processor, rewrite

REPO = pathlib.Path(__file__).resolve().parents[2]
SCENES = str(presets.SCENES / "encoder")
LOAD = """
import json, sys
from bsjax.encoders import load_encoder
from bsjax.encoders.dinov2 import DinoV2Encoder
encoder = load_encoder(sys.argv[1])
print(json.dumps([encoder.variant, list(encoder.preprocessing), encoder.width]))
"""


def test_dinov2_is_what_it_was():
    """The same tokens, bit for bit, and the same digest as from its own loader."""
    before = load_dinov2("vitxs8_reg", SCENES)
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype(np.uint8)
    encode = jax.jit(lambda p, x: before.model.apply({"params": p}, normalise_images(x)))
    expected = encode(before.params, images)
    cfg = presets.experiment()
    presets.on_scenes(cfg, 4)
    for encoder in (
        inputs.load_encoder(cfg),
        load_encoder(SCENES, resize=64, crop=64),  # by its config.json and tensors
        load_encoder(SCENES, variant="vitxs8_reg", resize=64, crop=64),
    ):
        np.testing.assert_array_equal(jax.jit(encoder.apply)(encoder.params, images), expected)
        assert (encoder.digest, encoder.variant) == (before.digest, "vitxs8_reg")
        assert (encoder.source, encoder.is_random, encoder.interpolation) == (SCENES, False, "")
        assert encoder.model.config == VARIANTS["vitxs8_reg"]
        assert encoder.grid() == encoder.grid(64, 64) == (4, 8, 8, 1)
        assert encoder.notes == ()
    random = load_encoder("random:0", variant="vitxs8_reg")
    assert (random.digest, random.is_random) == ("random:0", True)
    assert random.preprocessing[:2] == (64, 64)  # what it was trained on
    assert DinoV2Encoder("", "vits14", "float32").preprocessing[:2] == (256, 224)  # the paper's


@pytest.mark.parametrize("safe", [True, False])
def test_a_hub_id_is_enough(safe, tmp_path):
    """The family is what config.json says; of the repository only what is read is fetched."""
    make("siglip", tmp_path / "made", both=True, safe=safe)
    processor("siglip", resample=2).save_pretrained(tmp_path / "made")
    files = {path.name: path.read_bytes() for path in (tmp_path / "made").iterdir()}
    files |= {"tf_model.h5": b"x", "README.md": b"x", "onnx/model.safetensors": b"x"}
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    variables |= {"PYTHONPATH": str(REPO), "HF_HOME": str(tmp_path / "hf"), "JAX_PLATFORMS": "cpu"}
    with serve({"owner": Answer(files=files)}) as (address, asked):
        result = subprocess.run(
            [sys.executable, "-c", LOAD, "owner/name"], env=variables | {"HF_ENDPOINT": address},
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
    assert result.returncode == 0, result.stderr
    variant, preprocessing, width = json.loads(result.stdout)
    assert variant == "siglip of width 32, depth 2, patches 8"
    assert preprocessing == [-1, 32, [0.5] * 3, [0.5] * 3, "bilinear"]
    assert width == 32
    fetched = {path.rpartition("/")[2].partition("?")[0] for path in asked if "/resolve/" in path}
    weights = "model.safetensors" if safe else "pytorch_model.bin"
    assert fetched == {"config.json", "preprocessor_config.json", weights}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda c: c | {"model_type": "vit"}, 'model_type "vit", expected one of dinov2, .*siglip'),
        (lambda c: {}, "model_type null, expected one of dinov2"),
        (lambda c: [], "expected a JSON object"),
        (lambda c: c | {"model_type": ["clip"]}, 'model_type ."clip"., expected one of'),
    ],
)
def test_a_repository_of_another_kind(tmp_path, change, expected):
    make("clip", tmp_path)
    rewrite(tmp_path / "config.json", change)
    with pytest.raises(UserError, match=expected) as error:
        load_encoder(str(tmp_path))
    assert "\n" not in str(error.value)
    assert "--config" not in str(error.value)


def test_weights_that_do_not_say_what_they_are(tmp_path):
    for weights in ("random:0", ""):
        with pytest.raises(UserError, match="tells no sizes; set variant to one of vits14"):
            load_encoder(weights)
    make("clip", tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(UserError, match="has no config.json to say which encoder it is; set var"):
        load_encoder(str(tmp_path))
    with pytest.raises(UserError, match="holds no DINOv2; expected one of vits14"):
        load_encoder(str(tmp_path / "model.safetensors"))
    with pytest.raises(UserError, match="variant='vitx': expected one of vits14, .*module:Class"):
        load_encoder("random:0", variant="vitx")
    with pytest.raises(UserError, match="dtype='float16': expected one of float32, bfloat16"):
        load_encoder("random:0", variant="clip_vitb32", dtype="float16")
    with pytest.raises(UserError, match="crop=30: expected sides that are multiples of 32"):
        load_encoder("random:0", variant="clip_vitb32", crop=30)
    with pytest.raises(UserError, match="weights=random:x: expected random:SEED"):
        load_encoder("random:x", variant="clip_vitb32")


def test_an_experiment_may_leave_the_variant_to_the_weights(tmp_path):
    make("clip", tmp_path)
    cfg = presets.experiment()
    cfg.encoder = presets.clip("", str(tmp_path), 32)
    encoder = inputs.load_encoder(cfg)
    assert encoder.variant == "clip of width 32, depth 2, patches 8"
    assert open_encoder(cfg).width == 32
    cfg.encoder.variant = "clip_vitb32"  # a command line hears of its flags, a library of fields
    with pytest.raises(
        UserError, match=r"^--config\.encoder\.weights=.* set --config\.encoder\.variant or --c"
    ):
        inputs.load_encoder(cfg)
    with pytest.raises(UserError, match="^weights=.* set variant or weights$") as error:
        load_encoder(str(tmp_path), variant="clip_vitb32")
    assert error.value.fields == ("weights", "variant")
    cfg.encoder = presets.siglip("siglip_base32_256", "random:0", 256)
    assert encoder_to_plan(cfg).grid(256, 256).n_tokens == 64
    cfg.encoder.crop = 257
    with pytest.raises(UserError, match=r"^--config\.encoder\.crop=257: expected sides that are"):
        open_encoder(cfg)
