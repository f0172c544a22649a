"""Image sets as users have them: folders, files, arrays, PIL images, records; in memory or not."""

import dataclasses
import hashlib
import itertools
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from bsjax.analysis.measurement import digest_files
from bsjax.core.artifacts import hash_json
from bsjax.core.errors import UserError
from bsjax.data.captions import ImageRecord, ImageSet
from bsjax.data.recognise import list_images as list_from
from bsjax.data.text import ALL, FIRST, Fields
from bsjax.results.measures import refuse_duplicates

MODES = {2: "L", 3: "RGB", 4: "RGBA"}  # by dimensions or channels


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """An image in memory, as a record of a set.

    Attributes:
      key: pairs it with its counterpart in the other set.
      caption: its text; "" where it has none.
      image: of any mode and size.
    """

    key: str
    caption: str
    image: Image.Image
    path: str = ""
    cluster: str = ""
    extra: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def read(self) -> Image.Image:
        """The image."""
        return self.image


class Listed(NamedTuple):
    """An image set, and what tells it from others."""

    images: ImageSet
    digest: str


def list_images(
    images: Any,
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
) -> Listed:
    """Lists what a user gives as images; opens no file of an image.

    Args:
      images: a folder (or, with `source`, what that takes), or a sequence of paths of files, of
        uint8 arrays [H, W, 3] (or [H, W], [H, W, 4]), of PIL images, of mappings with image (and
        caption, key), of records; an array [n, H, W, 3] too. Sizes may differ.
      captions: one per image, or key -> caption; a folder has its own beside its images.
      keys: one per image, where they are not the names of files, or numbers in order.
      source: of a path: auto (as what lies there tells) | folder | table | webdataset | parquet |
        arrayrecord | hf | hf_stream | tfds | scenes.
      split: of a hf or tfds data set, or of a folder of parquet files.
      caption_field: where captions are, if not in a usual field.
      image_field: where images are, if not in a usual field.
      image_root: folder of the images that a table names, if not beside it.
      all_captions: of an image's several captions, each with the image.
      limit: only the first so many; -1: all.

    Raises:
      UserError: nothing there, or something that is no image.
    """
    if isinstance(images, str | os.PathLike):
        if keys is not None:
            raise UserError("{keys}: a folder's images are known by their names", "keys")
        if captions is not None and not isinstance(captions, Mapping):
            raise UserError(
                "{captions}: a folder's images come in the order of their names; expected a mapping"
                " from key to caption",
                "captions",
            )
        several = ALL if all_captions else FIRST
        fields = Fields(caption_field, image_field, several, image_root)
        return _list_path(os.fspath(images), source, split, limit, fields, captions)
    if isinstance(images, ImageSet):
        images = images.records
    if isinstance(images, Mapping) or not hasattr(images, "__len__"):
        raise UserError(
            f"{{images}} is a {type(images).__name__}; expected a folder, or a list of paths, of"
            " arrays, of PIL images or of records; give one of these",
            "images",
        )
    if isinstance(images, Image.Image) or (hasattr(images, "shape") and _is_one(images)):
        raise UserError("{images} is one image, expected a list of them; put it into one", "images")
    images = list(itertools.islice(images, limit if limit >= 0 else None))
    if not images:
        raise UserError("{images} is empty, expected at least one image; add some", "images")
    for name, values in (("captions", captions), ("keys", keys)):
        if values is not None and not isinstance(values, Mapping) and len(values) != len(images):
            raise UserError(
                f"{{{name}}} has {len(values)} entries, expected one for each of the"
                f" {len(images)} images",
                name,
            )
    records = [_record(image, row) for row, image in enumerate(images)]
    if keys is not None:
        records = [_renamed(r, key=str(key)) for r, key in zip(records, keys, strict=True)]
    if isinstance(captions, Mapping):
        records = [_told(record, captions) for record in records]
    elif captions is not None:
        told = zip(records, map(str, captions), strict=True)
        records = [_renamed(record, caption=caption) for record, caption in told]
    refuse_duplicates((record.key for record in records), "images")
    return Listed(_image_set(records), hash_json([_identity(record) for record in records]))


