"""Rows of a table of addresses and captions, in a seeded random order, without loading the table.

Tables are parquet, CSV, TSV or JSON lines, on this disk or a data set of the Hugging Face hub. Of
a row only its address and its caption are read, and only of rows that are drawn.
"""

import contextlib
import glob
import gzip
import io
import json
import os
import zlib
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from bsjax.core.errors import UserError
from bsjax.core.foreign import valid_text

URL_FIELDS = ("url", "URL", "image_url", "img_url", "coco_url")
CAPTION_FIELDS = ("caption", "TEXT", "text", "alt_text", "prompt")
HUB = "hf://"
TAB = "\t"
SHUFFLED = 10_000_000  # rows up to which the whole order is drawn
LONGEST = 200  # characters of what a library says
ENDINGS = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson", ".csv.gz", ".tsv.gz", ".jsonl.gz")


class Candidate(NamedTuple):
    """A row that was drawn. `fault` says why it cannot be asked for, if it cannot."""

    row: int  # of the table, from 0
    url: str
    caption: str
    fault: str = ""


class Fields(NamedTuple):
    """Columns of address and caption; "" where they have one of the usual names."""

    url: str = ""
    caption: str = ""


class Drawn(NamedTuple):
    """What was drawn, and from how many."""

    candidates: list[Candidate]
    n_rows: int
    n_malformed: int  # lines of the table that have another number of cells than its header
    n_inside: int  # further lines of cells that span several
    identity: list[Any]  # tells the table from others


def draw(source: str, n: int, seed: int, fields: Fields = Fields()) -> Drawn:  # noqa: B008
    """The first `n` rows of a table in random order; the same for the same seed, and for more.

    Args:
      source: a file, a folder or a pattern of files; owner/name of a data set on the hub, or
        hf://datasets/owner/name/PATTERN of files in it.
      n: how many; all, where the table has fewer.
      seed: of the order.
      fields: of address and caption.

    Raises:
      UserError: no such table, no such columns, a damaged file, or why the hub does not give it.
    """
    with _open_tables(source) as tables:
        sizes = [table.n_rows for table in tables]
        if not sum(sizes):
            raise UserError(f"{source} holds no row; set --source to a table of addresses")
        rows = random_rows(sum(sizes), n, seed)
        found: dict[int, Candidate] = {}
        first = 0
        for table, size in zip(tables, sizes, strict=True):
            wanted = np.sort(rows[(rows >= first) & (rows < first + size)]) - first
            for row, url, caption in table.read(wanted, fields):
                found[first + row] = _candidate(first + row, url, caption)
            first += size
        identity = [[os.path.basename(table.path), table.n_rows] for table in tables]
        wrong = (sum(t.n_malformed for t in tables), sum(t.n_inside for t in tables))
    return Drawn([found[row] for row in rows.tolist()], sum(sizes), *wrong, identity)


def random_rows(n_rows: int, n: int, seed: int) -> np.ndarray:
    """Different rows in random order [min(n, n_rows]); those for a smaller `n` come first."""
    rng = np.random.default_rng([seed, n_rows])
    n = min(n, n_rows)
    if n_rows <= SHUFFLED or n > n_rows // 2:
        return rng.permutation(n_rows)[:n]
    rows = np.empty(0, np.int64)
    while len(rows) < n:
        rows = np.concatenate([rows, rng.integers(n_rows, size=n, dtype=np.int64)])
        _, first = np.unique(rows, return_index=True)
        rows = rows[np.sort(first)]
    return rows[:n]


def _candidate(row: int, url: Any, caption: Any) -> Candidate:
    if not isinstance(url, str) or not url.strip():
        return Candidate(row, "", "", "malformed")
    url = valid_text(url.strip())
    if not isinstance(caption, str) or not caption.strip():
        return Candidate(row, url, "", "without_caption")
    return Candidate(row, url, valid_text(caption.strip()))


