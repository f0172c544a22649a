"""Data sets of the `datasets` library: saved to disk, Arrow files, or by name.

Rows are read by the library, one by one, in any order, images still encoded. A data set that is
streamed is read once from its beginning; its first rows stay on disk as ArrayRecord.
"""

import contextlib
import functools
import glob
import hashlib
import itertools
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import msgpack
from array_record.python import array_record_module

from bsjax.core.artifacts import atomic_path
from bsjax.core.errors import UserError
from bsjax.core.foreign import printable
from bsjax.data.record_files import LONGEST
from bsjax.data.text import (
    CAPTION_FIELDS,
    IMAGE_FIELDS,
    Fields,
    captions_of,
    find_field,
    shown_names,
)

PART_ROWS = 1000  # of a streamed set, which an interrupted run reads again at most
ARROW = ".arrow"


def is_saved(folder: str) -> bool:
    """Whether `datasets` saved a data set, or several splits of one, to a folder."""
    return any(
        os.path.isfile(os.path.join(folder, name)) for name in ("state.json", "dataset_dict.json")
    )


def load(path: str, split: str, section: str) -> Any:
    """A data set whose rows can be read in any order.

    Args:
      path: a folder of `save_to_disk`, .arrow files (a pattern), or what `load_dataset` takes: a
        folder, or the name of a data set of the hub, with a colon before that of its config.
      split: of it.
      section: of the config, for messages.

    Raises:
      UserError: it cannot be opened, or `datasets` is not installed.
    """
    library = _library()
    folder = os.path.expanduser(path)
    with _told(path, split, section):
        if os.path.isdir(folder) and is_saved(folder):
            found = library.load_from_disk(folder)
            if not isinstance(found, library.DatasetDict):
                return found
            if split not in found:
                raise ValueError(f"its splits are {', '.join(found)}")
            return found[split]
        files = sorted(glob.glob(folder)) if folder.endswith(ARROW) else []
        if os.path.isdir(folder):
            files = sorted(glob.glob(os.path.join(glob.escape(folder), f"*{ARROW}")))
        if files:
            return library.concatenate_datasets([library.Dataset.from_file(f) for f in files])
        return _of_library(path, split)


def _of_library(path: str, split: str, **options: Any) -> Any:
    """What `load_dataset` gives for a folder, or for NAME or NAME:CONFIG."""
    folder = os.path.expanduser(path)
    name, _, config = path.partition(":")
    place = folder if os.path.isdir(folder) else name
    return _library().load_dataset(place, config or None, split=split, **options)


def with_encoded_images(found: Any, path: str, fields: Fields, section: str) -> tuple[Any, str]:
    """The data set, images and lists of images undecoded, and the column of its images.

    Raises:
      UserError: it has none.
    """
    library = _library()
    names = list(found.features or ())
    is_image = [name for name in names if isinstance(found.features[name], library.Image)]
    image = find_field(names, fields.image, (*is_image, *IMAGE_FIELDS))
    if image is None:
        raise UserError(
            f"{path}: expected a column {fields.image or 'image'}, got {shown_names(names)}; set"
            f" --config.{section}.image_field"
        )
    for name in is_image:
        found = found.cast_column(name, library.Image(decode=False))
    return found, image


def encoded(value: Any) -> Any:
    """An image of a row as bytes, where it lies in a file that the data set names.

    Raises:
      ValueError: it cannot be read.
    """
    if isinstance(value, dict) and value.get("bytes") is None and value.get("path"):
        from datasets.utils.file_utils import xopen  # reads within archives as well

        try:
            with xopen(value["path"], "rb") as file:
                return file.read()
        except OSError as error:
            raise ValueError(f"{printable(value['path'])}: {error.strerror or error}") from error
    return value


