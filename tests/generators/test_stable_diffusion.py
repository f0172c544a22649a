"""Stable Diffusion against torch's pipelines: a folder that torch saved, read by our converter."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from bsjax.generators import loading
from bsjax.generators.protocol import Settings
from tests.generators import hub
from tests.generators.parity import agree

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")
CAPTIONS = ["a red panda on the beach", "", "日本語 🎉 مرحبا"]
SETTINGS = Settings(steps=20, guidance=7.5, height=32, width=32, dtype="float32")
CASES = {
    "1.5 pndm": ("1.5", "pndm", {}),
    "1.5 ddim": ("1.5", "ddim", {}),
    "1.5 dpm zero": ("1.5", "dpm", {}),
    "2.1 ddim": ("2.1", "ddim", {}),
    "2.1 pndm": ("2.1", "pndm", {}),
    "2.1 dpm sigma_min": ("2.1", "dpm", {"final_sigmas_type": "sigma_min"}),
}


def load(folder, settings=SETTINGS):
    opened = loading.open_generator("stable_diffusion", "", {"": str(folder)}, settings)
    return opened.generator, jax.tree.map(jnp.asarray, opened.read_params())


@pytest.mark.parametrize("case", CASES)
def test_images_are_those_of_torch(case, tmp_path):
    version, scheduler, more = CASES[case]
    pipeline = hub.stable_diffusion(tmp_path, version, scheduler, **more)
    generator, params = load(tmp_path)
    noise = np.random.default_rng(0).normal(size=(3, 16, 16, 4)).astype(np.float32)
    expected = pipeline(
        CAPTIONS, num_inference_steps=20, guidance_scale=7.5, height=32, width=32,
        latents=torch.from_numpy(noise.transpose(0, 3, 1, 2).copy()), output_type="np",
    ).images  # fmt: skip

    prompts = generator.prompts(CAPTIONS)
    ids = pipeline.tokenizer(CAPTIONS, padding="max_length", max_length=77, truncation=True)
    np.testing.assert_array_equal(prompts.arrays["ids"], ids["input_ids"])

    @jax.jit
    def draw(params, arrays, noise):
        context = generator.encode(params, arrays)
        return generator.decode(params, generator.denoise(params, context, noise))

    images = draw(params, prompts.arrays, noise) / 2 + 0.5
    agree(f"SD {case}, 20 steps", np.clip(images, 0, 1), expected, 1e-3)


def test_pieces_are_those_of_torch(tmp_path):
    for version in ("1.5", "2.1"):
        pipeline = hub.stable_diffusion(tmp_path / version, version)
        generator, params = load(tmp_path / version)
        rng = np.random.default_rng(1)
        x = rng.normal(size=(2, 4, 16, 16)).astype(np.float32)
        context = rng.normal(size=(2, 77, 32)).astype(np.float32)
        ids = rng.integers(0, 500, (2, 77))
        with torch.no_grad():
            noise = pipeline.unet(torch.tensor(x), 321, torch.tensor(context)).sample
            pixels = pipeline.vae.decode(torch.tensor(x)).sample
            text = pipeline.text_encoder(torch.tensor(ids)).last_hidden_state
        time = jnp.full(2, 321.0)
        unet = jax.jit(functools.partial(generator.unet.apply, {"params": params["unet"]}))
        ours = np.moveaxis(
            unet(jnp.asarray(x.transpose(0, 2, 3, 1)), time, jnp.asarray(context)), -1, 1
        )
        agree(f"SD {version} UNet", ours, noise, 1e-4)
        latents = jnp.asarray(x.transpose(0, 2, 3, 1) * generator.scaling)
        ours = np.moveaxis(np.asarray(generator.decode(params, latents)), -1, 1)
        agree("VAE decoder", ours, pixels, 1e-4)
        agree(f"SD {version} text", generator.encode_ids(params, jnp.asarray(ids)), text, 1e-4)


def test_without_guidance(tmp_path):
    pipeline = hub.stable_diffusion(tmp_path)
    generator, params = load(tmp_path, SETTINGS._replace(guidance=1.0, steps=4))
    noise = np.random.default_rng(0).normal(size=(1, 16, 16, 4)).astype(np.float32)
    expected = pipeline(
        CAPTIONS[:1], num_inference_steps=4, guidance_scale=1.0, height=32, width=32,
        latents=torch.from_numpy(noise.transpose(0, 3, 1, 2).copy()), output_type="np",
    ).images  # fmt: skip
    prompts = jax.tree.map(jnp.asarray, generator.prompts(CAPTIONS[:1]).arrays)
    context = generator.encode(params, prompts)
    drawn = generator.denoise(params, context, jnp.asarray(noise))
    images = generator.decode(params, drawn) / 2 + 0.5
    agree("SD without guidance", np.clip(images, 0, 1), expected, 1e-3)
