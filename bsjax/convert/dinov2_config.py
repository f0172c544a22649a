"""What config.json of a DINOv2 repository may say, for the module that takes its weights."""

import json
import pathlib
from types import NoneType

from bsjax.convert.config_keys import Key, check_keys
from bsjax.convert.lfs import refuse_pointer
from bsjax.core.errors import UserError
from bsjax.models.dinov2 import DinoV2Config

# Training, which output is handed on under what name, and what every config of transformers may
# have, most of it for text: none of it changes the tokens behind the last norm.
HARMLESS = frozenset((
    "hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate", "initializer_range",
    "layerscale_value", "use_mask_token", "out_features", "out_indices", "stage_names",
    "apply_layernorm", "reshape_hidden_states", "architectures", "dtype", "torch_dtype",
    "transformers_version", "id2label", "label2id", "problem_type", "finetuning_task",
    "task_specific_params", "return_dict", "output_hidden_states", "output_attentions",
    "torchscript", "tie_word_embeddings", "tie_encoder_decoder", "chunk_size_feed_forward",
    "is_encoder_decoder", "is_decoder", "add_cross_attention", "cross_attention_hidden_size",
    "tokenizer_class", "prefix", "bos_token_id", "pad_token_id", "eos_token_id", "sep_token_id",
    "decoder_start_token_id", "max_length", "min_length", "do_sample", "early_stopping",
    "num_beams", "num_beam_groups", "diversity_penalty", "temperature", "top_k", "top_p",
    "typical_p", "repetition_penalty", "length_penalty", "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size", "bad_words_ids", "num_return_sequences", "output_scores",
    "return_dict_in_generate", "forced_bos_token_id", "forced_eos_token_id",
    "remove_invalid_values", "exponential_decay_length_penalty", "suppress_tokens",
    "begin_suppress_tokens", "tf_legacy_loss", "use_bfloat16", "attn_implementation",
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
    if not path.is_file():
        return
    refuse_pointer(path)
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is cut off or no JSON ({error}); fetch it again") from error
    check_keys(str(path), content, encoder_keys(config), HARMLESS, flag)
