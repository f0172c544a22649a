"""Captioned image folders: which images there are, what their captions are, which belong together.

Reads file names, captions.csv, metadata.* or sidecar files; opens no image.
"""

import json
import os
import pathlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from bsjax.core.errors import UserError
from bsjax.core.foreign import is_valid, printable, same_name
from bsjax.core.text import read_text
from bsjax.data import passed_over
from bsjax.data.caption_tables import TABLES, CaptionTable, read_caption_table
from bsjax.data.downloads import STATS, losses
from bsjax.data.image_files import IMAGE_SUFFIXES, Found, find_files, lies_within, read_file
from bsjax.data.pairing import Pairing as Pairing
from bsjax.data.pairing import pair_keys as pair_keys
from bsjax.data.text import ALL, Fields, captions_in, captions_of, no_captions_note

CAPTIONS = TABLES[0]
KEY = "key"  # column of a table: of the real image that a generated one was made for
SHOWN = 10


@runtime_checkable
class Record(Protocol):
    """One image of a set, wherever it lies: `read`, and key, path, caption, extra and cluster.

    These are as `ImageRecord` has them.
    """

    def read(self) -> Any:
        """The encoded image, or the image."""


class ImageRecord(NamedTuple):
    """One image of a set. `key` pairs it with its counterpart in the other arm."""

    key: str  # path below the image folder, without extension
    path: str
    caption: str
    extra: Mapping[str, str]  # further columns of captions.csv
    cluster: str = ""  # key of the image, which all its captions share

    def read(self) -> bytes:
        """The encoded image."""
        return read_file(self.path)


class BadImage(NamedTuple):
    """An image that could not be used, and why."""

    key: str
    reason: str


class ImageSet(NamedTuple):
    """A folder's images in the order of their keys."""

    records: Sequence[Record]
    bad: tuple[BadImage, ...]  # named in captions.csv, but absent; or of no use for other reasons
    n_listed: int  # images named, absent ones included
    n_unlisted: int  # images in the folder that captions.csv does not name
    n_without_caption: int
    caption_source: str  # csv | sidecar | none
    not_understood: tuple[str, ...] = ()  # files in the folder that are neither image nor text
    notes: tuple[str, ...] = ()  # warnings


class _Entry(NamedTuple):
    """An image with all its captions."""

    name: str  # path below the image folder
    path: str
    captions: list[str]
    extra: Mapping[str, str]


class _Listing(NamedTuple):
    """What tables or sidecars say of the images."""

    entries: list[_Entry]
    bad: list[BadImage]
    source: str
    n_unlisted: int = 0
    notes: tuple[str, ...] = ()


def list_folder(
    path: str,
    limit: int = -1,
    fields: Fields = Fields(),  # noqa: B008
    follow_links: bool = True,
    section: str = "real",
) -> ImageSet:
    """Lists a folder: `path/images/` or the images directly, with captions beside them or none.

    Captions stand in captions.csv or .tsv (columns image and caption), in metadata.csv, .jsonl or
    .parquet (file_name, as Hugging Face has it; in subfolders too), or in sidecars: `x.json` or
    `x.txt` beside `x.jpg`, as img2dataset writes them.

    Args:
      path: the folder.
      limit: keep only the first so many images; -1 keeps all.
      fields: of captions and file names, where they are not the usual ones; with captions="all"
        each caption of an image is a record, keys end in #0, #1, ...
      follow_links: whether images may be links that leave the folder; texts never may.
      section: of the config, for messages.

    Raises:
      UserError: no folder, no usable image, a faulty captions.csv, or two images with one key.
    """
    folder = pathlib.Path(path).expanduser().resolve()
    if not folder.is_dir():
        raise UserError(f"{path} is no folder; set --config.{section}.path to one")
    if not is_valid(str(folder)):
        raise UserError(f"{folder}: the name is no UTF-8; rename it")
    root = folder / "images" if (folder / "images").is_dir() else folder
    found = find_files(root, folder, follow_links)
    tables = _tables(folder, root, found)
    if not found.images and not found.unusable and not tables:
        others = f"; got {', '.join(found.not_understood[:3])}" if found.not_understood else ""
        raise UserError(
            f"{root} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))}){others}; set"
            f" --config.{section}.path to a folder of images"
        )
    if tables:
        listing = _from_tables(tables, folder, root, found, fields, section)
    else:
        listing = _from_sidecars(folder, found, fields, section)
    entries = sorted(listing.entries, key=lambda entry: key_of(entry.name))
    _refuse_shared_keys(entries, root)
    entries = entries[:limit] if limit >= 0 else entries
    if not entries and listing.bad:
        raise UserError(f"not one image of {root} can be used: {told_bad(listing.bad)}; mend them")
    if not entries:
        raise UserError(f"{tables[0]} names no image; add rows below its header")
    records = tuple(record for entry in entries for record in _records(entry, fields, section))
    has_captions = any(record.caption for record in records)
    more = passed_over.notes(folder, root, found, tables, has_captions, section)
    return ImageSet(
        records,
        tuple(listing.bad),
        len(records) + len(listing.bad),
        listing.n_unlisted,
        sum(not record.caption for record in records),
        listing.source,
        tuple(found.not_understood),
        (*listing.notes, *more),
    )


