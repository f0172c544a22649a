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
from bsjax.generators.latents import decode_latents, make_vae, vae_component
from bsjax.generators.modules import (
    CLIP_IGNORED,
    DIFFUSION_STEMS,
    TRANSFORMERS_STEMS,
    require_settings,
    shapes_of,
)
from bsjax.generators.protocol import (
    Component,
    Prompts,
    Samples,
    Settings,
    as_samples,
    guided,
    normal_rows,
    pair,
)
from bsjax.generators.tokenizers import ByteTokenizer, Tokenizer
from bsjax.models.sd_unet import SDUNet, SDUNetConfig

# What the UNet has built in.
UNET_SETTINGS = {
    "act_fn": "silu",
    "center_input_sample": False,
    "downsample_padding": 1,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-5,
    "norm_num_groups": 32,
    "dual_cross_attention": False,
    "class_embed_type": None,
    "encoder_hid_dim_type": None,
    "resnet_time_scale_shift": "default",
    "resnet_skip_time_act": False,
    "time_embedding_type": "positional",
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "num_attention_heads": None,
    "addition_embed_type": None,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "only_cross_attention": False,
    "transformer_layers_per_block": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
}


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
    TOKENIZERS = {"tokenizer": ("", "tokenizer", "CLIPTokenizerFast")}
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
        unet, vae, text = (configs[name] for name in ("unet", "vae", "text_encoder"))
        require_settings("unet", unet, UNET_SETTINGS)
        self.latent_shape = self._latent_shape(unet, vae)
        self.scaling = vae.get("scaling_factor", 0.18215)
        self.length = text.get("max_position_embeddings", 77)
        self.schedule = schedules.make_schedule(configs["scheduler"], settings.steps)
        self.unet = SDUNet(SDUNetConfig.of(unet), dtype)
        self.vae = make_vae(vae, dtype)
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
                self.unet, shapes_of(self.unet.init, latents, time, context),
                "unet", DIFFUSION_STEMS, repository="unet",
            ),
            "vae": vae_component(self.vae, self.latent_shape),
            "text_encoder": Component(
                self.text_encoder, shapes_of(self.text_encoder.init, ids, ids, ids),
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

    def sample(self, params: Any, batch: dict[str, Array], keys: Key[Array, "B"]) -> Samples:
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
