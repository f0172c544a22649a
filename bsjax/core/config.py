"""Configs: typed options of a config file, checks before anything is built, and stage hashes."""

from collections.abc import Sequence
from typing import Any

import ml_collections

from bsjax.core.errors import UserError
from bsjax.core.preprocessing import WHOLE
from bsjax.core.ranges import check_seed_of_weights, check_values

FORMS = ("relative", "difference")
SOURCES = ("folder", "arrayrecord", "parquet", "tfds", "scenes")
SUPPLIES = ("memory", "store", "images")
DTYPES = ("float32", "bfloat16")
LOSSES = ("mse", "aux")
GENERATORS = ("none", "stable_diffusion", "pixart", "kandinsky")
ACTIVATIONS = ("batch_topk", "topk", "jumprelu")
# How a stage is run, not what comes out of it.
PRECISIONS = ("highest", "high")
EXECUTION_KEYS = (
    "encoder.batch_per_device",
    "generator.batch_per_device",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.look_every",
    "train.token_store",
)


def parse_arg(arg: str, **defaults: Any) -> ml_collections.ConfigDict:
    """Reads the part of ``--config=file.py:ARG`` behind the colon.

    ``"tiny,limit=40"`` gives ``tiny=True, limit=40``. Each option is read as the type of its
    default; a bool stands for itself.

    Raises:
      UserError: an option that `defaults` does not name, or a value of another type.
    """
    result = ml_collections.ConfigDict(defaults)
    for part in filter(None, (part.strip() for part in (arg or "").split(","))):
        name, has_value, text = part.partition("=")
        if name not in defaults:
            raise UserError(
                f"config option {name!r} is unknown; expected one of {', '.join(sorted(defaults))}"
                " behind the colon of --config=FILE:OPTION,OPTION=VALUE"
            )
        default = defaults[name]
        try:
            if isinstance(default, bool):
                result[name] = _parse_bool(text) if has_value else True
            elif not has_value:
                raise ValueError("no value given")
            else:
                result[name] = type(default)(text)
        except ValueError as error:
            raise UserError(
                f"config option {part!r}: expected a {type(default).__name__} ({error})"
            ) from error
    return result


