"""What each key of the networks' config.json means here; see `config_keys`.

A key is used, or must have the one value that the module has built in, or changes nothing when
images are drawn (HARMLESS). Absent keys mean what they mean to the class that diffusers or
transformers builds from the file; tests/generators/test_network_keys.py holds the tables to these
classes' signatures, and HARMLESS to what torch computes.
"""

from collections.abc import Collection, Mapping
from types import NoneType
from typing import Any, NamedTuple

from bsjax.convert.config_keys import ANY_TRANSFORMER, Key, check_keys, shown
from bsjax.core.errors import UserError
from bsjax.generators.protocol import flag_of

LAYERS = 200  # more is a typing error, and would be built for hours


class Network(NamedTuple):
    """The keys of one kind of network."""

    known: Mapping[str, Key]
    harmless: Collection[str]
    blocks: Mapping[str, tuple[str, ...]] = {}  # key of a list with an entry a level -> its choices


def fixed(value: Any, *others: Any) -> Key:
    """A key whose value is built in; absent it means the first of these."""
    values = (value, *others)
    return Key(tuple({list if isinstance(v, tuple) else type(v) for v in values}), values, False,
               value)  # fmt: skip


def size(default: int, most: int = 1 << 24) -> Key:
    """A whole number of at least 1."""
    return Key((int,), default=default, least=1, most=most)


def sizes(*default: int) -> Key:
    return Key((list,), default=default, items=(int,), least=1, most=1 << 20)


def names(*default: str) -> Key:
    return Key((list,), default=default, items=(str,))


FLAG = Key((bool,))
NEEDED_SIZE = Key((int,), needed=True, least=1, most=1 << 24)
# An epsilon of a norm.
EPSILON = Key((float,), least=1e-12, most=1e-2)

