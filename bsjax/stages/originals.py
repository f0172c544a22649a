"""originals: the images of a served report as their files have them, decoded and sent anew.

The report says which measured sets its arms are (originals.json), the measures where their images
lie: an address `originals/<arm>/<row>` can name these alone. What a file holds beside its pixels is
never sent, nor is a file that is no image.
"""

import hashlib
import io
import json
import os
import pathlib
import threading
from typing import Any

import pyarrow.parquet as pq
from absl import logging
from PIL import Image
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from bsjax.core import addresses
from bsjax.core.artifacts import check_files, read_json, require_manifest
from bsjax.core.errors import UserError
from bsjax.core.foreign import printable
from bsjax.data.decode import decode_rgb
from bsjax.data.sources import read_image
from bsjax.report.explorer.encode import ORIGINALS
from bsjax.results.measures import IMAGE_TABLE

LARGEST = 1536  # pixels of the longer side that is sent
QUALITY = 90  # of the WebP
MOST_DIGITS = 9  # of a number in an address
AT_ONCE = 2  # images decoded at a time, since one may take a gigabyte
META = '<meta name="bsjax-originals" content="served">'  # tells the page that they are here
NO_IMAGE = "there is no such image in this report\n"


def report_routes(folder: pathlib.Path, html: bool = False) -> list[BaseRoute]:
    """Routes of a report: its files, and the images that it shows.

    Args:
      folder: of the report, in the workdir.
      html: the folder's address shows the page.
    """
    originals = Originals(folder)
    return [
        Route("/originals/{arm}/{row}", originals.respond),
        Mount("/", _Report(originals, directory=folder, html=html)),
    ]


class _Report(StaticFiles):
    """A report's files; its page is told that there are originals."""

    def __init__(self, originals: "Originals", **options: Any):
        super().__init__(**options)
        self.originals = originals

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        is_page = isinstance(response, FileResponse) and response.status_code == 200
        if not is_page or pathlib.Path(response.path).name != "index.html":
            return response
        if not self.originals.are_there():
            return response
        page = pathlib.Path(response.path).read_text(encoding="utf-8")
        return HTMLResponse(page.replace("<head>", f"<head>\n{META}", 1))


class Originals:
    """The images of one report, found through its measures.

    Args:
      folder: of the report, in the workdir.
    """

    def __init__(self, folder: pathlib.Path):
        self.workdir, self.index = folder.parent, folder / ORIGINALS
        self._decoding = threading.Semaphore(AT_ONCE)
        self._lock, self._paths = threading.Lock(), {}

    def are_there(self) -> bool:
        """Whether the report says which sets it shows."""
        return self.index.is_file()

    def respond(self, request: Request) -> Response:
        """The image that the address names, as WebP; 404 where it is gone, or of another report."""
        numbers = [request.path_params[name] for name in ("arm", "row")]
        try:
            arm, row = (_number(text) for text in numbers)
            path, measures = self.find(arm, row, request.query_params.get("report", ""))
            tag = f'"{_identity(path, measures)}"'
            if request.headers.get("if-none-match") == tag:
                return Response(status_code=304, headers={"etag": tag})
            with self._decoding:
                data = encode(path)
        except (UserError, LookupError, OSError, ValueError) as error:
            # Whoever asks learns no paths; the log of who serves has them.
            logging.warning("%s is not served: %s", printable(request.url.path), error)
            return PlainTextResponse(NO_IMAGE, 404)
        return Response(data, media_type="image/webp", headers={"etag": tag})

    def find(self, arm: int, row: int, stamp: str) -> tuple[str, str]:
        """Address of an image as `read_image` takes it, and hash of the measures that name it.

        Args:
          arm: 0: the real images, i + 1: set i of the report.
          row: of the image in its measures.
          stamp: of the report that is asked about.

        Raises:
          LookupError, OSError, ValueError: there is none, or it is another report.
          UserError: the measures are not what `measure` wrote.
        """
        told = read_json(self.index)
        if told["stamp"] != stamp:
            raise LookupError(f"{self.index} is of another report than the page")
        name, measures = told["arms"][arm]["set"], told["arms"][arm]["measures"]
        if not measures:
            raise LookupError("an imported set has no images")
        if name in ("", ".", "..") or set(name) & set("/\\\0"):
            raise ValueError(f"{self.index}: {name!r} is no name of a set")
        return self._paths_of(self.workdir / "measures" / name, measures)[row], measures

    def _paths_of(self, folder: pathlib.Path, measures: str) -> list[str]:
        with self._lock:
            if (folder, measures) not in self._paths:
                manifest = require_manifest(folder, "measure")
                if manifest["config_hash"] != measures:
                    raise LookupError(f"{folder} holds other measures than the report shows")
                check_files(folder, manifest, [IMAGE_TABLE])
                table = pq.read_table(folder / IMAGE_TABLE, columns=["path"])
                paths = table["path"].to_pylist()
                self._paths[folder, measures] = [
                    addresses.find(path, self.workdir) for path in paths
                ]
            return self._paths[folder, measures]


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS):
        raise ValueError("the address has no such number")
    return int(text)


def encode(path: str) -> bytes:
    """The image at an address as WebP, its longer side at most LARGEST pixels.

    Raises:
      OSError, ValueError: it is gone, or no image.
    """
    image = decode_rgb(read_image(path))
    image.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=QUALITY)
    return buffer.getvalue()


def _identity(path: str, measures: str) -> str:
    """The same as long as the image is."""
    address = addresses.parse_address(path)
    told = [path, measures, LARGEST, QUALITY]
    if not address.kind:
        found = os.stat(path)
        told += [found.st_size, found.st_mtime_ns]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]
