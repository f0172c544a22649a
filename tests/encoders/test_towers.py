"""CLIP's and SigLIP's image towers agree with transformers' torch classes, pixels included."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.numpy import load_file, save_file

from bsjax.convert.encoder_files import abstract_params
from bsjax.convert.tables import check
from bsjax.convert.tensors import TensorSource
from bsjax.convert.vision_transformer import RULES
from bsjax.core.errors import UserError
from bsjax.core.preprocessing import WHOLE, Preprocessing
from bsjax.data.images import resize_crop
from bsjax.encoders import load_encoder, registry
from bsjax.encoders.clip import ClipEncoder
from bsjax.encoders.siglip import SiglipEncoder
from tests.encoders.towers import make, processor, rewrite, tokens_of_torch

PARITY = 1e-5  # of the largest value, float32


def encode(encoder, images):
    return np.asarray(jax.jit(encoder.apply)(encoder.params, images))


def assert_close(got, expected, tolerance=PARITY):
    assert got.shape == expected.shape
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=tolerance * np.abs(expected).max(), rtol=0)


def normalised(images, encoder):
    mean, std = (np.array(x, np.float32) for x in encoder.preprocessing[2:4])
    return ((images / np.float32(255) - mean) / std).transpose(0, 3, 1, 2).copy()


@pytest.mark.parametrize("kind", ["clip", "siglip"])
@pytest.mark.parametrize("size", [(32, 32), (40, 24)])  # as trained; another, interpolated
def test_tokens_equal_transformers(kind, size, tmp_path):
    tower = make(kind, tmp_path, both=size == (32, 32))
    encoder = load_encoder(str(tmp_path))
    grid = encoder.grid(*size)
    assert grid == (0, size[0] // 8, size[1] // 8, int(kind == "clip"))
    images = np.random.default_rng(1).integers(0, 256, (2, *size, 3)).astype(np.uint8)
    expected = tokens_of_torch(tower, normalised(images, encoder))
    assert expected.shape == (2, grid.n_tokens, encoder.width)
    assert_close(encode(encoder, images), expected)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("clip", {"hidden_act": "gelu"}),
        ("siglip", {"hidden_act": "gelu"}),
        ("siglip", {"hidden_act": "quick_gelu"}),
        ("clip", {"layer_norm_eps": 1e-2}),
        ("siglip", {"layer_norm_eps": 1e-2}),
        ("siglip", {"image_size": 36}),  # no multiple of 8: the last 4 pixels are not seen
    ],
)
def test_config_json_is_followed(kind, changes, tmp_path):
    tower = make(kind, tmp_path, safe=False, **changes)
    encoder = load_encoder(str(tmp_path))  # a .bin
    side = changes.get("image_size", 32)
    images = np.random.default_rng(1).integers(0, 256, (1, side, side, 3)).astype(np.uint8)
    expected = tokens_of_torch(tower, normalised(images, encoder))
    assert_close(encode(encoder, images), expected)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_bfloat16_is_near(kind, tmp_path):
    make(kind, tmp_path)
    images = np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    exact = encode(load_encoder(str(tmp_path)), images)
    rough = encode(load_encoder(str(tmp_path), dtype="bfloat16"), images)
    error = np.abs(rough - exact).max() / np.abs(exact).max()
    assert 1e-4 < error < 0.05


# Wide or hardly tall: of tall images Pillow 13 begins with the rows, which moves a few levels; all
# versions before it, and `resize_crop` under any, begin with the columns.
@pytest.mark.parametrize(("width", "height"), [(61, 47), (90, 40), (32, 33)])
@pytest.mark.parametrize(
    ("kind", "changes"), [("clip", {}), ("siglip", {}), ("siglip", {"resample": 2})]
)
def test_pixels_and_tokens_of_an_image_that_is_not_square(width, height, kind, changes, tmp_path):
    rng = np.random.default_rng(width)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 7, 3)).astype(np.uint8))
    image = coarse.resize((width, height), Image.Resampling.NEAREST)
    tower = make(kind, tmp_path)
    theirs = processor(kind, **changes)
    theirs.save_pretrained(tmp_path)
    encoder = load_encoder(str(tmp_path))
    resize, crop, _, _, interpolation = encoder.preprocessing
    assert (resize == WHOLE) == (kind == "siglip")
    assert interpolation == ("bilinear" if changes else "bicubic")
    ours = resize_crop(image, resize, crop, interpolation)
    levels = theirs(image, do_rescale=False, do_normalize=False, return_tensors="np")
    np.testing.assert_array_equal(ours, levels["pixel_values"][0].transpose(1, 2, 0))
    pixels = theirs(image, return_tensors="np")["pixel_values"].astype(np.float32)
    assert_close(encode(encoder, ours[None]), tokens_of_torch(tower, pixels))


# Hub id -> the released sizes as its config.json has them, and the variant that they are.
RELEASED = {
    "openai/clip-vit-base-patch32": ("CLIP", {}, "clip_vitb32"),
    "openai/clip-vit-base-patch16": ("CLIP", {"patch_size": 16}, "clip_vitb16"),
    "openai/clip-vit-large-patch14": (
        "CLIP",
        {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
         "num_attention_heads": 16, "patch_size": 14, "projection_dim": 768},
        "clip_vitl14",
    ),
    "google/siglip2-base-patch16-224": ("Siglip", {}, "siglip_base16_224"),
    "google/siglip2-large-patch16-384": (
        "Siglip",
        {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
         "num_attention_heads": 16, "image_size": 384},
        "siglip_large16_384",
    ),
    "google/siglip2-so400m-patch14-384": (
        "Siglip",
        {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27,
         "num_attention_heads": 16, "image_size": 384, "patch_size": 14},
        "siglip_so400m14_384",
    ),
}  # fmt: skip


@pytest.mark.parametrize("repo", RELEASED)
def test_every_tensor_of_the_released_sizes_is_accounted_for(repo, tmp_path):
    name, sizes, variant = RELEASED[repo]
    text = {"num_hidden_layers": 1}
    settings = getattr(transformers, f"{name}Config")(text_config=text, vision_config=sizes)
    with torch.device("meta"):
        model = getattr(transformers, f"{name}Model")(settings)
    shapes = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    family = ClipEncoder if name == "CLIP" else SiglipEncoder
    encoder = family("", variant, "float32")
    source = TensorSource(shapes, lambda name: None, (tmp_path / "x",))
    rules, wanted = RULES[family.MODULE], encoder.abstract_params()
    check(source, rules, wanted, repo)
    lacking = {key: shape for key, shape in shapes.items() if "layers.3.mlp.fc1.bias" not in key}
    with pytest.raises(UserError, match="block_3/fc1/bias is missing"):
        check(
            source._replace(shapes=lacking), RULES[family.MODULE], encoder.abstract_params(), repo
        )
    # The same by config.json, as a user without a variant has it.
    settings.save_pretrained(tmp_path)
    found = family._choose_sizes(encoder, tmp_path, None)
    assert found == family.VARIANTS[variant]
    tokens = jax.eval_shape(
        encoder.apply,
        wanted,
        jax.ShapeDtypeStruct((1, found.image_size, found.image_size, 3), jnp.uint8),
    )
    per_side = found.image_size // found.patch_size
    assert tokens.shape == (1, per_side**2 + found.n_class, found.width)


def test_variants_of_one_table():
    """All variants are made by their own class, and their names say patch and image size."""
    for name, sizes in registry.variants().items():
        encoder = registry.class_of(name)("", name, "float32")
        assert (encoder.width, encoder.patch_size) == (sizes.width, sizes.patch_size)
        if name.startswith(("clip", "siglip")):
            crop = encoder.preprocessing.crop
            assert crop == sizes.image_size
            assert encoder.grid(crop, crop).n_tokens == sum(
                leaf.shape[0]
                for path, leaf in abstract_params(encoder.model).items()
                if path == "pos_embed"
            )
            assert str(sizes.patch_size) in name


def test_older_files_and_names_that_are_left_out(tmp_path):
    """position_ids are whole numbers; nothing reads them."""
    make("clip", tmp_path, both=True)
    tensors = load_file(tmp_path / "model.safetensors")
    assert any(name.startswith("text_model.") for name in tensors)
    tensors["vision_model.embeddings.position_ids"] = np.arange(17)[None]
    save_file(tensors, tmp_path / "model.safetensors")
    load_encoder(str(tmp_path))
    kernel = "vision_model.encoder.layers.0.mlp.fc1.weight"
    save_file(tensors | {kernel: tensors[kernel].astype(np.int8)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="fc1.weight as I8"):
        load_encoder(str(tmp_path))
    save_file(tensors | {"vision_model.adapter": np.ones(3)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="vision_model.adapter is unexpected"):
        load_encoder(str(tmp_path))


def test_sizes_of_the_image_tower_may_stand_in_an_older_key(tmp_path):
    tower = make("clip", tmp_path, both=True)
    path = tmp_path / "config.json"
    rewrite(path, lambda c: c | {"vision_config_dict": c["vision_config"], "vision_config": {}})
    theirs = transformers.CLIPConfig.from_pretrained(tmp_path).vision_config
    assert theirs.hidden_size == 32
    images = np.zeros((1, 32, 32, 3), np.uint8)
    encoder = load_encoder(str(tmp_path))
    expected = tokens_of_torch(tower, normalised(images, encoder))
    assert_close(encode(encoder, images), expected)


def test_weights_of_another_size_than_the_variant_are_named(tmp_path):
    make("clip", tmp_path)
    with pytest.raises(UserError, match="width 32, .*expected clip_vitb32 with width 768") as error:
        load_encoder(str(tmp_path), variant="clip_vitb32")
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match='model_type "clip_vision_model", expected one of siglip'):
        load_encoder(str(tmp_path), variant="siglip_base16_224")
    # A file alone has no config.json.
    with pytest.raises(UserError, match="set variant to one of clip_vitb32"):
        ClipEncoder(str(tmp_path / "model.safetensors"), None, "float32")


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_a_file_alone_is_of_the_variant_that_is_named(kind, tmp_path, monkeypatch):
    make(kind, tmp_path)
    found = load_encoder(str(tmp_path))
    family = type(found.backbone)
    monkeypatch.setitem(family.VARIANTS, "tiny", found.model.config)
    alone = load_encoder(str(tmp_path / "model.safetensors"), variant="tiny")
    assert (alone.variant, alone.digest) == ("tiny", found.digest)
    assert alone.preprocessing == found.preprocessing
    jax.tree.map(np.testing.assert_array_equal, alone.params, found.params)


def test_the_digest_counts_what_decides_the_tokens(tmp_path):
    make("siglip", tmp_path / "a")
    digests = [load_encoder(str(tmp_path / "a")).digest]
    for i, change in enumerate(
        ({"hidden_act": "gelu"}, {"layer_norm_eps": 1e-4}, {"num_attention_heads": 2})
    ):
        folder = tmp_path / str(i)
        shutil.copytree(tmp_path / "a", folder)
        rewrite(folder / "config.json", lambda c, change=change: c | change)
        digests.append(load_encoder(str(folder)).digest)
    for i, change in enumerate(({"image_mean": [0.4] * 3}, {"image_std": [0.4] * 3})):
        folder = tmp_path / f"p{i}"
        shutil.copytree(tmp_path / "a", folder)
        processor("siglip", **change).save_pretrained(folder)
        digests.append(load_encoder(str(folder)).digest)
    assert len(set(digests)) == len(digests)
    # How images are cut is in the config of each stage.
    assert load_encoder(str(tmp_path / "a"), resize=64, crop=48).digest == digests[0]


def test_other_images_than_in_training_are_worth_a_note(tmp_path):
    make("siglip", tmp_path)
    assert load_encoder(str(tmp_path)).notes == ()
    (note,) = load_encoder(str(tmp_path), resize=64, crop=48).notes
    assert "short side 64, crop 48, bicubic; it was trained with: all of it as 32 x 32" in note
    (note,) = load_encoder("random:0", variant="clip_vitb32").notes
    assert note.startswith("UNTRAINED FEATURES: the clip_vitb32 encoder")


def test_preprocessing_of_the_families():
    names = ("clip_vitl14_336", "siglip_base32_256")
    clip, siglip = (registry.class_of(name)("", name, "float32") for name in names)
    theirs = transformers.CLIPImageProcessor()
    assert clip.preprocessing == Preprocessing(
        336, 336, tuple(theirs.image_mean), tuple(theirs.image_std)
    )
    assert siglip.preprocessing == Preprocessing(WHOLE, 256, (0.5,) * 3, (0.5,) * 3)
