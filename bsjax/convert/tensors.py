"""Named tensors of a checkpoint, in one file or several, safetensors or torch's own.

Read one at a time, without torch and without executing anything.
"""

import hashlib
import json
import pathlib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple, NoReturn

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from bsjax.convert.lfs import refuse_pointer
from bsjax.convert.torch_file import TensorRef, open_torch_file
from bsjax.core.errors import UserError

# Kinds of weight file, best first.
SUFFIXES = (".safetensors", ".fp16.safetensors", ".bin", ".fp16.bin")
TRANSFORMERS_STEMS = ("model", "pytorch_model")
# Suffixes of files that are taken for weights where an error lists them.
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".msgpack", ".onnx", ".h5", ".ckpt", ".pth", ".pt")
FLOATS = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
SHOWN = 5  # names that an error lists


class TensorSource(NamedTuple):
    """Named tensors of one checkpoint, read one at a time as float32.

    Reading raises UserError where a tensor is quantised, whole numbers, or not finite.
    """

    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str], np.ndarray]
    files: tuple[pathlib.Path, ...]
    # Tensors that reading refuses for their kind of numbers, and that kind.
    unreadable: Mapping[str, str] = {}

    def digest(self) -> str:
        """Start of the sha256 of all files."""
        sha = hashlib.sha256()
        for path in self.files:
            with path.open("rb") as handle:
                while chunk := handle.read(1 << 22):
                    sha.update(chunk)
        return sha.hexdigest()[:16]


class Stored(NamedTuple):
    """One tensor in its file."""

    shape: tuple[int, ...]
    kind: str  # of its numbers, as the file calls it
    ref: TensorRef | None  # None: no kind of floating-point number that is read


def choose_files(names: Collection[str], stems: Sequence[str]) -> tuple[str, ...] | None:
    """Which weights of a folder in the hub's layout are read.

    Args:
      names: of the files of one folder, without the folder.
      stems: names that the weight file may have, without suffix.

    Returns:
      The weight file, or the index of its shards (see `shards_of`); None: neither is there.
    """
    for suffix in SUFFIXES:
        for stem in stems:
            first, _, variant = suffix[1:].rpartition(".")
            whole = f"{stem}{suffix}"
            # model.safetensors.index.json, model.safetensors.index.fp16.json
            index = ".".join(filter(None, (stem, variant, "index", first, "json")))
            # Where both are there, transformers reads the one file, diffusers the shards.
            both = (whole, index) if stem in TRANSFORMERS_STEMS else (index, whole)
            for name in both:
                if name in names:
                    return (name,)
    return None


def shards_of(index: pathlib.Path) -> tuple[str, ...]:
    """Names of the weight files beside an index.

    Raises:
      UserError: the index is damaged, or names what is no file beside it.
    """
    return tuple(sorted(set(_weight_map(index).values())))


def open_folder(folder: pathlib.Path, stems: Sequence[str], flag: str) -> TensorSource:
    """The weights of a folder in the hub's layout, whole or in shards with an index.

    Args:
      folder: where they lie.
      stems: names that the file may have, without suffix.
      flag: what an error tells the user to set.

    Raises:
      UserError: none there, a shard is missing, an index that its shards belie, a damaged file.
    """
    names = {path.name for path in folder.iterdir() if path.is_file()} if folder.is_dir() else ()
    chosen = choose_files(names, stems)
    if chosen is None:
        refuse_folder(str(folder), names, stems, flag)
    if not chosen[0].endswith(".json"):
        return open_files((folder / chosen[0],))
    return _open_shards(folder / chosen[0], names)


def refuse_folder(where: str, names: Collection[str], stems: Sequence[str], flag: str) -> NoReturn:
    """Raises the UserError for a folder, or a folder of a repository, without weights to read."""
    others = sorted(name for name in names if name.endswith(WEIGHT_SUFFIXES))
    found = f", but {_listed(others)}" if others else ""
    raise UserError(
        f"{where} has no {stems[0]}.safetensors (or {stems[0]}.safetensors.index.json){found}; set"
        f" {flag} to a folder in the hub's layout"
    )


def open_files(files: Sequence[pathlib.Path]) -> TensorSource:
    """The tensors of all files together, by the files' suffix.

    Raises:
      UserError: a damaged file, one that asks to run code, a git-lfs pointer, a tensor in two.
    """
    return _source(files, *_collect(files))


