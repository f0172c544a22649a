"""config.json and preprocessor_config.json of CLIP and SigLIP, held to transformers' classes."""

import inspect
import json
import pathlib

import pytest
import transformers

from bsjax.convert.image_processor import HARMLESS as PROCESSOR_HARMLESS
from bsjax.convert.image_processor import KEYS, read_preprocessing
from bsjax.convert.vision_config import HARMLESS, NESTED, read_tower, tower_keys
from bsjax.core.errors import UserError
from bsjax.core.preprocessing import WHOLE, Preprocessing
from tests.encoders.towers import processor

HUB = pathlib.Path(__file__).parents[3] / "shared" / "hub"
CONFIGS = {
    "clip_vision_model": transformers.CLIPVisionConfig,
    "siglip_vision_model": transformers.SiglipVisionConfig,
}
OWN = Preprocessing(224, 224)


def write(folder, content, name="config.json"):
    (folder / name).write_text(json.dumps(content))


@pytest.mark.parametrize("kind", CONFIGS)
def test_every_key_is_accounted_for_with_the_default_of_the_class(kind, tmp_path):
    keys, cls = tower_keys(kind), CONFIGS[kind]
    arguments = {
        name: parameter.default
        for name, parameter in inspect.signature(cls.__init__).parameters.items()
        if name not in ("self", "kwargs")
    }
    assert not set(keys) & HARMLESS
    for name in {*cls().to_dict(), *arguments, "torch_dtype"}:
        assert name in keys or name in HARMLESS or name[0] == "_", name
    for name, default in arguments.items():
        if name in keys:
            assert keys[name].default == default, name
    write(tmp_path, {"model_type": kind})
    found = read_tower(tmp_path, "weights")
    assert (found.width, found.depth, found.n_heads) == (768, 12, 12)
    assert (found.image_size, found.patch_size) == (224, cls().patch_size)
    assert (found.activation, found.norm_eps) == (cls().hidden_act, cls().layer_norm_eps)


@pytest.mark.parametrize("kind", NESTED)
def test_what_is_not_followed_is_refused(kind, tmp_path):
    inner = NESTED[kind]

    def refusal(content):
        write(tmp_path, content)
        with pytest.raises(UserError) as error:
            read_tower(tmp_path, "weights")
        assert "\n" not in str(error.value)
        return str(error.value)

    for change, expected in (
        ({"hidden_act": "relu"}, 'hidden_act="relu": expected only'),
        ({"num_channels": 1}, "num_channels=1: expected only 3"),
        ({"hidden_size": 770}, "num_attention_heads=12: expected a divisor of hidden_size=770"),
        ({"patch_size": 300}, "patch_size=300: expected at most image_size=224"),
        ({"num_hidden_layers": 0}, "num_hidden_layers=0"),
        ({"layer_norm_eps": 0}, "layer_norm_eps=0"),
        ({"num_hidden_layers": True}, "num_hidden_layers=true"),
        ({"rope_theta": 100.0}, "rope_theta=100.0 is unknown"),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads"),
    ):
        alone = {"model_type": inner} | change
        assert expected in refusal(alone)
        text = refusal({"model_type": kind, "vision_config": change})
        assert expected in text
        assert "(vision_config)" in text
    assert "surprise=1 is unknown" in refusal({"model_type": kind, "surprise": 1})
    assert "vision_config=[]" in refusal({"model_type": kind, "vision_config": []})
    assert 'is of model_type "siglip2", expected one of clip' in refusal({"model_type": "siglip2"})
    assert "model_type=" in refusal({"model_type": kind, "vision_config": {"model_type": "dinov2"}})
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(UserError, match="expected a JSON object"):
        read_tower(tmp_path, "weights")
    (tmp_path / "config.json").unlink()
    assert read_tower(tmp_path, "weights") is None


@pytest.mark.skipif(not HUB.is_dir(), reason=f"{HUB} is absent")
def test_released_files_are_understood():
    found = read_tower(HUB / "kandinsky21" / "prior" / "image_encoder", "weights")
    assert (found.width, found.depth, found.patch_size, found.n_class) == (1024, 24, 14, 1)
    assert read_tower(HUB / "sd15" / "safety_checker", "weights") == found
    clip = read_preprocessing(HUB / "sd15" / "feature_extractor", OWN, "weights")
    theirs = transformers.CLIPImageProcessor()
    assert clip == Preprocessing(224, 224, tuple(theirs.image_mean), tuple(theirs.image_std))


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_every_key_of_an_image_processor_is_accounted_for(kind, tmp_path):
    theirs = processor(kind, 48, image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6], resample=2)
    theirs.save_pretrained(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    saved = json.loads(path.read_text())
    assert set(saved) <= {*KEYS, *PROCESSOR_HARMLESS}
    assert not set(KEYS) & set(PROCESSOR_HARMLESS)
    resize = 48 if kind == "clip" else WHOLE
    expected = Preprocessing(resize, 48, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bilinear")
    own = OWN._replace(resize=224 if kind == "clip" else WHOLE)
    assert read_preprocessing(tmp_path, own, "weights") == expected
    for change, key in (
        ({"do_resize": False}, "do_resize"),
        ({"do_normalize": False}, "do_normalize"),
        ({"do_rescale": False}, "do_rescale"),
        ({"rescale_factor": 1 / 127.5}, "rescale_factor"),
        ({"resample": 1}, "resample"),
        ({"image_mean": [0.5]}, "image_mean"),
        ({"image_std": [0.5, 0.5, 0]}, "image_std"),
        ({"size": {"height": 48, "width": 49}}, "size"),
        ({"size": {"longest_edge": 48}}, "size"),
        ({"size": 0}, "size"),
        ({"image_processor_type": "ViTImageProcessor"}, "image_processor_type"),
        ({"do_pad": True}, "do_pad"),
        ({"do_flip": True}, "do_flip"),
        ({"crop_size": {"height": 49, "width": 49}, "do_center_crop": True}, "size"),
    ):
        write(tmp_path, saved | change, path.name)
        with pytest.raises(UserError, match=rf"cannot be followed: .*{key}.*set weights") as error:
            read_preprocessing(tmp_path, own, "weights")
        assert "\n" not in str(error.value)
    path.unlink()
    assert read_preprocessing(tmp_path, own, "weights") == own


def test_older_processors_have_plain_numbers(tmp_path):
    content = {"size": 56, "crop_size": 48, "do_center_crop": True, "resample": 3}
    write(tmp_path, content, "preprocessor_config.json")
    assert read_preprocessing(tmp_path, OWN, "weights")[:2] == (56, 48)
    write(tmp_path, {"crop_size": 40}, "preprocessor_config.json")
    assert read_preprocessing(tmp_path, OWN, "weights") == OWN._replace(crop=40)
