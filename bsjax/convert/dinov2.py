"""DINOv2 weights from the hub's layout, from a single file, or from the original release's .pth.

Reads tensors by name without torch and without executing anything; writes nothing.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bsjax.convert.dinov2_config import check_encoder_config
from bsjax.convert.hub import download_snapshot, list_repository
from bsjax.convert.tables import Rule, convert, transpose
from bsjax.convert.tensors import (
    TensorSource,
    choose_files,
    open_files,
    open_folder,
    refuse_folder,
    refuse_kind,
    shards_of,
)
from bsjax.core.errors import UserError
from bsjax.core.rng import seed_key
from bsjax.models.dinov2 import VARIANTS, DinoV2, DinoV2Config

FLAG = "--config.encoder.weights"
RANDOM = "random:"
WAY_OUT = f"set {FLAG} to weights of this model, or --config.encoder.variant to theirs"
CONFIG = "config.json"
STEMS = ("model", "pytorch_model")
# Asked for where the hub does not tell what it has.
HUB_FILES = ("*.json", "model*.safetensors", "pytorch_model*.bin")
# interpolate_offset of dinov2_vits14 and its like in the original release's hub/backbones.py.
ORIGINAL_OFFSET = 0.1


class LoadedEncoder(NamedTuple):
    """A DINOv2 module with its parameters (host arrays, float32)."""

    model: DinoV2
    params: dict[str, Any]
    variant: str
    source: str
    is_random: bool
    digest: str  # sha256 of the weight files, or the random seed
    # How position embeddings are fitted to another size, where sources differ in that.
    interpolation: str = ""


def patch_kernel(tensor: np.ndarray) -> np.ndarray:
    """Convolution weight [D, 3, 14, 14] as the kernel [14 * 14 * 3, D] over flattened patches."""
    return tensor.transpose(2, 3, 1, 0).reshape(-1, tensor.shape[0])


_ORIGINAL_BLOCK = r"blocks\.(?:\d+\.)?(\d+)\."
ORIGINAL_RULES = (
    Rule(r"mask_token", None),
    Rule(r"(cls_token|pos_embed|register_tokens)", r"\1"),
    Rule(r"patch_embed\.proj\.weight", "patch_embed/kernel", patch_kernel),
    Rule(r"patch_embed\.proj\.bias", "patch_embed/bias"),
    Rule(_ORIGINAL_BLOCK + r"(norm[12])\.weight", r"block_\1/\2/scale"),
    Rule(_ORIGINAL_BLOCK + r"(norm[12])\.bias", r"block_\1/\2/bias"),
    Rule(_ORIGINAL_BLOCK + r"attn\.(qkv|proj)\.weight", r"block_\1/\2/kernel", transpose),
    Rule(_ORIGINAL_BLOCK + r"attn\.(qkv|proj)\.bias", r"block_\1/\2/bias"),
    Rule(_ORIGINAL_BLOCK + r"(ls[12])\.gamma", r"block_\1/\2"),
    Rule(_ORIGINAL_BLOCK + r"mlp\.(?:fc1|w12)\.weight", r"block_\1/fc1/kernel", transpose),
    Rule(_ORIGINAL_BLOCK + r"mlp\.(?:fc1|w12)\.bias", r"block_\1/fc1/bias"),
    Rule(_ORIGINAL_BLOCK + r"mlp\.(?:fc2|w3)\.weight", r"block_\1/fc2/kernel", transpose),
    Rule(_ORIGINAL_BLOCK + r"mlp\.(?:fc2|w3)\.bias", r"block_\1/fc2/bias"),
    Rule(r"norm\.weight", "norm/scale"),
    Rule(r"norm\.bias", "norm/bias"),
)

_HUB_BLOCK = r"encoder\.layer\.(\d+)\."
_HUB_QKV = [
    rule
    for part, name in enumerate(("query", "key", "value"))
    for rule in (
        Rule(
            _HUB_BLOCK + rf"attention\.attention\.{name}\.weight",
            rf"block_\1/qkv/kernel#{part}",
            transpose,
        ),
        Rule(_HUB_BLOCK + rf"attention\.attention\.{name}\.bias", rf"block_\1/qkv/bias#{part}"),
    )
]
HUB_RULES = (
    Rule(r"embeddings\.mask_token", None),
    Rule(r"embeddings\.cls_token", "cls_token"),
    Rule(r"embeddings\.position_embeddings", "pos_embed"),
    Rule(r"embeddings\.register_tokens", "register_tokens"),
    Rule(r"embeddings\.patch_embeddings\.projection\.weight", "patch_embed/kernel", patch_kernel),
    Rule(r"embeddings\.patch_embeddings\.projection\.bias", "patch_embed/bias"),
    *_HUB_QKV,
    Rule(_HUB_BLOCK + r"(norm[12])\.weight", r"block_\1/\2/scale"),
    Rule(_HUB_BLOCK + r"(norm[12])\.bias", r"block_\1/\2/bias"),
    Rule(_HUB_BLOCK + r"attention\.output\.dense\.weight", r"block_\1/proj/kernel", transpose),
    Rule(_HUB_BLOCK + r"attention\.output\.dense\.bias", r"block_\1/proj/bias"),
    Rule(_HUB_BLOCK + r"layer_scale([12])\.lambda1", r"block_\1/ls\2"),
    Rule(_HUB_BLOCK + r"mlp\.(?:fc1|weights_in)\.weight", r"block_\1/fc1/kernel", transpose),
    Rule(_HUB_BLOCK + r"mlp\.(?:fc1|weights_in)\.bias", r"block_\1/fc1/bias"),
    Rule(_HUB_BLOCK + r"mlp\.(?:fc2|weights_out)\.weight", r"block_\1/fc2/kernel", transpose),
    Rule(_HUB_BLOCK + r"mlp\.(?:fc2|weights_out)\.bias", r"block_\1/fc2/bias"),
    Rule(r"layernorm\.weight", "norm/scale"),
    Rule(r"layernorm\.bias", "norm/bias"),
)


def load_dinov2(
    variant: str, weights: str, compute_dtype: jnp.dtype = jnp.float32
) -> LoadedEncoder:
    """Loads a variant's weights.

    Args:
      variant: a key of `VARIANTS`.
      weights: hub id, folder in the hub's layout, `.safetensors` or `.pth` file, or `random:SEED`.
      compute_dtype: of the matmuls.

    Raises:
      UserError: unknown variant, no such weights, damaged file, weights of another model.
    """
    if variant not in VARIANTS:
        raise UserError(
            f"encoder.variant={variant!r}: expected one of {', '.join(VARIANTS)}; set"
            " --config.encoder.variant"
        )
    model = DinoV2(VARIANTS[variant], compute_dtype)
    if weights.startswith(RANDOM):
        params = _random_params(model, weights)
        return LoadedEncoder(model, params, variant, weights, True, weights)
    return load_config(model, weights, variant)


def variant_of(weights: str) -> str:
    """The variant whose sizes weights have, by the files' headers alone.

    Args:
      weights: as `load_dinov2` takes them, random ones aside.

    Raises:
      UserError: no such weights, or of no variant that is known.
    """
    guess = _guess(_open(weights).shapes)
    if guess is not None:
        for name, config in VARIANTS.items():
            if _signature(config) == guess:
                return name
    what = "no DINOv2" if guess is None else _name(guess)
    raise UserError(
        f"{weights} holds {what}; expected one of {', '.join(VARIANTS)}: set {FLAG} to the weights"
        " of one"
    )


def check_dinov2(variant: str, weights: str) -> None:
    """Holds weights to a variant by the files' headers alone: names, shapes, kinds, config.json.

    Raises:
      UserError: as `load_dinov2`, damage within the numbers aside.
    """
    if weights.startswith(RANDOM):
        return
    model = DinoV2(VARIANTS[variant])
    source, rules = _open_checked(model, weights, variant)
    # Bools that take no memory stand for the numbers.
    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, np.bool_), abstract_params(model)
    )

    def read(name):
        return np.broadcast_to(np.False_, source.shapes[name])

    convert(source.shapes, read, rules, shapes, weights, WAY_OUT)
    for name, kind in source.unreadable.items():
        refuse_kind(source.files[0].parent, name, kind)


def load_config(model: DinoV2, weights: str, variant: str) -> LoadedEncoder:
    """`load_dinov2` for a module of any size.

    Position embeddings are interpolated as the code does that the weights are a release of.
    """
    source, rules = _open_checked(model, weights, variant)
    is_original = rules is ORIGINAL_RULES
    params = convert(source.shapes, source.read, rules, abstract_params(model), weights, WAY_OUT)
    interpolation = ""
    if not model.config.n_registers:
        offset = ORIGINAL_OFFSET if is_original else 0.0
        model = model.clone(config=dataclasses.replace(model.config, interpolate_offset=offset))
        interpolation = (
            f"bicubic interpolation with offset {ORIGINAL_OFFSET}, as the original release has it"
            if is_original
            else "bicubic interpolation without offset, as transformers has it"
        )
    return LoadedEncoder(model, params, variant, weights, False, source.digest(), interpolation)


def _open_checked(
    model: DinoV2, weights: str, variant: str
) -> tuple[TensorSource, tuple[Rule, ...]]:
    """The tensors of weights that are of this model as far as sizes tell, and the rules for them.

    Raises:
      UserError: no such weights, or those of another model.
    """
    source = _open(weights)
    guess = _guess(source.shapes)
    mine = _signature(model.config)
    if guess is not None and guess != mine:
        raise UserError(
            f"{weights} holds {_name(guess)}, expected {variant} ({_describe(mine)}); set"
            f" --config.encoder.variant or {FLAG}"
        )
    if not _is_file(weights):
        check_encoder_config(source.files[0].parent, model.config, FLAG)
    return source, ORIGINAL_RULES if "cls_token" in source.shapes else HUB_RULES


def abstract_params(model: DinoV2) -> dict[str, Any]:
    """Shapes and dtypes of the parameters; nothing is computed."""
    size = model.config.patch_size
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    return jax.eval_shape(model.init, seed_key(0), image)["params"]


def _random_params(model: DinoV2, weights: str) -> dict[str, Any]:
    """Parameters drawn from a seed, scaled so that tokens differ between images."""
    try:
        seed = int(weights.removeprefix(RANDOM))
    except ValueError as error:
        raise UserError(
            f"{FLAG}={weights}: expected random:SEED with a whole number; set it so"
        ) from error
    size = model.config.patch_size
    init = jax.jit(model.init)
    params = init(seed_key(seed), jnp.zeros((1, size, size, 3), jnp.float32))["params"]
    return jax.tree.map(np.asarray, params)


def _is_file(weights: str) -> bool:
    path = pathlib.Path(weights).expanduser()
    return not path.is_dir() and path.suffix in (".safetensors", ".pth", ".pt", ".bin")


def _open(weights: str) -> TensorSource:
    path = pathlib.Path(weights).expanduser()
    if path.is_dir():
        return open_folder(path, STEMS, FLAG)
    if _is_file(weights):
        if not path.is_file():
            raise UserError(f"{weights} does not exist; set {FLAG} to a file, folder or hub id")
        return open_files((path,))
    if path.is_absolute() or weights.count("/") != 1:
        raise UserError(
            f"{FLAG}={weights}: expected a hub id (owner/name), a folder with config.json and"
            " model.safetensors, a .safetensors or .pth file, or random:SEED; set it to one"
        )
    return open_folder(_download(weights), STEMS, FLAG)


def _download(repo: str) -> pathlib.Path:
    """A repository's config and those of its weights that are read."""
    listed = list_repository(repo, FLAG)
    if listed is None:
        return download_snapshot(repo, FLAG, HUB_FILES)
    names = [name for name in listed if "/" not in name]
    chosen = choose_files(names, STEMS)
    if chosen is None:
        refuse_folder(repo, names, STEMS, FLAG)
    folder = download_snapshot(repo, FLAG, (CONFIG, *chosen))
    if chosen[0].endswith(".json"):
        download_snapshot(repo, FLAG, shards_of(folder / chosen[0]))
    return folder


def _signature(config: DinoV2Config) -> tuple[int, int, int, str]:
    return config.width, config.depth, config.n_registers, config.mlp


def _guess(shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, int, int, str] | None:
    """(width, depth, registers, mlp) as the tensors tell; None if this is no DINOv2 at all."""
    cls = shapes.get("cls_token") or shapes.get("embeddings.cls_token")
    if cls is None:
        return None
    registers = shapes.get("register_tokens") or shapes.get("embeddings.register_tokens")
    depth = sum(name.endswith(("norm1.weight",)) for name in shapes)
    swiglu = any(".w12." in name or ".weights_in." in name for name in shapes)
    return cls[-1], depth, registers[1] if registers else 0, "swiglu" if swiglu else "gelu"


def _name(signature: tuple[int, int, int, str]) -> str:
    for name, config in VARIANTS.items():
        if _signature(config) == signature:
            return name
    return f"another model ({_describe(signature)})"


def _describe(signature: tuple[int, int, int, str]) -> str:
    width, depth, n_registers, mlp = signature
    return f"width {width}, depth {depth}, {n_registers} registers, {mlp} MLP"
