"""Asks for candidates, many at a time, until enough images are kept."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

from bsjax.ingest.book import Book
from bsjax.ingest.fetch import Fetched
from bsjax.ingest.judge import Judged, judge

AHEAD = 2048  # candidates beyond the first that is not settled, at most
SPARE = 64  # asked for beyond what is still needed

Fetch = Callable[[str], Awaitable[Fetched]]


async def collect(
    book: Book, fetch: Fetch, min_side: int, connections: int, tell: Callable[[Book], None]
) -> None:
    """Fills a book.

    No more is asked for than could still be needed: where few images are missing, few candidates
    beyond them.

    Args:
      book: of the candidates.
      fetch: as `Fetcher.fetch`.
      min_side: as `judge` takes it.
      connections: candidates asked for at a time.
      tell: called whenever candidates were settled.
    """
    working: dict[asyncio.Task[tuple[Judged, bytes | None]], int] = {}
    launched = len(book.outcomes)
    with ThreadPoolExecutor(os.cpu_count() or 1, "judge") as threads:

        async def ask(place: int) -> tuple[Judged, bytes | None]:
            candidate = book.candidates[place]
            if candidate.fault:
                return Judged(candidate.fault), None
            fetched = await fetch(candidate.url)
            if fetched.body is None:
                return Judged(fetched.reason, fetched.detail), None
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(threads, judge, fetched.body, min_side), fetched.body

        try:
            while not book.is_done:
                settled = len(book.outcomes)
                stop = settled + min(AHEAD, SPARE + 2 * (book.n_images - book.n_kept))
                while len(working) < connections and launched < min(stop, len(book.candidates)):
                    if not book.is_known(launched):
                        working[asyncio.ensure_future(ask(launched))] = launched
                    launched += 1
                done, _ = await asyncio.wait(working, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    book.add(working.pop(task), *task.result())
                book.settle()
                tell(book)
        finally:
            for task in working:
                task.cancel()
            await asyncio.gather(*working, return_exceptions=True)
