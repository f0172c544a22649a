"""Tables that name images and captions wherever the images lie: CSV, TSV, JSONL, parquet, JSON.

JSON is COCO's file of captions ("images" and "annotations") or a list of objects. All captions of
an image stand together, whether in one row, in several, or in annotations.
"""

import contextlib
import gc
import json
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from bsjax.core.errors import UserError
from bsjax.core.foreign import is_valid, same_name, valid_text
from bsjax.core.text import read_text
from bsjax.data.caption_tables import Row, read_caption_table, rows_of_objects
from bsjax.data.captions import (
    KEY,
    BadImage,
    ImageRecord,
    ImageSet,
    key_of,
    records_of,
    told_bad,
)
from bsjax.data.image_files import lies_within
from bsjax.data.text import Fields, no_captions_note, shown_names

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".json")
NAME_COLUMNS = (
    "image", "file_name", "filename", "file", "filepath", "file_path", "image_path", "image_file",
    "img_path", "path", "img",
)  # fmt: skip
IMAGES = "images/"
PROBED = 16  # images that are looked for to learn where they lie
WEB = ("http://", "https://", "s3://", "gs://")


class Told(NamedTuple):
    """What a table says."""

    rows: list[Row]  # of each image, or several of one
    columns: Sequence[str]
    caption_column: str | None
    notes: tuple[str, ...] = ()


def list_table(
    path: str,
    limit: int = -1,
    fields: Fields = Fields(),  # noqa: B008
    follow_links: bool = True,
    section: str = "real",
) -> ImageSet:
    """Lists the images that a table names; opens none.

    Args:
      path: the table.
      limit: keep only the first so many images; -1: all.
      fields: of captions and file names, where they are not the usual ones, and the folder of the
        images, where it is not found beside the table; with captions="all" each caption of an image
        is a record, keys end in #0, #1, ...
      follow_links: whether images may lie outside of that folder.
      section: of the config, for messages.

    Raises:
      UserError: no such table, not one image of it is there, or two images of one key.
    """
    table = pathlib.Path(path).expanduser().absolute()
    if not table.is_file():
        raise UserError(f"{path} is no file; set --config.{section}.path to a table of captions")
    with _without_collections():
        return _list(table, limit, fields, follow_links, section)


