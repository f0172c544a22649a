"""Training goes on where it was, targets are right, and the folders written are torch's too."""

import functools
import json
import types

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from bsjax import presets
from bsjax.convert.dinov2 import load_dinov2
from bsjax.core.dims import Grid
from bsjax.core.errors import UserError
from bsjax.data import scenes
from bsjax.generators import loading
from bsjax.generators.protocol import Settings
from bsjax.generators.schedules import alphas_cumprod
from bsjax.generators.tokenizers import HubTokenizer
from bsjax.models.dinov2 import VARIANTS, normalise_images
from bsjax.planted import autoencoder, encoder, export, generator, train
from bsjax.planted.fit import fit, read_curves
from tests.annotations import unchecked


def toy(folder, steps, until=None):
    """Fits a line; stopped before step `until`."""

    def make_batch(step):
        if step == until:
            raise KeyboardInterrupt
        return np.random.default_rng(step).standard_normal((8, 3)).astype(np.float32)

    def loss(params, batch, key):
        noise = 0.1 * jax.random.normal(key, batch.shape[:1])
        error = jnp.mean((batch @ params["w"] - batch.sum(axis=1) + noise) ** 2)
        return error, {"loss": error}

    folder.mkdir(parents=True, exist_ok=True)
    return fit(
        folder, {"w": jnp.zeros(3)}, loss, make_batch, steps=steps, peak_learning_rate=0.1,
        batch=8, checkpoint_every=5, look_every=5,
    )[0]  # fmt: skip


def test_a_training_goes_on_where_it_was(tmp_path):
    whole = toy(tmp_path / "whole", 40)
    with pytest.raises(KeyboardInterrupt):
        toy(tmp_path / "stopped", 40, until=23)
    assert read_curves(tmp_path / "stopped")[-1]["step"] == 20
    again = toy(tmp_path / "stopped", 40)
    assert np.array_equal(whole["w"], again["w"])
    assert np.abs(whole["w"] - 1).max() < 0.5
    assert [row["step"] for row in read_curves(tmp_path / "stopped")] == list(range(5, 41, 5))


def test_targets_by_hand():
    mask = np.zeros((1, 64, 64), bool)
    mask[0, :8, 8:16] = True  # all of the second patch
    mask[0, 8:10, :8] = True  # a quarter of the ninth
    factors = np.array([[4, 2, 7, 1]])
    found = encoder.targets(mask, factors)
    grid = Grid(4, 8, 8)
    for name, value, register in (("shape", 4, 1), ("colour", 2, 2)):
        n_values = found[name].shape[-1]
        wanted = np.zeros((grid.n_patches, n_values))
        wanted[:, -1] = 1
        wanted[1, [value, -1]] = 1, 0
        wanted[8, [value, -1]] = 0.5, 0.5
        np.testing.assert_allclose(found[name][0, grid.n_special :], wanted)
        is_told = found[name][0, : grid.n_special, value] == 1
        assert list(np.flatnonzero(is_told)) == [0, register]
        np.testing.assert_allclose(found[name][0, 3], 1 / n_values)
    assert (found["background"][0, grid.n_special :, 7] == 1).all()
    assert list(np.flatnonzero(found["count"][0, :, 1] == 1)) == [0, 4]
    np.testing.assert_allclose(found["count"][0, grid.n_special :], 1 / 4)
    for name in found:
        np.testing.assert_allclose(found[name].sum(axis=-1), 1, rtol=1e-6)


def test_losses_are_finite_and_have_gradients():
    trained = autoencoder.init(0)
    decoding = {name: trained[name] for name in autoencoder.DECODING}
    for loss, params, batch in (
        (encoder.loss, encoder.init(0), encoder.make_batch(0)),
        (autoencoder.loss, trained, autoencoder.make_batch(0)),
        (autoencoder.make_decoder_loss(trained), decoding, autoencoder.make_batch(0)),
    ):
        batch = jax.tree.map(lambda leaf: leaf[:2], batch)
        grad = jax.jit(jax.grad(loss, has_aux=True))
        grads, metrics = grad(params, batch, jax.random.key(0))
        assert all(np.isfinite(value) for value in metrics.values())
        assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(grads))