class _Parquet:
    """A parquet file; a row group is read at a time."""

    n_malformed = n_inside = 0

    def __init__(self, path: str, file: io.IOBase):
        self.path = path
        try:
            self._table = pq.ParquetFile(file)
        except (OSError, pa.ArrowException) as error:
            raise _unreadable(path, "parquet", error) from error
        self.n_rows = self._table.metadata.num_rows

    def read(self, rows: np.ndarray, fields: Fields) -> Iterator[tuple[int, Any, Any]]:
        """Row, address and caption of each of the rows, which are in order."""
        url, caption = _columns(self._table.schema_arrow.names, fields, self.path)
        first = 0
        for group in range(self._table.num_row_groups):
            size = self._table.metadata.row_group(group).num_rows
            wanted = rows[(rows >= first) & (rows < first + size)] - first
            if len(wanted):
                try:
                    table = self._table.read_row_group(group, columns=[url, caption])
                except (OSError, pa.ArrowException) as error:
                    raise _unreadable(self.path, "parquet", error) from error
                table = table.take(wanted)
                columns = (table[url].to_pylist(), table[caption].to_pylist())
                yield from zip((wanted + first).tolist(), *columns, strict=True)
            first += size


class _Separated:
    """A file of separated values; it is read once to count its rows and once for those drawn."""

    def __init__(self, path: str, separator: str):
        self.path, self._separator = path, separator
        self.n_malformed = 0
        # In TSV files such as those of CC12M quotes stand for themselves, and one that is never
        # closed would take all lines up to the next one into a caption. Where cells span lines,
        # lines have too few cells.
        self._has_quotes = separator != TAB
        self.n_rows = self._count()
        if self.n_malformed and not self._has_quotes:
            self._has_quotes = True
            self.n_rows = self._count()
        self.n_inside = 0
        if self._has_quotes:
            self.n_inside = max(0, self._count_lines() - 1 - self.n_rows - self.n_malformed)

    def _count_lines(self) -> int:
        with pa.input_stream(self.path, compression="detect") as file:
            return sum(1 for line in io.BufferedReader(file) if line.strip())

    def _count(self) -> int:
        return sum(batch.num_rows for batch in self._batches(None))

    def read(self, rows: np.ndarray, fields: Fields) -> Iterator[tuple[int, Any, Any]]:
        """Row, address and caption of each of the rows, which are in order."""
        url, caption = _columns(self._names, fields, self.path)
        first = 0
        for batch in self._batches([url, caption]):
            wanted = rows[(rows >= first) & (rows < first + batch.num_rows)] - first
            if len(wanted):
                taken = batch.take(pa.array(wanted))
                columns = (map(self._cell, taken[name].to_pylist()) for name in (url, caption))
                yield from zip((wanted + first).tolist(), *columns, strict=True)
            first += batch.num_rows

    def _cell(self, text: str | None) -> str | None:
        """A cell of a TSV file without the quotes that some writers put around it."""
        if self._has_quotes or not text or len(text) < 2 or text[0] + text[-1] != '""':
            return text
        inner = text[1:-1]
        return inner.replace('""', '"') if '"' not in inner.replace('""', "") else text

    def _batches(self, columns: list[str] | None) -> Iterator[pa.RecordBatch]:
        n_skipped = 0

        def skip(row: Any) -> str:
            nonlocal n_skipped
            n_skipped += 1
            return "skip"

        parse = pa_csv.ParseOptions(
            delimiter=self._separator,
            quote_char='"' if self._has_quotes else False,
            newlines_in_values=self._has_quotes,
            invalid_row_handler=skip,
        )
        try:
            with pa_csv.open_csv(self.path, parse_options=parse) as probe:
                self._names = probe.schema.names
            n_skipped = 0
            convert = pa_csv.ConvertOptions(
                column_types=dict.fromkeys(self._names, pa.string()),
                include_columns=columns if columns is not None else self._names[:1],
                strings_can_be_null=False,
            )
            with pa_csv.open_csv(self.path, parse_options=parse, convert_options=convert) as file:
                yield from file
            self.n_malformed = n_skipped
        except (OSError, pa.ArrowException) as error:
            raise _unreadable(self.path, "CSV in UTF-8", error) from error


