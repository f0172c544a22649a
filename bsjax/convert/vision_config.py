"""What config.json of a CLIP or SigLIP repository says about the image tower.

Absent keys mean what they mean to transformers' CLIPVisionConfig and SiglipVisionConfig.
"""

import pathlib
from collections.abc import Collection, Mapping
from types import NoneType
from typing import Any

from bsjax.convert.config_keys import ANY_TRANSFORMER, Key, check_keys, read_object, shown
from bsjax.convert.encoder_files import CONFIG
from bsjax.core.errors import UserError
from bsjax.models.vision_transformer import ACTIVATIONS, VisionConfig

LARGEST = 1 << 24
LAYERS = 200  # more is a typing error, and would be built for hours
# Training, and what every config of transformers may have, most of it for text.
HARMLESS = frozenset((
    *ANY_TRANSFORMER, "dropout", "attention_dropout", "initializer_factor", "projection_dim",
    "is_encoder_decoder", "pad_token_id", "eos_token_id", "attn_implementation",
))  # fmt: skip
# Of the repository of a tower with its text: all of these are about the text or how both meet.
BOTH_HARMLESS = HARMLESS | {"text_config", "text_config_dict", "logit_scale_init_value"}
NESTED = {"clip": "clip_vision_model", "siglip": "siglip_vision_model"}
MODEL_TYPES = (*NESTED, *NESTED.values())


def _size(default: int, most: int = LARGEST) -> Key:
    return Key((int,), default=default, least=1, most=most)


def tower_keys(model_type: str) -> dict[str, Key]:
    """The keys of the image tower itself."""
    is_clip = model_type == "clip_vision_model"
    keys = {
        "model_type": Key((str,), only=model_type, default=model_type),
        "hidden_size": _size(768),
        "intermediate_size": _size(3072),
        "num_hidden_layers": _size(12, LAYERS),
        "num_attention_heads": _size(12),
        "num_channels": Key((int,), only=3, default=3),
        "image_size": _size(224, 1 << 14),
        "patch_size": _size(32 if is_clip else 16, 1 << 14),
        "hidden_act": Key(
            (str,), tuple(ACTIVATIONS), default="quick_gelu" if is_clip else "gelu_pytorch_tanh"
        ),
        "layer_norm_eps": Key((float,), default=1e-5 if is_clip else 1e-6, least=1e-12, most=1),
        "is_decoder": Key((bool,), only=False, default=False),
        "add_cross_attention": Key((bool,), only=False, default=False),
        "chunk_size_feed_forward": Key((int,), only=0, default=0),
        "pruned_heads": Key((dict, NoneType), only=({}, None), default=None),
    }
    if not is_clip:
        keys["vision_use_head"] = Key((bool,), default=True)  # what pools the tokens, not used here
    return keys


def read_tower(
    folder: pathlib.Path, flag: str, model_types: Collection[str] = MODEL_TYPES
) -> VisionConfig | None:
    """The sizes that a repository's config.json has; None: there is no such file.

    Args:
      folder: of the repository: of the image tower alone, or of both towers.
      flag: what an error tells the user to set.
      model_types: those that are taken.

    Raises:
      UserError: another model's, keys that are unknown or ask for what is not done here, damaged.
    """
    path = folder / CONFIG
    content = read_object(path)
    if content is None:
        return None
    model_type = content.get("model_type")
    if model_type not in model_types:
        raise UserError(
            f"{path} is of model_type {shown(model_type)}, expected one of"
            f" {', '.join(model_types)}; set {flag} or {{variant}} to match",
            "variant",
        )
    if model_type in NESTED:
        keys = {
            "model_type": Key((str,), only=model_type),
            "vision_config": Key((dict, NoneType), default=None),
            "vision_config_dict": Key((dict, NoneType), default=None),
        }
        both = check_keys(str(path), content, keys, BOTH_HARMLESS, flag)
        model_type = NESTED[model_type]
        inner = both["vision_config"] or {}
        check_keys(f"{path} (vision_config)", inner, tower_keys(model_type), HARMLESS, flag)
        # transformers takes this one, where it is there, with defaults for what it lacks.
        old = both["vision_config_dict"]
        content = inner if old is None or model_type != NESTED["clip"] else old
        path = f"{path} (vision_config)"
    return _sizes(str(path), content, model_type, flag)


def _sizes(where: str, content: Mapping[str, Any], model_type: str, flag: str) -> VisionConfig:
    values = check_keys(where, content, tower_keys(model_type), HARMLESS, flag)
    width, n_heads = values["hidden_size"], values["num_attention_heads"]
    image_size, patch_size = values["image_size"], values["patch_size"]
    for key, is_wrong, expected in (
        ("num_attention_heads", width % n_heads, f"a divisor of hidden_size={width}"),
        ("patch_size", patch_size > image_size, f"at most image_size={image_size}"),
    ):
        if is_wrong:
            raise UserError(
                f"{where} cannot be followed: {key}={values[key]}: expected {expected}; set {flag}"
                " to a repository without that"
            )
    return VisionConfig(
        width=width,
        depth=values["num_hidden_layers"],
        n_heads=n_heads,
        mlp_width=values["intermediate_size"],
        patch_size=patch_size,
        image_size=image_size,
        activation=values["hidden_act"],
        norm_eps=values["layer_norm_eps"],
        n_class=int(model_type == "clip_vision_model"),
    )
