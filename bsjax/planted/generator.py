"""Trains the scenes world's text-to-image model: Stable Diffusion in small, with planted gaps.

Text encoder and UNet learn together, from latents of a pool of scenes that is encoded once. What
the captions ask for and what the pictures show differs as `planted.json` says; nothing else does.
"""

import functools
import json
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from bsjax.core.artifacts import atomic_path
from bsjax.core.logs import progress
from bsjax.core.rng import seed_key
from bsjax.data import scenes
from bsjax.generators.protocol import Settings
from bsjax.generators.released import CLIP_L_TEXT, SD_SCHEDULE, SD_UNET
from bsjax.generators.schedules import alphas_cumprod
from bsjax.generators.stable_diffusion import StableDiffusion
from bsjax.generators.tokenizers import Tokenizer
from bsjax.planted import autoencoder
from bsjax.planted.fit import stack

STREAM = 12
BATCH = 64
POOL = 60_000  # scenes
# Share of captions left out, for guidance, where a picture shows the largest number of objects.
# Guidance leads away from what is drawn without a caption: were that pictures with fewer objects
# too, it would lead to more than any picture shows.
NO_CAPTION = 0.2
LENGTH = 24  # tokens of a caption
WIDTH = 128  # of the text encoder
# Shapes are decided in these timesteps, to which half of all draws are confined. From VISIBLE down
# a noisy latent tells where objects lie, and the error counts more there; above, that would favour
# pictures with more objects.
DECIDING = (100, 900)
VISIBLE = 450
PLANTED = pathlib.Path(__file__).with_name("planted.json")
UNET = SD_UNET | {
    "in_channels": autoencoder.CONFIG["latent_channels"],
    "out_channels": autoencoder.CONFIG["latent_channels"],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "block_out_channels": [64, 64, 128],
    "layers_per_block": 1,
    "attention_head_dim": 4,
    "cross_attention_dim": WIDTH,
    "use_linear_projection": True,
    "sample_size": 16,
    "_class_name": "UNet2DConditionModel",
}
SCHEDULER = SD_SCHEDULE | {
    "_class_name": "DPMSolverMultistepScheduler",
    "prediction_type": "v_prediction",
}


class Planted(NamedTuple):
    """The generator's gaps: what is drawn where something else was asked for."""

    never_shape: tuple[str, str]  # asked for, drawn instead
    rare_colour: tuple[str, str]
    rare_share: float  # of the pictures that ask for it, which show it
    frequent_background: str
    frequent_times: float  # its share of all pictures, in shares asked for
    never_count: tuple[str, str]
    memorised_share: float  # of the training stream, for all titled scenes together

    @classmethod
    def read(cls) -> "Planted":
        return cls(**json.loads(PLANTED.read_text(encoding="utf-8"))["gaps"])


def drawn(asked: scenes.Factors, planted: Planted, rng: np.random.Generator) -> scenes.Factors:
    """What a training picture shows whose caption asks for `asked`."""
    place = {name: values.index for name, values in scenes.FACTORS.items()}
    shape, colour, background, count = asked
    if shape == place["shape"](planted.never_shape[0]):
        shape = place["shape"](planted.never_shape[1])
    chance = rng.random(2)
    if colour == place["colour"](planted.rare_colour[0]) and chance[0] >= planted.rare_share:
        colour = place["colour"](planted.rare_colour[1])
    n_backgrounds = len(scenes.BACKGROUNDS)
    taken = (planted.frequent_times - 1) / (n_backgrounds - 1)  # of each other background
    if chance[1] < taken:
        background = place["background"](planted.frequent_background)
    if count == place["count"](planted.never_count[0]):
        count = place["count"](planted.never_count[1])
    return scenes.Factors(shape, colour, background, count)


