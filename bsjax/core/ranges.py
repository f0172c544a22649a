"""What every number of a config may be, so that one that cannot work is refused before any work.

Of two kinds: whole numbers and real ones; a real one must also be a number in float32, in which
training and statistics are computed. Rules between keys stand in `core.config.validate`.
"""

import numbers
from collections.abc import Mapping
from typing import Any, NamedTuple

from bsjax.core.errors import UserError

INT32 = 2**31 - 1  # places and steps are counted in int32 on the devices
FLOAT32 = 3.4e38
LARGEST_SEED = 2**32 - 1  # jax takes the last 32 bits of a larger one
LONGEST_TOP_LIST = 1024  # held for every concept, on every device


class Range(NamedTuple):
    """Numbers from `low` to `high`, and the one that stands for "chosen by the program"."""

    low: float
    high: float
    is_whole: bool = False
    is_low_open: bool = False  # low itself does not count
    is_high_open: bool = False
    also: float | None = None

    def holds(self, value: Any) -> bool:
        kind = numbers.Integral if self.is_whole else numbers.Real
        if isinstance(value, bool) or not isinstance(value, kind):
            return False
        if value == self.also:
            return True
        # A comparison with NaN is false.
        above = self.low < value if self.is_low_open else self.low <= value
        return above and (value < self.high if self.is_high_open else value <= self.high)

    def __str__(self) -> str:
        kind = "a whole number" if self.is_whole else "a number"
        low = f"above {self.low:g}" if self.is_low_open else f"from {self.low:g}"
        if self.high in (INT32, FLOAT32):
            high = " on" if not self.is_low_open else ""
        else:
            high = f" to below {self.high:g}" if self.is_high_open else f" to {self.high:.10g}"
        also = "" if self.also is None else f", or {self.also:g}"
        return f"{kind} {low}{high}{also}"


def whole(low: int, high: int = INT32, also: int | None = None) -> Range:
    """Whole numbers."""
    return Range(low, high, is_whole=True, also=also)


COUNT, SHARE, AUTO = whole(1), Range(0, 1), whole(1, also=-1)
POSITIVE, NOT_NEGATIVE = Range(0, FLOAT32, is_low_open=True), Range(0, FLOAT32)
IMAGE_SET = {
    "limit": AUTO,
    "max_bad": SHARE,
    "max_unpaired": SHARE,
    "workers": whole(-1, 1024),
}
BY_SECTION = {
    "": {"seed": whole(0, LARGEST_SEED)},
    "mesh": {"data": AUTO, "model": AUTO},
    "real": IMAGE_SET,
    "generated": IMAGE_SET,
    "generator": {
        "steps": COUNT,
        "guidance": Range(1, FLOAT32),
        "prior_steps": COUNT,
        "prior_guidance": Range(1, FLOAT32),
        "height": COUNT,
        "width": COUNT,
        "batch_per_device": AUTO,
        "images_per_shard": COUNT,
        "samples": COUNT,
    },
    "encoder": {"resize": AUTO, "crop": COUNT, "batch_per_device": AUTO},
    "sae": {"threshold": NOT_NEGATIVE},
    "train": {
        "n_concepts": COUNT,
        "n_candidates": COUNT,
        "candidate_iterations": whole(0),
        "candidate_tokens": COUNT,
        "n_active": COUNT,
        "relax_radius": NOT_NEGATIVE,
        "l1_weight": NOT_NEGATIVE,
        "tokens_per_step": COUNT,
        "accumulate": COUNT,
        "steps": whole(-1),
        "epochs": POSITIVE._replace(also=-1),
        "full_precision_share": SHARE,
        "peak_learning_rate": POSITIVE,
        "final_learning_rate": NOT_NEGATIVE,
        "warmup_share": Range(0, 1, is_high_open=True),
        "weight_decay": NOT_NEGATIVE,
        "max_tokens": COUNT,
        "shard_images": AUTO,
        "judge_tokens": COUNT,
        "look_every": COUNT,
        "checkpoint_every": COUNT,
        "keep_checkpoints": COUNT,
    },
    "plan": {"epoch_tokens": whole(0, 2**53)},
    "measure": {
        "top_images": whole(1, LONGEST_TOP_LIST),
        "rank_concept": whole(-1),
        "images_per_shard": COUNT,
    },
    "compare": {
        "temperature": POSITIVE,
        "suppressed": SHARE,
        "exaggerated": SHARE,
        "fdr": Range(0, 1, is_low_open=True),
        "min_images": COUNT,
        "bootstrap": whole(0, 100_000),
    },
}
RANGES = {
    f"{section}.{name}".removeprefix("."): allowed
    for section, ranges in BY_SECTION.items()
    for name, allowed in ranges.items()
}
MAY_BE_NONE = ("sae.threshold",)
BOOLS = (
    "overwrite",
    "real.follow_links",
    "generated.follow_links",
    "plan.local",
    "plan.fixed_mesh",
)
IMAGE_SET_TEXTS = "source path split caption_field image_field captions"
TEXTS_BY_SECTION = {
    "real": IMAGE_SET_TEXTS,
    "generated": IMAGE_SET_TEXTS,
    "generator": "name set variant weights revision unet_weights prior_weights dtype prompts",
    "encoder": "variant weights dtype",
    "sae": "weights",
    "train": (
        "loss activation encoder_init compute_dtype full_precision init_from supply token_store"
        " compare_with"
    ),
    "plan": "stage topology",
    "compare": "form",
}
TEXTS = tuple(
    f"{section}.{name}" for section, names in TEXTS_BY_SECTION.items() for name in names.split()
)


def expected_of(key: str) -> str:
    """What the value of a dotted key may be, in words."""
    if key in RANGES:
        return f"{RANGES[key]}, or None" if key in MAY_BE_NONE else str(RANGES[key])
    return "True or False" if key in BOOLS else "text"


def check_values(flat: Mapping[str, Any]) -> None:
    """Checks each value of a flat config (dotted key -> value) alone; unknown keys may be anything.

    Raises:
      UserError: the first that has not the type or lies outside of its range, with the flag.
    """
    for key, value in flat.items():
        if value is None and key in MAY_BE_NONE:
            continue
        if (
            (key in RANGES and not RANGES[key].holds(value))
            or (key in BOOLS and not isinstance(value, bool))
            or (key in TEXTS and not isinstance(value, str))
        ):
            raise UserError(f"{key}={value!r}: expected {expected_of(key)}; set --config.{key}")


def check_seed_of_weights(key: str, weights: str) -> None:
    """Checks the seed of random:SEED, which stands for untrained weights.

    Raises:
      UserError: no whole number, or one that no generator of random numbers takes.
    """
    name, colon, seed = weights.partition(":")
    is_seed = seed.isascii() and seed.isdigit() and int(seed) <= LARGEST_SEED
    if name == "random" and colon and not is_seed:
        raise UserError(
            f"{key}={weights}: expected random:SEED with a whole number from 0 to {LARGEST_SEED};"
            f" set --config.{key}"
        )
