"""What config.json of a DINOv2 repository may say, for the module that takes its weights."""

import pathlib
from types import NoneType

from bsjax.convert.config_keys import ANY_TRANSFORMER, Key, check_keys, read_object
from bsjax.models.dinov2 import DinoV2Config

# Training, which output is handed on under what name, and what every config of transformers may
# have, most of it for text: none of it changes the tokens behind the last norm.
HARMLESS = frozenset((
    *ANY_TRANSFORMER, "hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate",
    "layerscale_value", "use_mask_token", "out_features", "out_indices", "stage_names",
    "apply_layernorm", "reshape_hidden_states", "chunk_size_feed_forward", "is_encoder_decoder",
    "is_decoder", "add_cross_attention", "pad_token_id", "eos_token_id", "attn_implementation",
))  # fmt: skip


def encoder_keys(config: DinoV2Config) -> dict[str, Key]:
    """The keys that make a module of these sizes; defaults are those of transformers' classes."""
    has_registers = config.n_registers > 0
    keys = {
        "model_type": Key(
            (str,), only="dinov2_with_registers" if has_registers else "dinov2", needed=True
        ),
        "hidden_size": Key((int,), only=config.width, default=768),
        "num_hidden_layers": Key((int,), only=config.depth, default=12),
        "num_attention_heads": Key((int,), only=config.n_heads, default=12),
        "image_size": Key((int,), only=config.pretrain_grid * config.patch_size, default=224),
        "patch_size": Key((int,), only=config.patch_size, default=16 if has_registers else 14),
        "num_channels": Key((int,), only=3, default=3),
        "mlp_ratio": Key((float,), only=4, default=4),
        "use_swiglu_ffn": Key((bool,), only=config.mlp == "swiglu", default=False),
        "hidden_act": Key((str,), only="gelu", default="gelu"),
        "layer_norm_eps": Key((float,), only=config.norm_eps, default=1e-6),
        "qkv_bias": Key((bool,), only=True, default=True),
        "pruned_heads": Key((dict, NoneType), only=({}, None), default=None),
    }
    if has_registers:
        keys["num_register_tokens"] = Key((int,), only=config.n_registers, default=4)
        # The released files still have these two of the original code; transformers does the same
        # whatever they say.
        keys["interpolate_antialias"] = Key((bool,), only=True, default=True)
        keys["interpolate_offset"] = Key((float,), only=0.0, default=0.0)
    return keys


def check_encoder_config(folder: pathlib.Path, config: DinoV2Config, flag: str) -> None:
    """Refuses a folder whose config.json, if it has one, asks for another module.

    Raises:
      UserError: keys that are unknown, missing, or of other values than `config` has; damaged.
    """
    path = folder / "config.json"
    content = read_object(path)
    if content is None:
        return
    check_keys(str(path), content, encoder_keys(config), HARMLESS, flag)