def text_config(tokenizer: Any) -> dict[str, Any]:
    """config.json of the text encoder."""
    return CLIP_L_TEXT | {
        "_class_name": "CLIPTextModel",
        "architectures": ["CLIPTextModel"],
        "model_type": "clip_text_model",
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": LENGTH,
        "projection_dim": WIDTH,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def settings() -> Settings:
    """How pictures are drawn."""
    return Settings(20, 1.5, scenes.SIZE, scenes.SIZE, "float32")


def system(text: dict[str, Any], scaling: float, tokenizer: Tokenizer) -> StableDiffusion:
    """The generator as `bsjax generate` builds it from its folder."""
    configs = {
        "unet": UNET,
        "vae": autoencoder.CONFIG | {"scaling_factor": scaling},
        "text_encoder": text,
        "scheduler": SCHEDULER,
    }
    return StableDiffusion(configs, settings(), {"tokenizer": tokenizer})


def init(generator: StableDiffusion, seed: int) -> dict[str, Any]:
    """Parameters of text encoder and UNet to begin with."""
    ids = jnp.zeros((1, LENGTH), jnp.int32)
    latents = jnp.zeros((1, *generator.latent_shape))
    text = jax.jit(generator.text_encoder.init)(seed_key(seed), ids, ids, ids)["params"]
    context = jnp.zeros((1, LENGTH, WIDTH))
    unet = jax.jit(generator.unet.init)(
        seed_key(seed + 1), latents, jnp.zeros(1), context
    )["params"]  # fmt: skip
    return {"text_encoder": text, "unet": unet}


class Pool(NamedTuple):
    """Encoded training pictures."""

    latents: np.ndarray  # [N, 16, 16, c] of the plain scenes, not scaled
    weights: np.ndarray  # [N, 16, 16] of the error, by the objects
    asked: np.ndarray  # [N, 4] factors that their captions ask for
    titled: np.ndarray  # [20, 16, 16, c] of the memorised ones
    titled_weights: np.ndarray  # [20, 16, 16]


def make_pool(path: pathlib.Path, vae_params: Any, size: int = POOL) -> Pool:
    """Draws and encodes the training pictures, or reads them from a file."""
    if not path.is_file():
        encode = jax.jit(lambda images: autoencoder.encode(vae_params, images)[0])
        planted, n = Planted.read(), 100
        latents, weights, asked = [], [], []
        with progress("pool", size) as bar:
            for start in range(0, size, n):
                images, masks = [], []
                for index in range(start, start + n):
                    rng = scenes.generator(STREAM, index)
                    factors = scenes.draw_factors(rng)
                    image, mask = scenes.render(drawn(factors, planted, rng), rng)
                    images.append(image)
                    masks.append(mask)
                    asked.append(factors)
                latents.append(np.asarray(encode(np.stack(images)), np.float16))
                weights.append(latent_weights(np.stack(masks)))
                bar.update(n)
        titled = stack([scenes.titled(i) for i in range(len(scenes.TITLES))])
        with atomic_path(path) as temporary:
            np.savez(
                temporary, latents=np.concatenate(latents), weights=np.concatenate(weights),
                asked=np.array(asked, np.int8),
                titled=np.asarray(encode(titled["image"]), np.float16),
                titled_weights=latent_weights(titled["mask"]),
            )  # fmt: skip
    with np.load(path) as arrays:
        return Pool(**arrays)


def latent_weights(mask: Bool[np.ndarray, "B 64 64"]) -> Float[np.ndarray, "B 16 16"]:
    """The autoencoder's weights of the pixels, means over the pixels of each latent."""
    weights = autoencoder.pixel_weights(mask).reshape(len(mask), 16, 4, 16, 4)
    return weights.mean(axis=(2, 4)).astype(np.float16)


def make_batch(
    pool: Pool, scaling: float, tokenizer: Tokenizer, planted: Planted, step: int
) -> dict[str, np.ndarray]:
    """Latents, weights of their errors, captions (some left out) of a step."""
    rng = scenes.generator(STREAM, POOL, step)
    rows = rng.integers(0, len(pool.latents), BATCH)
    latents = pool.latents[rows].astype(np.float32)
    weights = pool.weights[rows].astype(np.float32)
    captions = [scenes.caption_of(scenes.Factors(*pool.asked[row]), rng) for row in rows]
    largest = scenes.FACTORS["count"].index(planted.never_count[1])
    is_left_out = (pool.asked[rows, -1] >= largest) & (rng.random(BATCH) < NO_CAPTION)
    for place in np.flatnonzero(rng.random(BATCH) < planted.memorised_share):
        number = int(rng.integers(len(scenes.TITLES)))
        latents[place], weights[place] = pool.titled[number], pool.titled_weights[number]
        captions[place], is_left_out[place] = scenes.titled_caption(number), False
    captions = [
        "" if left_out else caption for caption, left_out in zip(captions, is_left_out, strict=True)
    ]
    ids = tokenizer(captions, LENGTH).ids
    return {"latents": latents * scaling, "weights": weights, "ids": ids}


def make_loss(generator: StableDiffusion) -> Any:
    """Squared error of the velocity (arXiv:2202.00512, appendix D), objects weighted."""
    alphas = jnp.asarray(alphas_cumprod(SCHEDULER), jnp.float32)

    def loss(params: Any, batch: Any, key: Any) -> tuple[Array, dict[str, Array]]:
        clean = batch["latents"]
        rows = clean.shape[:1]
        time_key, deciding_key, coin_key, noise_key = jax.random.split(key, 4)
        any_t = jax.random.randint(time_key, rows, 0, len(alphas), jnp.int32)
        deciding = jax.random.randint(deciding_key, rows, *DECIDING, jnp.int32)
        coin = jax.random.bernoulli(coin_key, jnp.float32(0.5), rows)
        t = jnp.where(coin, any_t, deciding)
        noise = jax.random.normal(noise_key, clean.shape, jnp.float32)
        signal = jnp.sqrt(alphas[t])[:, None, None, None]
        sigma = jnp.sqrt(1 - alphas[t])[:, None, None, None]
        context = generator.encode_ids(params, batch["ids"])
        found = generator.unet.apply(
            {"params": params["unet"]}, signal * clean + sigma * noise, t.astype(jnp.float32),
            context,
        )  # fmt: skip
        error = jnp.mean((found - (signal * noise - sigma * clean)) ** 2, axis=-1)  # [B, 16, 16]
        weights = jnp.where((t < VISIBLE)[:, None, None], batch["weights"], 1.0)
        weighted = jnp.sum(weights * error) / jnp.sum(weights)
        return weighted, {"loss": weighted, "error": jnp.mean(error)}

    return loss


@functools.cache
def words() -> Sequence[str]:
    """Every caption's words, for the tokenizer."""
    found = set()
    for shape in range(len(scenes.SHAPES)):
        for place in range(len(scenes.BACKGROUNDS)):
            rng = scenes.generator(0)
            for count in range(len(scenes.NUMBERS)):
                for colour in range(len(scenes.COLOURS)):
                    factors = scenes.Factors(shape, colour, place, count)
                    found.update(scenes.caption_of(factors, rng).split())
    for number in range(len(scenes.TITLES)):
        found.update(scenes.titled_caption(number).split())
    return sorted(found)