@contextlib.contextmanager
def _without_collections() -> Iterator[None]:
    """Makes millions of objects, none of them garbage: looking for some takes half of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _list(
    table: pathlib.Path, limit: int, fields: Fields, follow_links: bool, section: str
) -> ImageSet:
    told = _read_coco(table) if table.suffix.lower() == ".json" else None
    if told is None:
        told = _read(table, fields, section)
    _refuse_web(table, told.rows, section)
    root = _find_root(table, [row.name for row in told.rows if row.name], fields.root, section)
    records, bad = _records(told, table, root, fields, follow_links, limit, section)
    if not records:
        fault = told_bad(bad) if bad else "it has no rows"
        raise UserError(f"not one image of {table} can be used: {fault}; mend them")
    notes = list(told.notes)
    if told.caption_column is None and not (section == "generated" and KEY in told.columns):
        notes.append(no_captions_note(str(table), told.columns, fields.caption, section))
    n_without = sum(not record.caption for record in records)
    n_listed = len(records) + len(bad)
    return ImageSet(records, tuple(bad), n_listed, 0, n_without, "table", notes=tuple(notes))


def _read(table: pathlib.Path, fields: Fields, section: str) -> Told:
    found = read_caption_table(table, fields, section, NAME_COLUMNS)
    return Told(found.rows, found.columns, found.caption_column)


def _read_coco(table: pathlib.Path) -> Told | None:
    """Images with all their captions; None where the file is a list of objects."""
    try:
        content = json.loads(read_text(table))
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{table}: is no JSON, or truncated ({error}); download it again"
        ) from error
    if isinstance(content, list):
        return None
    images, annotations = (
        content.get(name) if isinstance(content, dict) else None
        for name in ("images", "annotations")
    )
    if not isinstance(images, list) or not isinstance(annotations, list):
        got = shown_names(content) if isinstance(content, dict) else type(content).__name__
        raise UserError(
            f"{table}: expected COCO's captions (images and annotations) or a list of objects with"
            f" image and caption, got {got}; give such a file"
        )
    captions: dict[Any, list[Any]] = {}
    n_wrong = 0
    for annotation in annotations:
        is_whole = isinstance(annotation, dict) and {"image_id", "caption"} <= annotation.keys()
        if is_whole and isinstance(annotation["image_id"], int | str):
            captions.setdefault(annotation["image_id"], []).append(annotation["caption"])
        else:
            n_wrong += 1
    if annotations and not captions:
        raise UserError(
            f"{table}: its annotations have no image_id and caption, only"
            f" {shown_names(annotations[0]) if isinstance(annotations[0], dict) else 'no objects'};"
            " give the file of captions (captions_val2017.json)"
        )
    rows = []
    for place, image in enumerate(images, 1):
        image = image if isinstance(image, dict) else {}
        number = image.get("id")
        found = captions.pop(number, None) if isinstance(number, int | str) else None
        row = {"image": image.get("file_name"), "caption": found}
        rows.append((place, row))
    lost = sum(map(len, captions.values()))
    notes = [f"{table.name}: {lost} captions are of images that it does not list"] if lost else []
    if n_wrong:
        notes.append(f"{table.name}: {n_wrong} annotations have no image_id and caption")
    return Told(rows_of_objects(rows, "image", "caption"), [], "caption", tuple(notes))


def _refuse_web(table: pathlib.Path, rows: Sequence[Row], section: str) -> None:
    first = next((row.name for row in rows if row.name), "")
    if first.startswith(WEB):
        raise UserError(
            f"{table} names addresses ({first[:80]}), expected files; download them first (as"
            f" img2dataset does) and set --config.{section}.path to what it wrote"
        )


def _find_root(table: pathlib.Path, names: Sequence[str], chosen: str, section: str) -> str:
    """The folder that the names of images are below.

    Raises:
      UserError: none of the first images is there.
    """
    here = table.parent
    split = re.split(r"[_.]", table.stem)[-1]  # captions_val2017.json -> val2017
    usual = [here, here / "images", here / split, here.parent / split]
    usual += [here.parent / "images" / split, here.parent / "images", here.parent]
    places = [pathlib.Path(chosen).expanduser().absolute()] if chosen else usual
    probed = names[:: max(len(names) // PROBED, 1)][:PROBED]
    counts = [sum(os.path.isfile(os.path.join(place, name)) for name in probed) for place in places]
    if probed and not max(counts):
        looked = ", ".join(map(str, dict.fromkeys(places)))
        raise UserError(
            f"{table}: none of the images that it names ({probed[0]!r}, ...) is there; looked in"
            f" {looked}; set --config.{section}.image_root to their folder"
        )
    return str(places[counts.index(max(counts))])


def _records(
    told: Told,
    table: pathlib.Path,
    root: str,
    fields: Fields,
    follow_links: bool,
    limit: int,
    section: str,
) -> tuple[list[ImageRecord], list[BadImage]]:
    entries: dict[str, Row] = {}
    bad: list[BadImage] = []
    for place, row in enumerate(told.rows, 1):
        if not row.name:
            bad.append(BadImage(f"row {place} of {table.name}", row.reason or "names no image"))
            continue
        former = entries.get(row.name)
        if former is None:
            entries[row.name] = row
        else:
            reason = former.reason or row.reason
            entries[row.name] = former._replace(
                captions=former.captions + row.captions, reason=reason
            )
    records: list[ImageRecord] = []
    keys: dict[str, str] = {}
    # As in a folder, whose images may lie in images/.
    above = IMAGES if all(name.startswith(IMAGES) for name in entries) else ""
    n_images, folders = 0, _Folders()
    for name, row in entries.items():
        if 0 <= limit <= n_images:
            break
        place = name.replace("\\", "/")
        key = key_of(same_name(place)).removeprefix(above)
        if place.startswith("/"):
            key = os.path.relpath(key, root).replace("../", "") if lies_within(name, root) else key
        path = os.path.join(root, place) if place.startswith("/") else f"{root}/{place}"
        reason = row.reason and f"{table.name}, line {row.line}: {row.reason}"
        reason = reason or _why_not(path, root, follow_links, folders)
        if reason:
            bad.append(BadImage(valid_text(key), reason))
            continue
        if key in keys:
            raise UserError(
                f"{table} names {keys[key]} and {name}, two images of one name; images are paired"
                " by name without extension: rename one"
            )
        keys[key] = name
        n_images += 1
        records += records_of(key, path, row.captions, row.extra, fields, section)
    return records, bad


class _Folders:
    """Which files there are, folder by folder: listing one is faster than asking for each file."""

    def __init__(self) -> None:
        self._names: dict[str, set[str]] = {}

    def has(self, path: str) -> bool:
        """Whether a file is there."""
        folder, _, name = path.rpartition("/")
        if folder not in self._names:
            try:
                with os.scandir(folder or "/") as entries:
                    self._names[folder] = {entry.name for entry in entries if entry.is_file()}
            except OSError:
                self._names[folder] = set()
        return name in self._names[folder]


def _why_not(path: str, root: str, follow_links: bool, folders: _Folders) -> str:
    if not is_valid(path):
        return "its file name is no UTF-8; rename it"
    if not folders.has(path) and not os.path.isfile(path):
        return f"named in the table, absent from {root}"
    if not follow_links and not lies_within(path, root):
        return f"lies outside of {root}"
    return ""
