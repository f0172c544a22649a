"""Kandinsky 2.1 against torch's pipelines: folders that torch saved, read by our converter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from bsjax.generators import loading, schedules
from bsjax.generators.protocol import Settings
from tests.generators import hub
from tests.generators.parity import agree

CAPTIONS = ["a red panda on the beach", "the rain"]
SETTINGS = Settings(
    steps=20, guidance=4.0, height=32, width=32, dtype="float32", prior_steps=20, prior_guidance=4.0
)


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kandinsky")
    pipelines = hub.kandinsky(folder / "decoder", folder / "prior")
    weights = {"": str(folder / "decoder"), "prior": str(folder / "prior")}
    opened = loading.open_generator("kandinsky", "", weights, SETTINGS)
    params = jax.tree.map(jnp.asarray, opened.read_params())
    return *pipelines, opened.generator, params


def in_float64(scheduler):
    """torch's float32 betas are wrong by 5e-4 in the last step; see test_schedules."""
    cumulative = schedules.alphas_cumprod({"_class_name": "UnCLIPScheduler"})
    scheduler.alphas_cumprod = torch.from_numpy(cumulative)
    scheduler.alphas = torch.from_numpy(cumulative / np.append(1.0, cumulative[:-1]))
    scheduler.betas = 1 - scheduler.alphas


def on_device(prompts):
    return jax.tree.map(jnp.asarray, prompts.arrays)


def test_images_are_those_of_torch(system, monkeypatch):
    prior, decoder, generator, params = system
    in_float64(prior.scheduler)
    rng = np.random.default_rng(0)
    start, *noises = rng.normal(size=(21, 2, 32)).astype(np.float32)
    latents = rng.normal(size=(2, 16, 16, 4)).astype(np.float32)
    drawn = iter(noises)
    module = "diffusers.schedulers.scheduling_unclip.randn_tensor"
    monkeypatch.setattr(module, lambda *_, **__: torch.from_numpy(next(drawn)))
    embeddings = prior(
        CAPTIONS, num_inference_steps=20, guidance_scale=4.0, latents=torch.from_numpy(start)
    )
    expected = decoder(
        CAPTIONS, embeddings.image_embeds.float(), embeddings.negative_image_embeds, height=32,
        width=32, num_inference_steps=20, guidance_scale=4.0, output_type="np",
        latents=torch.from_numpy(latents.transpose(0, 3, 1, 2).copy()),
    ).images  # fmt: skip

    stored = jnp.asarray(np.stack(noises))

    @jax.jit
    def draw(params, batch, start, latents):
        embedding = generator.draw_embedding(params, batch, start, lambda i: stored[i])
        return embedding, generator.decode(
            params, generator.denoise(params, batch, embedding, latents)
        )

    batch = on_device(generator.prompts(CAPTIONS))
    embedding, images = draw(params, batch, jnp.asarray(start), jnp.asarray(latents))
    agree("Kandinsky's black image", embedding[:, 0], embeddings.negative_image_embeds, 1e-4)
    agree("Kandinsky's prior, 20 steps", embedding[:, 1], embeddings.image_embeds, 1e-3)
    images = np.clip(images / 2 + 0.5, 0, 1)
    agree("Kandinsky, 20 steps", images, expected, 1e-3)


def test_prior_is_torchs(system):
    prior, _, generator, params = system
    rng = np.random.default_rng(1)
    x, text_embedding = rng.normal(size=(2, 2, 32)).astype(np.float32)
    text = rng.normal(size=(2, 77, 32)).astype(np.float32)
    mask = np.arange(77)[None] < np.array([[9], [70]])
    with torch.no_grad():
        expected = prior.prior(
            torch.tensor(x), 321, torch.tensor(text_embedding), torch.tensor(text),
            torch.tensor(mask),
        ).predicted_image_embedding  # fmt: skip
    ours = jax.jit(generator.prior.apply)(
        {"params": params["prior"]}, *map(jnp.asarray, (x, np.full(2, 321.0, np.float32))),
        *map(jnp.asarray, (text_embedding, text, mask)),
    )  # fmt: skip
    agree("Kandinsky's PriorTransformer", ours, expected, 1e-4)


def test_unet_is_torchs(system):
    _, decoder, generator, params = system
    rng = np.random.default_rng(2)
    x = rng.normal(size=(2, 8, 12, 4)).astype(np.float32)
    text = rng.normal(size=(2, 77, 32)).astype(np.float32)
    text_embedding, image_embedding = rng.normal(size=(2, 2, 32)).astype(np.float32)
    with torch.no_grad():
        expected = decoder.unet(
            torch.tensor(x.transpose(0, 3, 1, 2)), 321, torch.tensor(text),
            added_cond_kwargs={
                "text_embeds": torch.tensor(text_embedding),
                "image_embeds": torch.tensor(image_embedding),
            },
        ).sample  # fmt: skip
    ours = jax.jit(generator.unet.apply)(
        {"params": params["unet"]}, jnp.asarray(x), jnp.full(2, 321.0),
        *map(jnp.asarray, (text, text_embedding, image_embedding)),
    )  # fmt: skip
    agree("Kandinsky's UNet", np.moveaxis(ours, -1, 1), expected, 1e-4)


def test_movq_is_torchs(system):
    _, decoder, generator, params = system
    latents = np.random.default_rng(3).normal(size=(2, 8, 12, 4)).astype(np.float32)
    with torch.no_grad():
        x = torch.tensor(latents.transpose(0, 3, 1, 2))
        expected = decoder.movq.decode(x, force_not_quantize=True).sample
    ours = generator.decode(params, jnp.asarray(latents))
    agree("MoVQ's decoder", np.moveaxis(ours, -1, 1), expected, 1e-4)


def test_texts_are_torchs(system):
    prior, decoder, generator, params = system
    batch = on_device(generator.prompts(CAPTIONS))
    with torch.no_grad():
        embedding, text, mask = prior._encode_prompt(CAPTIONS, "cpu", 1, False)
        multilingual = decoder._encode_prompt(CAPTIONS, "cpu", 1, False)
    np.testing.assert_array_equal(batch["clip_mask"], mask)
    np.testing.assert_array_equal(batch["text_mask"], multilingual[2])
    ours = generator._clip(params, batch["clip_ids"], batch["clip_mask"])
    agree("CLIP text, projected", ours[0], embedding, 1e-4)
    agree("CLIP text, tokens", ours[1], text, 1e-4)
    ours = jax.jit(generator.text_encoder.apply)(
        {"params": params["text_encoder"]}, batch["text_ids"], batch["text_mask"]
    )
    agree("MultilingualCLIP, projected", ours[0], multilingual[0], 1e-4)
    agree("MultilingualCLIP, tokens", ours[1], multilingual[1], 1e-4)