class Knowing:
    """Stands for the generator: predicts the velocity itself, and 1 more where `wrong` is set."""

    def __init__(self, clean, wrong):
        self.clean, self.wrong, self.unet, self.t = clean, wrong, self, None
        self.alphas = np.asarray(alphas_cumprod(generator.SCHEDULER), np.float32)

    def encode_ids(self, params, ids):
        return None

    def apply(self, variables, noisy, t, context):
        self.t = np.asarray(t).astype(int)
        signal, sigma = (np.sqrt(part[self.t])[:, None, None, None]
                         for part in (self.alphas, 1 - self.alphas))  # fmt: skip
        noise = (noisy - signal * self.clean) / sigma
        return signal * noise - sigma * self.clean + self.wrong[..., None]


def test_the_generators_loss_is_of_the_velocity_and_weighs_objects_that_can_be_seen():
    rng = np.random.default_rng(0)
    clean = rng.standard_normal((2000, 4, 4, 2)).astype(np.float32)
    wrong = rng.random((2000, 4, 4)) < 0.2
    weights = rng.choice([1.0, 2.0, 4.0], wrong.shape)
    batch = {"latents": clean, "weights": weights, "ids": None}
    for mistake in (np.zeros_like(wrong), wrong):
        knowing = Knowing(clean, mistake)
        loss, metrics = unchecked(generator.make_loss)(knowing)(
            {"unet": None}, batch, jax.random.key(0)
        )
        counted = np.where(knowing.t[:, None, None] < generator.VISIBLE, weights, 1)
        expected = (counted * mistake).sum() / counted.sum()
        np.testing.assert_allclose(loss, expected, atol=1e-3)
        np.testing.assert_allclose(metrics["error"], mistake.mean(), atol=1e-3)
    low, high = generator.DECIDING
    among = ((knowing.t >= low) & (knowing.t < high)).mean()
    assert among == pytest.approx(0.5 + 0.5 * (high - low) / 1000, abs=0.04)
    assert knowing.t.min() < 10 and knowing.t.max() > 990


def test_captions_are_left_out_of_pictures_of_three_alone():
    rng = np.random.default_rng(0)
    asked = rng.integers(0, 4, (500, 4))
    numbers = np.arange(1, 501, dtype=np.float16)  # stands in for the latents; titled ones: 0
    pool = generator.Pool(
        np.broadcast_to(numbers[:, None, None, None], (500, 16, 16, 4)), np.ones((500, 16, 16)),
        asked, np.zeros((20, 16, 16, 4)), np.ones((20, 16, 16)),
    )  # fmt: skip
    seen, planted = [], generator.Planted.read()

    def tokenize(captions, length):
        seen.append(captions)
        return types.SimpleNamespace(ids=np.zeros((len(captions), length), np.int32))

    batches = [
        unchecked(generator.make_batch)(pool, 1.0, tokenize, planted, step) for step in range(40)
    ]
    rows = np.concatenate([batch["latents"][:, 0, 0, 0] for batch in batches]).astype(int)
    empty = np.array([caption == "" for captions in seen for caption in captions])
    is_titled = rows == 0
    assert 0.05 < is_titled.mean() < 0.15
    shows_three = ~is_titled & (asked[rows - 1, 3] >= 2)  # "four" is drawn as three
    assert not empty[~shows_three].any()
    assert empty[shows_three].mean() == pytest.approx(generator.NO_CAPTION, abs=0.04)


