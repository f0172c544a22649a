"""Configs: typed options of a config file, checks before anything is built, and stage hashes."""

from collections.abc import Collection, Sequence
from typing import Any

import ml_collections

from bsjax.core.artifacts import CONTROL
from bsjax.core.errors import UserError
from bsjax.core.preprocessing import WHOLE
from bsjax.core.ranges import (
    CHOICES,
    CONTROLS,
    GONE,
    KEYS,
    SECTIONS,
    check_seed_of_weights,
    check_values,
)

# How a stage is run, not what comes out of it.
EXECUTION_KEYS = (
    "encoder.batch_per_device",
    "generator.batch_per_device",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.look_every",
    "train.token_store",
)


# Keys that came later, and what was done before there were any: at that they say nothing, so that
# what was made without them stays finished.
LATER_KEYS = {"compare.pairs": "auto"}


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
                f"config option {name!r} is unknown; put one of {', '.join(sorted(defaults))}"
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
                f"config option {part!r}: expected a {type(default).__name__} ({error}); change it"
                " behind the colon of --config=FILE"
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

    `EXECUTION_KEYS` are left out: a finished or interrupted stage may go on with others; so are
    `LATER_KEYS` at what they were before they were there.
    """
    return {
        name: value
        for name, value in flatten(config).items()
        if name not in EXECUTION_KEYS
        and (name not in LATER_KEYS or value != LATER_KEYS[name])
        and any(name == key or name.startswith(f"{key}.") for key in keys)
    }


def validate(
    config: ml_collections.ConfigDict,
    needs_images: bool = True,
    sections: Collection[str] = tuple(SECTIONS),
) -> None:
    """Checks every rule that needs no file and no model, before anything is built.

    Args:
      config: the experiment.
      needs_images: whether the stage reads images, so that paths must be set.
      sections: those that the stage reads; what stands in others may be anything.

    Raises:
      UserError: the first rule broken, with the flag to change.
    """
    keys = [key for key in KEYS if key.rpartition(".")[0] in ("", *sections)]
    flat = flatten(config)
    # Keys of before are told whatever the stage: a later one would stop on them after hours.
    check_values({key: flat[key] for key in GONE if key in flat})
    check_values({key: flat[key] for key in keys if key in flat})
    for key in keys:
        if key in CHOICES and not (key == "generator.name" and ":" in flat[key]):
            _require_choice(config, key, CHOICES[key])
    for section, check in (
        ("train", _validate_train),
        ("generator", _validate_generator),
        ("encoder", _validate_encoder),
        ("measure", controls_of),
    ):
        if section in sections:
            check(config)
    if not needs_images:
        return
    if "real" in sections and not config.real.path and not config.generator.prompts:
        raise UserError("real.path is empty; set --config.real.path")
    # A class may need no weights.
    is_plug_in = ":" in config.encoder.variant
    if "encoder" in sections and not config.encoder.weights and not is_plug_in:
        raise UserError("encoder.weights is empty; set --config.encoder.weights")
    if "train" in sections and config.train.supply == "store" and not config.train.token_store:
        raise UserError("train.supply=store needs a folder; set --config.train.token_store")


def _validate_train(config: ml_collections.ConfigDict) -> None:
    train = config.train
    if train.encoder_init == "candidates" and train.n_concepts > train.n_candidates:
        raise UserError(
            f"train.encoder_init=candidates: expected at least as many candidates as concepts, got"
            f" n_candidates={train.n_candidates}, n_concepts={train.n_concepts}; set"
            " --config.train.n_candidates"
        )
    _require(config, "train.steps", train.steps >= 1 or train.epochs > 0, "1 or more, or epochs")
    _require(
        config,
        "train.tokens_per_step",
        train.tokens_per_step % train.accumulate == 0,
        f"a multiple of train.accumulate={train.accumulate}",
    )
    _require(
        config,
        "train.n_active",
        1 <= train.n_active <= train.n_concepts,
        f"from 1 to train.n_concepts={train.n_concepts}",
    )


def controls_of(config: ml_collections.ConfigDict) -> tuple[str, ...]:
    """The controls that a config asks for: names in the order of `core.ranges.CONTROLS`.

    Raises:
      UserError: one that there is not, or one that its generator does not allow.
    """
    given = config.measure.get("controls", "")
    names = [name.strip() for name in given.split(",") if name.strip()]
    unknown = [name for name in names if name not in CONTROLS]
    flags = "set --control (or --config.measure.controls)"
    if unknown:
        raise UserError(
            f"measure.controls={given}: there is no control {unknown[0]!r}; expected some of"
            f" {', '.join(CONTROLS)}, with commas; {flags}"
        )
    if "vae" in names and config.generator.name == "none":
        raise UserError(
            f"measure.controls={given}: images made elsewhere (generator.name=none) tell of no VAE;"
            f" leave out vae, or name their generator; {flags}"
        )
    return tuple(name for name in CONTROLS if name in names)


def patch_size(variant: str) -> int:
    """Pixels of a patch's side of a variant that the table of encoders has."""
    return encoder_variants()[variant].patch_size


def encoder_variants() -> dict[str, Any]:
    """Names and sizes of the encoders; imported here, for it takes jax."""
    from bsjax.encoders import registry

    return registry.variants()


def _validate_encoder(config: ml_collections.ConfigDict) -> None:
    """The variant is there, and patches divide its crop; a plug-in's or unnamed one's come later.

    `encoder.variant` may be module:Class, or empty: what the weights' config.json says.
    """
    check_seed_of_weights("encoder.weights", config.encoder.weights)
    crop, resize, variant = (config.encoder[key] for key in ("crop", "resize", "variant"))
    if variant and ":" not in variant:
        known = encoder_variants()
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
    if generator.name == "none":
        return
    for key in ("set", "weights"):
        if not generator[key]:
            raise UserError(f"generator.{key} is empty; set --config.generator.{key}")
    is_name = generator.set not in ("real", ".", "..") and "/" not in generator.set
    _require(config, "generator.set", is_name, "a folder's name other than real")
    is_free = not generator.set.startswith(CONTROL)
    _require(config, "generator.set", is_free, f"a name that does not begin with {CONTROL}")
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