def _open_shards(index: pathlib.Path, names: Collection[str]) -> TensorSource:
    folder, weight_map = index.parent, _weight_map(index)
    shards = shards_of(index)
    missing = [name for name in shards if name not in names]
    if missing:
        raise UserError(
            f"{folder} lacks {_listed(missing)}, which {index.name} names; copy it there"
        )
    # Shards of one model are numbered: NAME-00001-of-00002.
    numbered = re.compile(r"-\d+-of-\d+(?=\.)")
    families = {numbered.sub("", name) for name in shards if numbered.search(name)}
    extra = sorted(
        name
        for name in names
        if name not in shards and numbered.search(name) and numbered.sub("", name) in families
    )
    if extra:
        raise UserError(
            f"{folder} has {_listed(extra)}, which {index.name} does not name: shards of another"
            " set, or an index that is too old; remove them or fetch the index again"
        )
    files = tuple(folder / name for name in shards)
    tensors, homes = _collect(files)
    wrong = [
        f"{name} in {shard}" + (f" (it is in {homes[name].name})" if name in homes else "")
        for name, shard in weight_map.items()
        if name not in homes or homes[name].name != shard
    ]
    if wrong:
        raise UserError(
            f"{index} says what its shards do not hold: {_listed(wrong)}; fetch the index and the"
            " shards again, all of one revision"
        )
    return _source(files, tensors, homes)


def _collect(
    files: Sequence[pathlib.Path],
) -> tuple[dict[str, Stored], dict[str, pathlib.Path]]:
    """All tensors by name, and the file that each is in."""
    tensors: dict[str, Stored] = {}
    homes: dict[str, pathlib.Path] = {}
    for path in files:
        refuse_pointer(path)
        found = _safetensors(path) if path.suffix == ".safetensors" else _torch(path)
        doubled = sorted(set(found) & set(tensors))
        if doubled:
            others = _listed(sorted({homes[name].name for name in doubled}))
            raise UserError(
                f"{path} and {others} both hold {_listed(doubled)}; remove the file that is not of"
                " this model, and its lines in the index"
            )
        tensors.update(found)
        homes.update(dict.fromkeys(found, path))
    return tensors, homes


def _source(
    files: Sequence[pathlib.Path],
    tensors: Mapping[str, Stored],
    homes: Mapping[str, pathlib.Path],
) -> TensorSource:
    shapes = {name: stored.shape for name, stored in tensors.items()}

    def read(name):
        return _read(name, tensors[name], homes[name])

    unreadable = {name: stored.kind for name, stored in tensors.items() if stored.ref is None}
    return TensorSource(shapes, read, tuple(files), unreadable)


def _weight_map(index: pathlib.Path) -> dict[str, str]:
    """Name of a tensor -> name of the file beside the index that holds it."""
    refuse_pointer(index)
    try:
        content = json.loads(index.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{index} is cut off or no JSON ({error}); fetch it again") from error
    found = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(found, dict) or not found:
        raise UserError(f"{index} has no weight_map, tensor -> file; fetch it again")
    suffix = ".safetensors" if ".safetensors." in index.name else ".bin"
    for name, file in found.items():
        is_plain = isinstance(file, str) and not re.search(r"[/\\\0]", file)
        if not is_plain or not file.endswith(suffix):
            raise UserError(
                f"{index} says that {name!r} is in {json.dumps(file)[:100]}: expected the name of a"
                f" {suffix} file beside it; fetch it again from a source you trust"
            )
    return found


def refuse_kind(path: pathlib.Path, name: str, kind: str) -> NoReturn:
    """Refuses a tensor that is no floating-point number of a kind that is read.

    Raises:
      UserError: always.
    """
    raise UserError(
        f"{path} holds {name} as {kind}, expected float32, float16 or bfloat16: these weights are"
        " quantised or of another model; use a repository that has them as floats"
    )


def _read(name: str, stored: Stored, path: pathlib.Path) -> np.ndarray:
    """A tensor as float32."""
    if stored.ref is None:
        refuse_kind(path, name, stored.kind)
    with np.errstate(over="ignore"):  # refused right below
        tensor = np.asarray(stored.ref.read(), np.float32)
    if not np.isfinite(tensor).all():
        n_bad = tensor.size - np.count_nonzero(np.isfinite(tensor))
        raise UserError(
            f"{path} holds {name} with {n_bad} of {tensor.size} numbers that are NaN or infinite;"
            " fetch it again, or use other weights"
        )
    return tensor


def _safetensors(path: pathlib.Path) -> dict[str, Stored]:
    """What a file holds; its numbers are then read by their place, a tensor at a time."""
    try:
        # The first refuses damaged headers, overlaps and files that are cut off.
        with safe_open(path, framework="np"), path.open("rb") as handle:
            n_header = int.from_bytes(handle.read(8), "little")
            header = json.loads(handle.read(n_header))
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"{path} is damaged or no safetensors file ({error}); fetch it again"
        ) from error
    found = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        shape, kind = tuple(entry["shape"]), entry["dtype"]
        offset = 8 + n_header + entry["data_offsets"][0]
        ref = TensorRef(path, offset, FLOATS[kind], shape) if kind in FLOATS else None
        found[name] = Stored(shape, kind, ref)
    return found


def _torch(path: pathlib.Path) -> dict[str, Stored]:
    tensors = open_torch_file(path).tensors
    return {
        name: Stored(
            tuple(ref.shape), ref.dtype.name, ref if ref.dtype in FLOATS.values() else None
        )
        for name, ref in tensors.items()
    }


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"
