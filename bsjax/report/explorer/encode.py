"""Data as scripts: a page opened from disk may load scripts, but may fetch nothing.

Each file calls `bsjaxReceive(name, payload, stamp, isDeflated)`; a large payload is the base64 of
its deflated JSON, arrays in it are base64 of their little-endian bytes. The stamp tells the files
of one report from those of another, which may take their place while a page is open.
"""

import base64
import json
import pathlib
import zlib
from typing import Any

import numpy as np

from bsjax.core.artifacts import atomic_path

ORIGINALS = "originals.json"  # beside data/: which measured sets the arms of the page are
LARGE = 4096  # letters of a payload, from which on it is deflated


def pack(array: np.ndarray, dtype: str, deflate: bool = False) -> dict[str, Any]:
    """An array for the page: {"dtype", "shape", "data", "deflate"}."""
    array = np.ascontiguousarray(array, np.dtype(dtype).newbyteorder("<"))
    data = array.tobytes()
    if deflate:
        data = zlib.compress(data, 6)
    text = base64.b64encode(data).decode()
    return {"dtype": dtype, "shape": list(array.shape), "data": text, "deflate": deflate}


def write_data(folder: pathlib.Path, name: str, payload: Any, stamp: str = "") -> None:
    """Writes `folder`/`name`.js, which hands `payload` and the report's stamp to the page."""
    # Inside a script of its own JSON is JavaScript; no markup can end it.
    text = json.dumps(payload, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    more = [json.dumps(stamp)]
    if len(text) > LARGE:
        deflated = base64.b64encode(zlib.compress(text.encode("ascii"), 6)).decode()
        # Images do not become smaller.
        if len(deflated) < 0.9 * len(text):
            text, more = json.dumps(deflated), [*more, "true"]
    with atomic_path(folder / f"{name}.js") as temporary:
        call = f"bsjaxReceive({','.join([json.dumps(name), text, *more])});\n"
        temporary.write_text(call, encoding="ascii")
