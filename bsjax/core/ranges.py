"""Every key of a config: what it means, and what it may be, so that a value that cannot work is
refused before any work.

This table is the one place: checks, `bsjax configs NAME`, the page docs/configuration.md and
completion in a shell read it; defaults stand in `presets.experiment`. Numbers are whole or real; a
real one must also be a number in float32, in which training and statistics are computed. Rules
between keys stand in `core.config.validate`.
"""

import numbers
from collections.abc import Mapping
from typing import Any, NamedTuple

from bsjax.core.errors import UserError
from bsjax.core.families import FAMILIES

INT32 = 2**31 - 1  # indices and steps are counted in int32 on the devices
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
        below = value < self.high if self.is_high_open else value <= self.high
        return bool(above and below)

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

FOLD = Range(1, 1000, is_low_open=True)

FORMS = ("relative", "difference")
CLUSTERS = ("auto", "caption", "image", "none")
PAIRS = ("auto", "none")
CONTROLS = ("jpeg", "crop", "vae")
SOURCES = (
    "auto", "folder", "table", "webdataset", "parquet", "arrayrecord", "hf", "hf_stream", "tfds",
    "scenes",
)  # fmt: skip
CAPTIONS = ("first", "all")
SUPPLIES = ("memory", "store", "images")
DTYPES = ("float32", "bfloat16")
LOSSES = ("mse", "aux")
GENERATORS = ("none", *FAMILIES)
ACTIVATIONS = ("batch_topk", "topk", "jumprelu")
ENCODER_INITS = ("xavier", "candidates")
PRECISIONS = ("highest", "high")
STYLES = ("light", "dark")


class Key(NamedTuple):
    """What the value of a key may be (numbers, one of some words, any text, a switch), and what it
    means: unit first where it has one."""

    allowed: Range | tuple[str, ...] | type[str] | type[bool]
    meaning: str