def spool(path: str, split: str, limit: int, fields: Fields, section: str) -> tuple[str, list[str]]:
    """Reads the first rows of a data set as they come, into a folder of the library's cache.

    Args:
      path: what `load_dataset` takes.
      split: of it.
      limit: how many rows.
      fields: of images and captions.
      section: of the config, for messages.

    Returns:
      Pattern of ArrayRecord files of maps with image and caption; the columns that were seen.

    Raises:
      UserError: no limit is set, it cannot be opened, or it ends before its first row.
    """
    library = _library()
    if limit < 0:
        raise UserError(
            f"{path} is streamed, which takes a number of rows; set --config.{section}.limit"
        )
    chosen = [path, split, fields.caption, fields.image, limit, _files_of(path)]
    name = hashlib.sha256(json.dumps(chosen).encode()).hexdigest()[:16]
    folder = pathlib.Path(library.config.HF_DATASETS_CACHE) / "bsjax" / name
    folder.mkdir(parents=True, exist_ok=True)
    state_file, pattern = folder / "state.json", str(folder / "rows-*.arrayrecord")
    state = {"rows": 0, "parts": 0}
    if state_file.exists():
        state = json.loads(state_file.read_text(encoding="utf-8"))
    if state.get("is_whole"):
        return pattern, state["columns"]
    with _told(path, split, section):
        source = _of_library(path, split, streaming=True)
        if source.features is None:
            source = source._resolve_features()
        source, image = with_encoded_images(source, path, fields, section)
        columns = list(source.features)
        caption = find_field(columns, fields.caption, CAPTION_FIELDS)
        if "at" in state:
            source.load_state_dict(state["at"])
        for part in _parts(source, limit - state["rows"]):
            file = folder / f"rows-{state['parts']:05d}.arrayrecord"
            with atomic_path(file) as temporary:
                writer = array_record_module.ArrayRecordWriter(str(temporary), "group_size:1")
                for row in part:
                    writer.write(msgpack.packb(_record(row, image, caption)))
                writer.close()
            state = {"rows": state["rows"] + len(part), "parts": state["parts"] + 1,
                     "columns": columns, "at": source.state_dict()}  # fmt: skip
            _write(state_file, state)
        _write(state_file, state | {"is_whole": True, "columns": columns})
    if not state["rows"]:
        raise UserError(f"{path}, split {split}, has no row; set --config.{section}.path")
    return pattern, columns


def _record(row: dict[str, Any], image: str, caption: str | None) -> dict[str, Any]:
    """What is kept of a row; what cannot be used is told when the row is."""
    found: dict[str, Any] = {"image": encoded(row[image])}
    if isinstance(found["image"], dict):
        found["image"] = found["image"].get("bytes")
    if caption is None:
        return found
    try:
        return found | {"caption": captions_of(row[caption])}
    except ValueError:
        return found | {"caption": 0}  # no text, as the row has it


def _parts(source: Any, n_rows: int) -> Iterator[list[dict[str, Any]]]:
    rows = itertools.islice(source, max(n_rows, 0))
    while part := list(itertools.islice(rows, PART_ROWS)):
        yield part


def _write(path: pathlib.Path, state: dict[str, Any]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(state), encoding="utf-8")


def _files_of(path: str) -> list[Any]:
    """What tells a local data set from what it was before; nothing for one of the hub."""
    folder = pathlib.Path(path).expanduser()
    if not folder.is_dir():
        return []
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files]


@functools.cache
def _library() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise UserError(
            "data sets of this kind are read by the library datasets, which is not installed: pip"
            ' install "bsjax[hf]"'
        ) from error
    datasets.disable_progress_bars()
    return datasets


@contextlib.contextmanager
def _told(path: str, split: str, section: str) -> Iterator[None]:
    """What the library says of a data set that it cannot open, in one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # it raises many types; each means: not to be had
        lines = printable(str(error).strip(), keep="\n").splitlines()
        reason = (lines or [type(error).__name__])[0][:LONGEST]
        raise UserError(
            f"the data set {path}, split {split}, cannot be opened ({reason}); set"
            f" --config.{section}.path to a folder that datasets wrote or to a name that"
            f" load_dataset takes, and --config.{section}.split"
        ) from error
