"""What several stages read: the image sets, the encoder and the SAE that a config names."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import ml_collections
import numpy as np
from absl import logging
from etils import epath
from jax.sharding import Mesh

from bsjax.analysis.measurement import digest_files
from bsjax.convert.rasae import TRAINED, LoadedSAE, load_rasae, look_at_rasae
from bsjax.core import mirror
from bsjax.core.artifacts import (
    REAL,
    check_files,
    hash_json,
    read_manifest,
    require_manifest,
)
from bsjax.core.errors import UserError, naming
from bsjax.core.foreign import printable
from bsjax.core.logs import step
from bsjax.core.mesh import images_per_step
from bsjax.core.paths import AnyPath
from bsjax.data.captions import SHOWN, BadImage, ImageSet, Record, check_bad
from bsjax.data.image_shards import Prompt, list_generated
from bsjax.data.pairing import Named
from bsjax.data.prompts import read_prompts
from bsjax.data.recognise import list_images
from bsjax.data.text import FIRST, Fields
from bsjax.encoders.loading import load_encoder as load
from bsjax.encoders.protocol import Encoder
from bsjax.experiment import encoder as encoders
from bsjax.generators import loading
from bsjax.generators.protocol import Settings
from bsjax.results.measures import refuse_duplicates as refuse_duplicates

PUBLISHED_THRESHOLD = 0.829


class Arm(NamedTuple):
    """One image set of the comparison."""

    name: str  # of its artifact folders: "real" or the generated set's name
    section: str  # of the config: "real" or "generated"
    images: ImageSet
    digest: str  # of names, captions, sizes and dates of the image files
    notes: tuple[str, ...] = ()  # warnings about how the images were made


def named(arm: Arm) -> Named:
    """What the images of an arm are paired by."""
    records = arm.images.records
    return Named(
        [record.key for record in records],
        # Captions that are read one by one are asked for only where no name fits.
        Captions(records),
        [record.cluster or record.key for record in records],
    )


class Captions(Sequence):
    """The captions of records, each read when it is asked for."""

    def __init__(self, records: Sequence[Record]):
        self.records = records

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, row: int) -> str:
        return self.records[row].caption


class PromptList(NamedTuple):
    """What a generator has to draw."""

    usable: list[Prompt]
    n_without_caption: int  # left out: there is nothing to draw


def generated_name(config: ml_collections.ConfigDict) -> str:
    """Name of the generated set; "generated" for images made elsewhere."""
    return "generated" if config.generator.name == "none" else config.generator.set


def list_prompts(config: ml_collections.ConfigDict) -> PromptList:
    """The captions of the real images, or the lines of a file, each as often as asked.

    Raises:
      UserError: no such file, or not one caption.
    """
    generator = config.generator
    if generator.prompts:
        path = epath.Path(generator.prompts).expanduser()
        if not path.is_file():
            raise UserError(f"{path} does not exist; set --config.generator.prompts")
        lines = read_prompts(path)
        all_prompts = [
            Prompt(line * generator.samples + i, f"p{line:05d}-s{i:04d}", text)
            for line, text in enumerate(lines)
            for i in range(generator.samples)
        ]
    else:
        records = load_set(config, "real").images.records
        path = config.real.path
        all_prompts = [
            Prompt(row, record.key, record.caption.strip()) for row, record in enumerate(records)
        ]
    usable = [prompt for prompt in all_prompts if prompt.caption]
    if not usable:
        raise UserError(
            f"{path} has not one caption to draw an image for; add captions, or set"
            f" {'--config.generator.prompts' if generator.prompts else '--config.real.path'}"
        )
    return PromptList(usable, len(all_prompts) - len(usable))


def load_arms(config: ml_collections.ConfigDict, workdir: AnyPath) -> list[Arm]:
    """Lists the real images and, if there are any, the generated ones.

    Raises:
      UserError: a faulty folder, or more images absent than the config allows.
    """
    arms = [load_set(config, "real")] if config.real.path else []
    if config.generator.name != "none":
        name = generated_name(config)
        folder = workdir / "images" / name
        manifest = require_manifest(folder, "generate")
        bad = tuple(BadImage(**image) for image in manifest["bad_images"])
        found = list_generated(epath.Path(folder))
        images = found._replace(bad=bad, n_listed=found.n_listed + len(bad))
        with naming_arm("generated"):
            check_bad(bad, images.n_listed, config.generated.max_bad, "--config.generated.max_bad")
        notes = tuple(manifest["notes"])
        arms.append(Arm(name, "generated", images, manifest["config_hash"], notes))
    elif config.generated.path:
        arms.append(load_set(config, "generated"))
    return arms


def load_set(config: ml_collections.ConfigDict, section: str) -> Arm:
    """The images that config.real or config.generated names."""
    with naming_arm(section):
        return _load_set(config, section)


@contextlib.contextmanager
def naming_arm(section: str) -> Iterator[None]:
    """Says of a mistake with images which arm they are of."""
    try:
        yield
    except UserError as error:
        text, known = str(error), f"{section} images: "
        raise UserError(text if text.startswith(known) else known + text) from error


def _load_set(config: ml_collections.ConfigDict, section: str) -> Arm:
    source = config[section]
    name = REAL if section == "real" else generated_name(config)
    fields = Fields(
        source.get("caption_field", ""),
        source.get("image_field", ""),
        source.get("captions", FIRST),
        source.get("image_root", ""),
    )
    follow_links = source.get("follow_links", True)
    images, identity = list_images(
        *(source.source, source.path, source.get("split", "train"), source.limit, fields),
        *(follow_links, section),
        prompts=source.get("prompts", ""),
    )
    check_bad(images.bad, images.n_listed, source.max_bad, f"--config.{section}.max_bad")
    _tell_of(name, images)
    digest = digest_files(images) if identity is None else hash_json(identity)
    return Arm(name, section, images, digest, images.notes)


def _tell_of(name: str, images: ImageSet) -> None:
    """Log lines about what is listed and what is left out."""
    for note in images.notes:
        logging.warning("%s: %s", name, printable(note))
    if images.n_unlisted:
        logging.info("%s: %d images are not in captions.csv", name, images.n_unlisted)
    others = images.not_understood
    if others:
        shown = ", ".join(printable(other) for other in others[:SHOWN])
        more = f" and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
        logging.warning(
            "%s: left out, of kinds that are not read, %d: %s%s",
            name,
            len(others),
            shown,
            more,
        )


def weights_folder(config: ml_collections.ConfigDict, workdir: AnyPath) -> AnyPath:
    """Where `convert` puts the converted generator."""
    return epath.Path(workdir) / "weights" / config.generator.set


def open_generator(config: ml_collections.ConfigDict, workdir: AnyPath) -> loading.Opened:
    """The generator of the config: as `convert` left it in the workdir, else from its weights.

    A loud line tells if it is untrained.
    """
    generator = config.generator
    cached = weights_folder(config, workdir)
    if (cached / loading.CACHE).exists():
        logging.info("generator: converted before, in %s", cached)
        return loading.open_cache(
            generator.name, cached, generator_settings(config), weights_of(config)
        )
    return open_original(config)


def weights_of(config: ml_collections.ConfigDict) -> dict[str, str]:
    """Repository -> hub id or folder."""
    generator = config.generator
    return {
        "": generator.weights,
        "unet": generator.unet_weights,
        "prior": generator.prior_weights,
    }


def open_original(config: ml_collections.ConfigDict) -> loading.Opened:
    """The generator of the config from its weights."""
    generator = config.generator
    with step(f"opening the generator {generator.weights}"):
        opened = loading.open_generator(
            generator.name,
            generator.variant,
            weights_of(config),
            generator_settings(config),
            generator.revision or None,
        )
    for note in generator_notes(config):
        logging.warning("%s", note)
    return opened


def generator_to_plan(config: ml_collections.ConfigDict) -> loading.Generator:
    """The generator of the config by its released shape; no weights are looked for."""
    generator = config.generator
    return loading.build(generator.name, generator.variant, generator_settings(config))


def generator_settings(config: ml_collections.ConfigDict) -> Settings:
    """How images are drawn."""
    generator = config.generator
    return Settings(**{name: generator[name] for name in Settings._fields})


def generator_notes(config: ml_collections.ConfigDict) -> list[str]:
    """Warnings about the generator that go into log, manifest and report."""
    generator = config.generator
    if not generator.weights.startswith(loading.RANDOM):
        return []
    return [
        f"UNTRAINED GENERATOR: {generator.variant} has random weights ({generator.weights}). Its"
        " images are noise; the numbers show how bsjax works, not what a model draws."
    ]


def images_a_step(config: ml_collections.ConfigDict, mesh: Mesh) -> int:
    """Images that are drawn at once."""
    return images_per_step(config.generator.batch_per_device, mesh, on_accelerators=8)


def load_encoder(config: ml_collections.ConfigDict) -> Encoder:
    """The encoder of the config with its parameters, with a loud line if it is untrained."""
    encoder = config.encoder
    told = f"loading the encoder {encoder.variant} from {encoder.weights}"
    with step(told), naming(encoders.FLAGS):
        loaded = load(
            encoder.weights,
            variant=encoder.variant or None,
            dtype=encoder.dtype,
            resize=encoder.resize,
            crop=encoder.crop,
        )
    for note in encoder_notes(loaded):
        logging.warning("%s", note)
    return loaded


def parents_of(encoder: Encoder, arms: Sequence[Arm]) -> dict[str, str]:
    """Hashes of what tokens are made from, for a manifest."""
    return {"encoder": encoder.digest} | {f"images/{arm.name}": arm.digest for arm in arms}


def encoder_notes(encoder: Encoder) -> list[str]:
    """Remarks about the encoder that go into log, manifest and report."""
    return list(encoder.notes)


def load_sae(
    config: ml_collections.ConfigDict, workdir: AnyPath, encoder: Encoder
) -> tuple[LoadedSAE, float | np.ndarray]:
    """The SAE of the config (or the one trained in the workdir) and the threshold to use.

    Raises:
      UserError: none there, another than was trained, or one for features of another width.
    """
    weights = config.sae.weights
    if not weights:
        if not (workdir / "sae" / TRAINED).is_file():
            raise UserError(
                f"{workdir / 'sae'} holds no trained SAE; set --config.sae.weights or run"
                " `bsjax train_sae` first"
            )
        manifest = read_manifest(workdir / "sae", "train_sae")
        if manifest is not None:
            check_files(workdir / "sae", manifest, [TRAINED])
        weights = str(mirror.fetch(workdir / "sae", [TRAINED]))
    # By the header, before W of a published file is fused.
    check_width(weights, look_at_rasae(weights)[0], encoder.width, encoder.variant)
    with step(f"loading the SAE {weights}"):
        sae = load_rasae(weights)
    return sae, threshold_of(sae, config.sae.threshold, weights)


def threshold_of(
    sae: LoadedSAE, chosen: float | None, weights: str, name: str = "--config.sae.threshold"
) -> float | np.ndarray:
    """The threshold to use: the one chosen, else the checkpoint's own, else the published one.

    Args:
      sae: as loaded.
      chosen: by the user, or None.
      weights: what the SAE was loaded from, for the warning where the published one is taken.
      name: of the setting, for the same.
    """
    threshold = sae.threshold if chosen is None else chosen
    if threshold is None:
        threshold = PUBLISHED_THRESHOLD
        logging.warning(
            "%s stores no running_threshold: codes from %g on fire, as published; for another set"
            " %s",
            weights, threshold, name,
        )  # fmt: skip
    return threshold if np.ndim(threshold) else float(threshold)


def check_width(weights: str, width: int, expected: int, variant: str) -> None:
    """Refuses an SAE for the features of another encoder.

    Raises:
      UserError: it is one.
    """
    if width != expected:
        raise UserError(
            f"{weights} is an SAE of features of width {width}, expected {expected} of {variant};"
            " set --config.encoder.variant or --config.sae.weights to match"
        )


def batch_size(config: ml_collections.ConfigDict, mesh: Mesh) -> int:
    """Images per step: one image's tokens and codes fit a CPU's caches, accelerators want many."""
    return images_per_step(config.encoder.batch_per_device, mesh, on_accelerators=32)