def _list_path(
    path: str,
    source: str,
    split: str,
    limit: int,
    fields: Fields,
    captions: Mapping[str, str] | None,
) -> Listed:
    found, identity = list_from(source, path, split, limit, fields)
    digest = digest_files(found) if identity is None else hash_json(identity)
    if captions is None:
        return Listed(found, digest)
    records = [_told(record, captions) for record in found.records]
    return Listed(_image_set(records), hash_json([digest, dict(captions)]))


def pictures_of(images: ImageSet, keys: Sequence[str]) -> dict[int, Any]:
    """Row among `keys` -> image, of those that are in memory alone."""
    place = {key: row for row, key in enumerate(keys)}
    return {
        place[record.key]: record.image
        for record in images.records
        if isinstance(record, Picture) and record.key in place
    }


def _image_set(records: Sequence[Any]) -> ImageSet:
    n_without = sum(not record.caption for record in records)
    return ImageSet(tuple(records), (), len(records), 0, n_without, "arguments")


def _is_one(array: Any) -> bool:
    return array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))


def _record(image: Any, row: int) -> Any:
    """An entry of a list as a record."""
    key, caption = f"{row:06d}", ""
    if isinstance(image, Mapping):
        if "image" not in image:
            raise UserError(
                f"{{images}}[{row}] has the fields {', '.join(map(str, image))}; expected image,"
                " and perhaps caption and key",
                "images",
            )
        caption, chosen = str(image.get("caption") or ""), image.get("key")
        inner = _record(image["image"], row)
        return _renamed(inner, caption=caption, **({} if chosen is None else {"key": str(chosen)}))
    if isinstance(image, str | os.PathLike):
        path = pathlib.Path(image).expanduser()
        return ImageRecord(path.stem, str(path.absolute()), "", {}, path.stem)
    if isinstance(image, Image.Image):
        return Picture(key, caption, image, cluster=key)
    if hasattr(image, "read") and hasattr(image, "key"):
        return image
    return Picture(key, caption, _as_pil(image, row), cluster=key)


def _as_pil(image: Any, row: int) -> Image.Image:
    try:
        array = np.asarray(image)
    except (TypeError, ValueError, RuntimeError) as error:
        raise _no_image(row, f"a {type(image).__name__} ({error})") from error
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    kind = MODES.get(array.shape[2] if array.ndim == 3 else array.ndim)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or kind is None or not array.size:
        if array.dtype == object:
            raise _no_image(row, f"a {type(image).__name__}")
        raise _no_image(row, f"an array of {array.dtype} {list(array.shape)}")
    return Image.fromarray(np.ascontiguousarray(array))


def _no_image(row: int, got: str) -> UserError:
    return UserError(
        f"{{images}}[{row}]: expected a path, a PIL image or an array of uint8 [H, W, 3] with"
        f" values from 0 to 255, got {got}; change it to one",
        "images",
    )


def _told(record: Any, captions: Mapping[str, str]) -> Any:
    return _renamed(record, caption=str(captions.get(record.key, record.caption)))


def _renamed(record: Any, **changes: str) -> Any:
    """A record with another key or caption."""
    if "key" in changes:
        changes["cluster"] = changes["key"]
    if isinstance(record, Picture):
        return dataclasses.replace(record, **changes)
    if isinstance(record, ImageRecord):
        return record._replace(**changes)
    return Named(record, **{"key": record.key, "caption": record.caption, **changes})


@dataclasses.dataclass(frozen=True, eq=False)
class Named:
    """A record of another kind under another key or caption."""

    record: Any
    key: str
    caption: str
    cluster: str = ""

    @property
    def path(self) -> str:
        return self.record.path

    @property
    def extra(self) -> Mapping[str, str]:
        return self.record.extra

    def read(self) -> Any:
        """The encoded image."""
        return self.record.read()


def _identity(record: Any) -> list[Any]:
    """What an image is known by."""
    if isinstance(record, Picture):
        image = record.image
        try:
            pixels = hashlib.sha256(image.tobytes()).hexdigest()
        except OSError as error:  # opened, and damaged: told when it is measured
            pixels = str(error)
        return [record.key, record.caption, image.mode, list(image.size), pixels]
    try:
        stat = os.stat(record.path)
    except OSError:
        return [record.key, record.caption, record.path]
    return [record.key, record.caption, stat.st_size, stat.st_mtime_ns]
