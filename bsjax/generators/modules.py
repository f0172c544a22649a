"""What the families share in building modules from a repository's config files."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.errors
import jax
import jax.numpy as jnp

from bsjax.core.errors import UserError
from bsjax.core.rng import seed_key
from bsjax.generators.protocol import flag_of
from bsjax.generators.tokenizers import Tokenizer
from bsjax.models.from_json import pick

DIFFUSION_STEMS = ("diffusion_pytorch_model",)
TRANSFORMERS_STEMS = ("model", "pytorch_model")
# Positions that older checkpoints carry along.
CLIP_IGNORED = (r"(text_model|vision_model)\.embeddings\.position_ids",)


def module_of(module_class: Any, config: Mapping[str, Any], dtype: Any) -> Any:
    """A Flax module from the keys of a config file that are its fields."""
    names = {field.name for field in dataclasses.fields(module_class)} - {"parent", "name", "dtype"}
    return module_class(**pick(config, names), dtype=dtype)


def shapes_of(
    place: tuple[str, str], init: Callable[..., Any], *inputs: jax.ShapeDtypeStruct
) -> Any:
    """Parameters of a module as shapes, float32; nothing is computed.

    Args:
      place: repository and folder that its config lies in, as in a family's CONFIGS.
      init: of the module.
      inputs: of the module.

    Raises:
      UserError: sizes in the config that make no network, such as heads that do not divide a width.
    """
    repository, folder = place
    try:
        params = jax.eval_shape(init, seed_key(0), *inputs)["params"]
    except (
        ValueError,
        TypeError,
        ArithmeticError,
        LookupError,
        AssertionError,
        flax.errors.FlaxError,
    ) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{folder}/config.json describes a network that cannot be built ({reason[:200]}); set"
            f" {flag_of(repository)} to a repository with the sizes of its weights"
        ) from error
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.float32), dict(params))


def require_vocabulary(tokenizer: Tokenizer, n_ids: int, place: tuple[str, str]) -> None:
    """Refuses a tokenizer with more ids than the text encoder has rows for.

    Raises:
      UserError: with both numbers; a lookup beyond the last row would take the last one.
    """
    repository, folder = place
    if tokenizer.n_ids > n_ids:
        raise UserError(
            f"the tokenizer has {tokenizer.n_ids} ids, {folder}/config.json vocab_size={n_ids};"
            f" set {flag_of(repository)} to a repository whose tokenizer and text encoder belong"
            " together"
        )


def caption_length(tokenizer: Tokenizer, n_positions: int, place: tuple[str, str]) -> int:
    """To how many tokens a pipeline pads captions: the length that the tokenizer names.

    Args:
      tokenizer: of the captions.
      n_positions: of the text encoder, and the length where the tokenizer names none.
      place: repository and folder of the text encoder.

    Raises:
      UserError: captions that the text encoder has no positions for.
    """
    repository, folder = place
    if (tokenizer.length or 0) > n_positions:
        raise UserError(
            f"the tokenizer pads captions to {tokenizer.length} tokens, {folder}/config.json has"
            f" {n_positions} positions; set {flag_of(repository)} to a repository whose tokenizer"
            " and text encoder belong together"
        )
    return tokenizer.length or n_positions
