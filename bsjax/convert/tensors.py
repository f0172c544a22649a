"""Named tensors of a checkpoint, in one file or several, safetensors or torch's own.

Read one at a time, without torch and without executing anything.
"""

import hashlib
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from bsjax.convert.torch_file import open_torch_file
from bsjax.core.errors import UserError

# Kinds of weight file, best first.
SUFFIXES = (".safetensors", ".fp16.safetensors", ".bin", ".fp16.bin")


class TensorSource(NamedTuple):
    """Named tensors of one checkpoint, read one at a time as float32."""

    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str], np.ndarray]
    files: tuple[pathlib.Path, ...]

    def digest(self) -> str:
        """Start of the sha256 of all files."""
        sha = hashlib.sha256()
        for path in self.files:
            with path.open("rb") as handle:
                while chunk := handle.read(1 << 22):
                    sha.update(chunk)
        return sha.hexdigest()[:16]


def open_folder(folder: pathlib.Path, stems: Sequence[str], flag: str) -> TensorSource:
    """The weights of a folder in the hub's layout, whole or in shards with an index.

    Args:
      folder: where they lie.
      stems: names that the file may have, without suffix.
      flag: what an error tells the user to set.

    Raises:
      UserError: none there, a shard is missing, a damaged file.
    """
    for suffix in SUFFIXES:
        for stem in stems:
            first, _, variant = suffix[1:].rpartition(".")
            # model.safetensors.index.json, model.safetensors.index.fp16.json
            index = folder / ".".join(filter(None, (stem, variant, "index", first, "json")))
            if index.is_file():
                names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
                missing = [name for name in names if not (folder / name).is_file()]
                if missing:
                    raise UserError(
                        f"{folder} lacks {missing[0]}, which {index.name} names; copy it there"
                    )
                return open_files(tuple(folder / name for name in names))
            if (folder / f"{stem}{suffix}").is_file():
                return open_files((folder / f"{stem}{suffix}",))
    raise UserError(
        f"{folder} has no {stems[0]}.safetensors (or {stems[0]}.safetensors.index.json); set {flag}"
        " to a folder in the hub's layout"
    )


def open_files(files: Sequence[pathlib.Path]) -> TensorSource:
    """The tensors of all files together, by the files' suffix.

    Raises:
      UserError: a damaged file, or one that asks to run code.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    readers: dict[str, Callable[[], np.ndarray]] = {}
    for path in files:
        found = _safetensors(path) if path.suffix == ".safetensors" else _torch(path)
        for name, (shape, read) in found.items():
            shapes[name], readers[name] = shape, read
    return TensorSource(shapes, lambda name: np.asarray(readers[name](), np.float32), tuple(files))


def _safetensors(path: pathlib.Path) -> dict[str, tuple]:
    found = {}
    try:
        handle = safe_open(path, framework="flax")
        for name in handle.keys():  # noqa: SIM118 (not a mapping)
            shape = tuple(handle.get_slice(name).get_shape())
            found[name] = (shape, lambda name=name: handle.get_tensor(name))
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path} is damaged or no safetensors file ({error}); fetch it again"
        ) from error
    return found


def _torch(path: pathlib.Path) -> dict[str, tuple]:
    tensors = open_torch_file(path).tensors
    return {name: (tuple(ref.shape), ref.read) for name, ref in tensors.items()}
