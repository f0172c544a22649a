"""Captioned image folders: which images there are, what their captions are, which belong together.

Reads file names, captions.csv or sidecar files; opens no image.
"""

import csv
import json
import pathlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from bsjax.core.errors import UserError

IMAGE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"))
CAPTIONS = "captions.csv"
SHOWN = 10


class ImageRecord(NamedTuple):
    """One image of a set. `key` pairs it with its counterpart in the other arm."""

    key: str  # path below the image folder, without extension
    path: str
    caption: str
    extra: Mapping[str, str]  # further columns of captions.csv

    def read(self) -> bytes:
        """The encoded image."""
        return pathlib.Path(self.path).read_bytes()


class BadImage(NamedTuple):
    """An image that could not be used, and why."""

    key: str
    reason: str


class ImageSet(NamedTuple):
    """A folder's images in the order of their keys."""

    records: Sequence[ImageRecord]
    bad: tuple[BadImage, ...]  # named in captions.csv, but absent
    n_listed: int  # images named, absent ones included
    n_unlisted: int  # images in the folder that captions.csv does not name
    n_without_caption: int
    caption_source: str  # csv | sidecar | none


class Pairing(NamedTuple):
    """Rows of two lists of keys that belong together, in the order of the first."""

    rows_real: np.ndarray  # [n]
    rows_generated: np.ndarray  # [n]
    unpaired_real: tuple[str, ...]
    unpaired_generated: tuple[str, ...]


def list_folder(path: str, limit: int = -1) -> ImageSet:
    """Lists a folder: `path/images/` or the images directly, with captions.csv, sidecars or none.

    Args:
      path: the folder. captions.csv has the columns image and caption; sidecars are `x.json` (key
        "caption") or `x.txt` beside `x.jpg`, as img2dataset writes them.
      limit: keep only the first so many images; -1 keeps all.

    Raises:
      UserError: no folder, no images, a faulty captions.csv, or two images with one key.
    """
    folder = pathlib.Path(path).expanduser().resolve()
    if not folder.is_dir():
        raise UserError(f"{path} is no folder; set --config.{{real,generated}}.path to one")
    root = folder / "images" if (folder / "images").is_dir() else folder
    files = {
        file.relative_to(root).as_posix(): file
        for file in sorted(root.rglob("*"))
        if file.suffix.lower() in IMAGE_SUFFIXES
        and not _is_hidden(file.relative_to(root))
        and file.is_file()
    }
    table = folder / CAPTIONS
    if not files and not table.is_file():
        raise UserError(
            f"{root} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))}); check the path"
        )
    found = _from_csv(table, root, files) if table.is_file() else _from_sidecars(files)
    records = sorted(found.records, key=lambda record: record.key)
    _refuse_shared_keys(records, root)
    if limit >= 0:
        records = records[:limit]
    if not records and not found.bad:
        raise UserError(f"{table} names no image; add rows below its header")
    return found._replace(
        records=tuple(records),
        n_listed=len(records) + len(found.bad),
        n_without_caption=sum(not record.caption for record in records),
    )


def pair_keys(real: Sequence[str], generated: Sequence[str]) -> Pairing:
    """Pairs two lists of unique keys.

    Raises:
      UserError: no key in common.
    """
    place = {key: row for row, key in enumerate(generated)}
    rows = [(row, place[key]) for row, key in enumerate(real) if key in place]
    if not rows:
        raise UserError(
            f"no image name in common: real has {_count(real)}, generated {_count(generated)}; name"
            " each generated image after the real image whose caption it was made from"
        )
    known = set(real)
    rows_real, rows_generated = np.array(rows, np.int64).T
    return Pairing(
        rows_real,
        rows_generated,
        tuple(key for key in real if key not in place),
        tuple(key for key in generated if key not in known),
    )


def check_bad(bad: Sequence[BadImage], n_total: int, max_bad: float, flag: str) -> None:
    """Stops a run in which too many images are unusable.

    Raises:
      UserError: more than the share `max_bad` of `n_total`, with the list.
    """
    if len(bad) > max_bad * n_total:
        listed = "; ".join(_one_line(f"{image.key}: {image.reason}") for image in bad[:SHOWN])
        more = f"; and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        raise UserError(
            f"{len(bad)} of {n_total} images cannot be used, at most {max_bad:.2%} may be:"
            f" {listed}{more}; mend them and add --overwrite, or raise {flag}"
        )