def test_weights_of_latents_are_means_over_their_pixels():
    mask = np.zeros((1, 64, 64), bool)
    mask[0, 10:14, 10:14] = True  # with two pixels beside: rows and columns 8 to 15
    mask[0, 40, 40] = True  # 38 to 42
    found = generator.latent_weights(mask)[0].astype(np.float64)
    assert (found[2:4, 2:4] == autoencoder.OBJECT_WEIGHT).all()
    extra = (found - 1) * 16 / (autoencoder.OBJECT_WEIGHT - 1)  # pixels of objects
    np.testing.assert_allclose(extra[9:11, 9:11], [[4, 6], [6, 9]], atol=0.1)
    assert extra.sum() == pytest.approx(64 + 25, abs=0.2)


def test_whitened_latents_have_covariance_1_and_decode_as_before():
    params = autoencoder.init(0)
    rng = np.random.default_rng(0)
    for name in ("quant_conv", "post_quant_conv"):
        bias = params[name]["bias"]
        params[name] = params[name] | {"bias": rng.normal(size=bias.shape).astype(np.float32)}
    images = np.stack([scenes.plain(scenes.generator(7, i)).image for i in range(8)])
    after = autoencoder.whiten(params, images)
    vae, latents, pictures = autoencoder.module(), [], []
    for each in (params, after):
        latents.append(np.asarray(autoencoder.encode(each, images)[0]))
        pictures.append(
            np.asarray(vae.apply({"params": each}, latents[-1], method=vae.decode).sample)
        )
    flat = latents[1].reshape(-1, latents[1].shape[-1])
    np.testing.assert_allclose(flat.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(np.cov(flat, rowvar=False), np.eye(flat.shape[1]), atol=1e-2)
    assert np.abs(np.cov(latents[0].reshape(flat.shape), rowvar=False) - np.eye(4)).max() > 0.1
    np.testing.assert_allclose(pictures[1], pictures[0], atol=1e-4)


def test_a_centred_encoders_tokens_have_mean_0():
    params = encoder.init(0)["encoder"]
    model = encoder.DinoV2(VARIANTS[encoder.VARIANT])
    rng = scenes.generator(encoder.STREAM, 0, 0)
    images = np.stack([scenes.plain(rng).image for _ in range(16)])
    images = normalise_images(jnp.asarray(images))
    before, after = (
        np.asarray(jax.jit(model.apply)({"params": each}, images))
        for each in (params, encoder.centre(params, 16))
    )
    shift = before - after
    np.testing.assert_allclose(shift, np.broadcast_to(shift[0, 0], shift.shape), atol=1e-5)
    np.testing.assert_allclose(after.mean(axis=(0, 1)), 0, atol=1e-5)


def test_the_encoders_loss_holds_the_special_tokens_means_near_0():
    params, batch = encoder.init(0), encoder.make_batch(0)
    batch = {name: jnp.asarray(leaf[:3]) for name, leaf in batch.items()}
    value, metrics = encoder.loss(params, batch, jax.random.key(0))
    model = encoder.DinoV2(VARIANTS[encoder.VARIANT])
    tokens = model.apply({"params": params["encoder"]}, normalise_images(batch["image"]))
    means = np.asarray(tokens)[:, :5].mean(axis=0)  # class token and four registers
    np.testing.assert_allclose(metrics["centring"], (means**2).mean(), rtol=1e-4)
    told = sum(metrics[name] for name in encoder.SIZES)
    held = encoder.CENTRING * metrics["centring"] + encoder.APART * metrics["apart"]
    np.testing.assert_allclose(value - told, held, rtol=1e-3)
    assert metrics["apart"] == encoder.closeness(tokens[:, 1:5], batch) > 0


def test_registers_of_other_values_are_close_by_their_cosine_alone():
    rng = scenes.generator(encoder.STREAM, 0)
    batch = encoder.stack([scenes.plain(rng) for _ in range(3)])
    factors = np.array([[0, 0, 0, 2], [0, 1, 0, 3], [0, 0, 1, 3]])
    told = {k: jnp.asarray(v) for k, v in encoder.targets(batch["mask"], factors).items()}
    registers = np.zeros((3, 4, 5))
    registers[:, :, 0] = 1  # the same: of the 9 pairs that counts 0, 4, 4 and 4 times
    assert encoder.closeness(jnp.asarray(registers), told) == pytest.approx(3 * 4 / 9 / 4)
    registers[0, 3] = [0, 3, 4, 0, 0]  # lengths say nothing
    registers[1, 3] = [0, 6, 0, 0, 0]
    registers[2, 3] = [0, -1, 0, 0, 0]
    by_count = 2 * 0.6**2 / 9  # the opposite is not closer than a right angle
    assert encoder.closeness(jnp.asarray(registers), told) == pytest.approx((8 / 9 + by_count) / 4)


def test_softened_images_keep_their_light_and_lose_their_edges():
    image = scenes.scene(1, 1).image
    soft = encoder.soften(image, scenes.generator(5))  # by 1.03 pixels
    assert soft.dtype == np.uint8
    assert soft.mean() == pytest.approx(image.mean(), abs=0.5)
    edges = [np.abs(np.diff(each.astype(int), axis=1)).mean() for each in (image, soft)]
    assert edges[1] < 0.8 * edges[0]
    rng = scenes.generator(encoder.STREAM, 4)
    sharp = np.stack([scenes.plain(rng).image for _ in range(encoder.BATCH)])
    is_soft = (encoder.make_batch(4)["image"] != sharp).any(axis=(1, 2, 3))
    assert 0.25 < is_soft.mean() < 0.75


def test_encoder_as_written_is_that_of_transformers(tmp_path):
    params = encoder.init(0)["encoder"]
    config = VARIANTS[encoder.VARIANT]
    export.write_component(
        tmp_path, export.dinov2_state(params), export.dinov2_config(config), "model"
    )
    ours = load_dinov2(encoder.VARIANT, str(tmp_path))
    theirs = transformers.Dinov2WithRegistersModel.from_pretrained(tmp_path).eval()
    pixels = normalise_images(jnp.asarray(scenes.scene(0, 1).image[None]))
    tokens = jax.jit(ours.model.apply)({"params": ours.params}, pixels)
    with torch.inference_mode():
        wanted = theirs(torch.tensor(np.asarray(pixels)).permute(0, 3, 1, 2)).last_hidden_state
    np.testing.assert_allclose(tokens, wanted.numpy(), atol=1e-4)


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # diffusers' scheduler
def test_generator_as_written_is_that_of_diffusers(tmp_path):
    export.write_tokenizer(tmp_path / "tokenizer", generator.words(), generator.LENGTH)
    tokenizer = HubTokenizer(tmp_path / "tokenizer", "CLIPTokenizerFast")
    text = generator.text_config(tokenizer.tokenizer)
    params = generator.init(generator.system(text, 1.0, tokenizer), 0)
    vae_config = autoencoder.CONFIG | {"scaling_factor": 1.0}
    for name, tree, config, stem, renames in (
        ("unet", params["unet"], generator.UNET, "diffusion_pytorch_model", ()),
        ("vae", autoencoder.init(0), vae_config, "diffusion_pytorch_model", export.VAE_RENAMES),
        ("text_encoder", params["text_encoder"], text, "model", ()),
    ):
        export.write_component(tmp_path / name, export.torch_state(tree, renames), config, stem)
    (tmp_path / "scheduler").mkdir()
    schedule = json.dumps(generator.SCHEDULER)
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(schedule)
    export.write_model_index(tmp_path)

    caption = scenes.scene(0, 1).caption
    settings = Settings(4, 3.0, 64, 64, "float32")
    opened = loading.open_generator("stable_diffusion", "", {"": str(tmp_path)}, settings)
    ours = opened.generator
    noise = np.random.default_rng(0).standard_normal((1, *ours.latent_shape)).astype(np.float32)
    params = opened.read_params()
    context = ours.encode(params, jax.tree.map(jnp.asarray, ours.prompts([caption]).arrays))
    image = ours.decode(params, ours.denoise(params, context, jnp.asarray(noise)))

    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path)
    pipeline.set_progress_bar_config(disable=True)
    wanted = pipeline(
        caption, latents=torch.tensor(noise).permute(0, 3, 1, 2), num_inference_steps=4,
        guidance_scale=3.0, height=64, width=64, output_type="np",
    ).images  # fmt: skip
    np.testing.assert_allclose(np.clip(image / 2 + 0.5, 0, 1), wanted, atol=1e-3)


