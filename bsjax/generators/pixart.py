"""PixArt-alpha at 512 and 1024 pixels (arXiv:2310.00426).

T5-XXL is four times the rest: prompts are encoded in a phase of its own (`encode_text`), and the
sampler reads features. Captions are lower-cased and stripped, as the pipeline does where its
cleaning of web text is off.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Key

from bsjax.core.errors import UserError
from bsjax.core.mesh import MODEL
from bsjax.generators import schedules
from bsjax.generators.latents import decode_latents, make_vae, round_trip_of, vae_component
from bsjax.generators.modules import (
    DIFFUSION_STEMS,
    TRANSFORMERS_STEMS,
    require_vocabulary,
    shapes_of,
)
from bsjax.generators.network_keys import (
    PIXART_TRANSFORMER,
    T5,
    VAE,
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
    guided,
    normal_rows,
    pair,
)
from bsjax.generators.tokenizers import ByteTokenizer, Tokenizer
from bsjax.models.pixart import PixArtConfig, PixArtTransformer
from bsjax.models.t5_encoder import T5Config, T5Encoder

MAX_TOKENS = 120
# Shapes that the model was trained on: height and width in 64 pixels (1024) or 32 (512).
SHAPES = (
    (8, 32), (8, 29), (9, 28), (9, 27), (9, 26), (10, 25), (10, 24), (11, 23), (11, 22), (11, 21),
    (12, 21), (12, 20), (13, 19), (13, 18), (14, 18), (14, 17), (15, 17), (15, 16), (16, 16),
    (16, 15), (17, 15), (17, 14), (18, 14), (18, 13), (19, 13), (20, 12), (21, 12), (22, 11),
    (23, 11), (24, 10), (25, 10), (27, 9), (32, 8),
)  # fmt: skip
# Buffers that versions of diffusers saved beside the parameters: the sines of positions, and the
# empty caption of training (120 tokens), which the 1024 model's file still holds.
IGNORED = (r"pos_embed\.pos_embed", r"caption_projection\.y_embedding")


class PixArt:
    """The system that the configs describe; see `bsjax.generators.protocol.Generator`.

    Args:
      configs: of transformer, vae, text_encoder and scheduler, as their json files have them.
      settings: how images are drawn.
      tokenizers: "tokenizer"; empty: bytes.

    Raises:
      UserError: a config that these modules cannot be built from.
    """

    # Name -> (repository, folder[, class]).
    CONFIGS = {
        "transformer": ("", "transformer"),
        "vae": ("", "vae"),
        "text_encoder": ("", "text_encoder"),
        "scheduler": ("", "scheduler"),
    }
    NETWORKS = {"transformer": PIXART_TRANSFORMER, "text_encoder": T5, "vae": VAE}
    TOKENIZERS = {"tokenizer": ("", "tokenizer", "T5Tokenizer")}
    TEXT_COMPONENTS = ("text_encoder",)

    def __init__(
        self,
        configs: Mapping[str, Mapping[str, Any]],
        settings: Settings,
        tokenizers: Mapping[str, Tokenizer] | None = None,
    ):
        self.settings = settings
        self.tokenizer = (tokenizers or {}).get("tokenizer", ByteTokenizer())
        dtype = jnp.dtype(settings.dtype)
        transformer, text, vae = (
            read_settings(network, configs[name], self.CONFIGS[name])
            for name, network in self.NETWORKS.items()
        )
        self.config = PixArtConfig.of(transformer)
        require_equal(
            ("transformer.caption_channels", self.config.caption_channels),
            ("text_encoder.d_model", text["d_model"]),
        )
        require_equal(
            ("transformer.cross_attention_dim", transformer["cross_attention_dim"]),
            ("num_attention_heads * attention_head_dim", self.config.width),
        )
        require_equal(
            ("transformer.in_channels", self.config.in_channels),
            ("vae.latent_channels", vae["latent_channels"]),
        )
        require_channels("transformer", self.config.in_channels, self.config.out_channels)
        require_vocabulary(self.tokenizer, text["vocab_size"], self.CONFIGS["text_encoder"])
        self.transformer = PixArtTransformer(self.config, dtype)
        self.text_encoder = T5Encoder(T5Config.of(text), dtype)
        self.vae = make_vae(vae, dtype)
        self.vae_config = configs["vae"]
        self.scaling = vae["scaling_factor"]
        self.schedule = schedules.make_schedule(configs["scheduler"], settings.steps)
        self.height, self.width = nearest_shape(
            settings.height, settings.width, self.config.sample_size
        )
        down = 2 ** (len(vae["block_out_channels"]) - 1)
        self.latent_shape = (self.height // down, self.width // down, self.config.in_channels)
        self.components = self._components()

    def _components(self) -> dict[str, Component]:
        def array(*shape, dtype=jnp.float32):
            return jax.ShapeDtypeStruct((1, *shape), dtype)

        context = array(MAX_TOKENS, self.config.caption_channels)
        mask = array(MAX_TOKENS, dtype=bool)
        transformer = shapes_of(
            self.CONFIGS["transformer"], self.transformer.init, array(*self.latent_shape), array(),
            context, mask, array(2), array(1),
        )  # fmt: skip
        text = shapes_of(
            self.CONFIGS["text_encoder"], self.text_encoder.init,
            array(MAX_TOKENS, dtype=jnp.int32), mask,
        )  # fmt: skip
        return {
            "transformer": Component(
                self.transformer, transformer, "transformer", DIFFUSION_STEMS,
                ignored=IGNORED,
            ),
            "vae": vae_component(self.vae, self.latent_shape),
            "text_encoder": Component(
                self.text_encoder, text, "text_encoder", TRANSFORMERS_STEMS,
                ignored=(r"encoder\.embed_tokens\.weight",),  # the same as shared
            ),
        }  # fmt: skip

    def prompts(self, captions: Sequence[str]) -> Prompts:
        tokens = self.tokenizer([caption.lower().strip() for caption in captions], MAX_TOKENS)
        arrays = {"ids": tokens.ids, "mask": tokens.mask.astype(bool)}
        return Prompts(arrays, tokens.n_truncated)

    def abstract_prompts(self, n: int) -> dict[str, jax.ShapeDtypeStruct]:
        shape = (n, MAX_TOKENS)
        features = (*shape, self.config.caption_channels)
        dtype = jnp.dtype(self.settings.dtype)
        return {
            "features": jax.ShapeDtypeStruct(features, dtype),
            "mask": jax.ShapeDtypeStruct(shape, bool),
            "empty_features": jax.ShapeDtypeStruct(features, dtype),
            "empty_mask": jax.ShapeDtypeStruct(shape, bool),
        }

    def abstract_tokens(self, n: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of `n` captions' arrays before the first phase."""
        return {
            "ids": jax.ShapeDtypeStruct((n, MAX_TOKENS), jnp.int32),
            "mask": jax.ShapeDtypeStruct((n, MAX_TOKENS), bool),
        }

    def encode_text(self, params: Any, batch: dict[str, Array]) -> Float[Array, "B T E"]:
        """T5 features of tokenised prompts."""
        variables = {"params": params["text_encoder"]}
        return self.text_encoder.apply(variables, batch["ids"], batch["mask"])

    @staticmethod
    def text_partition(path: str) -> PartitionSpec:
        """How T5's parameters are divided: heads and hidden units over `model`."""
        if path.endswith(("q/kernel", "k/kernel", "v/kernel", "wi_0/kernel", "wi_1/kernel")):
            return PartitionSpec(None, MODEL)
        if path.endswith(("o/kernel", "wo/kernel")):
            return PartitionSpec(MODEL)
        return PartitionSpec()

    def sample(self, params: Any, batch: dict[str, Array], keys: Key[Array, " B"]) -> Samples:
        latents = self.denoise(params, batch, normal_rows(keys, self.latent_shape))
        return as_samples(self.decode(params, latents))

    def denoise(
        self, params: Any, batch: dict[str, Array], noise: Float[Array, "B h w c"]
    ) -> Float[Array, "B h w c"]:
        """Latents from noise."""
        context = pair(batch["empty_features"][:1], batch["features"])
        mask = pair(batch["empty_mask"][:1], batch["mask"])
        resolution = jnp.asarray([[self.height, self.width]], jnp.float32)
        ratio = jnp.asarray([[self.height / self.width]], jnp.float32)

        def predict(x, t):
            def transformer(x, context, mask):
                n = x.shape[0]
                output = self.transformer.apply(
                    {"params": params["transformer"]}, x, jnp.full(n, t, jnp.float32), context,
                    mask, jnp.tile(resolution, (n, 1)), jnp.tile(ratio, (n, 1)),
                )  # fmt: skip
                return output[..., : self.config.in_channels]

            return guided(transformer, x, self.settings.guidance, context, mask)

        return schedules.run(self.schedule, predict, noise)

    def decode(self, params: Any, latents: Float[Array, "B h w c"]) -> Float[Array, "B H W 3"]:
        """Pixels in about [-1, 1], of the size that was asked for."""
        pixels = decode_latents(self.vae, params["vae"], latents / self.scaling)
        height, width = self.settings.height, self.settings.width
        if (self.height, self.width) == (height, width):
            return pixels
        ratio = max(height / self.height, width / self.width)
        resized = (int(self.height * ratio), int(self.width * ratio))
        pixels = jax.image.resize(
            pixels, (pixels.shape[0], *resized, 3), "bilinear", antialias=False
        )
        top, left = (resized[0] - height) // 2, (resized[1] - width) // 2
        return pixels[:, top : top + height, left : left + width]

    def round_trip(self) -> RoundTrip:
        """Real images through the VAE; see `bsjax.generators.protocol.RoundTrip`."""

        def decode(params, latents):
            return self.decode({"vae": params}, latents * self.scaling)

        size, dtype = (self.height, self.width), jnp.dtype(self.settings.dtype)
        return round_trip_of(self.vae_config, self.components["vae"], dtype, size, decode)


def nearest_shape(height: int, width: int, sample_size: int) -> tuple[int, int]:
    """The trained shape whose aspect ratio is nearest, in pixels.

    Images far smaller than any of them are drawn as asked: for trials.

    Raises:
      UserError: a model that was trained on neither 512 nor 1024 pixels.
    """
    if sample_size not in (64, 128):
        raise UserError(
            f"transformer/config.json has sample_size={sample_size}: expected 64 (512 pixels) or"
            " 128 (1024 pixels); set --config.generator.weights"
        )
    unit = sample_size // 2
    if height * width < (SHAPES[0][0] * unit) ** 2:
        return height, width
    # Ratios were rounded when the table was made, which decides ties.
    nearest = min(SHAPES, key=lambda shape: abs(round(shape[0] / shape[1], 2) - height / width))
    return nearest[0] * unit, nearest[1] * unit
