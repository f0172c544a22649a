"""ingest: a table of addresses and captions -> captioned images, a random sample of them.

Reads parquet, CSV or JSON lines from this disk or the hub, and the network; writes ingested/:
shards of images for `real.source=arrayrecord`, what became of every row that was asked for
(attrition.parquet), and the counts in the manifest. Killed at any moment it goes on.
"""

import asyncio
import os
import pathlib
from typing import Any

from absl import logging

from bsjax.core.artifacts import begin_stage, identity_of, is_remote, write_manifest
from bsjax.core.errors import UserError
from bsjax.core.logs import progress, step, watch_silence
from bsjax.core.paths import AnyPath
from bsjax.ingest import by_img2dataset
from bsjax.ingest.book import Book
from bsjax.ingest.candidates import Drawn, Fields, draw
from bsjax.ingest.collect import collect
from bsjax.ingest.fetch import Fetcher, Limits
from bsjax.ingest.settings import Settings
from bsjax.results.ingested import KEPT, REASONS

FOLDER = "ingested"
PER_SHARD = 1000  # images
TRIES = 4  # times as many rows as images, where nothing else is said
# Settings that decide which images are kept.
DECIDE = (
    "source", "images", "tries", "seed", "url_field", "caption_field", "min_side", "max_megabytes",
    "duplicate_bits",
)  # fmt: skip


def ingest(
    workdir: AnyPath, settings: Settings, overwrite: bool = False, per_shard: int = PER_SHARD
) -> dict[str, Any]:
    """Fetches images until enough are kept, or no more rows may be asked for.

    Args:
      workdir: ingested/ is written there.
      settings: what to fetch, and how.
      overwrite: what another ingest wrote there goes.
      per_shard: images of a shard.

    Returns:
      The manifest.

    Raises:
      UserError: no table, no image, another ingest's folder, or settings that cannot be.
    """
    settings.check()
    if is_remote(workdir):
        raise UserError(f"{workdir}: ingest writes to a disk; set --workdir to one, then copy it")
    folder = pathlib.Path(os.fspath(workdir)) / FOLDER
    tries = TRIES * settings.images if settings.tries is None else settings.tries
    fields = Fields(settings.url_field, settings.caption_field)
    with watch_silence("ingest"):
        with step(f"drawing {tries} rows of {settings.source}"):
            drawn = draw(settings.source, tries, settings.seed, fields)
        told = settings._replace(tries=tries)._asdict()
        config = {name: told[name] for name in DECIDE}
        done = begin_stage(
            folder, config=config, parents={"table": str(drawn.identity)}, overwrite=overwrite,
            stage="ingest",
        )  # fmt: skip
        if done is not None:
            return done
        return _fill(folder, settings, drawn, config, per_shard)


def _fill(
    folder: pathlib.Path, settings: Settings, drawn: Drawn, config: dict[str, Any], per_shard: int
) -> dict[str, Any]:
    book = Book(
        folder, identity_of(folder), drawn.candidates, settings.images, per_shard,
        settings.duplicate_bits,
    )  # fmt: skip
    limits = Limits(
        timeout=settings.timeout,
        total=3 * settings.timeout,
        retries=settings.retries,
        most_bytes=round(settings.max_megabytes * 1e6),
        per_host=settings.per_host,
        connections=settings.connections,
    )
    try:
        with progress("ingest", settings.images, book.n_kept) as bar:

            def tell(book: Book) -> None:
                bar.update(book.n_kept - bar.n)
                lost = len(book.outcomes) - book.n_kept
                bar.set_postfix({"lost": lost})

            if settings.downloader == "aiohttp":
                asyncio.run(_collect(book, limits, settings, tell))
            else:
                by_img2dataset.collect(book, limits, settings.min_side, tell)
        if not book.n_kept:
            most = max(REASONS, key=[outcome for outcome, _ in book.outcomes].count)
            raise UserError(
                f"{settings.source}: none of {len(book.outcomes)} addresses gave an image (most"
                f" often: {most}, {REASONS[most]}); see to the network, or set another --source"
            )
        counts = book.finish()
    finally:
        book.close()
    notes = _notes(settings, book, counts, drawn)
    for note in notes:
        logging.warning("%s", note)
    manifest = write_manifest(
        folder,
        stage="ingest",
        config=config,
        parents={"table": str(drawn.identity)},
        counts={
            "rows": drawn.n_rows,
            "asked": len(book.outcomes),
            "malformed_lines": drawn.n_malformed,
            "lines_in_cells": drawn.n_inside,
            **counts,
        },
        notes=notes,
    )
    book.clear()
    lost = ", ".join(f"{n} {name}" for name, n in counts.items() if n and name != KEPT)
    logging.info(
        "ingested: %d of %d rows (%s)", counts[KEPT], len(book.outcomes), lost or "no loss"
    )
    logging.info("use: --config.real.source=arrayrecord --config.real.path=%s", folder)
    return manifest


async def _collect(book: Book, limits: Limits, settings: Settings, tell: Any) -> None:
    async with Fetcher(limits, settings.allow_private) as fetcher:
        await collect(book, fetcher.fetch, settings.min_side, limits.connections, tell)


def _notes(settings: Settings, book: Book, counts: dict[str, int], drawn: Drawn) -> list[str]:
    notes = []
    if counts[KEPT] < settings.images:
        notes.append(
            f"{counts[KEPT]} of the {settings.images} images asked for: {len(book.outcomes)} of"
            f" {drawn.n_rows} rows were asked for; more --tries may give more"
        )
    if drawn.n_malformed:
        notes.append(f"{drawn.n_malformed} lines of the table have another number of cells")
    if drawn.n_inside:
        notes.append(
            f"{drawn.n_inside} lines of the table lie within quotes, as parts of cells of other"
            " lines: where no caption has several, a quote that is never closed took rows with it"
        )
    if settings.downloader != "aiohttp" and not settings.allow_private:
        notes.append("img2dataset does not look whether an address leads to a private network")
    return notes
