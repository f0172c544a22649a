"""Which kind of image source lies at a path, and the one door to all of them."""

import glob
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bsjax.core.errors import UserError
from bsjax.core.foreign import printable
from bsjax.data.caption_tables import TABLES
from bsjax.data.captions import ImageSet, list_folder
from bsjax.data.hf_datasets import is_saved
from bsjax.data.image_files import IMAGE_SUFFIXES
from bsjax.data.image_tables import TABLE_SUFFIXES, list_table
from bsjax.data.openers import expand_ranges
from bsjax.data.prompts import NAMES as PROMPT_FILES
from bsjax.data.prompts import read_prompts, with_prompts
from bsjax.data.sources import list_source
from bsjax.data.text import IMAGE_FIELDS, Fields, find_field

AUTO, FOLDER, TABLE = "auto", "folder", "table"
READ = (
    "a folder of images; .tar shards; parquet, ArrayRecord or Arrow files; a table of captions"
    " (.csv, .tsv, .jsonl, .json, .parquet); a prepared folder of tfds"
)
SHARDS = (
    (".tar", "webdataset"),
    (".arrayrecord", "arrayrecord"),
    (".array_record", "arrayrecord"),
    (".arrow", "hf"),
)
DATA = "data"  # the folder of a data set's files, as the hub has it
SHOWN = 5  # names that a message has


def list_images(
    source: str,
    path: str,
    split: str = "train",
    limit: int = -1,
    fields: Fields = Fields(),  # noqa: B008
    follow_links: bool = True,
    section: str = "real",
    prompts: str = "",
) -> tuple[ImageSet, Any]:
    """Lists the images of any source.

    Args:
      source: the kind, or "auto": by what lies at the path.
      path: as the kind takes it.
      split: of the kinds that have splits.
      limit: keep only the first so many images; -1: all.
      fields: where images and captions are.
      follow_links: whether images may lie outside of the folder.
      section: of the config, for messages.
      prompts: file of the prompts that numbered images of a folder or table were made from; "": one
        that lies in a folder of images without captions.

    Returns:
      The set, and what tells it from others: None where its files do.

    Raises:
      UserError: nothing there that is read.
    """
    if source == AUTO:
        source, path = recognise(path, fields, section)
    if source not in (FOLDER, TABLE):
        if prompts:
            raise UserError(
                f"--config.{section}.prompts={prompts} is of numbered files in a folder, but"
                f" {path} is read as {source}; leave it empty"
            )
        return list_source(source, path, split, limit, fields, section)
    list_files = list_folder if source == FOLDER else list_table
    images = list_files(path, limit, fields, follow_links, section)
    if not prompts and source == FOLDER and images.caption_source == "none":
        prompts = _prompts_beside(path)
    if prompts:
        place = os.path.expanduser(prompts)
        images = with_prompts(images, read_prompts(place), prompts, section)
    return images, None


def _prompts_beside(folder: str) -> str:
    """A file of prompts in a folder of images; "" where there is none."""
    places = [os.path.join(os.path.expanduser(folder), name) for name in PROMPT_FILES]
    return next((place for place in places if os.path.isfile(place)), "")


def recognise(path: str, fields: Fields = Fields(), section: str = "real") -> tuple[str, str]:  # noqa: B008
    """Kind of the source at a path, and the path that this kind takes.

    Raises:
      UserError: nothing there, or nothing that is read: what was found, what is read.
    """
    place = os.path.expanduser(path)
    if os.path.isdir(place):
        return _of_folder(path, place, fields, section)
    if os.path.isfile(place):
        kind = _of_file(place, fields)
        if kind is None:
            raise _not_read(path, [os.path.basename(place)], section)
        return kind, path
    found = sorted({name for each in expand_ranges(place) for name in glob.glob(each)})
    if found and os.path.isfile(found[0]):
        kind = _of_file(found[0], fields)
        if kind is None or (kind == TABLE and len(found) > 1):
            raise _not_read(path, found, section)
        return kind, path
    if _is_prepared(path):
        return "tfds", path
    raise UserError(
        f"{path} is no folder, no file and no pattern of files; set --config.{section}.path to one,"
        f" or --config.{section}.source to hf or tfds if it is the name of a data set"
    )


