"""Writes the trained networks as the hub has them: diffusers' and transformers' folders, f16."""

import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tokenizers
from flax import traverse_util
from safetensors.numpy import save_file

from bsjax.core.artifacts import atomic_path, write_json
from bsjax.models.dinov2 import DinoV2Config

# Layers whose name ends in a number of their own, which no dot goes before in torch.
NUMBERED = re.compile(r"(linear|norm|conv|fc)_?\d+$")
# The autoencoder's attention has other names in flax.
VAE_RENAMES = (
    (r"(attentions\.\d+)\.query\.", r"\1.to_q."),
    (r"(attentions\.\d+)\.key\.", r"\1.to_k."),
    (r"(attentions\.\d+)\.value\.", r"\1.to_v."),
    (r"(attentions\.\d+)\.proj_attn\.", r"\1.to_out.0."),
)
SPECIAL = ("<|startoftext|>", "<|endoftext|>")


def torch_state(params: Any, renames: Sequence[tuple[str, str]] = ()) -> dict[str, np.ndarray]:
    """flax parameters under the names and in the axes that torch has them in, float16.

    The inverse of `bsjax.convert.tables.convert_by_name`.
    """
    state = {}
    for path, leaf in traverse_util.flatten_dict(dict(params), sep="/").items():
        *layers, last = path.split("/")
        parts = [
            part if NUMBERED.fullmatch(part) else re.sub(r"_(\d+)$", r".\1", part)
            for part in layers
        ]
        leaf = np.asarray(leaf)
        if last == "kernel":
            leaf = np.moveaxis(leaf, (-1, -2), (0, 1))
        name = ".".join([*parts, "bias" if last == "bias" else "weight"])
        for pattern, replacement in renames:
            name = re.sub(pattern, replacement, name)
        state[name] = np.ascontiguousarray(leaf, np.float16)
    return state


def write_component(
    folder: pathlib.Path, state: Mapping[str, np.ndarray], config: Mapping[str, Any], stem: str
) -> None:
    """config.json and one safetensors file."""
    write_json(folder / "config.json", config)
    with atomic_path(folder / f"{stem}.safetensors") as temporary:
        save_file(dict(state), temporary, metadata={"format": "pt"})


def write_model_index(folder: pathlib.Path) -> None:
    """The file that diffusers' pipelines begin with."""
    components = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.39.0",
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
        "requires_safety_checker": False,
    }
    write_json(folder / "model_index.json", components)


def write_tokenizer(folder: pathlib.Path, words: Sequence[str], length: int) -> None:
    """CLIP's byte-pair encoding, in whose vocabulary each of the words is one token."""
    folder.mkdir(parents=True, exist_ok=True)
    model = tokenizers.Tokenizer(tokenizers.models.BPE(end_of_word_suffix="</w>"))
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    model.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=100_000, min_frequency=1, initial_alphabet=alphabet,
        end_of_word_suffix="</w>", show_progress=False,
    )  # fmt: skip
    # CLIP's own splitting takes commas and colons off the words.
    parts = sorted({part for word in words for part in re.findall(r"\w+|[^\w\s]", word.lower())})
    model.train_from_iterator(parts, trainer)
    found = json.loads(model.to_str())["model"]
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in found["merges"]]
    symbols = sorted(alphabet)
    vocabulary = symbols + [f"{symbol}</w>" for symbol in symbols]
    vocabulary += [merge.replace(" ", "") for merge in merges]
    vocabulary = [*dict.fromkeys(vocabulary), *SPECIAL]
    write_json(folder / "vocab.json", {word: i for i, word in enumerate(vocabulary)})
    text = "\n".join(["#version: 0.2", *merges]) + "\n"
    (folder / "merges.txt").write_text(text, encoding="utf-8")
    start, end = SPECIAL
    special = {"bos_token": start, "eos_token": end, "pad_token": end, "unk_token": end}
    write_json(folder / "special_tokens_map.json", special)
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": length, **special}
    write_json(folder / "tokenizer_config.json", settings)


def dinov2_state(params: Any) -> dict[str, np.ndarray]:
    """DINOv2's parameters under the names that transformers has them in, float16."""
    tops = {
        "cls_token": "embeddings.cls_token",
        "pos_embed": "embeddings.position_embeddings",
        "register_tokens": "embeddings.register_tokens",
        "patch_embed": "embeddings.patch_embeddings.projection",
        "norm": "layernorm",
    }
    inner = {
        "proj": "attention.output.dense",
        "fc1": "mlp.fc1",
        "fc2": "mlp.fc2",
        "ls1": "layer_scale1.lambda1",
        "ls2": "layer_scale2.lambda1",
        "norm1": "norm1",
        "norm2": "norm2",
    }
    state = {"embeddings.mask_token": np.zeros((1, params["cls_token"].shape[-1]))}
    for path, leaf in traverse_util.flatten_dict(dict(params)).items():
        leaf = np.asarray(leaf)
        top, *layers = path
        ending = [{"kernel": "weight", "scale": "weight"}.get(part, part) for part in layers[-1:]]
        if top in tops:
            if top == "patch_embed" and ending == ["weight"]:
                size = round((leaf.shape[0] // 3) ** 0.5)
                leaf = leaf.reshape(size, size, 3, -1).transpose(3, 2, 0, 1)
            state[".".join([tops[top], *ending])] = leaf
            continue
        layer = f"encoder.layer.{top.removeprefix('block_')}"
        leaf = leaf.T if layers[-1] == "kernel" else leaf
        if layers[0] == "qkv":
            for name, part in zip(("query", "key", "value"), np.split(leaf, 3), strict=True):
                state[".".join([f"{layer}.attention.attention.{name}", *ending])] = part
        else:
            state[".".join([layer, inner[layers[0]], *(ending if len(layers) > 1 else [])])] = leaf
    return {name: np.ascontiguousarray(leaf, np.float16) for name, leaf in state.items()}


def dinov2_config(config: DinoV2Config) -> dict[str, Any]:
    """config.json of Dinov2WithRegistersModel."""
    return {
        "architectures": ["Dinov2WithRegistersModel"],
        "model_type": "dinov2_with_registers",
        "hidden_size": config.width,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.n_heads,
        "num_register_tokens": config.n_registers,
        "patch_size": config.patch_size,
        "image_size": config.patch_size * config.pretrain_grid,
        "mlp_ratio": 4,
        "hidden_act": "gelu",
        "layer_norm_eps": config.norm_eps,
        "qkv_bias": True,
        "use_swiglu_ffn": False,
        "layerscale_value": 1.0,
    }
