"""The autoencoder that Stable Diffusion and PixArt share: latents to pixels."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from diffusers import FlaxAutoencoderKL
from jaxtyping import Array, Float

from bsjax.generators.modules import DIFFUSION_STEMS, module_of, shapes_of
from bsjax.generators.protocol import Component

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