def check_bad(
    bad: Sequence[BadImage], n_total: int, max_bad: float, flag: str = "{max_bad}"
) -> None:
    """Stops a run in which too many images are unusable.

    Raises:
      UserError: more than the share `max_bad` of `n_total`, with the list.
    """
    if len(bad) > max_bad * n_total:
        raise UserError(
            f"{len(bad)} of {n_total} images cannot be used, at most {max_bad:.2%} may be:"
            f" {told_bad(bad)}; mend them and add --overwrite, or raise {flag}",
            "max_bad",
        )


def _tables(folder: pathlib.Path, root: pathlib.Path, found: Found) -> list[pathlib.Path]:
    """The tables that count: one beside the images folder, else one in it, else all below it."""
    for place in dict.fromkeys((folder, root)):
        here = [place / name for name in TABLES if (place / name).is_file()]
        if here:
            return here[:1]
    return [
        pathlib.Path(path)
        for name, path in sorted(found.texts.items())
        if pathlib.PurePosixPath(name).name in TABLES
    ]


def _from_tables(
    tables: Sequence[pathlib.Path],
    folder: pathlib.Path,
    root: pathlib.Path,
    found: Found,
    fields: Fields,
    section: str,
) -> _Listing:
    by_key = _by_key(found.images)
    entries, bad, named, notes = {}, [], Counter(), []
    for path in tables:
        if not lies_within(path, folder):
            raise UserError(f"{path} is a link that leaves the folder; copy the file there")
        table = read_caption_table(path, fields, section)
        if table.caption_column is None:
            notes.append(no_captions_note(str(path), table.columns, fields.caption, section))
        below = _below(path.parent, root)
        for image, entry in _rows(table, path, below, found, by_key, root):
            if image is not None:
                bad.append(image)
                continue
            named[entry.name] += 1
            former = entries.setdefault(entry.name, entry)
            if former is not entry:
                entries[entry.name] = former._replace(captions=former.captions + entry.captions)
    twice = [name for name, count in named.items() if count > 1]
    if twice and fields.captions != ALL:
        raise UserError(
            f"{tables[0]} names {', '.join(twice[:SHOWN])} more than once; keep one row each, or"
            f" set --config.{section}.captions=all to use all captions"
        )
    n_unlisted = len(found.images) - len(named)
    return _Listing(list(entries.values()), bad, "csv", n_unlisted, tuple(notes))


def _below(folder: pathlib.Path, root: pathlib.Path) -> str:
    """What goes before the names of a table in a subfolder."""
    if folder != root and folder.is_relative_to(root):
        return same_name(folder.relative_to(root).as_posix()) + "/"
    return ""


def _rows(table: CaptionTable, path: pathlib.Path, below: str, found: Found, by_key, root):
    """Of each row the image that cannot be used, or the entry."""
    for i, row in enumerate(table.rows, 1):
        name = _find(row.name, below, found.images, by_key, path) if row.name else None
        if name is not None and not row.reason:
            yield None, _Entry(name, found.images[name], row.captions, row.extra)
        elif name is not None:
            yield BadImage(key_of(name), f"{path.name}, line {row.line}: {row.reason}"), None
        elif row.name:
            yield BadImage(row.name, _why_not(row.name, below, path, found, root)), None
        else:
            yield BadImage(f"row {i} of {path.name}", "names no image"), None


def _why_not(name: str, below: str, table: pathlib.Path, found: Found, root: pathlib.Path) -> str:
    """Why an image that a table names is not among the images."""
    for candidate in _candidates(name, below):
        if candidate in found.unusable:
            return found.unusable[candidate]
        if candidate in map(same_name, found.not_understood):
            suffix = pathlib.PurePosixPath(candidate).suffix or "no suffix"
            return f"named in {table.name} and there, but {suffix} is no kind of image that is read"
    return f"named in {table.name}, absent from {root}"


def _candidates(name: str, below: str) -> list[str]:
    path = pathlib.PurePosixPath(below) / same_name(name).replace("\\", "/")
    return [path.as_posix(), path.as_posix().removeprefix("images/")]