IMAGE_SET = {
    "source": Key(SOURCES, "what path names; auto: as what lies there tells"),
    "path": Key(str, "folder | table of captions | shards (a pattern) | name of a hf or tfds set"),
    "split": Key(str, "of hf and tfds, and of a folder of files train-*.parquet, test-*.parquet"),
    "caption_field": Key(str, 'where captions are; "": caption, text, TEXT, prompt or captions'),
    "image_field": Key(str, 'where images are; "": image, jpg, png, webp, img or image_bytes'),
    "image_root": Key(str, 'folder of the images that a table names; "": beside it'),
    "prompts": Key(str, 'file of prompts that numbered images are of; "": prompts.txt beside them'),
    "captions": Key(CAPTIONS, "of an image's several captions; all: each with the image"),
    "follow_links": Key(bool, "images may lie outside of the folder; captions never may"),
    "limit": Key(AUTO, "only the first so many images; -1: all"),
    "max_bad": Key(SHARE, "largest share of unreadable images before the run stops"),
    "max_unpaired": Key(SHARE, "largest share without a partner in the other, if made elsewhere"),
    "workers": Key(whole(-1, 1024), "processes that decode; -1: by platform, 0: threads only"),
}
BY_SECTION = {
    "": {
        "seed": Key(whole(0, LARGEST_SEED), "of everything random"),
        "overwrite": Key(bool, "make anew what another config made"),
    },
    "mesh": {
        "data": Key(AUTO, "batch sharding: devices that share a batch; -1: all that model leaves"),
        "model": Key(AUTO, "model sharding: devices that share the concepts (training)"),
    },
    "real": IMAGE_SET,
    "generated": IMAGE_SET,
    "generator": {
        "name": Key(GENERATORS, "the pipeline, or module:Class; none: images made elsewhere"),
        "set": Key(str, "name of its images' folder"),
        "variant": Key(str, "which released shape; only for plan and random weights"),
        "weights": Key(str, "hub id | folder in the hub's layout | random:SEED"),
        "revision": Key(str, 'of the hub repository; "": the main branch'),
        "unet_weights": Key(str, 'another repository for the UNet; "": the same'),
        "prior_weights": Key(str, "Kandinsky: the repository of the prior"),
        "steps": Key(COUNT, "steps of the sampler"),
        "guidance": Key(Range(1, FLOAT32), "classifier-free guidance; 1: none"),
        "prior_steps": Key(COUNT, "Kandinsky: steps of the prior"),
        "prior_guidance": Key(Range(1, FLOAT32), "Kandinsky: guidance of the prior"),
        "height": Key(COUNT, "pixels"),
        "width": Key(COUNT, "pixels"),
        "dtype": Key(DTYPES, "of products; samples stay float32"),
        "batch_per_device": Key(AUTO, "images; -1: 1 on a CPU, 8 on accelerators"),
        "images_per_shard": Key(COUNT, "images a finished shard holds"),
        "prompts": Key(str, "file with one prompt per line, instead of the real images' captions"),
        "samples": Key(COUNT, "images per line of that file"),
    },
    "encoder": {
        "variant": Key(str, 'of the table of encoders | module:Class | "": as the weights say'),
        "weights": Key(str, "hub id | folder | .safetensors | .pth | random:SEED"),
        "resize": Key(AUTO, "pixels of the short side; -1: all of an image becomes crop x crop"),
        "crop": Key(COUNT, "pixels of the centre crop, a multiple of the patch"),
        "dtype": Key(DTYPES, "of products; parameters and statistics stay float32"),
        "batch_per_device": Key(AUTO, "images; -1: 1 on a CPU (fits its caches), else 32"),
    },
    "sae": {
        "weights": Key(str, '.pth as published | sae/ of a workdir | hub id; "": train one here'),
        "threshold": Key(NOT_NEGATIVE, "of a code; None: the checkpoint's own, else 0.829"),
    },
    "train": {
        "n_concepts": Key(COUNT, "concepts of the dictionary"),
        "n_candidates": Key(COUNT, "k-means centroids of tokens"),
        "candidate_iterations": Key(whole(0), "of k-means"),
        "candidate_tokens": Key(COUNT, "sample that the centroids are fitted to"),
        "n_active": Key(COUNT, "concepts per token, on average over a batch"),
        "relax_radius": Key(NOT_NEGATIVE, "how far an atom may lie off; same unit as features"),
        "loss": Key(LOSSES, "aux: mse, and what revives dead concepts"),
        "activation": Key(ACTIVATIONS, "what makes codes sparse"),
        "encoder_init": Key(ENCODER_INITS, "xavier: as published; candidates: from the atoms"),
        "l1_weight": Key(NOT_NEGATIVE, "times mean over tokens of summed codes (for jumprelu)"),
        "tokens_per_step": Key(COUNT, "batch size"),
        "accumulate": Key(COUNT, "micro-batches per step, each with a top-k of its own"),
        "steps": Key(whole(-1), "-1: as many as train.epochs takes"),
        "epochs": Key(POSITIVE._replace(also=-1), "over all tokens; counts where steps is -1"),
        "compute_dtype": Key(DTYPES, "of products; masters, sums and optimizer stay float32"),
        "full_precision_share": Key(SHARE, "of the steps, the last: in float32 all the same"),
        "full_precision": Key(PRECISIONS, "float32 products; high: 3 bfloat16 ones on a TPU"),
        "init_from": Key(str, 'RA-SAE to go on from: .pth | hub id | export; "": from scratch'),
        "peak_learning_rate": Key(POSITIVE, "of AdamW, after the warm-up"),
        "final_learning_rate": Key(NOT_NEGATIVE, "at the end of the cosine"),
        "warmup_share": Key(Range(0, 1, is_high_open=True), "of the steps"),
        "weight_decay": Key(NOT_NEGATIVE, "of AdamW"),
        "supply": Key(SUPPLIES, "tokens of memory | a store, written once | images as it goes"),
        "max_tokens": Key(COUNT, "supply=memory: tokens held, sampled evenly over the images"),
        "token_store": Key(str, "supply=store: its folder"),
        "shard_images": Key(AUTO, "supply=store: images per shard; -1: as many as make 0.5 GB"),
        "compare_with": Key(str, "sae folder of another seed, for quality.json's stability"),
        "judge_tokens": Key(COUNT, "eval tokens: sample that quality.json is measured on"),
        "look_every": Key(COUNT, "log metrics every N steps; each log waits for the devices"),
        "checkpoint_every": Key(COUNT, "save a checkpoint every N steps"),
        "keep_checkpoints": Key(COUNT, "how many of the newest stay"),
    },
    "plan": {
        "stage": Key(str, "train_sae | generate | measure"),
        "topology": Key(str, "TPUs and GPUs, with commas: v5e:2x4,h100:8"),
        "epoch_tokens": Key(whole(0, 2**53), "that an epoch will have, where train.steps is -1"),
        "local": Key(bool, "compile for this machine's devices too"),
        "fixed_mesh": Key(bool, "only the shape in mesh instead of all"),
    },
    "measure": {
        "top_images": Key(whole(1, LONGEST_TOP_LIST), "images kept per concept"),
        "rank_concept": Key(whole(-1), "rank captions by this concept; -1: do not"),
        "images_per_shard": Key(COUNT, "an interrupted run repeats at most so many images"),
        "controls": Key(str, f"real images changed, too: some of {', '.join(CONTROLS)}"),
    },
    "compare": {
        "form": Key(FORMS, "of the contrast that delta is made from"),
        "temperature": Key(POSITIVE, "T; the reference: 0.4 for relative, 0.8 for difference"),
        "margin": Key(FOLD, "fold; suppressed and exaggerated concepts changed by more"),
        "aligned": Key(FOLD, "fold; aligned concepts changed by less"),
        "fdr": Key(Range(0, 1, is_low_open=True), "false discovery rate of each test"),
        "confirm": Key(Range(0, 0.9), "share held back to confirm what the rest suggests; 0: none"),
        "clusters": Key(
            CLUSTERS, "what pairs that count as one share: caption, real image, either"
        ),
        "pairs": Key(PAIRS, "auto: by name or caption; none: the captions differ (unpaired tests)"),
    },
    "report": {
        "style": Key(STYLES, "look of the figures' files; pages follow their reader's"),
    },
}
SECTIONS = {
    "": "of the whole experiment",
    "mesh": "how devices are divided",
    "real": "real images with captions",
    "generated": "images made elsewhere from the captions of the real ones",
    "generator": "the text-to-image model that draws",
    "encoder": "the vision encoder that makes tokens of images",
    "sae": "the sparse autoencoder that makes concepts of tokens",
    "train": "training of an RA-SAE, where none is given",
    "plan": "what `bsjax plan` compiles",
    "measure": "statistics of each set of images",
    "compare": "divergences and verdicts",
    "report": "figures and pages",
}
KEYS = {
    f"{section}.{name}".removeprefix("."): key
    for section, keys in BY_SECTION.items()
    for name, key in keys.items()
}
# Keys of before -> what to use in their place.
_FOLD = "compare.margin, the fold by which suppressed and exaggerated concepts changed (1.5)"
GONE = {
    "compare.suppressed": _FOLD,
    "compare.exaggerated": _FOLD,
    "compare.min_images": "nothing: the smallest number of images follows from compare.margin",
    "compare.bootstrap": "nothing: intervals follow from the codes without resampling",
}
MAY_BE_NONE = ("sae.threshold",)
RANGES = {name: key.allowed for name, key in KEYS.items() if isinstance(key.allowed, Range)}
CHOICES = {name: key.allowed for name, key in KEYS.items() if type(key.allowed) is tuple}
BOOLS = tuple(name for name, key in KEYS.items() if key.allowed is bool)
TEXTS = tuple(name for name, key in KEYS.items() if key.allowed is str or name in CHOICES)


def expected_of(key: str) -> str:
    """What the value of a dotted key may be, in words."""
    if key in RANGES:
        return f"{RANGES[key]}, or None" if key in MAY_BE_NONE else str(RANGES[key])
    if key in CHOICES:
        return f"one of {', '.join(CHOICES[key])}"
    return "True or False" if key in BOOLS else "text"


def told_gone(key: str) -> str:
    """What a key of before is and what to use in its place, in words; "" for any other."""
    return f"there is no such key any more; use {GONE[key]}" if key in GONE else ""


def check_values(flat: Mapping[str, Any]) -> None:
    """Checks each value of a flat config (dotted key -> value) alone; unknown keys may be anything.

    Raises:
      UserError: the first that has not the type or lies outside of its range, with the flag; or a
        key of before, with what has taken its place.
    """
    for key, value in flat.items():
        if key in GONE:
            raise UserError(f"{key}={value!r}: {told_gone(key)}; remove it from the config")
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
