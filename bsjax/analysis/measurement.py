"""An image set -> measures/<set>/: the artifact with everything that it says of how it was made."""

import os
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from absl import logging

from bsjax.analysis.engine import FIRST_KEPT, Engine, Reading, measure_images
from bsjax.core import distributed
from bsjax.core.artifacts import hash_json, identity_for, write_manifest
from bsjax.core.distributed import WRITTEN
from bsjax.core.logs import PhaseTimer, step
from bsjax.core.paths import AnyPath
from bsjax.data.captions import ImageSet
from bsjax.results.measures import IMAGE_TABLE
from bsjax.results.shards import ShardStore

# What a silent set may come from: as the arguments are called.
SILENT = ("threshold", "sae", "encoder")


def write_measures(
    folder: AnyPath,
    name: str,
    images: ImageSet,
    reading: Reading,
    engine: Engine,
    *,
    settings: Mapping[str, Any],
    parents: Mapping[str, str],
    notes: Sequence[str] = (),
    names: tuple[str, str, str] = SILENT,
    n_kept: int = FIRST_KEPT,
    more: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """Measures a set into a folder, which `begin_stage` prepared; returns the manifest.

    Of several hosts all call it together, and one writes what does not belong to a shard.

    Args:
      folder: of the artifact.
      name: of the set.
      images: to be measured.
      reading: how they are read.
      engine: what computes.
      settings: for the manifest: what decides the result.
      parents: hashes of images, encoder and SAE.
      notes: warnings that go into the report.
      names: what a note calls threshold, SAE and encoder.
      n_kept: codes fetched of each token at first.
      more: entries of the manifest.

    Raises:
      UserError: too many images are unusable, tokens are not finite, or the disk is full.
    """
    identity = identity_for(settings, parents)
    store = ShardStore(folder, engine.n_concepts, engine.grid, identity=identity)
    timer = PhaseTimer()
    bad = measure_images(name, images, reading, engine, store, timer, n_kept)
    if timer.summary():
        logging.info("%s: %s", name, timer.summary())
    if not distributed.is_writer():
        return distributed.read_written(folder, "measure")
    with step(f"{name}: writing what the shards come to"):
        counts = store.finish(images.records, bad)
    silent = silence_note(name, counts, np.asarray(engine.threshold), names)
    for note in silent:
        logging.warning("%s", note)
    counts |= {
        "listed": images.n_listed,
        "unlisted": images.n_unlisted,
        # Where captions are read with the images, only now is it known how many are there.
        "without_caption": max(images.n_without_caption, _count_empty(folder)),
        "not_understood": len(images.not_understood),
        "bad": len(bad),
        "caption_source": images.caption_source,
        "tokens_per_image": engine.grid.n_tokens,
        "special_tokens": list(engine.grid.special_names),
    }
    manifest = write_manifest(
        folder,
        stage="measure",
        config=settings,
        parents=parents,
        counts=counts,
        notes=[*notes, *silent],
        bad_images=[image._asdict() for image in bad],
        **more,
    )
    store.clean()
    distributed.wait_for_all(WRITTEN)
    return manifest


def _count_empty(folder: AnyPath) -> int:
    with (folder / IMAGE_TABLE).open("rb") as file:  # a path alone goes past the object store
        captions = pq.read_table(file, columns=["caption"])["caption"]
    return sum(not caption for caption in captions.to_pylist())


def silence_note(
    name: str,
    counts: Mapping[str, Any],
    threshold: float | np.ndarray,
    names: tuple[str, str, str] = SILENT,
) -> list[str]:
    """A warning where no token of a set fired, which no honest SAE brings about; else none."""
    if counts["dead_concepts"] < counts["concepts"]:
        return []
    return [
        f"NOTHING FIRES: all {counts['concepts']} concepts are dead on the {counts['images']}"
        f" images of {name}, no code reaches the threshold ({float(np.min(threshold)):g}). Look at"
        f" {names[0]}, and whether {names[1]} was trained on the features of {names[2]}"
    ]


def settings_of(
    name: str,
    variant: str,
    weights: str,
    dtype: str,
    threshold: float | np.ndarray,
    reading: Reading,
) -> dict[str, Any]:
    """What decides the measures of a set, under the keys that a config has for it."""
    return {
        "encoder.crop": reading.crop,
        "encoder.dtype": dtype,
        "encoder.resize": reading.resize,
        "encoder.variant": variant,
        "encoder.weights": weights,
        "measure.top_images": reading.top_images,
        "sae.threshold": threshold if np.ndim(threshold) == 0 else "one a concept",
        "set": name,
    }


def digest_files(images: ImageSet) -> str:
    """Of names, captions, sizes and dates of a set's files."""
    listing = []
    for record in images.records:
        stat = os.stat(record.path)
        listing.append((record.key, record.caption, stat.st_size, stat.st_mtime_ns))
    return hash_json([listing, [image.key for image in images.bad]])
