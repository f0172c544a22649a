"""Every mistake of a library's user is one line that names an argument, not a flag."""

import dataclasses
import pathlib

import jax
import numpy as np
import pytest
import scipy.sparse as sp
from PIL import Image

import bsjax
from bsjax import presets
from bsjax.core.errors import UserError
from tests.annotations import unchecked
from tests.api.conftest import REAL

PICTURE = np.zeros((64, 64, 3), np.uint8)


def one_line(error) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert "--" not in text
    assert "{" not in text
    return text


@pytest.mark.parametrize(
    ("images", "more", "expected"),
    [
        ([], {}, "images is empty, expected at least one image"),
        (PICTURE, {}, "images is one image, expected a list of them"),
        (Image.fromarray(PICTURE), {}, "images is a PngImageFile|images is a Image|images is one"),
        (5, {}, "images is a int; expected a folder, or a list"),
        ({"a": PICTURE}, {}, "images is a dict; expected a folder, or a list"),
        ([PICTURE / 255], {}, r"images\[0\]: .* got an array of float64 \[64, 64, 3\]"),
        ([PICTURE.transpose(2, 0, 1)], {}, r"images\[0\]: .* got an array of uint8 \[3, 64, 64\]"),
        ([PICTURE, PICTURE[None]], {}, r"images\[1\]: .* got an array of uint8 \[1, 64, 64, 3\]"),
        ([PICTURE[:0]], {}, r"images\[0\]: .* \[0, 64, 3\]"),
        ([None], {}, r"images\[0\]: .* got a NoneType"),
        ([{"picture": PICTURE}], {}, r"images\[0\] has the fields picture; expected image"),
        ("no/such/folder", {}, "no/such/folder is no folder, no file and .*; set images to one"),
        (["no/such.png"], {}, "1 of 1 images cannot be used.*such: no such file.*raise max_bad"),
        (["a/x.png", "b/x.png"], {}, "images: 1 keys are there more than once"),
        ([PICTURE], {"captions": ["a", "b"]}, "captions has 2 entries, expected one for each of"),
        ([PICTURE], {"keys": []}, "keys has 0 entries, expected one for each of the 1 images"),
        ([PICTURE] * 2, {"keys": ["a", "a"]}, "such as 'a'"),
        (str(REAL), {"captions": ["a"]}, "captions: a folder's images come in the order of their"),
        (str(REAL), {"keys": ["a"]}, "keys: a folder's images are known by their names"),
        (str(REAL), {"caption_field": "txt"}, "no column 'txt', .* set image_field and caption_fi"),
        ("nowhere-*", {"source": "parquet"}, "nowhere-.*set images to a folder or a pattern"),
        ([PICTURE], {"top_images": 0}, "top_images=0: expected a whole number from 1"),
        ([PICTURE], {"max_bad": 2}, "max_bad=2: expected a number from 0 to 1"),
        ([PICTURE], {"batch_per_device": 0}, "batch_per_device=0: expected 1 or more, or -1"),
    ],
)
def test_images(encoder, sae, images, more, expected):
    with pytest.raises(UserError, match=expected) as error:
        bsjax.measure(images, encoder, sae, **more)
    one_line(error)


def test_warnings_name_arguments_too(encoder, sae, tmp_path):
    Image.fromarray(PICTURE).save(tmp_path / "a.png")
    (tmp_path / "a.json").write_text('{"words": "a square"}')
    (note,) = bsjax.measure(str(tmp_path), encoder, sae).notes
    assert "caption_field" in note
    assert "--" not in note


