"""The same by img2dataset, which spreads the work over processes, Spark or Ray.

It asks for a block of candidates at a time and tells what came of each in parquet, bytes as they
were sent. It does not look where a redirect leads, nor how large an answer is.
"""

import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bsjax.core.errors import UserError
from bsjax.core.foreign import printable
from bsjax.ingest.book import PARTIAL, Book
from bsjax.ingest.collect import SPARE
from bsjax.ingest.fetch import AGENT, NO_AI, Limits
from bsjax.ingest.judge import Judged, judge

BLOCK = 10_000  # candidates at a time
FOLDER = "img2dataset"
OPTED_OUT = "disallowed by X-Robots-Tag"  # as it says so
CALL = "import json, sys, img2dataset; img2dataset.download(**json.loads(sys.argv[1]))"
LONGEST = 200  # characters of what it says


def collect(book: Book, limits: Limits, min_side: int, tell: Callable[[Book], None]) -> None:
    """Fills a book, as `collect.collect` does.

    Raises:
      UserError: img2dataset is not installed, or ends with an error.
    """
    if importlib.util.find_spec("img2dataset") is None:
        raise UserError(
            "--downloader=img2dataset needs that package; install bsjax[laion], or leave it out"
        )
    folder = book.folder / PARTIAL / FOLDER
    while not book.is_done:
        n = min(BLOCK, SPARE + 2 * (book.n_images - book.n_kept))
        first = len(book.outcomes)
        places = [p for p in range(first, len(book.candidates)) if not book.is_known(p)][:n]
        for place in places:
            if book.candidates[place].fault:
                book.add(place, Judged(book.candidates[place].fault), None)
        _ask(book, folder, [p for p in places if not book.candidates[p].fault], limits, min_side)
        book.settle()
        tell(book)


def _ask(
    book: Book, folder: pathlib.Path, places: Sequence[int], limits: Limits, min_side: int
) -> None:
    if not places:
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    urls = [book.candidates[place].url for place in places]
    table = folder / "urls.parquet"
    pq.write_table(pa.table({"url": urls, "place": pa.array(places, pa.int64())}), table)
    settings = {
        "url_list": os.fspath(table), "input_format": "parquet", "url_col": "url",
        "output_folder": os.fspath(folder / "out"), "output_format": "parquet",
        "save_additional_columns": ["place"], "disable_all_reencoding": True,
        "processes_count": os.cpu_count() or 1,
        "thread_count": max(1, limits.connections // (os.cpu_count() or 1)),
        "timeout": max(1, round(limits.timeout)), "retries": limits.retries,
        "number_sample_per_shard": 1000, "extract_exif": False,
        "user_agent_token": AGENT, "disallowed_header_directives": sorted(NO_AI),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", CALL, json.dumps(settings)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    told: set[int] = set()
    for path in sorted((folder / "out").glob("*.parquet")):
        for batch in pq.ParquetFile(path).iter_batches(64):
            for row in batch.to_pylist():
                _write_down(book, row, min_side, limits.most_bytes)
                told.add(row["place"])
    missing = [place for place in places if place not in told]
    if missing:
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise UserError(
            f"img2dataset says nothing of {len(missing)} of {len(places)} addresses (its last line:"
            f" {printable(said)[:LONGEST]}); run the same command again, or leave out --downloader"
        )
    shutil.rmtree(folder, ignore_errors=True)


def _write_down(book: Book, row: dict[str, Any], min_side: int, most_bytes: int) -> None:
    """What it says of an address -> outcome."""
    body, error = row.get("jpg"), printable(row.get("error_message") or "")[:LONGEST]
    if row["status"] == "success" and body:
        if len(body) > most_bytes:
            judged, body = Judged("too_large", f"{len(body)} bytes"), None
        else:
            judged = judge(body, min_side)
    elif OPTED_OUT in error:
        judged = Judged("opted_out", error)
    elif row["status"] == "failed_to_resize":
        judged = Judged("undecodable", error)
    else:
        judged = Judged("dead", error)
    book.add(row["place"], judged, body)
