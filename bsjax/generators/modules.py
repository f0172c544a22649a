"""What the families share in building modules from a repository's config files."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from bsjax.core.errors import UserError
from bsjax.core.rng import seed_key
from bsjax.models.from_json import pick

DIFFUSION_STEMS = ("diffusion_pytorch_model",)
TRANSFORMERS_STEMS = ("model", "pytorch_model")
# Positions that older checkpoints carry along.
CLIP_IGNORED = (r"(text_model|vision_model)\.embeddings\.position_ids",)


def module_of(module_class: Any, config: Mapping[str, Any], dtype: Any) -> Any:
    """A Flax module from the keys of a config file that are its fields."""
    names = {field.name for field in dataclasses.fields(module_class)} - {"parent", "name", "dtype"}
    return module_class(**pick(config, names), dtype=dtype)


def require_settings(name: str, config: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuses a config whose settings are others than those a module has built in.

    Raises:
      UserError: with the settings.
    """
    wrong = [
        f"{key}={config[key]!r} (only {value!r})"
        for key, value in wanted.items()
        if config.get(key, value) != value
    ]
    if wrong:
        raise UserError(
            f"{name}/config.json asks for {', '.join(wrong)}, which bsjax does not have; set"
            " --config.generator.weights to a model of the kind that --config.generator.name says"
        )


def shapes_of(init: Callable[..., Any], *inputs: jax.ShapeDtypeStruct) -> Any:
    """Parameters of a module as shapes, float32; nothing is computed."""
    params = jax.eval_shape(init, seed_key(0), *inputs)["params"]
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.float32), dict(params))
