"""Kandinsky 2.1 (arXiv:2310.03502): a prior draws an image embedding, a UNet the image for it.

Two repositories: the prior's has CLIP's towers, the other a multilingual text encoder, the UNet and
MoVQ. Guided away from the embedding of a black image, as the pipeline does without a negative
prompt.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import transformers
from jaxtyping import Array, Float, Key
from transformers.models.clip.modeling_flax_clip import FlaxCLIPTextModelWithProjectionModule

from bsjax.core.errors import UserError
from bsjax.generators import schedules
from bsjax.generators.modules import (
    CLIP_IGNORED,
    DIFFUSION_STEMS,
    TRANSFORMERS_STEMS,
    caption_length,
    require_vocabulary,
    shapes_of,
)
from bsjax.generators.network_keys import (
    CLIP_TEXT,
    CLIP_VISION,
    KANDINSKY_UNET,
    MOVQ,
    PRIOR,
    WHOLE_MOVQ,
    XLM_ROBERTA,
    read_settings,
    require_channels,
    require_equal,
)
from bsjax.generators.protocol import (
    Component,
    Prompts,
    RoundTrip,
    Samples,
    Settings,
    as_samples,
    flag_of,
    guided,
    normal_rows,
    pair,
)
from bsjax.generators.tokenizers import ByteTokenizer, Tokenizer
from bsjax.models.kandinsky_prior import (
    CLIPVisionWithProjection,
    MultilingualCLIP,
    PriorConfig,
    PriorTransformer,
)
from bsjax.models.kandinsky_unet import KandinskyUNet, KandinskyUNetConfig
from bsjax.models.movq import MoVQ, MoVQConfig
from bsjax.models.movq_encoder import MoVQEncoder, MoVQEncoderConfig

LENGTH = 77


class Kandinsky:
    """The system that the configs describe; see `bsjax.generators.protocol.Generator`.

    Args:
      configs: of each name in CONFIGS, as the json files have them.
      settings: how images are drawn.
      tokenizers: "clip" and "multilingual"; empty: bytes.

    Raises:
      UserError: a config that these modules cannot be built from.
    """

    # Name -> (repository, folder[, class]).
    CONFIGS = {
        "prior": ("prior", "prior"),
        "clip_text": ("prior", "text_encoder"),
        "clip_image": ("prior", "image_encoder"),
        "prior_scheduler": ("prior", "scheduler"),
        "text_encoder": ("", "text_encoder"),
        "unet": ("", "unet"),
        "movq": ("", "movq"),
        "scheduler": ("", "scheduler"),
    }
    NETWORKS = {
        "prior": PRIOR,
        "clip_text": CLIP_TEXT,
        "clip_image": CLIP_VISION,
        "text_encoder": XLM_ROBERTA,
        "unet": KANDINSKY_UNET,
        "movq": MOVQ,
    }
    TOKENIZERS = {
        "clip": ("prior", "tokenizer", "CLIPTokenizer"),
        "multilingual": ("", "tokenizer", "XLMRobertaTokenizerFast"),
    }
    TEXT_COMPONENTS = ()

    def __init__(
        self,
        configs: Mapping[str, Mapping[str, Any]],
        settings: Settings,
        tokenizers: Mapping[str, Tokenizer] | None = None,
    ):
        self.settings = settings
        tokenizers = tokenizers or {}
        self.clip_tokenizer = tokenizers.get("clip", ByteTokenizer())
        self.tokenizer = tokenizers.get("multilingual", ByteTokenizer())
        dtype = jnp.dtype(settings.dtype)
        found = {
            name: read_settings(network, configs[name], self.CONFIGS[name])
            for name, network in self.NETWORKS.items()
        }
        self._check(found)
        self.prior_config = PriorConfig.of(found["prior"])
        self.prior = PriorTransformer(self.prior_config, dtype)
        self.prior_schedule = schedules.make_schedule(
            configs["prior_scheduler"], settings.prior_steps, flag_of("prior"),
            "generator.prior_steps",
        )  # fmt: skip
        self.clip_text = FlaxCLIPTextModelWithProjectionModule(
            transformers.CLIPTextConfig(**found["clip_text"]), dtype
        )
        self.image_size = found["clip_image"]["image_size"]
        self.clip_image = CLIPVisionWithProjection(
            transformers.CLIPVisionConfig(**found["clip_image"]), dtype
        )
        text = found["text_encoder"]
        self.text_encoder = MultilingualCLIP(
            transformers.XLMRobertaConfig(**text), text["numDims"], dtype
        )
        self.unet_config = KandinskyUNetConfig.of(found["unet"])
        self.unet = KandinskyUNet(self.unet_config, dtype)
        self.schedule = schedules.make_schedule(configs["scheduler"], settings.steps)
        movq = MoVQConfig.of(found["movq"])
        self.movq = MoVQ(movq, dtype)
        self.movq_config = configs["movq"]
        self.down = down = 2 ** (len(movq.block_out_channels) - 1)
        # As the pipeline: up to a multiple of the square of the decoder's factor.
        height, width = (-(-size // down**2) * down for size in (settings.height, settings.width))
        self.latent_shape = (height, width, self.unet_config.in_channels)
        self.components = self._components()

    def _check(self, found: Mapping[str, Mapping[str, Any]]) -> None:
        """Refuses networks and tokenizers that do not belong together."""
        prior, clip, image, text, unet, movq = (found[name] for name in self.NETWORKS)
        require_equal(
            ("prior.embedding_dim", prior["embedding_dim"]),
            ("clip_text.hidden_size", clip["hidden_size"]),
            ("clip_text.projection_dim", clip["projection_dim"]),
            ("clip_image.projection_dim", image["projection_dim"]),
            ("unet.cross_attention_dim", unet["cross_attention_dim"]),
            ("text_encoder.numDims", text["numDims"]),
        )
        require_equal(
            ("unet.encoder_hid_dim", unet["encoder_hid_dim"]),
            ("text_encoder.hidden_size", text["hidden_size"]),
            ("text_encoder.transformerDimensions", text["transformerDimensions"]),
        )
        require_equal(
            ("unet.in_channels", unet["in_channels"]),
            ("movq.vq_embed_dim", movq["vq_embed_dim"] or movq["latent_channels"]),
        )
        require_channels("unet", unet["in_channels"], unet["out_channels"])
        places = self.CONFIGS
        require_vocabulary(self.clip_tokenizer, clip["vocab_size"], places["clip_text"])
        require_vocabulary(self.tokenizer, text["vocab_size"], places["text_encoder"])
        n_positions = clip["max_position_embeddings"]
        require_equal(
            ("tokens per caption", caption_length(
                self.clip_tokenizer, n_positions, places["clip_text"])),
            ("prior.num_embeddings", LENGTH),
        )  # fmt: skip
        # Positions of XLM-R count from behind that of padding.
        if text["max_position_embeddings"] <= LENGTH + text["pad_token_id"]:
            raise UserError(
                f"text_encoder/config.json has max_position_embeddings="
                f"{text['max_position_embeddings']}: expected more than"
                f" {LENGTH + text['pad_token_id']}; set {flag_of('')} to a complete repository"
            )

    def _components(self) -> dict[str, Component]:
        def array(*shape, dtype=jnp.float32):
            return jax.ShapeDtypeStruct((1, *shape), dtype)

        width = self.prior_config.embedding_dim
        ids, embedding = array(LENGTH, dtype=jnp.int32), array(width)
        places = self.CONFIGS
        prior = shapes_of(
            places["prior"], self.prior.init, embedding, array(), embedding, array(LENGTH, width),
            array(LENGTH, dtype=bool),
        )  # fmt: skip
        text_width = self.unet_config.encoder_hid_dim
        unet_embedding = array(self.unet_config.cross_attention_dim)
        unet = shapes_of(
            places["unet"], self.unet.init, array(*self.latent_shape), array(),
            array(LENGTH, text_width), unet_embedding, unet_embedding,
        )  # fmt: skip
        pixels = array(self.image_size, self.image_size, 3)
        return {
            "prior": Component(self.prior, prior, "prior", DIFFUSION_STEMS, "prior"),
            "clip_text": Component(
                self.clip_text,
                shapes_of(places["clip_text"], self.clip_text.init, ids, ids, ids),
                "text_encoder", TRANSFORMERS_STEMS, "prior", ignored=CLIP_IGNORED,
            ),
            "clip_image": Component(
                self.clip_image,
                shapes_of(places["clip_image"], self.clip_image.init, pixels),
                "image_encoder", TRANSFORMERS_STEMS, "prior", ignored=CLIP_IGNORED,
            ),
            "text_encoder": Component(
                self.text_encoder,
                shapes_of(places["text_encoder"], self.text_encoder.init, ids, ids),
                "text_encoder", TRANSFORMERS_STEMS,
                ignored=(r"transformer\.pooler\..*", r"transformer\.embeddings\.position_ids"),
            ),
            "unet": Component(self.unet, unet, "unet", DIFFUSION_STEMS),
            "movq": Component(
                self.movq,
                shapes_of(places["movq"], self.movq.init, array(*self.latent_shape)),
                "movq", DIFFUSION_STEMS,
                ignored=(r"encoder\..*", r"quant_conv\..*", r"quantize\..*"),
            ),
        }  # fmt: skip

    def prompts(self, captions: Sequence[str]) -> Prompts:
        n = len(captions)
        arrays, n_truncated = {}, 0
        for name, tokenizer in (("clip", self.clip_tokenizer), ("text", self.tokenizer)):
            tokens, empty = tokenizer(captions, LENGTH), tokenizer([""], LENGTH)
            arrays |= {
                f"{name}_ids": tokens.ids,
                f"{name}_mask": tokens.mask,
                f"{name}_empty_ids": np.repeat(empty.ids, n, axis=0),
                f"{name}_empty_mask": np.repeat(empty.mask, n, axis=0),
            }
            n_truncated = max(n_truncated, tokens.n_truncated)
        return Prompts(arrays, n_truncated)

    def abstract_prompts(self, n: int) -> dict[str, jax.ShapeDtypeStruct]:
        ids = jax.ShapeDtypeStruct((n, LENGTH), jnp.int32)
        kinds = ("ids", "mask", "empty_ids", "empty_mask")
        return {f"{name}_{kind}": ids for name in ("clip", "text") for kind in kinds}

    def sample(self, params: Any, batch: dict[str, Array], keys: Key[Array, " B"]) -> Samples:
        prior_key, step_key, image_key = jax.vmap(lambda key: jax.random.split(key, 3))(keys).T
        width = self.prior_config.embedding_dim

        def draw(i):
            return normal_rows(jax.vmap(jax.random.fold_in, (0, None))(step_key, i), (width,))

        embedding = self.draw_embedding(params, batch, normal_rows(prior_key, (width,)), draw)
        latents = self.denoise(params, batch, embedding, normal_rows(image_key, self.latent_shape))
        return as_samples(self.decode(params, latents))

    def draw_embedding(
        self, params: Any, batch: dict[str, Array], noise: Float[Array, "B D"], draw: Any
    ) -> Float[Array, "B 2 D"]:
        """CLIP image embeddings: that of black, and one for the caption.

        Args:
          params: of all components.
          batch: arrays of the prompts.
          noise: to start from.
          draw: number of a step -> noise [B, D].
        """
        without = self._clip(params, batch["clip_empty_ids"][:1], batch["clip_empty_mask"][:1])
        with_caption = self._clip(params, batch["clip_ids"], batch["clip_mask"])
        embedding, text = map(pair, without, with_caption)
        mask = pair(batch["clip_empty_mask"][:1], batch["clip_mask"]).astype(bool)

        def predict(x, t):
            def prior(x, embedding, text, mask):
                time = jnp.full(x.shape[0], t, jnp.float32)
                return self.prior.apply({"params": params["prior"]}, x, time, embedding, text, mask)

            return guided(prior, x, self.settings.prior_guidance, embedding, text, mask)

        x = schedules.run(self.prior_schedule, predict, noise, draw)
        mean, std = (
            params["prior"][name].astype(jnp.float32) for name in ("clip_mean", "clip_std")
        )
        black = jnp.zeros((1, self.image_size, self.image_size, 3))
        black = self.clip_image.apply({"params": params["clip_image"]}, black)
        return pair(black.astype(jnp.float32), x * std + mean)

    def _clip(self, params, ids, mask):
        """Embedding and features of the text; attention sees padding, as the reference's does."""
        positions = jnp.broadcast_to(jnp.arange(LENGTH), ids.shape)
        variables = {"params": params["clip_text"]}
        output = self.clip_text.apply(variables, ids, jnp.ones_like(mask), positions)
        return output[0], output[1]

    def denoise(
        self,
        params: Any,
        batch: dict[str, Array],
        image_embedding: Float[Array, "B 2 D"],
        noise: Float[Array, "B h w c"],
    ) -> Float[Array, "B h w c"]:
        """Latents from noise."""
        variables = {"params": params["text_encoder"]}
        without = self.text_encoder.apply(
            variables, batch["text_empty_ids"][:1], batch["text_empty_mask"][:1]
        )
        with_caption = self.text_encoder.apply(variables, batch["text_ids"], batch["text_mask"])
        embedding, text = map(pair, without, with_caption)

        def predict(x, t):
            def unet(x, text, embedding, image_embedding):
                time = jnp.full(x.shape[0], t, jnp.float32)
                output = self.unet.apply(
                    {"params": params["unet"]}, x, time, text, embedding, image_embedding
                )
                return output[..., : self.unet_config.in_channels]  # the rest is its variance

            return guided(unet, x, self.settings.guidance, text, embedding, image_embedding)

        return schedules.run(self.schedule, predict, noise)

    def decode(self, params: Any, latents: Float[Array, "B h w c"]) -> Float[Array, "B H W 3"]:
        """Pixels in about [-1, 1], an image at a time."""

        def one(latents):
            pixels = self.movq.apply({"params": params["movq"]}, latents[None])[0]
            return pixels.astype(jnp.float32)

        return jax.lax.map(one, latents)

    def round_trip(self) -> RoundTrip:
        """Real images through MoVQ, past its codebook; see `bsjax.generators.protocol.RoundTrip`.

        Raises:
          UserError: a config that the encoding half cannot be built from.
        """
        place = self.CONFIGS["movq"]
        config = MoVQEncoderConfig.of(read_settings(WHOLE_MOVQ, self.movq_config, place))
        encoder = MoVQEncoder(config, jnp.dtype(self.settings.dtype))
        height, width = (side * self.down for side in self.latent_shape[:2])
        pixels = jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)
        component = self.components["movq"]
        component = component._replace(
            shapes={**component.shapes, **shapes_of(place, encoder.init, pixels)},
            ignored=(r"quantize\..*",),
        )

        def apply(params: Any, images: Float[Array, "B H W 3"]) -> Float[Array, "B H W 3"]:
            def one(image):
                return encoder.apply({"params": params}, image[None])[0].astype(jnp.float32)

            return self.decode({"movq": params}, jax.lax.map(one, images))

        return RoundTrip("movq", component, height, width, apply)
