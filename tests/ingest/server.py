"""A server of images on this machine that also errs, lies, hangs and floods, as the web does."""

import asyncio
import colorsys
import contextlib
import functools
import io
import struct
import threading
import zlib
from collections import Counter
from collections.abc import Iterator

import numpy as np
from PIL import Image

FLOOD = 3_000_000  # bytes of what is too large
# Kinds of address -> the outcome that they come to.
KINDS = {
    "good": "kept",
    "untold": "kept",  # without a type
    "chunked": "kept",
    "slow": "kept",  # in pieces
    "redirect": "kept",
    "busy": "kept",  # 503 once, then good
    "later": "kept",  # 429 with Retry-After, then good
    "notforyou": "kept",  # X-Robots-Tag for another agent
    "missing": "dead",
    "forbidden": "dead",
    "error": "dead",
    "closed": "dead",  # no answer at all
    "cut": "dead",  # fewer bytes than promised
    "hang": "dead",
    "drip": "dead",  # a byte at a time, for ever
    "loop": "dead",
    "garbage": "dead",  # no HTTP
    "page": "not_an_image",
    "huge": "too_large",
    "flood": "too_large",  # without saying how much
    "lie": "undecodable",  # a page that says it is a JPEG
    "truncated": "undecodable",
    "bomb": "undecodable",  # a PNG of 40,000 x 40,000
    "small": "too_small",
    "noai": "opted_out",
    "noimageai": "opted_out",
    "elsewhere": "dead",  # redirects to ftp:
}


@functools.cache
def picture(n: int, side: int = 96) -> bytes:
    """A JPEG unlike those of other numbers."""
    rng = np.random.default_rng(n)
    small = rng.integers(0, 256, (8, 8), np.uint8)
    tint = np.array(colorsys.hsv_to_rgb(rng.random(), 0.5, 1.0))
    values = (small[..., None] * tint).astype(np.uint8)
    image = Image.fromarray(values).resize((side, side), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    return file.getvalue()


def bomb() -> bytes:
    """A PNG that says it has 40,000 x 40,000 pixels."""

    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"0" * 99)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


class Web:
    """Address of the server and what it was asked for."""

    def __init__(self) -> None:
        self.address = ""
        self.asked: Counter[str] = Counter()
        self.slow = self.most_slow = 0  # slow answers at a time

    def url(self, kind: str, n: int) -> str:
        return f"{self.address}/{kind}/{n}"


@contextlib.contextmanager
def serve(host: str = "127.0.0.1") -> Iterator[Web]:
    """Serves until the block ends, in a thread."""
    web, loop, ready = Web(), asyncio.new_event_loop(), threading.Event()

    async def main():
        server = await asyncio.start_server(functools.partial(_handle, web), host, 0, backlog=512)
        web.address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ready.set()
        async with server:
            await server.serve_forever()

    def run():
        asyncio.set_event_loop(loop)
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(task)
        left = asyncio.all_tasks(loop)
        for each in left:
            each.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.close()

    task = loop.create_task(main())
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    ready.wait()
    try:
        yield web
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join()


async def _handle(web: Web, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            line = (await reader.readline()).decode()
            if not line:
                return
            while (await reader.readline()).strip():
                pass
            path = line.split(" ")[1]
            web.asked[path] += 1
            if not await _answer(web, path, reader, writer):
                return
    except (ConnectionError, asyncio.CancelledError):
        return
    finally:
        writer.close()


async def _answer(
    web: Web, path: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bool:
    """Whether the connection may be used again."""
    _, kind, number = path.split("/")
    n = int(number)

    async def send(status="200 OK", body=b"", kind="image/jpeg", length=None, **headers):
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}"]
        lines += [f"Content-Type: {kind}"] if kind else []
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode() + body)
        await writer.drain()
        return True

    image = picture(n)
    simple = {
        "good": lambda: send(body=image),
        "untold": lambda: send(body=image, kind=""),
        "redirect": lambda: send("302 Found", Location=f"/good/{n}"),
        "inward": lambda: send("302 Found", Location=web.url("good", n).replace(".0.1:", ".0.2:")),
        "byname": lambda: send("302 Found", Location=f"http://inside.test/{n}"),
        "notforyou": lambda: send(body=image, X_Robots_Tag="otherbot: noai, noimageai"),
        "missing": lambda: send("404 Not Found"),
        "forbidden": lambda: send("403 Forbidden"),
        "error": lambda: send("500 Internal Server Error"),
        "loop": lambda: send("302 Found", Location=f"/loop/{n + 1}"),
        "elsewhere": lambda: send("302 Found", Location="ftp://127.0.0.1/x"),
        "page": lambda: send(body=b"<html>", kind="text/html; charset=utf-8"),
        "huge": lambda: send(length=10**10),
        "lie": lambda: send(body=b"<html>no image</html>"),
        "truncated": lambda: send(body=image[: len(image) // 2]),
        "bomb": lambda: send(body=bomb(), kind="image/png"),
        "small": lambda: send(body=picture(n, 32)),
        "noai": lambda: send(body=image, X_Robots_Tag="noindex, NoAI"),
        "noimageai": lambda: send(body=image, X_Robots_Tag="bsjax: noimageai"),
    }
    if kind in simple:
        return await simple[kind]() and kind != "huge"
    if kind in ("busy", "later"):
        if web.asked[path] == 1:
            status = "503 Busy" if kind == "busy" else "429 Too Many Requests"
            return await send(status, Retry_After="0")
        return await send(body=image)
    if kind == "garbage":
        writer.write(b"\x00\x01\x02 not http\r\n\r\n")
        return False
    if kind == "closed":
        return False
    if kind == "cut":
        await send(body=image[:50], length=len(image))
        return False
    writer.write(
        b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nTransfer-Encoding: chunked\r\n\r\n"
    )

    async def chunk(data):
        writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        await writer.drain()

    if kind in ("chunked", "slow"):
        web.slow += kind == "slow"
        web.most_slow = max(web.most_slow, web.slow)
        for start in range(0, len(image), 1000):
            await chunk(image[start : start + 1000])
            await asyncio.sleep(0.02 if kind == "slow" else 0)
        web.slow -= kind == "slow"
    elif kind == "flood":
        for _ in range(FLOOD // 50_000):
            await chunk(b"x" * 50_000)
    elif kind == "drip":
        while True:
            await chunk(b"x")
            await asyncio.sleep(0.05)
    else:  # hang
        await reader.read()  # until the other side has had enough
        return False
    writer.write(b"0\r\n\r\n")
    await writer.drain()
    return True
