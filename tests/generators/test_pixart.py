"""PixArt-alpha against torch's pipeline: a folder that torch saved, read by our converter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers.pipelines.pixart_alpha import pipeline_pixart_alpha as reference

from bsjax.generators import loading
from bsjax.generators.pixart import nearest_shape
from bsjax.generators.protocol import Settings
from tests.generators import hub
from tests.generators.parity import agree

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")
CAPTIONS = ["A red panda on the beach ", "the rain"]
SETTINGS = Settings(steps=20, guidance=4.5, height=32, width=32, dtype="float32")


def load(folder, settings=SETTINGS):
    opened = loading.open_generator("pixart", "", {"": str(folder)}, settings)
    return opened.generator, jax.tree.map(jnp.asarray, opened.read_params())


def on_device(prompts):
    return jax.tree.map(jnp.asarray, prompts.arrays)


def features(generator, params, captions):
    """What the first phase hands to the sampler."""
    empty = on_device(generator.prompts([""] * len(captions)))
    batch = on_device(generator.prompts(captions))
    return {
        "features": generator.encode_text(params, batch),
        "mask": batch["mask"],
        "empty_features": generator.encode_text(params, empty),
        "empty_mask": empty["mask"],
    }


@pytest.mark.parametrize("sample_size", [64, 128])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (48, 32)])
def test_images_are_those_of_torch(sample_size, height, width, tmp_path):
    pipeline = hub.pixart(tmp_path, sample_size)
    generator, params = load(tmp_path, SETTINGS._replace(height=height, width=width))
    shape = (2, height // 2, width // 2, 4)
    noise = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    expected = pipeline(
        CAPTIONS, num_inference_steps=20, guidance_scale=4.5, height=height, width=width,
        latents=torch.from_numpy(noise.transpose(0, 3, 1, 2).copy()), output_type="np",
        use_resolution_binning=False, clean_caption=False,
    ).images  # fmt: skip

    @jax.jit
    def draw(params, batch, noise):
        return generator.decode(params, generator.denoise(params, batch, noise))

    images = draw(params, features(generator, params, CAPTIONS), noise) / 2 + 0.5
    agree(f"PixArt {sample_size * 8}, 20 steps, {height}x{width}", np.clip(images, 0, 1), expected,
          1e-3)  # fmt: skip


@pytest.mark.parametrize("sample_size", [64, 128])
def test_pieces_are_those_of_torch(sample_size, tmp_path):
    pipeline = hub.pixart(tmp_path, sample_size)
    generator, params = load(tmp_path)
    batch = on_device(generator.prompts(CAPTIONS))
    with torch.no_grad():
        text = pipeline.encode_prompt(CAPTIONS, False, clean_caption=False)
    np.testing.assert_array_equal(batch["mask"], text[1].numpy().astype(bool))
    ours = generator.encode_text(params, batch)
    agree("T5 encoder", ours, text[0], 1e-4)

    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 8, 12, 4)).astype(np.float32)
    size, ratio = np.array([[64.0, 96.0]] * 2), np.array([[64 / 96]] * 2)
    with torch.no_grad():
        conditions = {"resolution": torch.tensor(size), "aspect_ratio": torch.tensor(ratio)}
        if sample_size == 64:
            conditions = {"resolution": None, "aspect_ratio": None}
        else:
            conditions = {name: value.float() for name, value in conditions.items()}
        expected = pipeline.transformer(
            torch.tensor(x.transpose(0, 3, 1, 2)), encoder_hidden_states=text[0],
            encoder_attention_mask=text[1], timestep=torch.tensor([321, 7]),
            added_cond_kwargs=conditions,
        ).sample.numpy()  # fmt: skip
    output = generator.transformer.apply(
        {"params": params["transformer"]}, jnp.asarray(x), jnp.array([321.0, 7.0]),
        jnp.asarray(text[0]), batch["mask"], jnp.asarray(size), jnp.asarray(ratio),
    )  # fmt: skip
    agree(f"PixArt {sample_size * 8} transformer", np.moveaxis(output, -1, 1), expected, 1e-4)


@pytest.mark.parametrize(
    ("sample_size", "table"),
    [(128, reference.ASPECT_RATIO_1024_BIN), (64, reference.ASPECT_RATIO_512_BIN)],
)
def test_shapes_are_those_of_the_reference(sample_size, table):
    bins = reference.PixArtImageProcessor.classify_height_width_bin
    for height in range(512, 2100, 52):
        for width in range(512, 2100, 68):
            expected = bins(height, width, ratios=table)
            assert nearest_shape(height, width, sample_size) == expected, (height, width)
