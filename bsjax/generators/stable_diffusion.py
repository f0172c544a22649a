"""Stable Diffusion 1.5 and 2.1 (arXiv:2112.10752), with any UNet of that shape.

The VAE is diffusers' Flax module, the text encoder transformers'. UNet and loop are ours: the
schedule is a table, guidance keeps an image's two rows together, images are decoded one at a time.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import transformers
from jaxtyping import Array, Float, Int, Key
from transformers.models.clip.modeling_flax_clip import FlaxCLIPTextModule

from bsjax.core.errors import UserError
from bsjax.generators import schedules
from bsjax.generators.latents import decode_latents, make_vae, round_trip_of, vae_component
from bsjax.generators.modules import (
    CLIP_IGNORED,
    DIFFUSION_STEMS,
    TRANSFORMERS_STEMS,
    caption_length,
    require_vocabulary,
    shapes_of,
)
from bsjax.generators.network_keys import CLIP_TEXT, SD_UNET, VAE, read_settings, require_equal
from bsjax.generators.protocol import (
    Component,
    Prompts,
    RoundTrip,
    Samples,
    Settings,
    as_samples,
    guided,
    normal_rows,
    pair,
)
from bsjax.generators.tokenizers import ByteTokenizer, Tokenizer
from bsjax.models.sd_unet import SDUNet, SDUNetConfig


class StableDiffusion:
    """The system that the configs describe; see `bsjax.generators.protocol.Generator`.

    Args:
      configs: of unet, vae, text_encoder and scheduler, as their json files have them.
      settings: how images are drawn.
      tokenizers: "tokenizer"; empty: bytes.

    Raises:
      UserError: a config that these modules cannot be built from, or an impossible image size.
    """

    # Name -> (repository, folder[, class]).
    CONFIGS = {
        "unet": ("unet", "unet"),
        "vae": ("", "vae"),
        "text_encoder": ("", "text_encoder"),
        "scheduler": ("", "scheduler"),
    }
    NETWORKS = {"unet": SD_UNET, "vae": VAE, "text_encoder": CLIP_TEXT}  # with a config.json
    TOKENIZERS = {"tokenizer": ("", "tokenizer", "CLIPTokenizer")}
    TEXT_COMPONENTS = ()

    def __init__(
        self,
        configs: Mapping[str, Mapping[str, Any]],
        settings: Settings,
        tokenizers: Mapping[str, Tokenizer] | None = None,
    ):
        self.settings = settings
        self.tokenizer = (tokenizers or {}).get("tokenizer", ByteTokenizer())
        dtype = jnp.dtype(settings.dtype)
        unet, vae, text = (
            read_settings(network, configs[name], self.CONFIGS[name])
            for name, network in self.NETWORKS.items()
        )
        require_equal(
            ("unet.cross_attention_dim", unet["cross_attention_dim"]),
            ("text_encoder.hidden_size", text["hidden_size"]),
        )
        require_equal(
            ("unet.in_channels", unet["in_channels"]),
            ("unet.out_channels", unet["out_channels"]),
            ("vae.latent_channels", vae["latent_channels"]),
        )
        self.latent_shape = self._latent_shape(unet, vae)
        self.scaling = vae["scaling_factor"]
        place = self.CONFIGS["text_encoder"]
        require_vocabulary(self.tokenizer, text["vocab_size"], place)
        self.length = caption_length(self.tokenizer, text["max_position_embeddings"], place)
        self.schedule = schedules.make_schedule(configs["scheduler"], settings.steps)
        self.unet = SDUNet(SDUNetConfig.of(unet), dtype)
        self.vae = make_vae(vae, dtype)
        self.vae_config = configs["vae"]
        self.text_encoder = FlaxCLIPTextModule(transformers.CLIPTextConfig(**text), dtype)
        self.components = self._components(unet["cross_attention_dim"])

    def _latent_shape(self, unet, vae) -> tuple[int, int, int]:
        down = 2 ** (len(vae["block_out_channels"]) - 1)
        multiple = down * 2 ** (len(unet["block_out_channels"]) - 1)
        height, width = self.settings.height, self.settings.width
        if height % multiple or width % multiple:
            raise UserError(
                f"generator.height={height}, generator.width={width}: expected multiples of"
                f" {multiple}; set --config.generator.height and --config.generator.width"
            )
        return height // down, width // down, unet["in_channels"]

    def _components(self, text_width: int) -> dict[str, Component]:
        height, width, channels = self.latent_shape
        latents = jax.ShapeDtypeStruct((1, height, width, channels), jnp.float32)
        time = jax.ShapeDtypeStruct((1,), jnp.float32)
        context = jax.ShapeDtypeStruct((1, self.length, text_width), jnp.float32)
        ids = jax.ShapeDtypeStruct((1, self.length), jnp.int32)
        return {
            "unet": Component(
                self.unet,
                shapes_of(self.CONFIGS["unet"], self.unet.init, latents, time, context),
                "unet", DIFFUSION_STEMS, repository="unet",
            ),
            "vae": vae_component(self.vae, self.latent_shape),
            "text_encoder": Component(
                self.text_encoder,
                shapes_of(self.CONFIGS["text_encoder"], self.text_encoder.init, ids, ids, ids),
                "text_encoder", TRANSFORMERS_STEMS, ignored=CLIP_IGNORED,
            ),
        }  # fmt: skip

    def prompts(self, captions: Sequence[str]) -> Prompts:
        tokens = self.tokenizer(captions, self.length)
        empty = self.tokenizer([""], self.length).ids
        arrays = {"ids": tokens.ids, "empty_ids": np.repeat(empty, len(captions), axis=0)}
        return Prompts(arrays, tokens.n_truncated)

    def abstract_prompts(self, n: int) -> dict[str, jax.ShapeDtypeStruct]:
        ids = jax.ShapeDtypeStruct((n, self.length), jnp.int32)
        return {"ids": ids, "empty_ids": ids}

    def sample(self, params: Any, batch: dict[str, Array], keys: Key[Array, " B"]) -> Samples:
        context = self.encode(params, batch)
        latents = self.denoise(params, context, normal_rows(keys, self.latent_shape))
        return as_samples(self.decode(params, latents))

    def encode(self, params: Any, batch: dict[str, Array]) -> Float[Array, "B 2 T D"]:
        """Text features without and with the caption."""
        without = self.encode_ids(params, batch["empty_ids"][:1])
        return pair(without, self.encode_ids(params, batch["ids"]))

    def encode_ids(self, params: Any, ids: Int[Array, "B T"]) -> Float[Array, "B T D"]:
        """Text features of tokens."""
        mask = jnp.ones_like(ids)
        positions = jnp.broadcast_to(jnp.arange(ids.shape[1]), ids.shape)
        variables = {"params": params["text_encoder"]}
        return self.text_encoder.apply(variables, ids, mask, positions)[0]

    def denoise(
        self, params: Any, context: Float[Array, "B 2 T D"], noise: Float[Array, "B h w c"]
    ) -> Float[Array, "B h w c"]:
        """Latents from noise."""

        def predict(x, t):
            def unet(x, context):
                time = jnp.full(x.shape[0], t, jnp.float32)
                return self.unet.apply({"params": params["unet"]}, x, time, context)

            return guided(unet, x, self.settings.guidance, context)

        return schedules.run(self.schedule, predict, noise)

    def decode(self, params: Any, latents: Float[Array, "B h w c"]) -> Float[Array, "B H W 3"]:
        """Pixels in about [-1, 1]."""
        return decode_latents(self.vae, params["vae"], latents / self.scaling)

    def round_trip(self) -> RoundTrip:
        """Real images through the VAE; see `bsjax.generators.protocol.RoundTrip`."""

        def decode(params, latents):
            return self.decode({"vae": params}, latents * self.scaling)

        size = (self.settings.height, self.settings.width)
        dtype = jnp.dtype(self.settings.dtype)
        return round_trip_of(self.vae_config, self.components["vae"], dtype, size, decode)
