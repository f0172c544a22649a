"""Tables of captions beside images: captions.csv or .tsv, and metadata.* as Hugging Face has it."""

import json
import os
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from bsjax.core.errors import UserError
from bsjax.core.foreign import valid_text
from bsjax.core.text import read_table, read_text
from bsjax.data.text import CAPTION_FIELDS, Fields, captions_of, find_field, shown_names

TABLES = (
    "captions.csv",
    "captions.tsv",
    "metadata.csv",
    "metadata.tsv",
    "metadata.jsonl",
    "metadata.parquet",
)
NAME_COLUMNS = ("image", "file_name")  # of the images' files


class Row(NamedTuple):
    """What a table says of one image."""

    line: int  # of the file; for parquet the row, from 1
    name: str  # of the image, as written; "": none
    captions: list[str]
    extra: dict[str, str]  # further columns
    reason: str = ""  # why the captions cannot be used


class CaptionTable(NamedTuple):
    """A table and which of its columns are meant."""

    columns: list[str]
    caption_column: str | None
    rows: list[Row]


def read_caption_table(
    path: str | os.PathLike,
    fields: Fields,
    section: str = "real",
    names: Sequence[str] = NAME_COLUMNS,
) -> CaptionTable:
    """Reads a table of any of the kinds in `TABLES`, or a JSON list of objects.

    Args:
      path: the file.
      fields: names of its columns, where they are not the usual ones.
      section: of the config, for messages.
      names: usual columns of file names.

    Raises:
      UserError: it cannot be read, or names no images; captions.* without a column of captions.
    """

    def find(columns):
        return _find_columns(path, columns, fields, section, names)

    if os.fspath(path).lower().endswith((".jsonl", ".ndjson", ".json", ".parquet")):
        columns, rows = read_objects(path)
    else:
        columns, rows = read_table(path, find)
    name_column, caption_column = find(columns)
    return CaptionTable(
        list(columns), caption_column, rows_of_objects(rows, name_column, caption_column)
    )


def read_objects(
    path: str | os.PathLike,
) -> tuple[Sequence[str], list[tuple[int, dict[str, Any]]]]:
    """Columns and (line, column -> value) of a .jsonl, .json or .parquet file.

    Raises:
      UserError: it cannot be read, or is of another form.
    """
    name = os.fspath(path).lower()
    if name.endswith(".parquet"):
        return _read_parquet(path)
    return _read_json(path) if name.endswith(".json") else _read_jsonl(path)


def rows_of_objects(
    rows: Iterable[tuple[int, dict[str, Any]]], name_column: str, caption_column: str | None
) -> list[Row]:
    """Rows of (line, column -> value)."""
    return [_row(line, row, name_column, caption_column) for line, row in rows]


def _find_columns(
    path, columns: Sequence[str], fields: Fields, section: str, names: Sequence[str]
) -> tuple[str, str | None]:
    """The columns of file names and of captions."""
    name_column = find_field(columns, fields.image, names)
    caption_column = find_field(columns, fields.caption, CAPTION_FIELDS)
    is_made_for_captions = os.path.basename(os.fspath(path)).startswith("captions.")
    if name_column is None or (caption_column is None and is_made_for_captions):
        lacks = fields.image or NAME_COLUMNS[0]
        if name_column is not None:
            lacks = fields.caption or CAPTION_FIELDS[0]
        raise UserError(
            f"{path} has no column {lacks!r}, only {shown_names(columns)}; its first line must name"
            f" image and caption (or set --config.{section}.image_field and"
            f" --config.{section}.caption_field)"
        )
    return name_column, caption_column


def _row(line: int, fields: dict[str, Any], name_column: str, caption_column: str | None) -> Row:
    name = fields.get(name_column)
    extra = {}
    if len(fields) > 2 or caption_column not in fields:
        extra = {
            valid_text(key): valid_text(value)
            if isinstance(value, str)
            else json.dumps(value, default=str)
            for key, value in fields.items()
            if key not in (name_column, caption_column) and value is not None
        }
    captions, reason = [], ""
    try:
        captions = captions_of(fields.get(caption_column))
    except ValueError as error:
        reason = str(error)
    name = valid_text(name.strip()) if isinstance(name, str) else ""
    return Row(line, name, captions, extra, reason)


def _read_jsonl(path) -> tuple[Sequence[str], list[tuple[int, dict[str, Any]]]]:
    columns, rows = {}, []
    for line, text in enumerate(read_text(path).split("\n"), 1):
        if not text.strip():
            continue
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}, line {line}: is no JSON ({error}); mend it") from error
        if not isinstance(fields, dict):
            raise UserError(
                f"{path}, line {line}: expected a JSON object with file_name, got a"
                f" {type(fields).__name__}; mend it"
            )
        columns |= dict.fromkeys(fields)
        rows.append((line, fields))
    return list(columns), rows


def _read_json(path) -> tuple[Sequence[str], list[tuple[int, dict[str, Any]]]]:
    columns: dict[str, None] = {}
    rows = []
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is no JSON, or truncated ({error}); mend it") from error
    if not isinstance(content, list):
        raise UserError(
            f"{path}: expected a list of JSON objects, got a {type(content).__name__}; mend it"
        )
    for place, fields in enumerate(content, 1):
        if not isinstance(fields, dict):
            raise UserError(
                f"{path}, entry {place}: expected a JSON object with image and caption, got a"
                f" {type(fields).__name__}; mend it"
            )
        columns |= dict.fromkeys(fields)
        rows.append((place, fields))
    return list(columns), rows


def _read_parquet(path) -> tuple[Sequence[str], list[tuple[int, dict[str, Any]]]]:
    try:
        table = pq.read_table(os.fspath(path))
        return table.column_names, list(enumerate(table.to_pylist(), 1))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(
            f"{path}: not parquet, or truncated ({error}); download or write it again"
        ) from error