def _from_csv(table: pathlib.Path, root: pathlib.Path, files: Mapping) -> ImageSet:
    try:
        with table.open(newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle)
            columns = [name.strip() for name in reader.fieldnames or ()]
            reader.fieldnames = columns
            for column in ("image", "caption"):
                if column not in columns:
                    raise UserError(
                        f"{table} has no column {column!r}, only"
                        f" {', '.join(map(repr, columns[:SHOWN])) or 'none'}; its first line must"
                        " name image and caption"
                    )
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{table} cannot be read as a UTF-8 CSV file ({error}); mend it") from error

    by_key = _by_key(files)
    records, bad, named = [], [], Counter()
    for i, row in enumerate(rows, 1):
        name = (row["image"] or "").strip()
        file = _find(name, files, by_key, table) if name else None
        if file is None:
            reason = f"named in {CAPTIONS}, absent from {root}" if name else "names no image"
            bad.append(BadImage(name or f"row {i} of {CAPTIONS}", reason))
            continue
        named[file] += 1
        extra = {key: value or "" for key, value in row.items() if key not in ("image", "caption")}
        extra = {key: value for key, value in extra.items() if isinstance(key, str)}
        caption = (row["caption"] or "").strip()
        records.append(ImageRecord(_key(file), str(root / file), caption, extra))
    twice = [file for file, count in named.items() if count > 1]
    if twice:
        raise UserError(
            f"{table} names {', '.join(twice[:SHOWN])} more than once; keep one row each"
        )
    return ImageSet(tuple(records), tuple(bad), 0, len(files) - len(named), 0, "csv")


def _find(name: str, files: Mapping, by_key: Mapping, table: pathlib.Path) -> str | None:
    """The file that a row means: its path below the folder, below images/, or without extension."""
    path = pathlib.PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:
        raise UserError(
            f"{table} names {name!r}, which lies outside its folder; use relative names"
        )
    for candidate in (path.as_posix(), path.as_posix().removeprefix("images/")):
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


def _from_sidecars(files: Mapping[str, pathlib.Path]) -> ImageSet:
    records, has_sidecar = [], False
    for name, file in files.items():
        caption = _read_sidecar(file)
        has_sidecar = has_sidecar or caption is not None
        records.append(ImageRecord(_key(name), str(file), caption or "", {}))
    return ImageSet(tuple(records), (), 0, 0, 0, "sidecar" if has_sidecar else "none")


def _read_sidecar(file: pathlib.Path) -> str | None:
    sidecar = file.with_suffix(".json")
    if sidecar.is_file():
        try:
            caption = json.loads(sidecar.read_text(encoding="utf-8")).get("caption")
        except (ValueError, AttributeError) as error:
            raise UserError(f"{sidecar} is no JSON object with a caption ({error})") from error
        return str(caption).strip() if caption is not None else None
    text = file.with_suffix(".txt")
    try:
        return text.read_text(encoding="utf-8").strip() if text.is_file() else None
    except UnicodeDecodeError as error:
        raise UserError(f"{text} is no UTF-8 text ({error}); save it as one") from error


def _is_hidden(path: pathlib.PurePath) -> bool:
    """Leftovers of other programs, such as macOS' `._x.png`, are not images of the set."""
    return any(part.startswith(".") for part in path.parts)


def _count(keys: Sequence[str]) -> str:
    return f"{len(keys)} (such as {keys[0]!r})" if keys else "none"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _key(name: str) -> str:
    return pathlib.PurePosixPath(name).with_suffix("").as_posix()


def _by_key(names: Iterable[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_key(name), []).append(name)
    return groups


def _refuse_shared_keys(records: Sequence[ImageRecord], root: pathlib.Path) -> None:
    for first, second in zip(records, records[1:], strict=False):
        if first.key == second.key:
            names = " and ".join(sorted(pathlib.Path(r.path).name for r in (first, second)))
            raise UserError(
                f"{root} holds {names}, two images of one name; images are paired by name without"
                " extension: rename or remove one"
            )
