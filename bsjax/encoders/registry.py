"""The table of encoders, and what is asked of a class before it is one."""

import importlib
import inspect
from typing import Any

from bsjax.convert.config_keys import shown
from bsjax.core.errors import UserError
from bsjax.encoders.protocol import ATTRIBUTES, METHODS

# Imported when asked for. A class names its variants and the model_types of config.json itself.
FAMILIES = {
    "dinov2": "bsjax.encoders.dinov2:DinoV2Encoder",
    "clip": "bsjax.encoders.clip:ClipEncoder",
    "siglip": "bsjax.encoders.siglip:SiglipEncoder",
}


def families() -> dict[str, Any]:
    """The class of each family."""
    return {name: import_class(place) for name, place in FAMILIES.items()}


def variants() -> dict[str, Any]:
    """Name of each variant -> its sizes: width, patch_size, `grid`."""
    return {name: sizes for each in families().values() for name, sizes in each.VARIANTS.items()}


def is_plug_in(variant: str | None) -> bool:
    """Whether a variant is module:Class."""
    return variant is not None and ":" in variant


def class_of(variant: str) -> Any:
    """The class of a variant, or of a plug-in named module:Class.

    Raises:
      UserError: neither, or a class that is no encoder.
    """
    if is_plug_in(variant):
        found = import_class(variant)
        require_whole(found, variant)
        return found
    for each in families().values():
        if variant in each.VARIANTS:
            return each
    raise UserError(
        f"{{variant}}={variant!r}: expected one of {', '.join(variants())}, or module:Class; set"
        " {variant} to one",
        "variant",
    )


def class_of_model_type(model_type: Any, where: str) -> Any:
    """The class that takes a repository of that model_type.

    Raises:
      UserError: none does.
    """
    known = {name: each for each in families().values() for name in each.MODEL_TYPES}
    if not isinstance(model_type, str) or model_type not in known:
        raise UserError(
            f"{where} is of model_type {shown(model_type)}, expected one of {', '.join(known)}; set"
            " {weights} to one of these, or {variant} to a class of your own, module:Class",
            "weights",
            "variant",
        )
    return known[model_type]


def import_class(place: str) -> Any:
    """The class at module:Class.

    Raises:
      UserError: it cannot be imported.
    """
    module, _, name = place.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"{{variant}}={place!r} cannot be imported ({error}): expected module:Class; put the"
            " module where Python finds it (PYTHONPATH)",
            "variant",
        ) from error


def require_whole(found: Any, name: str) -> None:
    """Refuses a class that lacks what an encoder needs.

    Raises:
      UserError: all methods that it lacks, by name; or it cannot be called as one.
    """
    if not inspect.isclass(found):
        raise UserError(
            f"{{variant}}={name!r} is {type(found).__name__}, expected a class; name one", "variant"
        )
    missing = [method for method in METHODS if not callable(getattr(found, method, None))]
    if missing:
        raise UserError(
            f"{{variant}}={name!r} lacks the method{'s' * (len(missing) > 1)} {', '.join(missing)};"
            " add what bsjax/encoders/protocol.py says of an encoder",
            "variant",
        )
    try:
        inspect.signature(found).bind("weights", "variant", "float32")
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{{variant}}={name!r} is not made by Class(weights, variant, dtype): {error}; change"
            " its __init__ to take these",
            "variant",
        ) from error


def require_attributes(backbone: Any, name: str) -> None:
    """Refuses a plug-in that does not say its sizes.

    Raises:
      UserError: all attributes that it lacks, by name.
    """
    missing = [each for each in ATTRIBUTES if not hasattr(backbone, each)]
    if missing:
        raise UserError(
            f"{{variant}}={name!r} lacks the attribute{'s' * (len(missing) > 1)}"
            f" {', '.join(missing)}; add what bsjax/encoders/protocol.py says of an encoder",
            "variant",
        )
