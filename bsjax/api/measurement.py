"""measure: images -> how strongly each concept of an SAE shows in them."""

import contextlib
import dataclasses
import os
import pathlib
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bsjax.analysis.engine import Reading, make_engine
from bsjax.analysis.measurement import settings_of, write_measures
from bsjax.api.arguments import in_arguments, naming_arguments
from bsjax.api.encoder import batch_size
from bsjax.api.images import list_images, pictures_of
from bsjax.core import lock
from bsjax.core.artifacts import begin_stage
from bsjax.core.errors import UserError
from bsjax.core.mesh import make_mesh
from bsjax.core.ranges import RANGES
from bsjax.data.captions import check_bad
from bsjax.experiment.workers import n_workers
from bsjax.results.measures import Measured, read_measured

MOST_BAD = 0.01
# What the loop asks to look at, as users know it.
NAMES = {"weights": "the encoder's weights", "dtype": "its dtype"}


# Over 80 lines: most of them say what its arguments mean.
def measure(
    images: Any,
    encoder: Any,
    sae: Any,
    *,
    captions: Sequence[str] | Mapping[str, str] | None = None,
    keys: Sequence[str] | None = None,
    source: str = "auto",
    split: str = "train",
    caption_field: str = "",
    image_field: str = "",
    image_root: str = "",
    all_captions: bool = False,
    limit: int = -1,
    max_bad: float = MOST_BAD,
    top_images: int = 12,
    batch_per_device: int = -1,
    images_per_shard: int = 256,
    workdir: str | os.PathLike | None = None,
    name: str = "images",
    overwrite: bool = False,
) -> Measured:
    """Describes images by the concepts of an SAE: the numbers of `bsjax measure`.

    Each image is resized and cropped by itself: sizes may differ.

    Args:
      images: a folder of images with captions beside them; or a sequence of paths of files, of
        uint8 arrays [H, W, 3], of PIL images, of mappings with image (and caption, key), of
        records.
      encoder: from `bsjax.load_encoder`.
      sae: from `bsjax.load_sae`, for features of that encoder.
      captions: one per image, or key -> caption; a folder has its own.
      keys: names that pair the images with others'; by default names of files without suffix, or
        numbers in order.
      source: what a path is of: auto (as what lies there tells) | folder | table | webdataset |
        parquet | arrayrecord | hf | hf_stream | tfds | scenes.
      split: of a hf or tfds data set, or of a folder of parquet files.
      caption_field: where captions are, if not in a usual field.
      image_field: where images are, if not in a usual field.
      image_root: folder of the images that a table names, if not beside it.
      all_captions: each caption of an image counts, with the image.
      limit: only the first so many images; -1: all.
      max_bad: largest share of images that may be unusable; they are left out.
      top_images: images kept for each concept.
      batch_per_device: images per step on each device; -1: 1 on a CPU, 32 on accelerators.
      images_per_shard: with `workdir`, an interrupted call repeats at most so many.
      workdir: folder to keep measures/<name>/ in, where the same call finds them again; without it
        they go with the object.
      name: of the set.
      overwrite: make anew what another call made in `workdir`.

    Raises:
      UserError: no usable image, more unusable ones than `max_bad`, an SAE for features of another
        width, values that are not finite, a full disk.
    """
    _require(encoder, "encoder", ("apply", "params", "crop"), "bsjax.load_encoder")
    _require(sae, "sae", ("loaded", "threshold"), "bsjax.load_sae")
    if encoder.width != sae.width:
        raise UserError(
            f"the SAE {sae.source} is for features of width {sae.width}, {encoder.variant} of"
            f" {encoder.source} gives {encoder.width}; give the {{sae}} of this {{encoder}}",
            "sae",
            "encoder",
        )
    for key, value in (("top_images", top_images), ("images_per_shard", images_per_shard)):
        _require_range(key, value, RANGES[f"measure.{key}"])
    _require_range("max_bad", max_bad, RANGES["real.max_bad"])
    with naming_arguments(NAMES), contextlib.ExitStack() as stack:
        listed = list_images(
            images, captions=captions, keys=keys, source=source, split=split, limit=limit,
            caption_field=caption_field, image_field=image_field, image_root=image_root,
            all_captions=all_captions,
        )  # fmt: skip
        check_bad(listed.images.bad, listed.images.n_listed, max_bad)
        owner = None
        if workdir is None:
            owner = _Folder()
            root = owner.path
        else:
            root = pathlib.Path(workdir).expanduser()
            stack.enter_context(lock.hold(root, "measure"))
        mesh = make_mesh()
        n = batch_size(batch_per_device, mesh)
        reading = Reading(
            resize=encoder.resize,
            crop=encoder.crop,
            max_bad=max_bad,
            workers=n_workers(-1, n * encoder.crop**2 * 3),
            top_images=top_images,
            images_per_shard=images_per_shard,
        )
        settings = settings_of(
            name, encoder.variant, encoder.source, encoder.dtype, sae.threshold, reading
        )
        parents = {"images": listed.digest, "encoder": encoder.digest, "sae": sae.digest}
        folder = root / "measures" / name
        done = begin_stage(
            folder, config=settings, parents=parents, overwrite=overwrite, stage="measure"
        )
        if done is None:
            engine = make_engine(
                encoder,
                encoder.params,
                sae.loaded.encoder,
                sae.threshold,
                crop=encoder.crop,
                dtype=encoder.dtype,
                mesh=mesh,
                batch_size=n,
            )
            write_measures(
                folder, name, listed.images, reading, engine, settings=settings, parents=parents,
                notes=[*encoder.notes, *map(in_arguments, listed.images.notes)],
            )  # fmt: skip
        measured = read_measured(folder)
    pictures = pictures_of(listed.images, measured.keys)
    return dataclasses.replace(measured, pictures=pictures, owner=owner, sae=sae.source)


class _Folder:
    """A temporary folder, which goes with the last object that refers to this one."""

    def __init__(self) -> None:
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="bsjax-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


def _require(value: Any, name: str, parts: Sequence[str], maker: str) -> None:
    if not all(hasattr(value, part) for part in parts):
        raise UserError(
            f"{{{name}}} is a {type(value).__name__}; expected what {maker} returns", name
        )


def _require_range(name: str, value: Any, bounds: Any) -> None:
    if not bounds.holds(np.asarray(value).item()):
        raise UserError(f"{{{name}}}={value!r}: expected {bounds}", name)
