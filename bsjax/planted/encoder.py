"""Trains the scenes world's DINOv2 to tell the factors, each token those that are its own.

Supervised, because it has to be done in about an hour on two cores: linear heads, thrown away
afterwards, read from a patch its background and the shape and colour of what it shows, from each of
the four registers one factor of the whole image, and from the class token all four. What is not a
token's own it should not tell: there the heads learn to say that every value is as likely.

The norm keeps every token's length. Of the class token and the registers, which come once per
image, little is left of it for what tells images apart unless their means are held near 0: an
RA-SAE would spend its few atoms on the means. Nor does the cross-entropy mind when three's register
lies halfway to four's, but a concept's code is a scalar product: registers of other values are held
apart.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, UInt8
from scipy import ndimage

from bsjax.core.rng import seed_key
from bsjax.data import scenes
from bsjax.models.dinov2 import VARIANTS, DinoV2, normalise_images, token_grid
from bsjax.planted.fit import stack

VARIANT = "vitxs8_reg"
STREAM = 10  # of random numbers
BATCH = 32
SOFTENED_SHARE = 0.5  # of the images, as DINOv2 blurs half of its own
MOST_BLUR = 1.2  # pixels
CENTRING = 0.1  # weight of the squared means of class token and registers
APART = 1.0  # weight of the squared cosines, as far as positive, between registers of other values
# A token may show no object: a further value of shape and colour.
SIZES = {
    "shape": len(scenes.SHAPES) + 1,
    "colour": len(scenes.COLOURS) + 1,
    "background": len(scenes.BACKGROUNDS),
    "count": len(scenes.NUMBERS),
}


class Taught(nn.Module):
    """DINOv2 with a linear head on every token."""

    @nn.compact
    def __call__(
        self, images: Float[Array, "B H W 3"]
    ) -> tuple[dict[str, Float[Array, "B T C"]], Float[Array, "B T D"]]:
        """Logits and tokens."""
        tokens = DinoV2(VARIANTS[VARIANT], name="encoder")(images)
        return {name: nn.Dense(size, name=name)(tokens) for name, size in SIZES.items()}, tokens


def init(seed: int) -> Any:
    """Parameters to begin with."""
    images = jnp.zeros((1, scenes.SIZE, scenes.SIZE, 3))
    return jax.jit(Taught().init)(seed_key(seed), images)["params"]


def centre(params: Any, n_images: int = 512) -> Any:
    """Encoder parameters whose tokens have mean 0 over scenes: the last norm's bias moves.

    An RA-SAE has no bias of its own. If all tokens shared a direction, every atom would hold it,
    and what revives dead concepts would push them down instead, for adding it once too often.
    """
    rng = scenes.generator(STREAM, 0, 0)
    images = np.stack([scenes.plain(rng).image for _ in range(n_images)])
    apply = jax.jit(DinoV2(VARIANTS[VARIANT]).apply)
    parts = [apply({"params": params}, normalise_images(p)) for p in jnp.split(images, 8)]
    mean = np.mean([np.mean(part, axis=(0, 1)) for part in parts], axis=0)
    return params | {"norm": params["norm"] | {"bias": params["norm"]["bias"] - mean}}


def make_batch(step: int) -> dict[str, np.ndarray]:
    """Images and what each token should say."""
    rng = scenes.generator(STREAM, step)
    batch = stack([scenes.plain(rng) for _ in range(BATCH)])
    for place in np.flatnonzero(rng.random(BATCH) < SOFTENED_SHARE):
        batch["image"][place] = soften(batch["image"][place], rng)
    return {"image": batch["image"], **targets(batch["mask"], batch["factors"])}


def soften(image: UInt8[np.ndarray, "H W 3"], rng: np.random.Generator) -> np.ndarray:
    """The image out of focus by up to `MOST_BLUR` pixels: factors show in soft pictures too."""
    sigma = rng.uniform(0, MOST_BLUR)
    blurred = ndimage.gaussian_filter(image.astype(np.float32), (sigma, sigma, 0), mode="nearest")
    return (blurred + 0.5).astype(np.uint8)


def targets(mask: np.ndarray, factors: np.ndarray) -> dict[str, np.ndarray]:
    """Shares of the values that each token should tell: name -> [B, T, C].

    Args:
      mask: [B, 64, 64], where objects lie.
      factors: [B, 4].
    """
    config = VARIANTS[VARIANT]
    grid = token_grid(config, scenes.SIZE, scenes.SIZE)
    size = config.patch_size
    patches = mask.reshape(len(mask), grid.h, size, grid.w, size).mean(axis=(2, 4))
    # Half a patch of an object is as good as a whole one.
    share = np.minimum(patches.reshape(len(mask), -1) * 2, 1).astype(np.float32)
    found = {}
    for column, (name, n_values) in enumerate(SIZES.items()):
        value = np.eye(n_values, dtype=np.float32)[factors[:, column]][:, None]  # [B, 1, C]
        unknown = np.full_like(value, 1 / n_values)
        if name in ("shape", "colour"):
            nothing = np.eye(n_values, dtype=np.float32)[-1][None, None]
            patches = share[:, :, None] * value + (1 - share[:, :, None]) * nothing
        else:
            patches = np.repeat(value if name == "background" else unknown, grid.n_patches, axis=1)
        special = [value] + [value if each == column else unknown for each in range(len(SIZES))]
        found[name] = np.concatenate([*special, patches], axis=1)
    return found


def loss(params: Any, batch: Any, key: Any) -> tuple[Array, dict[str, Array]]:
    """Mean cross-entropy over tokens, summed over the factors; special tokens centred each."""
    said, tokens = Taught().apply({"params": params}, normalise_images(batch["image"]))
    losses = {
        name: jnp.mean(optax.softmax_cross_entropy(said[name], batch[name])) for name in SIZES
    }
    right = {
        f"{name}_right": jnp.mean(said[name][:, 0].argmax(-1) == batch[name][:, 0].argmax(-1))
        for name in SIZES
    }
    n_special = token_grid(VARIANTS[VARIANT], scenes.SIZE, scenes.SIZE).n_special
    extra = {
        "centring": jnp.mean(jnp.mean(tokens[:, :n_special], axis=0) ** 2),
        "apart": closeness(tokens[:, 1:n_special], batch),
    }
    total = sum(losses.values()) + CENTRING * extra["centring"] + APART * extra["apart"]
    return total, losses | right | extra


def closeness(registers: Float[Array, "B R D"], batch: dict[str, Any]) -> Float[Array, ""]:
    """Mean over registers, and pairs of images, of the squared cosine where positive.

    Pairs that share the value of the register's factor do not count; `batch` has the `targets`.
    """
    unit = registers / jnp.linalg.norm(registers, axis=-1, keepdims=True)
    cosines = jnp.einsum("ird,jrd->rij", unit, unit)
    values = jnp.stack([batch[name][:, 0].argmax(-1) for name in SIZES])  # [R, B]
    other = values[:, :, None] != values[:, None, :]
    return jnp.mean(jnp.where(other, nn.relu(cosines) ** 2, 0.0))
