"""The autoencoder that Stable Diffusion and PixArt share: latents to pixels, and back."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from diffusers import FlaxAutoencoderKL
from jaxtyping import Array, Float

from bsjax.generators.modules import DIFFUSION_STEMS, module_of, shapes_of
from bsjax.generators.network_keys import WHOLE_VAE, read_settings
from bsjax.generators.protocol import Component, RoundTrip

# Attention has its old names in Flax, and either in the file.
RENAMES = (
    (r"(attentions\.\d+)\.to_q\.", r"\1.query."),
    (r"(attentions\.\d+)\.to_k\.", r"\1.key."),
    (r"(attentions\.\d+)\.to_v\.", r"\1.value."),
    (r"(attentions\.\d+)\.to_out\.0\.", r"\1.proj_attn."),
)


def make_vae(config: Mapping[str, Any], dtype: Any) -> FlaxAutoencoderKL:
    """The autoencoder of a config file that was accounted for."""
    return module_of(FlaxAutoencoderKL, config, dtype)


def vae_component(vae: FlaxAutoencoderKL, latent_shape: tuple[int, int, int]) -> Component:
    """The decoding half; the other is not read."""
    height, width, channels = latent_shape
    latents = jax.ShapeDtypeStruct((1, height, width, channels), jnp.float32)
    decode = functools.partial(vae.init, method=vae.decode)
    return Component(
        vae, shapes_of(("", "vae"), decode, latents), "vae", DIFFUSION_STEMS, renames=RENAMES,
        ignored=(r"encoder\..*", r"quant_conv\..*"),
    )  # fmt: skip


def decode_latents(
    vae: FlaxAutoencoderKL, params: Any, latents: Float[Array, "B h w c"]
) -> Float[Array, "B H W 3"]:
    """Pixels in about [-1, 1], an image at a time: a batch would take gigabytes."""

    def one(latents):
        # Channels last, which the module tells by their number.
        output = vae.apply({"params": params}, latents[None], method=vae.decode).sample[0]
        return jnp.moveaxis(output, 0, -1).astype(jnp.float32)

    return jax.lax.map(one, latents)


def round_trip_of(
    config: Mapping[str, Any],
    component: Component,
    dtype: Any,
    size: tuple[int, int],
    decode: Callable[[Any, Float[Array, "B h w c"]], Float[Array, "B H W 3"]],
) -> RoundTrip:
    """Real images through both halves: the posterior's mean, decoded.

    Args:
      config: of the autoencoder, as its json file has it.
      component: its decoding half.
      dtype: of products.
      size: pixels, height and width, that the encoder takes.
      decode: (the autoencoder's parameters, latents as they are encoded) -> pixels.

    Raises:
      UserError: a config that the encoding half cannot be built from.
    """
    place = ("", "vae")
    vae = make_vae(read_settings(WHOLE_VAE, config, place), dtype)
    pixels = jax.ShapeDtypeStruct((1, 3, *size), jnp.float32)
    encoder = shapes_of(place, functools.partial(vae.init, method=vae.encode), pixels)
    whole = component._replace(shapes={**component.shapes, **encoder}, ignored=())

    def apply(params: Any, images: Float[Array, "B H W 3"]) -> Float[Array, "B H W 3"]:
        def one(image):  # a batch would take gigabytes
            channels_first = jnp.moveaxis(image, -1, 0)[None]
            found = vae.apply({"params": params}, channels_first, method=vae.encode).latent_dist
            return found.mean[0].astype(jnp.float32)

        return decode(params, jax.lax.map(one, images))

    return RoundTrip("vae", whole, *size, apply)