_UNET = {
    "in_channels": size(4),
    "out_channels": size(4),
    "down_block_types": names(*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"),
    "up_block_types": names("UpBlock2D", *["CrossAttnUpBlock2D"] * 3),
    "block_out_channels": sizes(320, 640, 1280, 1280),
    "layers_per_block": size(2, LAYERS),
    "cross_attention_dim": size(1280),
    "act_fn": fixed("silu", "swish"),
    "center_input_sample": fixed(False),
    "downsample_padding": fixed(1),
    "mid_block_scale_factor": fixed(1),
    "norm_num_groups": fixed(32),
    "dual_cross_attention": fixed(False),
    "class_embed_type": fixed(None),
    "class_embeddings_concat": fixed(False),
    "num_class_embeds": fixed(None),
    "projection_class_embeddings_input_dim": fixed(None),
    "resnet_skip_time_act": fixed(False),
    "resnet_out_scale_factor": fixed(1.0),
    "time_embedding_type": fixed("positional"),
    "time_embedding_dim": fixed(None),
    "time_embedding_act_fn": fixed(None),
    "timestep_post_act": fixed(None),
    "time_cond_proj_dim": fixed(None),
    "conv_in_kernel": fixed(3),
    "conv_out_kernel": fixed(3),
    "num_attention_heads": fixed(None),
    "attention_type": fixed("default"),
    "only_cross_attention": fixed(False),
    "mid_block_only_cross_attention": fixed(None, False),
    "cross_attention_norm": fixed(None),
    "transformer_layers_per_block": fixed(1),
    "reverse_transformer_layers_per_block": fixed(None),
    "flip_sin_to_cos": fixed(True),
    "freq_shift": fixed(0),
}
# Scores are float32 whatever `upcast_attention` says. Projections are read from convolutions and
# from linear layers alike. The others belong to inputs that these UNets do not have.
_UNET_HARMLESS = (
    "sample_size", "dropout", "upcast_attention", "use_linear_projection",
    "addition_time_embed_dim", "addition_embed_type_num_heads",
)  # fmt: skip
SD_UNET = Network(
    _UNET
    | {
        "attention_head_dim": Key((int, list), default=8, items=(int,), least=1, most=1 << 16),
        "norm_eps": fixed(1e-5),
        "resnet_time_scale_shift": fixed("default"),
        "mid_block_type": fixed("UNetMidBlock2DCrossAttn"),
        "encoder_hid_dim": fixed(None),
        "encoder_hid_dim_type": fixed(None),
        "addition_embed_type": fixed(None),
    },
    _UNET_HARMLESS,
    {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    },
)
KANDINSKY_UNET = Network(
    _UNET
    | {
        "attention_head_dim": size(8),  # width of a head
        "norm_eps": EPSILON._replace(default=1e-5),
        "resnet_time_scale_shift": Key((str,), "scale_shift", default="default"),
        "mid_block_type": Key(
            (str,), "UNetMidBlock2DSimpleCrossAttn", default="UNetMidBlock2DCrossAttn"
        ),
        "encoder_hid_dim": NEEDED_SIZE,
        "encoder_hid_dim_type": Key((str, NoneType), "text_image_proj", default=None),
        "addition_embed_type": Key((str, NoneType), "text_image", default=None),
    },
    _UNET_HARMLESS,
    {
        "down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        "up_block_types": ("ResnetUpsampleBlock2D", "SimpleCrossAttnUpBlock2D"),
    },
)

_DECODER = {
    "block_out_channels": sizes(64),
    "layers_per_block": size(1, LAYERS),
    "up_block_types": names("UpDecoderBlock2D"),
    "out_channels": fixed(3),
    "act_fn": fixed("silu", "swish"),
    "norm_num_groups": fixed(32),
    "mid_block_add_attention": fixed(True),
}
# Of the encoding half, or of training; the decoder's products are taken in the dtype of the config.
_DECODER_HARMLESS = ("in_channels", "down_block_types", "sample_size", "force_upcast")
VAE = Network(
    _DECODER
    | {
        "latent_channels": size(4),
        "scaling_factor": Key((float,), default=0.18215, least=1e-6, most=1e6),
        "shift_factor": fixed(None),
        "latents_mean": fixed(None),
        "latents_std": fixed(None),
        "use_post_quant_conv": fixed(True),
    },
    (*_DECODER_HARMLESS, "use_quant_conv"),
    {"up_block_types": ("UpDecoderBlock2D",)},
)
MOVQ = Network(
    _DECODER
    | {
        "latent_channels": size(3),
        "vq_embed_dim": Key((int, NoneType), default=None, least=1, most=1 << 24),
        "norm_type": Key((str,), "spatial", default="group"),
        "lookup_from_codebook": fixed(False),
    },
    # The pipeline hands latents over as they are, and past the codebook.
    (*_DECODER_HARMLESS, "num_vq_embeddings", "scaling_factor"),
    {"up_block_types": ("AttnUpDecoderBlock2D", "UpDecoderBlock2D")},
)
# Both halves, for the round trip of real images.
_ENCODER = {"in_channels": fixed(3), "down_block_types": names("DownEncoderBlock2D")}
_ENCODER_HARMLESS = ("sample_size", "force_upcast")
WHOLE_VAE = Network(
    VAE.known | _ENCODER | {"use_quant_conv": fixed(True)},
    _ENCODER_HARMLESS,
    VAE.blocks | {"down_block_types": ("DownEncoderBlock2D",)},
)
WHOLE_MOVQ = Network(
    MOVQ.known | _ENCODER,
    (*_ENCODER_HARMLESS, "num_vq_embeddings", "scaling_factor"),
    MOVQ.blocks | {"down_block_types": ("AttnDownEncoderBlock2D", "DownEncoderBlock2D")},
)

# The class that the released file names, Transformer2DModel, has other defaults than the one that
# diffusers builds today, PixArtTransformer2DModel: what they differ in must be there.
PIXART_TRANSFORMER = Network(
    {
        "num_attention_heads": size(16),
        "attention_head_dim": NEEDED_SIZE,
        "in_channels": NEEDED_SIZE,
        "out_channels": NEEDED_SIZE,
        "num_layers": NEEDED_SIZE._replace(most=LAYERS),
        "cross_attention_dim": NEEDED_SIZE,
        "attention_bias": FLAG._replace(needed=True),
        "sample_size": Key((int,), (64, 128), needed=True),
        "patch_size": NEEDED_SIZE,
        "activation_fn": Key((str,), "gelu-approximate", needed=True),
        "norm_type": Key((str,), "ada_norm_single", needed=True),
        "norm_elementwise_affine": Key((bool,), False, needed=True),
        "norm_eps": EPSILON._replace(needed=True),
        "caption_channels": NEEDED_SIZE,
        "interpolation_scale": Key((float, NoneType), default=None, least=1e-3, most=1e3),
        "use_additional_conditions": Key((bool, NoneType), default=None),
        "attention_type": fixed("default"),
        "double_self_attention": fixed(False),
        "only_cross_attention": fixed(False),
        "use_linear_projection": fixed(False),
        "num_vector_embeds": fixed(None),
    },
    # Timesteps are embedded by sines; the groups belong to a norm that patches do not have.
    ("dropout", "norm_num_groups", "num_embeds_ada_norm", "upcast_attention"),
)
PRIOR = Network(
    {
        "num_attention_heads": size(32),
        "attention_head_dim": size(64),
        "num_layers": size(20, LAYERS),
        "embedding_dim": size(768),
        "num_embeddings": fixed(77),
        "additional_embeddings": fixed(4),
        "added_emb_type": fixed("prd"),
        "encoder_hid_proj_type": fixed("linear"),
        "norm_in_type": fixed(None),
        "embedding_proj_norm_type": fixed(None),
        "time_embed_act_fn": fixed("silu"),
        "time_embed_dim": fixed(None),
        "embedding_proj_dim": fixed(None),
        "clip_embed_dim": fixed(None),
    },
    ("dropout",),
)

_ANY_TRANSFORMER = (
    *ANY_TRANSFORMER, "gradient_checkpointing", "initializer_factor", "output_past", "use_cache",
)  # fmt: skip
_TRANSFORMER = {
    "is_decoder": fixed(False),
    "add_cross_attention": fixed(False),
    "chunk_size_feed_forward": fixed(0),
    "pruned_heads": Key((dict,), {}, default={}),
}
_ACTIVATION = Key((str,), ("quick_gelu", "gelu"), default="quick_gelu")
_CLIP = _TRANSFORMER | {
    "num_hidden_layers": size(12, LAYERS),
    "projection_dim": size(512),
    "hidden_act": _ACTIVATION,
    "layer_norm_eps": EPSILON._replace(default=1e-5),
}
_CLIP_HARMLESS = (*_ANY_TRANSFORMER, "dropout", "attention_dropout", "pad_token_id")
CLIP_TEXT = Network(
    _CLIP
    | {
        "model_type": fixed("clip_text_model"),
        "vocab_size": size(49408),
        "hidden_size": size(512),
        "intermediate_size": size(2048),
        "num_attention_heads": size(8),
        "max_position_embeddings": size(77),
        "eos_token_id": Key((int,), default=49407, least=0, most=1 << 24),
        "use_attention_mask": fixed(False),  # padding is seen, as the pipelines have it
        "is_encoder_decoder": fixed(False),
    },
    _CLIP_HARMLESS,
)
CLIP_VISION = Network(
    _CLIP
    | {
        "model_type": fixed("clip_vision_model"),
        "hidden_size": size(768),
        "intermediate_size": size(3072),
        "num_attention_heads": size(12),
        "num_channels": fixed(3),
        "image_size": size(224, 1 << 14),
        "patch_size": size(32, 1 << 14),
        "is_encoder_decoder": fixed(False),
    },
    (*_CLIP_HARMLESS, "eos_token_id"),
)
T5 = Network(
    _TRANSFORMER
    | {
        "model_type": fixed("t5"),
        "vocab_size": size(32128),
        "d_model": size(512),
        "d_kv": size(64),
        "d_ff": size(2048),
        "num_layers": size(6, LAYERS),
        "num_heads": size(8),
        "relative_attention_num_buckets": size(32),
        "relative_attention_max_distance": size(128),
        "layer_norm_epsilon": EPSILON._replace(default=1e-6),
        "feed_forward_proj": Key((str,), "gated-gelu", default="relu"),
        "dense_act_fn": fixed("gelu_new"),
        "is_gated_act": fixed(True),
    },
    (*_ANY_TRANSFORMER, "dropout_rate", "classifier_dropout", "num_decoder_layers", "eos_token_id",
     "pad_token_id", "is_encoder_decoder"),
)  # fmt: skip
XLM_ROBERTA = Network(
    _TRANSFORMER
    | {
        "model_type": Key((str,), ("xlm-roberta", "M-CLIP"), default="M-CLIP"),
        "vocab_size": size(30522),
        "hidden_size": size(768),
        "num_hidden_layers": size(12, LAYERS),
        "num_attention_heads": size(12),
        "intermediate_size": size(3072),
        "hidden_act": Key((str,), "gelu", default="gelu"),
        "max_position_embeddings": size(512),
        "type_vocab_size": size(2),
        "layer_norm_eps": EPSILON._replace(default=1e-12, least=0.0),
        "pad_token_id": Key((int,), default=1, least=0, most=1 << 24),
        "position_embedding_type": fixed("absolute"),
        # Widths of the linear layer behind it, by the names that its own class gives them.
        "transformerDimensions": size(1024),
        "numDims": size(768),
        "is_encoder_decoder": fixed(False),
    },
    (*_ANY_TRANSFORMER, "hidden_dropout_prob", "attention_probs_dropout_prob",
     "classifier_dropout", "eos_token_id"),
)  # fmt: skip


def read_settings(
    network: Network, config: Mapping[str, Any], place: tuple[str, str]
) -> dict[str, Any]:
    """The values of all known keys, absent ones as the network's own class has them.

    Args:
      network: the tables.
      config: content of config.json.
      place: repository and folder that it lies in, as in a family's CONFIGS.

    Raises:
      UserError: all keys that cannot be followed, in one line.
    """
    repository, folder = place
    where, flag = f"{folder}/config.json", flag_of(repository)
    values = check_keys(where, config, network.known, network.harmless, flag)
    for key, choices in network.blocks.items():
        wrong = [block for block in values[key] if block not in choices]
        n_levels = len(values["block_out_channels"])
        if wrong or len(values[key]) != n_levels:
            raise UserError(
                f"{where} cannot be followed: {key}={shown(values[key])}: expected"
                f" {n_levels} of {', '.join(choices)}, as block_out_channels has; set {flag} to a"
                " repository without that"
            )
    heads = values.get("attention_head_dim")
    if isinstance(heads, list | tuple) and len(heads) != len(values["block_out_channels"]):
        raise UserError(
            f"{where} cannot be followed: attention_head_dim={shown(heads)}: expected"
            f" {len(values['block_out_channels'])} numbers, as block_out_channels has; set"
            f" {flag} to a repository without that"
        )
    return values


def require_equal(*widths: tuple[str, int]) -> None:
    """Refuses networks that cannot follow each other, with the names and the widths.

    Raises:
      UserError: not all widths are the same.
    """
    if len({width for _, width in widths}) > 1:
        text = ", ".join(f"{name}={width}" for name, width in widths)
        raise UserError(
            f"the networks do not fit each other: expected equal widths, got {text}; set"
            f" {flag_of('')} (and unet_weights or prior_weights) to parts of one system"
        )


def require_channels(network: str, n_in: int, n_out: int) -> None:
    """Refuses a denoiser whose output is neither noise nor noise and its variance.

    Raises:
      UserError: with both numbers of channels.
    """
    if n_out not in (n_in, 2 * n_in):
        raise UserError(
            f"{network}/config.json has in_channels={n_in}, out_channels={n_out}: expected"
            f" {n_in} or {2 * n_in} of these; set {flag_of('')} to a text-to-image system"
        )