def test_damaged_images_are_counted_or_stop(encoder, sae, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    images = [PICTURE, str(tmp_path / "bad.png"), PICTURE]
    with pytest.raises(UserError, match="1 of 3 images cannot be used.*bad: .*max_bad") as error:
        bsjax.measure(images, encoder, sae)
    one_line(error)
    measured = bsjax.measure(images, encoder, sae, max_bad=0.5)
    assert measured.keys == ["000000", "000002"]
    assert measured.manifest["bad_images"][0]["key"] == "bad"
    with pytest.raises(UserError, match="1 of 3 images cannot be used.*by leaving them out"):
        encoder.encode(images)


def test_an_encoder_that_gives_no_numbers(encoder, sae):
    params = jax.tree.map(lambda leaf: leaf * np.nan, encoder.params)
    broken = dataclasses.replace(encoder, params=params)
    with pytest.raises(
        UserError, match="not finite on images 0 to 7; check the encoder's we"
    ) as error:
        bsjax.measure([PICTURE], broken, sae)
    one_line(error)


def test_an_encoder_of_another_width(sae):
    encoder = bsjax.load_encoder("random:0", variant="vits14_reg")
    assert (encoder.resize, encoder.crop, encoder.width) == (256, 224, 384)
    assert any("UNTRAINED" in note for note in encoder.notes)
    with pytest.raises(UserError, match="width 192, vits14_reg of random:0 gives 384") as error:
        bsjax.measure([PICTURE], encoder, sae)
    assert error.value.field == "sae"
    with pytest.raises(UserError, match="sae is a str; expected what bsjax.load_sae returns"):
        bsjax.measure([PICTURE], encoder, "RA-SAE-DINOv2-32k.pth")
    with pytest.raises(UserError, match="encoder is a SAE; expected what bsjax.load_encoder"):
        bsjax.measure([PICTURE], sae, sae)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("random:0",), r"source=random:0 tells no sizes; set variant to one of vits14"),
        (("random:x", {"variant": "vits14"}), "source=random:x: expected random:SEED"),
        (("no/such/folder",), "source=no/such/folder: expected a hub id"),
        (("random:0", {"variant": "vit"}), "variant='vit': expected one of"),
        (
            ("random:0", {"variant": "vits14", "dtype": "f16"}),
            "dtype='f16': expected one of float32",
        ),
        (("random:0", {"variant": "vits14", "crop": 100}), "crop=100: expected .*multiples of 14"),
        (
            ("random:0", {"variant": "vits14", "resize": 56}),
            "resize=56: expected at least crop=224",
        ),
        ((str(presets.SCENES / "sae" / "sae.safetensors"),), "holds no DINOv2; expected one of"),
    ],
)
def test_encoders(arguments, expected):
    source, more = (*arguments, {})[:2]
    with pytest.raises(UserError, match=expected) as error:
        bsjax.load_encoder(source, **more)
    one_line(error)


def test_saes(sae, tmp_path):
    for source, expected in (
        (
            "nowhere.pth",
            "source=nowhere.pth does not exist; set it to a .pth, a folder or a hub",
        ),
        (str(tmp_path), "holds no sae.safetensors; set source to the sae folder"),
    ):
        with pytest.raises(UserError, match=expected) as error:
            bsjax.load_sae(source)
        one_line(error)
    with pytest.raises(UserError, match="threshold=-1: expected 0 or more"):
        bsjax.load_sae(str(presets.SCENES / "sae"), threshold=-1)
    assert bsjax.load_sae(str(presets.SCENES / "sae"), threshold=2.0).threshold == 2.0
    for tokens, expected in (
        (np.zeros((5, 191)), r"tokens has the shape \[5, 191\]; expected \[..., 192\]"),
        (np.full((5, 192), np.nan), "tokens has values that are not finite"),
        ("tokens", "tokens is an array of <U6; expected real numbers"),
        ([[1.0], [1.0, 2.0]], "tokens is no array of numbers"),
    ):
        with pytest.raises(UserError, match=expected) as error:
            sae.encode(tokens)
        one_line(error)
    for codes in (np.zeros((5, 3)), sp.csr_array((5, 3))):
        with pytest.raises(UserError, match=r"codes has the shape \[5, 3\]; expected \[..., 512\]"):
            sae.decode(codes)


