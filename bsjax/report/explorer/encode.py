"""Data as scripts: a page opened from disk may load scripts, but may fetch nothing.

Each file calls `bsjaxReceive(name, payload, stamp, isDeflated)`. A small payload is JSON, arrays in
it are base64 of their little-endian bytes. A large one is the base85 of deflated bytes: the length
of the JSON (4 bytes), the JSON, and the bytes of its arrays one behind the other. The stamp tells
the files of one report from those of another, which may take their place while a page is open.
"""

import base64
import json
import pathlib
import struct
import zlib
from typing import Any

import numpy as np

from bsjax.core.artifacts import atomic_path

ORIGINALS = "originals.json"  # beside data/: which measured sets the arms of the page are
LARGE = 4096  # letters of a payload, from which on it is deflated


REPEATED = 8  # times that a value of an array occurs, from which on its bytes are not split
PACKED = {"dtype", "shape", "data"}


def pack(array: np.ndarray, dtype: str) -> dict[str, Any]:
    """An array for the page: {"dtype", "shape", "data"}."""
    array = np.ascontiguousarray(array, np.dtype(dtype).newbyteorder("<"))
    text = base64.b64encode(array.tobytes()).decode()
    return {"dtype": dtype, "shape": list(array.shape), "data": text}


def write_data(folder: pathlib.Path, name: str, payload: Any, stamp: str = "") -> None:
    """Writes `folder`/`name`.js, which hands `payload` and the report's stamp to the page."""
    # Inside a script of its own JSON is JavaScript; no markup can end it.
    text, more = _json(payload), [json.dumps(stamp)]
    if len(text) > LARGE:
        deflated = base64.b85encode(zlib.compress(_joined(payload), 9)).decode()
        # Images do not become smaller.
        if len(deflated) < 0.9 * len(text):
            text, more = json.dumps(deflated), [*more, "true"]
    with atomic_path(folder / f"{name}.js") as temporary:
        call = f"bsjaxReceive({','.join([json.dumps(name), text, *more])});\n"
        temporary.write_text(call, encoding="ascii")


def pack_sparse(table: np.ndarray) -> dict[str, Any]:
    """A table [n, m] of whole numbers, most of them 0, for the page.

    {"counts": of what is not 0 in each row, "gaps": of zeros before each of these, "values"}.
    """
    row, column = np.nonzero(table)
    is_first = np.diff(row, prepend=-1) > 0
    gaps = np.where(is_first, column, np.diff(column, prepend=0) - 1)
    arrays = {"counts": (table > 0).sum(axis=1), "gaps": gaps, "values": table[row, column]}
    return {name: pack(array, _smallest(array)) for name, array in arrays.items()}


def _smallest(array: np.ndarray) -> str:
    return np.min_scalar_type(array.max(initial=0)).name


def _json(payload: Any) -> str:
    return json.dumps(payload, ensure_ascii=True, separators=(",", ":"), allow_nan=False)


def _joined(payload: Any) -> bytes:
    """The JSON of a payload and behind it the bytes of its arrays, each told by where it begins."""
    parts: list[bytes] = []

    def lift(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        if value.keys() != PACKED:
            return {key: lift(each) for key, each in value.items()}
        array = np.frombuffer(
            base64.b64decode(value["data"]), np.dtype(value["dtype"]).newbyteorder("<")
        )
        # First bytes beside first bytes: the high ones are alike. Where whole values are, they tell
        # more.
        is_split = array.itemsize > 1 and np.unique(array).size * REPEATED > array.size
        told = {"dtype": value["dtype"], "shape": value["shape"], "at": sum(map(len, parts))}
        parts.append(split(array) if is_split else array.tobytes())
        return told | {"split": is_split}

    head = _json(lift(payload)).encode("ascii")
    return struct.pack("<I", len(head)) + head + b"".join(parts)


def split(array: np.ndarray) -> bytes:
    """The first bytes of all numbers, then the second ones, and so on."""
    return array.view(np.uint8).reshape(array.size, array.itemsize).T.tobytes()
