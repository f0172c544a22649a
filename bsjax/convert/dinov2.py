"""DINOv2 weights from the hub's layout, from a single file, or from the original release's .pth.

Reads tensors by name without torch and without executing anything; writes nothing.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from bsjax.convert import encoder_files
from bsjax.convert.dinov2_config import check_encoder_config
from bsjax.convert.encoder_files import (
    CONFIG,
    HUB_FILES,
    RANDOM,
    abstract_params,
    describe_random,
    random_params,
)
from bsjax.convert.hub import download_snapshot, list_repository
from bsjax.convert.tables import Rule, check, convert, transpose
from bsjax.convert.tensors import TensorSource
from bsjax.core.errors import UserError
from bsjax.models.dinov2 import VARIANTS, DinoV2, DinoV2Config

__all__ = ["HUB_FILES", "LoadedEncoder", "abstract_params", "check_dinov2", "load_dinov2"]

FLAG = "--config.encoder.weights"
WAY_OUT = f"set {FLAG} to weights of this model, or --config.encoder.variant to theirs"
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

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks for log, manifest and report."""
        return notes_on(self.variant, self.source, self.interpolation)


def notes_on(variant: str, weights: str, interpolation: str) -> tuple[str, ...]:
    """Remarks about DINOv2 weights."""
    if interpolation:
        return (
            f"Position embeddings of the {variant} encoder are fitted to the size of images"
            f" by {interpolation}; the same weights in the other layout give other tokens.",
        )
    return (describe_random(variant, weights),) if weights.startswith(RANDOM) else ()


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


class OpenedEncoder(NamedTuple):
    """Weights whose names and shapes are those of a module; none is read yet."""

    model: DinoV2
    variant: str
    source: TensorSource
    rules: tuple[Rule, ...]
    interpolation: str  # as `LoadedEncoder` has it

    def check(self, weights: str) -> None:
        """Raises the UserError for a tensor too many, too few, misshapen or of another kind."""
        check(self.source, self.rules, abstract_params(self.model), weights, WAY_OUT)

    def read(self, weights: str) -> LoadedEncoder:
        """Reads all tensors.

        Raises:
          UserError: as `check`; numbers that are not finite.
        """
        expected = abstract_params(self.model)
        source = self.source
        params = convert(source.shapes, source.read, self.rules, expected, weights, WAY_OUT)
        digest = source.digest()
        return LoadedEncoder(
            self.model, params, self.variant, weights, False, digest, self.interpolation
        )


def load_dinov2(
    variant: str, weights: str, compute_dtype: DTypeLike = jnp.float32
) -> LoadedEncoder:
    """Loads a variant's weights.

    Args:
      variant: a key of `VARIANTS`.
      weights: hub id, folder in the hub's layout, `.safetensors` or `.pth` file, or `random:SEED`.
      compute_dtype: of the matmuls.

    Raises:
      UserError: unknown variant, no such weights, damaged file, weights of another model.
    """
    if not weights.startswith(RANDOM):
        return open_dinov2(variant, weights, compute_dtype).read(weights)
    model = DinoV2(_sizes(variant), compute_dtype)
    params = random_params(model, weights, FLAG)
    return LoadedEncoder(model, params, variant, weights, True, weights)


def check_dinov2(variant: str, weights: str) -> None:
    """Holds weights to a variant by the files' headers alone: names, shapes, kinds, config.json.

    Raises:
      UserError: as `load_dinov2`, damage within the numbers aside.
    """
    if not weights.startswith(RANDOM):
        open_dinov2(variant, weights).check(weights)


def load_config(model: DinoV2, weights: str, variant: str) -> LoadedEncoder:
    """`load_dinov2` for a module of any size."""
    return _open_model(model, weights, variant, _open(weights)).read(weights)


def open_dinov2(
    variant: str | None, weights: str, compute_dtype: DTypeLike = jnp.float32
) -> OpenedEncoder:
    """Finds weights that are of a variant as far as sizes and config.json tell; reads none.

    Args:
      variant: a key of `VARIANTS`; None: the one that the tensors are of.
      weights: as `load_dinov2`, but not random.
      compute_dtype: of the matmuls.

    Raises:
      UserError: unknown variant, no such weights, those of another model.
    """
    if variant is not None:
        _sizes(variant)
    source = _open(weights)
    if variant is None:
        guess = _guess(source.shapes)
        variant = "no DINOv2" if guess is None else _name(guess)
        if variant not in VARIANTS:
            raise UserError(
                f"{weights} holds {variant}; expected one of {', '.join(VARIANTS)}: set {FLAG} to"
                " the weights of one"
            )
    return _open_model(DinoV2(VARIANTS[variant], compute_dtype), weights, variant, source)


def _sizes(variant: str) -> DinoV2Config:
    if variant not in VARIANTS:
        raise UserError(
            f"encoder.variant={variant!r}: expected one of {', '.join(VARIANTS)}; set"
            " --config.encoder.variant"
        )
    return VARIANTS[variant]


def _open_model(model: DinoV2, weights: str, variant: str, source: TensorSource) -> OpenedEncoder:
    """Position embeddings are interpolated as the code does that the weights are a release of."""
    guess = _guess(source.shapes)
    mine = _signature(model.config)
    if guess is not None and guess != mine:
        raise UserError(
            f"{weights} holds {_name(guess)}, expected {variant} ({_describe(mine)}); set"
            f" --config.encoder.variant or {FLAG}"
        )
    if not encoder_files.is_file(weights):
        check_encoder_config(source.files[0].parent, model.config, FLAG)
    is_original = "cls_token" in source.shapes
    interpolation = ""
    if not model.config.n_registers:
        offset = ORIGINAL_OFFSET if is_original else 0.0
        model = model.clone(config=dataclasses.replace(model.config, interpolate_offset=offset))
        interpolation = (
            f"bicubic interpolation with offset {ORIGINAL_OFFSET}, as the original release has it"
            if is_original
            else "bicubic interpolation without offset, as transformers has it"
        )
    rules = ORIGINAL_RULES if is_original else HUB_RULES
    return OpenedEncoder(model, variant, source, rules, interpolation)


def _open(weights: str) -> TensorSource:
    return encoder_files.open_weights(weights, FLAG, _download).source


def _download(repo: str) -> pathlib.Path:
    """A repository's config and those of its weights that are read."""
    return encoder_files.download(repo, FLAG, (CONFIG,), list_repository, download_snapshot)


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