def test_a_folder_to_train_on_from_has_every_parts_card(tmp_path):
    train.require_start(presets.SCENES, list(train.PARTS))
    with pytest.raises(UserError, match="encoder/card.json is not there; expected a folder of"):
        train.require_start(tmp_path, ["encoder"])


@pytest.fixture
def small_pool(monkeypatch):
    make_pool = functools.partial(generator.make_pool, size=100)
    monkeypatch.setattr(generator, "make_pool", make_pool)


@pytest.mark.slow
def test_all_parts_are_trained_one_after_the_other_and_then_on(tmp_path, small_pool):
    for part, (train_part, _) in train.PARTS.items():
        (tmp_path / part).mkdir()
        train_part(tmp_path, 2, None)
    weights = tmp_path / "weights"
    train.require_start(weights, list(train.PARTS))
    load_dinov2(encoder.VARIANT, str(weights / "encoder"))
    assert set(train.read_start(weights)) == {"text_encoder", "unet", "vae"}
    again = tmp_path / "again"
    (again / "autoencoder").mkdir(parents=True)
    train.train_autoencoder(again, 2, weights)
    card = json.loads((again / "autoencoder" / "card.json").read_text())
    assert card["command"].endswith("--steps=2 --start=FOLDER")
    assert card["start"]["command"].endswith("autoencoder --workdir=DIR --steps=2")


