"""Kandinsky's diffusion prior (arXiv:2204.06125, section 2.2): text to CLIP image embedding.

And the two CLIP towers' parts that transformers' Flax lacks. Names follow the checkpoints.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
from transformers import CLIPVisionConfig, XLMRobertaConfig
from transformers.models.clip.modeling_flax_clip import FlaxCLIPVisionTransformer
from transformers.models.xlm_roberta.modeling_flax_xlm_roberta import (
    FlaxXLMRobertaModule,
    create_position_ids_from_input_ids,
)

from bsjax.models.attention import FeedForward, TimestepEmbedding, attention, sinusoid
from bsjax.models.from_json import pick

MASKED = -10_000.0


class PriorConfig(NamedTuple):
    """Sizes, named as in config.json."""

    num_attention_heads: int = 32
    attention_head_dim: int = 64
    num_layers: int = 20
    embedding_dim: int = 768
    num_embeddings: int = 77
    additional_embeddings: int = 4

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "PriorConfig":
        """From config.json."""
        return cls(**pick(config, cls._fields))

    @property
    def width(self) -> int:
        return self.num_attention_heads * self.attention_head_dim

    @property
    def n_tokens(self) -> int:
        return self.num_embeddings + self.additional_embeddings


class CausalAttention(nn.Module):
    """Self-attention to the tokens before, but not to padding."""

    config: PriorConfig
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"], mask: Bool[Array, "B T"]) -> Float[Array, "B T D"]:
        config, (batch, n, width) = self.config, x.shape

        def heads(name):
            y = nn.Dense(width, dtype=self.dtype, name=name)(x)
            return y.reshape(batch, n, config.num_attention_heads, config.attention_head_dim)

        causal = jnp.where(jnp.tri(n, dtype=bool), 0.0, MASKED).astype(self.dtype)[None, None]
        y = attention(heads("to_q"), heads("to_k"), heads("to_v"), mask, causal)
        return nn.Dense(width, dtype=self.dtype, name="to_out_0")(y.reshape(batch, n, width))


class Block(nn.Module):
    """Attention and MLP, each behind a norm."""

    config: PriorConfig
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"], mask: Bool[Array, "B T"]) -> Float[Array, "B T D"]:
        def norm(name):
            return nn.LayerNorm(1e-5, dtype=self.dtype, name=name)

        x = x + CausalAttention(self.config, self.dtype, name="attn1")(norm("norm1")(x), mask)
        return x + FeedForward("gelu", self.dtype, name="ff")(norm("norm3")(x))


class PriorTransformer(nn.Module):
    """Noisy image embedding and text -> the clean image embedding (normalised).

    The parameters clip_mean and clip_std, which turn it into a CLIP embedding, lie here too.
    """

    config: PriorConfig
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B D"],
        t: Float[Array, " B"],
        text_embedding: Float[Array, "B D"],
        text: Float[Array, "B T D"],
        mask: Bool[Array, "B T"],
    ) -> Float[Array, "B D"]:
        config, width = self.config, self.config.width

        def dense(width, name):
            return nn.Dense(width, dtype=self.dtype, name=name)

        def table(name, *shape):
            return self.param(name, nn.initializers.normal(0.02, jnp.float32), (1, *shape))

        table("clip_mean", config.embedding_dim), table("clip_std", config.embedding_dim)
        time = TimestepEmbedding(width, self.dtype, name="time_embedding")(
            sinusoid(t, width).astype(self.dtype)
        )
        last = table("prd_embedding", 1, width)
        tokens = [
            dense(width, "encoder_hidden_states_proj")(text),
            dense(width, "embedding_proj")(text_embedding)[:, None],
            time[:, None],
            dense(width, "proj_in")(x)[:, None],
            jnp.broadcast_to(last, (x.shape[0], 1, width)).astype(self.dtype),
        ]
        y = jnp.concatenate(tokens, axis=1) + table("positional_embedding", config.n_tokens, width)
        mask = jnp.pad(mask, ((0, 0), (0, config.additional_embeddings)), constant_values=True)
        for i in range(config.num_layers):
            y = Block(config, self.dtype, name=f"transformer_blocks_{i}")(y, mask)
        y = nn.LayerNorm(1e-5, dtype=self.dtype, name="norm_out")(y)
        return dense(config.embedding_dim, "proj_to_clip_embeddings")(y[:, -1])


class CLIPVisionWithProjection(nn.Module):
    """CLIP's image tower with its last, linear layer."""

    config: CLIPVisionConfig
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, pixels: Float[Array, "B H W 3"]) -> Float[Array, "B D"]:
        tower = FlaxCLIPVisionTransformer(self.config, self.dtype, name="vision_model")
        project = nn.Dense(
            self.config.projection_dim, use_bias=False, dtype=self.dtype, name="visual_projection"
        )
        return project(tower(pixels)[1])


class MultilingualCLIP(nn.Module):
    """XLM-R and a linear layer over the mean of its tokens."""

    config: XLMRobertaConfig
    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, ids: Int[Array, "B T"], mask: Int[Array, "B T"]
    ) -> tuple[Float[Array, "B D"], Float[Array, "B T E"]]:
        tower = FlaxXLMRobertaModule(
            self.config, self.dtype, add_pooling_layer=False, name="transformer"
        )
        places = create_position_ids_from_input_ids(ids, self.config.pad_token_id)
        tokens = tower(ids, mask, jnp.zeros_like(ids), places, None)[0]
        weights = mask[:, :, None].astype(tokens.dtype)
        mean = jnp.sum(tokens * weights, axis=1) / jnp.sum(weights, axis=1)
        return nn.Dense(self.width, dtype=self.dtype, name="LinearTransformation")(mean), tokens