class _Lines:
    """A file of JSON objects, one a line."""

    n_malformed = n_inside = 0  # a line that is none is a candidate without address

    def __init__(self, path: str):
        self.path = path
        self.n_rows = sum(1 for _ in self._lines())

    def _lines(self) -> Iterator[bytes]:
        try:
            with gzip.open(self.path) if self.path.endswith(".gz") else open(self.path, "rb") as f:
                yield from (line for line in f if line.strip())
        except (OSError, EOFError, zlib.error) as error:
            raise _unreadable(self.path, "JSON lines", error) from error

    def read(self, rows: np.ndarray, fields: Fields) -> Iterator[tuple[int, Any, Any]]:
        """Row, address and caption of each of the rows; a line that is no object has neither."""
        wanted = set(rows.tolist())
        seen: dict[str, None] = {}
        for row, line in enumerate(self._lines()):
            if row not in wanted:
                continue
            try:
                found = json.loads(line)
            except (ValueError, RecursionError):
                found = None
            if not isinstance(found, dict):
                yield row, None, None
                continue
            seen |= dict.fromkeys(found)
            url, caption = (_find(found, *each[1:]) for each in _wanted(fields))
            yield row, found.get(url), found.get(caption)
        if seen:
            _columns(list(seen), fields, self.path)  # raises where none of the rows has them


def _wanted(fields: Fields) -> tuple[tuple[str, str, tuple[str, ...]], ...]:
    """What is looked for, the column named for it, and the usual names of that."""
    return ("url", fields.url, URL_FIELDS), ("caption", fields.caption, CAPTION_FIELDS)


def _find(names: Collection[str], given: str, usual: Sequence[str]) -> str | None:
    return next((name for name in ([given] if given else usual) if name in names), None)


def _columns(names: Sequence[str], fields: Fields, where: str) -> tuple[str, str]:
    """Columns of address and caption.

    Raises:
      UserError: one of them is not there.
    """
    found = []
    for what, given, usual in _wanted(fields):
        name = _find(names, given, usual)
        if name is None:
            expected = given or " or ".join(usual)
            raise UserError(
                f"{where}: expected a column {expected}, got {', '.join(map(repr, names))}"[:400]
                + f"; set --{what}_field"
            )
        found.append(name)
    return found[0], found[1]


def _unreadable(path: str, kind: str, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:LONGEST]
    return UserError(
        f"{path}: not {kind}, or truncated ({reason}); download or write it again, or set --source"
        " to a pattern without it"
    )


@contextlib.contextmanager
def _open_tables(source: str) -> Iterator[list[Any]]:
    with contextlib.ExitStack() as stack:
        files = _local(source)
        if files is None:
            from bsjax.ingest.hub_tables import open_hub

            yield [_Parquet(path, stack.enter_context(file)) for path, file in open_hub(source)]
            return
        tables: list[Any] = []
        for path in files:
            name = path.lower().removesuffix(".gz")
            if name.endswith(".parquet"):
                tables.append(_Parquet(path, stack.enter_context(open(path, "rb"))))
            elif name.endswith((".csv", ".tsv")):
                tables.append(_Separated(path, TAB if name.endswith(".tsv") else ","))
            else:
                tables.append(_Lines(path))
        yield tables


def _local(source: str) -> list[str] | None:
    """Files on this disk that a path, folder or pattern names; None: it names the hub."""
    path = os.path.expanduser(source)
    if source.startswith(HUB):
        return None
    if os.path.isdir(path):
        names = sorted(os.listdir(path))
        found = [os.path.join(path, n) for n in names if n.lower().endswith(ENDINGS)]
        found = [each for each in found if not os.path.basename(each).startswith((".", "_"))]
    elif os.path.exists(path):
        found = [path]
    else:
        found = sorted(glob.glob(path))
        is_name = source.count("/") == 1 and not source.startswith((".", "~"))
        if not found and is_name and not source.lower().endswith(ENDINGS):
            return None
    wrong = [each for each in found if not each.lower().endswith(ENDINGS)]
    if wrong or not found:
        what = f"{wrong[0]} is none" if wrong else f"{source} names no file"
        raise UserError(
            f"{what}: expected a table of addresses and captions ({', '.join(ENDINGS[:5])}), or a"
            " data set of the hub as owner/name; set --source"
        )
    return found
