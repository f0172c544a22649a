"""Files that people write with editors and spreadsheets: plain text and tables.

One door for all of them: UTF-8 with or without a byte order mark, UTF-16 by its mark, separators
that a file declares or that its header shows, and the line in what is said of a mistake.
"""

import codecs
import csv
import io
import os
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pyarrow as pa
from etils import epath

from bsjax.core.errors import UserError

SEPARATORS = ",;\t"
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet computes a cell that begins so
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
SHOWN = 10


class Table(NamedTuple):
    """A table of text with a header.

    `rows` are (line of the file, column -> cell); empty lines are left out, and cells that a short
    row lacks are empty.
    """

    columns: list[str]
    rows: list[tuple[int, dict[str, str]]]


def read_text(path: str | os.PathLike) -> str:
    """The text of a file.

    Raises:
      UserError: it cannot be read, or is neither UTF-8 nor UTF-16 with a byte order mark.
    """
    try:
        data = epath.Path(path).read_bytes()
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror or error}); put it there, or change its"
            " permissions"
        ) from error
    encoding = next((name for mark, name in MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}, line {line}: is no UTF-8 text (byte 0x{data[error.start]:02x}"
            f"{', as UTF-16 has' if chr(0) in data[:200].decode('latin-1') else ''}); save the"
            " file as UTF-8"
        ) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UserError(
            f"{path}, line {line}: holds NUL characters, as UTF-16 without its mark has; save the"
            " file as UTF-8"
        )
    return text


def split_lines(text: str) -> list[str]:
    """Lines as editors count them; str.splitlines cuts at rarer characters as well."""
    lines = re.split("\r\n|\n|\r", text)
    return lines if lines[-1] else lines[:-1]


def read_table(
    path: str | os.PathLike, check: Callable[[list[str]], object] | None = None
) -> Table:
    """A file of comma, semicolon or tab separated values whose first line names the columns.

    The separator is a tab in a .tsv file, else what a first line "sep=;" declares or what the
    header has most of.

    Args:
      path: the file.
      check: is given the columns before any row is looked at, and may raise.

    Raises:
      UserError: no such text, a column named twice, a row with more cells than columns, a quote
        that is not closed; with the line.
    """
    text = read_text(path)
    first_line = 1
    declared = re.match(r"\"?sep=(.)\"?(\r\n|\n|\r|$)", text, re.IGNORECASE)
    if declared:
        text, first_line = text[declared.end() :], 2
        separator = declared.group(1)
    elif os.fspath(path).lower().endswith(".tsv"):
        separator = "\t"
    else:
        separator = _separator(text)
    rows = _rows(path, text, separator, first_line)
    _, header = next(rows, (0, []))
    columns = [cell.strip() for cell in header]
    named = [name for name in columns if name]
    twice = sorted({name for name in named if named.count(name) > 1})
    if twice:
        raise UserError(f"{path} has two columns {twice[0]!r}; rename or remove one")
    if check is not None:
        check(named)
    found = []
    for line, cells in rows:
        if not any(cell.strip() for cell in cells):
            continue
        surplus = [cell for cell in cells[len(columns) :] if cell.strip()]
        if surplus:
            raise UserError(
                f"{path}, line {line}: {len(cells)} cells, expected the {len(columns)} of its first"
                f" line; put text that has a {_name_of(separator)} in it into double quotes"
                f" (surplus: {surplus[0][:60]!r})"
            )
        cells += [""] * (len(columns) - len(cells))
        found.append(
            (line, {name: cell for name, cell in zip(columns, cells, strict=False) if name})
        )
    return Table(named, found)


def as_cell(text: str) -> str:
    """Text for a cell of a table that spreadsheets open: a formula becomes the text that it is."""
    return f"'{text}" if text.startswith(FORMULA) else text


def from_cell(text: str) -> str:
    """What `as_cell` was given."""
    return text[1:] if text.startswith("'") and text[1:].startswith(FORMULA) else text


def as_cells(table: pa.Table) -> pa.Table:
    """The table with each text as a cell; numbers stay numbers."""
    for place, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            texts = [None if t is None else as_cell(t) for t in table.column(place).to_pylist()]
            table = table.set_column(place, field, pa.array(texts, field.type))
    return table


def _separator(text: str) -> str:
    header = re.sub(r'"[^"]*"', "", (split_lines(text) or [""])[0])
    return max(SEPARATORS, key=header.count)  # the first, a comma, where there is none


def _rows(path, text: str, separator: str, line: int) -> Iterator[tuple[int, list[str]]]:
    """(line on which a row begins, cells)."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    offset = line
    while True:
        line = offset + reader.line_num
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise UserError(
                f"{path}, line {line}: {_explain(str(error))}; close each double quote, and double"
                " those within a quoted cell"
            ) from error
        yield line, cells


def _explain(reason: str) -> str:
    if "unexpected end of data" in reason:
        return "a double quote is opened and never closed"
    if "expected after" in reason:
        return "text follows a closing double quote"
    return reason


def _name_of(separator: str) -> str:
    return {",": "comma", ";": "semicolon", "\t": "tab"}.get(separator, repr(separator))