def _find(
    name: str, below: str, files: Mapping, by_key: Mapping, table: pathlib.Path
) -> str | None:
    """The file that a row means: its path below the folder, below images/, or without extension."""
    path = pathlib.PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:
        raise UserError(
            f"{table} names {name!r}, which lies outside its folder; use relative names"
        )
    for candidate in _candidates(name, below):
        if candidate in files:
            return candidate
        meant = by_key.get(candidate, ())
        if len(meant) > 1:
            raise UserError(
                f"{table} names {name!r}, which may be {' or '.join(meant)}; add the extension"
            )
        if meant:
            return meant[0]
    return None


def _from_sidecars(folder: pathlib.Path, found: Found, fields: Fields, section: str) -> _Listing:
    entries, has_sidecar, seen = [], False, {}
    bad = [BadImage(key_of(name), reason) for name, reason in found.unusable.items()]
    for name, path in found.images.items():
        try:
            captions = _read_sidecar(key_of(name), found.texts, folder, fields, seen)
        except ValueError as error:
            bad.append(BadImage(key_of(name), str(error)))
            continue
        has_sidecar = has_sidecar or captions is not None
        entries.append(_Entry(name, path, captions or [], {}))
    notes = losses(path for name, path in found.texts.items() if name.endswith(STATS + ".json"))
    if not has_sidecar and (seen or fields.caption):
        where = f"{folder} with its JSON sidecars"
        notes += (no_captions_note(where, seen, fields.caption, section),)
    return _Listing(entries, bad, "sidecar" if has_sidecar else "none", notes=notes)


def _read_sidecar(
    key: str, texts: Mapping[str, str], folder: pathlib.Path, fields: Fields, seen: dict
) -> list[str] | None:
    """The captions beside an image, None where there are none; adds to the JSON fields `seen`.

    Raises:
      ValueError: a sidecar of which nothing can be made.
    """
    for path in (texts.get(f"{key}.json"), texts.get(f"{key}.txt")):
        if path is None:
            continue
        shown = os.path.basename(path)
        if not lies_within(path, folder):
            raise ValueError(f"{shown} is a link that leaves the folder; copy the file there")
        text = read_text(path)
        if path.lower().endswith(".txt"):
            return captions_of(text)
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{shown} is no JSON object with a caption ({error})") from error
        if not isinstance(content, dict):
            raise ValueError(f"{shown} is no JSON object with a caption")
        captions = captions_in(content, fields.caption)
        if captions:
            return captions
        seen |= dict.fromkeys(content)
    return None


def _records(entry: _Entry, fields: Fields, section: str) -> list[ImageRecord]:
    key = key_of(entry.name)
    return records_of(key, entry.path, entry.captions, entry.extra, fields, section)


def records_of(
    key: str,
    path: str,
    captions: Sequence[str],
    extra: Mapping[str, str],
    fields: Fields,
    section: str,
) -> list[ImageRecord]:
    """The records of an image: one, or one for each of its captions.

    Of images made elsewhere a table's column `key` names the real image that each was made for.
    """
    cluster = key
    if section == "generated" and extra.get(KEY, "").strip():
        cluster = same_name(extra[KEY].strip())
        if pathlib.PurePosixPath(cluster).suffix.lower() in IMAGE_SUFFIXES:
            cluster = key_of(cluster)
    if fields.captions != ALL:
        return [ImageRecord(key, path, next(iter(captions), ""), extra, cluster)]
    return [
        ImageRecord(f"{key}#{i}", path, caption, extra, cluster)
        for i, caption in enumerate(captions or [""])
    ]


def told_bad(bad: Sequence[BadImage]) -> str:
    """The first of the images that cannot be used, for a message."""
    listed = "; ".join(_one_line(f"{image.key}: {image.reason}") for image in bad[:SHOWN])
    return f"{listed}; and {len(bad) - SHOWN} more" if len(bad) > SHOWN else listed


def _one_line(text: str) -> str:
    return printable(" ".join(text.split()))


def key_of(name: str) -> str:
    """What an image is known by: its name without extension."""
    stem, suffix = os.path.splitext(name)
    if len(suffix) > 1 and "//" not in name and "./" not in name:
        return stem  # as below, ten times as fast
    return pathlib.PurePosixPath(name).with_suffix("").as_posix()


def _by_key(names: Iterable[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(key_of(name), []).append(name)
    return groups


def _refuse_shared_keys(entries: Sequence[_Entry], root: pathlib.Path) -> None:
    for first, second in zip(entries, entries[1:], strict=False):
        if key_of(first.name) == key_of(second.name):
            names = " and ".join(sorted(pathlib.Path(e.path).name for e in (first, second)))
            raise UserError(
                f"{root} holds {names}, two images of one name; images are paired by name without"
                " extension: rename or remove one"
            )