def _of_folder(path: str, place: str, fields: Fields, section: str) -> tuple[str, str]:
    if is_saved(place):
        return "hf", path
    names = sorted(name for name in os.listdir(place) if not name.startswith((".", "_")))
    if "features.json" in names and "dataset_info.json" in names:
        return "tfds", path
    files = [os.path.join(place, name) for name in names]
    image = _an_image(place)
    shard = _a_shard(place, fields) if image else None
    if shard:
        name, kind = shard
        inside = os.path.dirname(name)
        other = f".path={os.path.join(path, inside)}" if inside else f".source={kind}"
        raise UserError(
            f"{path} holds images ({printable(image)}) and {kind} files ({printable(name)}); set"
            f" --config.{section}.source={FOLDER} or --config.{section}{other}"
        )
    if image or any(
        os.path.isfile(os.path.join(folder, name))
        for folder in (place, os.path.join(place, "images"))
        for name in TABLES
    ):
        return FOLDER, path
    for suffix, kind in SHARDS:
        if any(name.lower().endswith(suffix) or f"{suffix}-" in name.lower() for name in names):
            return kind, path
    kinds = {name: _of_file(name, fields) for name in files if os.path.isfile(name)}
    if "parquet" in kinds.values():
        return "parquet", path
    tables = [name for name, kind in kinds.items() if kind == TABLE]
    if len(tables) == 1:
        return TABLE, tables[0]
    if DATA in names and os.path.isdir(os.path.join(place, DATA)):
        return _of_folder(os.path.join(path, DATA), os.path.join(place, DATA), fields, section)
    if not names:
        return FOLDER, path  # which says that there is no image
    raise _not_read(path, names, section)


def _of_file(name: str, fields: Fields) -> str | None:
    lower = name.lower()
    for suffix, kind in SHARDS:
        if lower.endswith(suffix) or f"{suffix}-" in os.path.basename(lower):
            return kind
    suffix = os.path.splitext(lower)[1]
    if suffix == ".parquet":
        return TABLE if _names_files(name, fields) else "parquet"
    return TABLE if suffix in TABLE_SUFFIXES else None


def _names_files(name: str, fields: Fields) -> bool:
    """Whether a parquet file has names of images rather than images; False where it is none."""
    try:
        schema = pq.read_schema(name)
    except (OSError, pa.ArrowException):
        return False  # told where it is opened as what it says that it is
    image = find_field(schema.names, fields.image, IMAGE_FIELDS)
    if image is None:
        return not fields.image and not any(
            pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type)
            for field in schema
        )
    kind = schema.field(image).type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _an_image(folder: str) -> str:
    """An image in a folder or below, "" where there is none; hidden folders are not looked into."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not name.startswith("."):
                return os.path.relpath(os.path.join(place, name), folder)
    return ""


def _a_shard(folder: str, fields: Fields) -> tuple[str, str] | None:
    """Name and kind of a file of whole images in a folder or its data/; None: there is none."""
    for place in (folder, os.path.join(folder, DATA)):
        for name in sorted(os.listdir(place)) if os.path.isdir(place) else ():
            file = os.path.join(place, name)
            kind = _of_file(file, fields) if not name.startswith((".", "_")) else None
            if kind not in (None, TABLE) and os.path.isfile(file):
                return os.path.relpath(file, folder), kind
    return None


def _is_prepared(name: str) -> bool:
    """Whether tfds prepared a data set of that name on this machine."""
    data = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    short = name.partition(":")[0]
    folder = pathlib.Path(data).expanduser() / short
    return bool(short) and ".." not in short and not os.path.isabs(short) and folder.is_dir()


def _not_read(path: str, names: Sequence[str], section: str) -> UserError:
    shown = ", ".join(printable(os.path.basename(name)) for name in names[:SHOWN])
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return UserError(
        f"{path} holds {shown}{more}, which is no source of images that is read: {READ}; set"
        f" --config.{section}.path to one of these"
    )
