"""An encoder by the weights that a user names: which family they are of, opened, and read."""

import contextlib
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from bsjax.convert.config_keys import read_object
from bsjax.convert.encoder_files import CONFIG, RANDOM, find_folder
from bsjax.convert.hub import download_snapshot
from bsjax.core.errors import UserError
from bsjax.core.preprocessing import WHOLE, Preprocessing
from bsjax.core.ranges import DTYPES
from bsjax.encoders import registry
from bsjax.encoders.protocol import Backbone, Encoder

FIELDS = ("weights", "variant", "dtype", "resize", "crop")  # named by the texts of mistakes
_CLASS = re.compile(r"[^\W\d][\w.]*:[^\W\d]\w*")  # module:Class, as Python spells names


def load_encoder(
    source: str,
    *,
    variant: str | None = None,
    dtype: str = "float32",
    resize: int | None = None,
    crop: int | None = None,
) -> Encoder:
    """Loads an encoder with its parameters.

    Args:
      source: hub id, folder in the hub's layout, `.safetensors` or `.pth` file, `random:SEED`, or
        `module:Class` of a plug-in that needs no weights.
      variant: a name that `registry.variants()` has, or module:Class; None: what config.json of
        `source` says, or what a DINOv2 file's tensors say.
      dtype: of the matmuls, "float32" or "bfloat16".
      resize: pixels of the short side, or -1 for all of an image as crop x crop pixels; None: as
        the encoder was trained.
      crop: pixels of the square that is left; None: as the encoder was trained.

    Returns:
      The encoder; `encoder.apply(encoder.params, images)` gives tokens [B, T, D].

    Raises:
      UserError: no such weights, of another model, damaged; a plug-in that is no encoder; a crop
        that patches do not divide. Its `fields` are those of `open_backbone` and of these: weights
        stands for `source`.
    """
    if variant is None and _CLASS.fullmatch(source) and not source.startswith(RANDOM):
        source, variant = "", source
    backbone = open_backbone(source, variant, dtype)
    return read(backbone, source, choose_preprocessing(backbone, resize, crop), dtype)


@contextlib.contextmanager
def naming_fields() -> Iterator[None]:
    """Tells a mistake which of the arguments that its text names in braces are at fault."""
    try:
        yield
    except UserError as error:
        fields = [field for field in FIELDS if f"{{{field}}}" in error.template]
        told = UserError(error.template, *dict.fromkeys((*error.fields, *fields)))
        raise told.with_traceback(error.__traceback__) from error.__cause__


@naming_fields()
def open_backbone(source: str, variant: str | None, dtype: str) -> Backbone:
    """Finds weights and holds them to their model by headers and configs; reads none.

    Args:
      source: as `load_encoder`; "": a variant's sizes alone.
      variant: as `load_encoder`.
      dtype: of the matmuls.

    Raises:
      UserError: as `load_encoder`.
    """
    if dtype not in DTYPES:
        raise UserError(
            f"{{dtype}}={dtype!r}: expected one of {', '.join(DTYPES)}; set {{dtype}} to one",
            "dtype",
        )
    variant = variant or None
    if variant is not None:
        family = registry.class_of(variant)
    elif not source or source.startswith(RANDOM):
        raise UserError(
            f"{{weights}}={source} tells no sizes; set {{variant}} to one of"
            f" {', '.join(registry.variants())}, or to module:Class",
            "variant",
            "weights",
        )
    else:
        family = _family_of(source)
    backbone = family(source, variant, dtype)
    if registry.is_plug_in(variant):
        registry.require_attributes(backbone, variant)
        _try_out(backbone, variant)
    return backbone


@naming_fields()
def read(
    backbone: Backbone, source: str, preprocessing: Preprocessing, dtype: str = "float32"
) -> Encoder:
    """The encoder with its parameters."""
    params, digest = backbone.load_params()
    name = getattr(backbone, "variant", type(backbone).__name__)
    notes = [*getattr(backbone, "notes", ()), *_notes_on_images(name, backbone, preprocessing)]
    return Encoder(backbone, params, name, source, digest, preprocessing, tuple(notes), dtype)


def choose_preprocessing(backbone: Backbone, resize: int | None, crop: int | None) -> Preprocessing:
    """The backbone's own preprocessing with another resize and crop, where they are given.

    Raises:
      UserError: a crop that is larger than the resize, or that the backbone does not take.
    """
    own = backbone.preprocessing
    crop = own.crop if crop is None else crop
    resize = own.resize if resize is None else resize
    if resize != WHOLE and not 1 <= crop <= resize:
        raise UserError(
            f"{{resize}}={resize}: expected at least {{crop}}={crop}, or {WHOLE} for all of an"
            " image as a square; set {resize} or {crop}",
            "resize",
            "crop",
        )
    try:
        backbone.grid(crop, crop)
    except ValueError as error:
        raise UserError(f"{{crop}}={crop}: {error}; set {{crop}}", "crop") from error
    return own._replace(resize=resize, crop=crop)


def _notes_on_images(name: str, backbone: Backbone, chosen: Preprocessing) -> list[str]:
    """Says where a family that states its preprocessing is shown other images."""
    own = backbone.preprocessing
    if chosen == own or not getattr(backbone, "is_particular", False):
        return []
    return [f"Images are shown to {name} as: {chosen}; it was trained with: {own}."]


def _family_of(source: str) -> Any:
    """The class for weights of which nobody said what they are."""

    def fetch(repo):
        return download_snapshot(repo, "{weights}", (CONFIG,))

    folder = find_folder(source, "{weights}", fetch)
    if folder is None:
        # A single file: DINOv2's is told by its tensors, the others say no heads.
        return registry.families()["dinov2"]
    path = pathlib.Path(folder) / CONFIG
    content = read_object(path)
    if content is None:
        raise UserError(
            f"{folder} has no {CONFIG} to say which encoder it is; set {{variant}} to one"
            f" of {', '.join(registry.variants())}",
            "variant",
        )
    return registry.class_of_model_type(content.get("model_type"), str(path))


def _try_out(backbone: Backbone, name: str) -> None:
    """Holds what a plug-in says of its tokens to what it gives; nothing is computed."""
    crop = backbone.preprocessing.crop
    expected = (2, backbone.grid(crop, crop).n_tokens, backbone.width)
    images = jax.ShapeDtypeStruct((2, crop, crop, 3), jnp.uint8)
    found = jax.eval_shape(backbone.apply, backbone.abstract_params(), images)
    if getattr(found, "shape", None) != expected:
        raise UserError(
            f"{{variant}}={name!r}: apply gives {getattr(found, 'shape', type(found).__name__)} for"
            f" 2 images of {crop} x {crop}, expected {expected} by its grid and width; change one",
            "variant",
        )
