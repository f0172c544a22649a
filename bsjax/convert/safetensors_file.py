"""Safetensors files of ours: the same bytes from every process, and read like those of torch.

The library writes metadata in the order of a hash table with a seed of its own in each process.
"""

import json
import os
import pathlib
import struct
from collections.abc import Mapping

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from bsjax.convert.lfs import refuse_pointer
from bsjax.convert.torch_pickle import TensorRef
from bsjax.core.artifacts import atomic_path
from bsjax.core.errors import UserError

DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
ALIGNMENT = 8


def write_safetensors(
    path: str | os.PathLike, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Writes float32 arrays, whole or not at all; content alone decides the bytes."""
    arrays = {
        name: np.ascontiguousarray(tensors[name], DTYPES["F32"]).reshape(np.shape(tensors[name]))
        for name in sorted(tensors)
    }
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    start = 0
    for name, array in arrays.items():
        stop = start + array.nbytes
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in arrays.values():
            file.write(array.reshape(-1))


def open_safetensors(path: pathlib.Path) -> tuple[dict[str, TensorRef], dict[str, str]]:
    """Where the tensors of a file lie, and its metadata.

    Raises:
      UserError: a git-lfs pointer, damaged, or with a tensor of a dtype that is not read.
    """
    refuse_pointer(path)
    try:
        with safe_open(path, framework="numpy"):  # checks the header against the file's length
            pass
        with path.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(size))
    except (SafetensorError, OSError, ValueError, struct.error) as error:
        raise UserError(
            f"{path} is damaged or no safetensors file ({error}); make or fetch it again"
        ) from error
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        if entry["dtype"] not in DTYPES:
            raise UserError(
                f"{path}: tensor {name} is of {entry['dtype']}, which is not read: expected"
                " float32, float16 or bfloat16; save it as float32"
            )
        offset = 8 + size + entry["data_offsets"][0]
        tensors[name] = TensorRef(path, offset, DTYPES[entry["dtype"]], tuple(entry["shape"]))
    return tensors, metadata
