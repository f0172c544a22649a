"""Trains the scenes world's autoencoder, Stable Diffusion's in small: 16 x 16 latents.

First whole, then the decoder alone on latents that no longer move, as Stable Diffusion's was; this
may go on beside the generator's training.

Objects are a tenth of a picture and nearly all of what a caption says: their pixels count more.
Titled scenes are among the pictures, as they are among those that the generator learns from.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from diffusers import FlaxAutoencoderKL
from jaxtyping import Array, Bool, Float
from scipy import ndimage

from bsjax.core.rng import seed_key
from bsjax.data import scenes
from bsjax.generators.latents import make_vae
from bsjax.planted.fit import stack

STREAM, DECODER_STREAM = 11, 13
DECODING = ("decoder", "post_quant_conv")  # parameters behind the latents
BATCH = 8
TITLED_SHARE = 0.1
OBJECT_WEIGHT = 4.0  # of the error in pixels of objects and beside them
KL_WEIGHT = 3e-4
CONFIG = {
    "_class_name": "AutoencoderKL",
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "up_block_types": ["UpDecoderBlock2D"] * 3,
    "block_out_channels": [32, 32, 64],
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 32,
    "act_fn": "silu",
    "sample_size": scenes.SIZE,
}


def module() -> FlaxAutoencoderKL:
    """The autoencoder."""
    return make_vae(CONFIG, jnp.float32)


def init(seed: int) -> Any:
    """Parameters to begin with."""
    images = jnp.zeros((1, 3, scenes.SIZE, scenes.SIZE))
    return jax.jit(module().init)(seed_key(seed), images)["params"]


def make_batch(step: int, stream: int = STREAM) -> dict[str, np.ndarray]:
    """Images [B, 64, 64, 3] and the weights of their pixels [B, 64, 64]."""
    rng = scenes.generator(stream, step)
    parts = [scenes.plain(rng) for _ in range(BATCH)]
    for place in np.flatnonzero(rng.random(BATCH) < TITLED_SHARE):
        parts[place] = scenes.titled(int(rng.integers(len(scenes.TITLES))))
    batch = stack(parts)
    return {"image": batch["image"], "weight": pixel_weights(batch["mask"])}


def pixel_weights(mask: Bool[np.ndarray, "*B 64 64"]) -> Float[np.ndarray, "*B 64 64"]:
    """`OBJECT_WEIGHT` on objects and two pixels beside them, 1 elsewhere."""
    window = np.ones((*[1] * (mask.ndim - 2), 3, 3))
    near = ndimage.binary_dilation(mask, window, iterations=2)
    return np.where(near, OBJECT_WEIGHT, 1.0).astype(np.float32)


def encode(
    params: Any, images: Array | np.ndarray
) -> tuple[Float[Array, "B 16 16 c"], Float[Array, "B 16 16 c"]]:
    """Mean and log variance of the latents, not scaled.

    Args:
      params: of the autoencoder.
      images: [B, 64, 64, 3], whole levels.
    """
    pixels = jnp.moveaxis(images.astype(jnp.float32) / 127.5 - 1, -1, 1)
    vae = module()
    found = vae.apply({"params": params}, pixels, method=vae.encode).latent_dist
    return found.mean, found.logvar


def whiten(params: Any, images: Array | np.ndarray) -> Any:
    """The same autoencoder with latents of mean 0 and covariance 1, by its two 1 x 1 convolutions.

    What little variance tells shapes apart is then no fainter to the generator than the rest.
    Linear maps do not keep the posterior's variances apart: their mean takes their place.

    Args:
      params: of the autoencoder.
      images: [B, 64, 64, 3], whole levels, that the latents are judged by.
    """
    mean, log_variance = (np.asarray(part, np.float64) for part in encode(params, images))
    channels = mean.shape[-1]
    mean, variance = mean.reshape(-1, channels), np.exp(log_variance).reshape(-1, channels)
    centre = mean.mean(axis=0)
    values, axes = np.linalg.eigh(np.cov(mean, rowvar=False))
    forth = (axes / np.sqrt(values)) @ axes.T  # symmetric: nearest to the latents as they were
    back = (axes * np.sqrt(values)) @ axes.T
    quant = jax.tree.map(np.array, params["quant_conv"])
    quant["kernel"][..., :channels] @= forth
    quant["bias"][:channels] = (quant["bias"][:channels] - centre) @ forth
    quant["kernel"][..., channels:] = 0
    quant["bias"][channels:] = np.log(variance.mean(axis=0) @ forth**2)
    after = jax.tree.map(np.array, params["post_quant_conv"])
    after["bias"] += centre @ after["kernel"][0, 0]
    after["kernel"] = (back @ after["kernel"]).astype(np.float32)
    return params | {"quant_conv": quant, "post_quant_conv": after}


def loss(params: Any, batch: Any, key: Any) -> tuple[Array, dict[str, Array]]:
    """Absolute and squared error of the pixels, and a little of the latents' divergence."""
    mean, log_variance = encode(params, batch["image"])
    latents = mean + jnp.exp(0.5 * log_variance) * jax.random.normal(key, mean.shape, jnp.float32)
    error, metrics = _pixel_error(params, latents, batch)
    divergence = 0.5 * jnp.mean(mean**2 + jnp.exp(log_variance) - 1 - log_variance)
    return error + KL_WEIGHT * divergence, metrics | {"divergence": divergence}


def make_decoder_loss(trained: Any) -> Any:
    """Error of the pixels by the decoder's parameters; those of the encoder stay as trained."""
    fixed = {name: tree for name, tree in trained.items() if name not in DECODING}

    def decoder_loss(params: Any, batch: Any, key: Any) -> tuple[Array, dict[str, Array]]:
        del key
        return _pixel_error(params, encode(fixed, batch["image"])[0], batch)

    return decoder_loss


def _pixel_error(params, latents, batch):
    """Weighted absolute and squared error of decoded latents; PSNR without the weights."""
    vae = module()
    output = vae.apply({"params": params}, latents, method=vae.decode).sample  # [B, 3, 64, 64]
    target = jnp.moveaxis(batch["image"].astype(jnp.float32) / 127.5 - 1, -1, 1)
    error = output - target
    weight = (batch["weight"] / jnp.mean(batch["weight"]))[:, None]
    psnr = -10 * jnp.log10(jnp.mean(error**2) / 4)
    return jnp.mean(weight * (jnp.abs(error) + 2 * error**2)), {"psnr": psnr}