@pytest.mark.slow
def test_a_finished_generator_is_trained_on(tmp_path, small_pool):
    start = train.read_start(presets.SCENES)
    (tmp_path / "generator").mkdir()
    train.train_generator(tmp_path, 2, presets.SCENES)
    weights = tmp_path / "weights"
    after = train.read_start(weights)
    assert set(after) == set(start)
    for name in start:
        pairs = zip(jax.tree.leaves(start[name]), jax.tree.leaves(after[name]), strict=True)
        moved = [np.abs(np.asarray(a) - np.asarray(b)).max() for a, b in pairs]
        # Two steps with a learning rate of at most 1e-3; the autoencoder stays as it is.
        assert max(moved) < 4e-3
        assert (max(moved) > 0) == (name != "vae")
    (tmp_path / "autoencoder").mkdir()
    train.write_params(tmp_path / "autoencoder", start["vae"])  # latents of its own: no old decoder
    with pytest.raises(UserError, match="train the part decoder"):
        train.train_generator(tmp_path, 2, presets.SCENES)


def test_each_word_of_a_caption_is_one_token(tmp_path):
    export.write_tokenizer(tmp_path, generator.words(), generator.LENGTH)
    tokenizer = HubTokenizer(tmp_path, "CLIPTokenizerFast")
    captions = [scenes.scene(1, index).caption for index in range(0, 500, 5)]
    found = tokenizer(captions, generator.LENGTH)
    assert found.n_truncated == 0
    for caption, ids in zip(captions, found.ids, strict=True):
        n_tokens = len(caption.replace(",", " ,").split()) + 2
        end = tokenizer.tokenizer.eos_token_id
        assert list(ids).index(end) == n_tokens - 1, caption


def test_the_autoencoder_sees_titled_scenes_among_others():
    titled = {scenes.titled(number).image.tobytes() for number in range(len(scenes.TITLES))}
    batches = [autoencoder.make_batch(step) for step in range(40)]
    seen = [image.tobytes() in titled for batch in batches for image in batch["image"]]
    assert 0.04 < np.mean(seen) < 0.2
    weight = batches[0]["weight"]
    assert set(np.unique(weight)) == {1.0, autoencoder.OBJECT_WEIGHT}
    assert 0.03 < (weight > 1).mean() < 0.5