def _parse_bool(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0"):
        raise ValueError(f"got {text!r}")
    return text.lower() in ("true", "1")


def flatten(config: ml_collections.ConfigDict | dict, prefix: str = "") -> dict[str, Any]:
    """A flat mapping of dotted keys to plain values."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, ml_collections.ConfigDict | dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return flat


def select(config: ml_collections.ConfigDict, keys: Sequence[str]) -> dict[str, Any]:
    """The part of the config that decides a stage's result: the keys at or below `keys`.

    `EXECUTION_KEYS` are left out: a finished or interrupted stage may go on with others.
    """
    return {
        name: value
        for name, value in flatten(config).items()
        if name not in EXECUTION_KEYS
        and any(name == key or name.startswith(f"{key}.") for key in keys)
    }


def validate(config: ml_collections.ConfigDict, needs_images: bool = True) -> None:
    """Checks every rule that needs no file and no model, before anything is built.

    Args:
      config: the experiment.
      needs_images: whether the stage reads images, so that paths must be set.

    Raises:
      UserError: the first rule broken, with the flag to change.
    """
    check_values(flatten(config))
    check_seed_of_weights("encoder.weights", config.encoder.weights)
    for section in ("real", "generated"):
        _require_choice(config, f"{section}.source", SOURCES)
        _require_choice(config, f"{section}.captions", ("first", "all"))
    _require_choice(config, "encoder.dtype", DTYPES)
    _require_choice(config, "compare.form", FORMS)
    _require_choice(config, "train.loss", LOSSES)
    _require_choice(config, "train.activation", ACTIVATIONS)
    _require_choice(config, "train.encoder_init", ("xavier", "candidates"))
    if config.train.encoder_init == "candidates" and (
        config.train.n_concepts > config.train.n_candidates
    ):
        raise UserError(
            f"train.encoder_init=candidates: expected at least as many candidates as concepts, got"
            f" n_candidates={config.train.n_candidates}, n_concepts={config.train.n_concepts}; set"
            " --config.train.n_candidates"
        )
    _require_choice(config, "train.supply", SUPPLIES)
    _require_choice(config, "train.compute_dtype", DTYPES)
    _require_choice(config, "train.full_precision", PRECISIONS)
    if ":" not in config.generator.name:
        _require_choice(config, "generator.name", GENERATORS)
    if config.generator.name != "none":
        _validate_generator(config)
    for key in ("real.path", "encoder.weights"):
        if key == "real.path" and config.generator.prompts:
            continue
        if key == "encoder.weights" and ":" in config.encoder.variant:
            continue  # a class may need none
        if needs_images and not _get(config, key):
            raise UserError(f"{key} is empty; set --config.{key}")
    _validate_encoder(config)
    compare = config.compare
    _require(
        config,
        "compare.suppressed",
        0 <= compare.suppressed < compare.exaggerated <= 1,
        f"between 0 and compare.exaggerated={compare.exaggerated}, at most 1",
    )
    train = config.train
    _require(config, "train.steps", train.steps >= 1 or train.epochs > 0, "1 or more, or epochs")
    _require(
        config,
        "train.tokens_per_step",
        train.tokens_per_step % train.accumulate == 0,
        f"a multiple of train.accumulate={train.accumulate}",
    )
    if needs_images and train.supply == "store" and not train.token_store:
        raise UserError("train.supply=store needs a folder; set --config.train.token_store")
    _require(
        config,
        "train.n_active",
        1 <= train.n_active <= train.n_concepts,
        f"from 1 to train.n_concepts={train.n_concepts}",
    )


def patch_size(variant: str) -> int:
    """Pixels of a patch's side of a variant that the table of encoders has."""
    return _encoder_variants()[variant].patch_size


def _encoder_variants() -> dict[str, Any]:
    """Names and sizes of the encoders; imported here, for it takes jax."""
    from bsjax.encoders import registry

    return registry.variants()


def _validate_encoder(config: ml_collections.ConfigDict) -> None:
    """The variant is there, and patches divide its crop; a plug-in's or unnamed one's come later.

    `encoder.variant` may be module:Class, or empty: what the weights' config.json says.
    """
    crop, resize, variant = (config.encoder[key] for key in ("crop", "resize", "variant"))
    if variant and ":" not in variant:
        known = _encoder_variants()
        _require_choice(config, "encoder.variant", (*known, "module:Class"))
        patch = known[variant].patch_size
        try:
            known[variant].grid(crop, crop)
        except ValueError:
            _require(config, "encoder.crop", False, f"a multiple of {patch}")
    if resize != WHOLE:
        _require(config, "encoder.crop", crop <= resize, f"at most encoder.resize={resize}")


def _validate_generator(config: ml_collections.ConfigDict) -> None:
    generator = config.generator
    _require_choice(config, "generator.dtype", DTYPES)
    for key in ("set", "weights"):
        if not generator[key]:
            raise UserError(f"generator.{key} is empty; set --config.generator.{key}")
    is_name = generator.set not in ("real", ".", "..") and "/" not in generator.set
    _require(config, "generator.set", is_name, "a folder's name other than real")
    check_seed_of_weights("generator.weights", generator.weights)


def _get(config: ml_collections.ConfigDict, key: str) -> Any:
    for part in key.split("."):
        config = config[part]
    return config


def _require(config: ml_collections.ConfigDict, key: str, holds: bool, expected: str) -> None:
    if not holds:
        raise UserError(f"{key}={_get(config, key)}: expected {expected}; set --config.{key}")


def _require_choice(config: ml_collections.ConfigDict, key: str, choices: Sequence[str]) -> None:
    _require(config, key, _get(config, key) in choices, f"one of {', '.join(choices)}")
