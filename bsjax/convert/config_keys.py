"""Accounts for every key of a repository's JSON config: used, known to change nothing, or refused.

A key that nobody accounts for may change what is drawn; so it is refused, whatever its value.
"""

import itertools
import json
import math
import pathlib
from collections.abc import Collection, Mapping
from types import NoneType
from typing import Any, NamedTuple

from bsjax.convert.lfs import refuse_pointer
from bsjax.core.errors import UserError

ANY = object()  # every value of the right type
ABSENT = object()  # no value at all


class Key(NamedTuple):
    """What may stand under a key.

    A bool is no int, an int is a float, a tuple is a list; None needs NoneType among the kinds.
    Numbers that are infinite or no numbers need to be named by `only`.
    """

    kinds: tuple[type, ...]  # of bool, int, float, str, list, dict, NoneType
    only: Any = ANY  # the value that is supported; a tuple: each of these
    needed: bool = False
    default: Any = ABSENT  # what an absent key stands for; `only` holds for it too
    items: tuple[type, ...] = ()  # kinds of a list's items; none: anything
    least: float = -math.inf  # bounds of numbers, and of a list's numbers
    most: float = math.inf

    @property
    def choices(self) -> tuple:
        return self.only if isinstance(self.only, tuple) else (self.only,)


NAMES: dict[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a string",
    list: "a list",
    dict: "an object",
    NoneType: "null",
}
# What transformers writes into any config.json: of training, of generating text, of saving.
ANY_TRANSFORMER = (
    "architectures", "bad_words_ids", "begin_suppress_tokens", "bos_token_id",
    "cross_attention_hidden_size", "decoder_start_token_id", "diversity_penalty", "do_sample",
    "dtype", "early_stopping", "encoder_no_repeat_ngram_size", "exponential_decay_length_penalty",
    "finetuning_task", "forced_bos_token_id", "forced_eos_token_id", "id2label",
    "initializer_range", "label2id", "length_penalty", "max_length", "min_length",
    "no_repeat_ngram_size", "num_beam_groups", "num_beams", "num_return_sequences",
    "output_attentions", "output_hidden_states", "output_scores", "prefix", "problem_type",
    "remove_invalid_values", "repetition_penalty", "return_dict", "return_dict_in_generate",
    "sep_token_id", "suppress_tokens", "task_specific_params", "temperature", "tf_legacy_loss",
    "tie_encoder_decoder", "tie_word_embeddings", "tokenizer_class", "top_k", "top_p",
    "torch_dtype", "torchscript", "transformers_version", "typical_p", "use_bfloat16",
)  # fmt: skip
LONGEST = 60  # characters of a value that an error shows


def check_keys(
    where: str,
    config: Any,
    known: Mapping[str, Key],
    harmless: Collection[str] = (),
    flag: str = "",
) -> dict[str, Any]:
    """Refuses a config that says anything that is not followed.

    Args:
      where: the file, for the error.
      config: its content, which must be an object. Keys that start with "_" say who wrote it and
        are left alone.
      known: the keys that are used, or that must have one value.
      harmless: keys that change nothing here, whatever stands there.
      flag: what an error tells the user to set.

    Returns:
      The value of each known key, or what its absence stands for; without those that have neither.

    Raises:
      UserError: all keys that are unknown, missing, of another type or with an unsupported value.
    """
    if not isinstance(config, Mapping):
        raise UserError(f"{where}: expected a JSON object, got {shown(config)}; fetch it again")
    faults, values = [], {}
    if not isinstance(config.get("_class_name", ""), str):
        faults.append(f"_class_name={shown(config['_class_name'])}: expected a string")
    for name in config:
        if name not in known and name not in harmless and not name.startswith("_"):
            faults.append(f"{shown(name)[1:-1]}={shown(config[name])} is unknown")
    for name, key in known.items():
        value = config.get(name, key.default)
        if value is ABSENT:
            if key.needed:
                faults.append(f"{name} is missing: expected {_expected(key)}")
            continue
        if not _is_allowed(value, key):
            absent = "" if name in config else " (as it is absent)"
            faults.append(f"{name}={shown(value)}{absent}: expected {_expected(key)}")
        values[name] = value
    if faults:
        way_out = f"; set {flag} to a repository without that" if flag else ""
        raise UserError(f"{where} cannot be followed: {'; '.join(faults)}{way_out}")
    return values


def read_object(path: pathlib.Path, default: Any = None) -> Any:
    """The object of a repository's JSON file; the default where there is no such file.

    Raises:
      UserError: a git-lfs pointer, no JSON, or JSON that is no object.
    """
    if not path.is_file():
        return default
    refuse_pointer(path)
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError too
        raise UserError(f"{path} is no JSON ({error}); fetch it again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a JSON object, got {shown(content)}; fetch it again")
    return content


def shown(value: Any) -> str:
    """A value in one short line, as JSON has it."""
    text = json.dumps(value, default=repr)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def is_kind(value: Any, kinds: tuple[type, ...]) -> bool:
    """Whether a JSON value is of one of these types."""
    if isinstance(value, bool):
        return bool in kinds
    if isinstance(value, int):
        return int in kinds or float in kinds
    if isinstance(value, tuple):
        return list in kinds
    if isinstance(value, Mapping):
        return dict in kinds
    return isinstance(value, kinds)


def _is_allowed(value: Any, key: Key) -> bool:
    if not is_kind(value, key.kinds):
        return False
    if key.only is not ANY:
        return any(_is_same(value, choice) for choice in key.choices)
    if not isinstance(value, list | tuple):
        return _is_within(value, key)
    return all(
        (not key.items or is_kind(item, key.items)) and _is_within(item, key) for item in value
    )


def _is_same(value: Any, choice: Any) -> bool:
    """Equality as in JSON: 1 is 1.0, but neither is true."""
    if isinstance(value, list | tuple) and isinstance(choice, list | tuple):
        pairs = itertools.zip_longest(value, choice, fillvalue=ABSENT)
        return all(_is_same(one, other) for one, other in pairs)
    return isinstance(value, bool) == isinstance(choice, bool) and value == choice


def _is_within(value: Any, key: Key) -> bool:
    if not is_kind(value, (float,)):
        return True
    try:
        return math.isfinite(value) and key.least <= value <= key.most
    except OverflowError:  # a whole number beyond all floats
        return False


def _expected(key: Key) -> str:
    if key.only is not ANY:
        return "only " + " or ".join(shown(choice) for choice in key.choices)
    text = " or ".join(NAMES[kind] for kind in key.kinds)
    if key.items:
        text += f" of {' or '.join(NAMES[kind] for kind in key.items)}"
    if math.isfinite(key.least) or math.isfinite(key.most):
        low = f"{key.least:g}" if math.isfinite(key.least) else "any"
        text += f", {low} to {key.most:g}" if math.isfinite(key.most) else f", at least {low}"
    return text