def test_what_cannot_be_compared(encoder, sae, real, generated):
    for arguments, more, expected in (
        (
            (real, np.ones((2, 2))),
            {},
            "generated is a ndarray; expected what bsjax.measure returns",
        ),
        (
            (real, generated),
            {"name": "real"},
            "name='real': expected a folder's name that is not real",
        ),
        ((real, generated), {"max_unpaired": 2}, "max_unpaired=2: expected a number from 0 to 1"),
        ((real, generated), {"temperature": 0}, "temperature=0: expected a number above 0"),
        ((real, generated), {"min_image": 1}, "min_image=1: no such rule; expected one of form"),
    ):
        with pytest.raises(UserError, match=expected) as error:
            unchecked(bsjax.compare)(*arguments, **more)
        one_line(error)
    few = bsjax.measure(str(REAL), encoder, sae, limit=4)
    with pytest.raises(UserError, match="20 of 24 real images have no generated image.*max_unp"):
        bsjax.compare(real, few)
    assert bsjax.compare(real, few, max_unpaired=1).counts["unpaired_real"] == 20
    other = bsjax.measure([PICTURE] * 2, encoder, sae)
    with pytest.raises(UserError, match="no image name in common"):
        bsjax.compare(real, other)
    loose = bsjax.measure(str(REAL), encoder, bsjax.load_sae(sae.source, threshold=1.0), limit=4)
    with pytest.raises(UserError, match="real and generated differ in sae.threshold: 3.27"):
        bsjax.compare(few, loose)
    one = bsjax.measure(str(REAL), encoder, sae, limit=1)
    with pytest.raises(UserError, match="only one pair .* raise limit") as error:
        bsjax.compare(one, one)
    one_line(error)


def test_workdirs_and_configs(tmp_path):
    for call, expected in (
        (lambda: bsjax.open_results(tmp_path / "none"), "workdir=.*none is no folder"),
        (lambda: bsjax.open_results(tmp_path), "holds no finished measures or comparisons"),
        (lambda: bsjax.run("nowhere.py:tiny", tmp_path), "config=nowhere.py: no such file"),
        (lambda: bsjax.run({}, tmp_path), "config is a dict; expected a ConfigDict"),
    ):
        with pytest.raises(UserError, match=expected) as error:
            call()
        one_line(error)


def test_generators(tmp_path):
    for source, more, expected in (
        (
            "random:0",
            {},
            "random:0 tells no family; set family to one of stable_diff.* and variant",
        ),
        ("no/such/folder", {}, "source=no/such/folder: expected a hub id"),
        (str(tmp_path), {}, "is a pipeline None, expected one of StableDiffusionPipeline"),
        (str(tmp_path), {"steps": 0}, "steps=0: expected a whole number from 1"),
        (str(tmp_path), {"dtype": "half"}, "dtype='half': expected one of float32, bfloat16"),
        (str(tmp_path), {"family": "stable"}, "expected one of stable_diffusion, .*; set family"),
        (str(presets.SCENES / "generator"), {"width": 65}, "expected multiples of 16; set height"),
    ):
        with pytest.raises(UserError, match=expected) as error:
            bsjax.load_generator(source, **more)
        one_line(error)
    model = bsjax.load_generator(str(presets.SCENES / "generator"))
    assert (model.settings.height, model.settings.width, model.settings.steps) == (64, 64, 50)
    for captions, more, expected in (
        ([], {}, "captions is empty"),
        ("a red cross", {}, "captions is a str, expected a list of texts"),
        (["a", " "], {}, r"captions\[1\] is empty: there is nothing to draw"),
        (["a"], {"keys": []}, "keys has 0 entries, expected one for each of 1 captions"),
        (["a"], {"seed": -1}, "seed=-1: expected a whole number from 0"),
    ):
        with pytest.raises(UserError, match=expected) as error:
            model.generate(captions, **more)
        one_line(error)


def test_trainings(encoder, tmp_path):
    tokens = np.random.default_rng(0).normal(size=(64, 8))
    for data, more, expected in (
        (tokens, {"n_concept": 8}, "n_concept=8: no such setting; expected one of .*n_concepts"),
        (tokens, {"steps": "many"}, "steps='many': expected a int"),
        (tokens, {"steps": -5}, "steps=-5: expected"),
        (tokens, {"loss": "l2"}, "loss=l2: expected one of mse, aux; set loss"),
        (
            tokens,
            {"n_concepts": 8},
            "n_candidates=2048, but only 64 tokens are there; lower n_cand",
        ),
        (
            tokens[0],
            {},
            r"data has the shape \[8\]; expected tokens .* images together with encoder",
        ),
        (np.full((9, 8), np.inf), {}, "data has values that are not finite in 9 of 9 tokens"),
        (str(pathlib.Path(tmp_path)), {}, "data is an array of <U"),
    ):
        with pytest.raises(UserError, match=expected) as error:
            bsjax.train_sae(data, **more)
        one_line(error)
