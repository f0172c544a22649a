"""Files of `torch.save`, read without torch and without executing anything.

The pickle inside names the classes it wants; only the names in `ALLOWED` are accepted, and each
stands for an inert placeholder of ours. Every other name ends the reading before anything is built.
Tensor data is read from its place in the zip archive by seeking, a block of rows at a time.
"""

import io
import math
import os
import pathlib
import pickle
import pickletools
import struct
import zipfile
import zlib
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from bsjax.core.errors import UserError

STORAGE_DTYPES = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
# Modules whose state is read as plain attributes.
MODULES = (
    ("torch.nn.parallel.data_parallel", "DataParallel"),
    ("torch.nn.modules.container", "ModuleList"),
    ("torch.nn.modules.container", "Sequential"),
    ("torch.nn.modules.linear", "Linear"),
    ("torch.nn.modules.linear", "Identity"),
    ("torch.nn.modules.normalization", "LayerNorm"),
    ("torch.nn.modules.activation", "ReLU"),
    ("overcomplete.sae.batchtopk_sae", "BatchTopKSAE"),
    ("overcomplete.sae.rasae", "RATopKSAE"),
    ("overcomplete.sae.modules", "MLPEncoder"),
    ("overcomplete.sae.archetypal_dictionary", "RelaxedArchetypalDictionary"),
)
LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


class TensorRef(NamedTuple):
    """Where a tensor lies in its file. Rows are contiguous."""

    path: pathlib.Path
    offset: int  # bytes from the start of the file
    dtype: np.dtype
    shape: tuple[int, ...]

    def read(self) -> np.ndarray:
        """The whole tensor."""
        return self._read(self.offset, self.shape)

    def read_rows(self, start: int, stop: int) -> np.ndarray:
        """Rows `start` to `stop` of the first dimension."""
        if not 0 <= start <= stop <= self.shape[0]:
            raise IndexError(f"rows {start} to {stop} of a tensor {self.shape}")
        row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        return self._read(self.offset + start * row_bytes, (stop - start, *self.shape[1:]))

    def _read(self, offset: int, shape: tuple[int, ...]) -> np.ndarray:
        count = math.prod(shape)
        with self.path.open("rb") as handle:
            handle.seek(offset)
            data = np.fromfile(handle, np.uint8, count * self.dtype.itemsize)
        if data.size != count * self.dtype.itemsize:
            raise UserError(f"{self.path} is truncated; fetch it again")
        return data.view(self.dtype).reshape(shape)


class TorchFile(NamedTuple):
    """Tensors of a checkpoint by dotted name."""

    path: pathlib.Path
    tensors: dict[str, TensorRef]
    attributes: dict[str, Any]  # plain numbers and strings of modules, by dotted name


def open_torch_file(path: str | os.PathLike) -> TorchFile:
    """Lists the tensors of a zip `torch.save` file: a state dict or a graph of known modules.

    Raises:
      UserError: not such a file, truncated, or it asks for anything that is not a known tensor or
        module (nothing has run then).
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise UserError(f"{path} does not exist; expected a file of torch.save")
    with path.open("rb") as handle:
        head = handle.read(len(LEGACY_MAGIC))
    if head == LEGACY_MAGIC:
        raise UserError(
            f"{path} has torch's format from before 1.6; expected the zip format: load and save it"
            " once with a current torch"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            return _read_archive(path, archive)
    except UserError:
        raise
    # What zipfile raises for damaged or encrypted archives: OSError for places outside the file,
    # ValueError for undecodable names, RuntimeError (and NotImplementedError) for unknown methods.
    except (zipfile.BadZipFile, zlib.error, OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{path} is truncated or no torch checkpoint ({error}); fetch it again"
        ) from error


def _read_archive(path: pathlib.Path, archive: zipfile.ZipFile) -> TorchFile:
    entries = {info.filename: info for info in archive.infolist()}
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
        raise UserError(f"{path} is a compressed archive; expected one as torch.save writes")
    pickles = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise UserError(f"{path} is a zip file, but no torch checkpoint (no data.pkl)")
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}byteorder" in entries and archive.read(f"{root}byteorder") != b"little":
        raise UserError(f"{path} has big-endian tensors; save it on a little-endian machine")
    data = archive.read(f"{root}data.pkl")
    try:
        _check_memo(data)
        content = _Unpickler(data, path, root, entries).load()
        tensors: dict[str, TensorRef] = {}
        attributes: dict[str, Any] = {}
        _walk(content, "", tensors, attributes, path)
    except UserError:
        raise
    except (
        pickle.UnpicklingError,
        EOFError,
        TypeError,
        ValueError,
        KeyError,
        AttributeError,
        IndexError,
        AssertionError,
        OverflowError,
        MemoryError,
        RecursionError,
    ) as error:
        raise UserError(f"{path} has a damaged data.pkl ({error}); fetch it again") from error
    if not tensors:
        raise UserError(f"{path} holds no tensors")
    return TorchFile(path, tensors, attributes)


def _check_memo(data: bytes) -> None:
    """Refuses memo places beyond the pickle's length, for which unpickling would fill the memory.

    Places are numbered from 0 and each takes at least a byte, so no honest pickle has one.
    """
    for opcode, place, _ in pickletools.genops(data):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and place >= len(data):
            raise pickle.UnpicklingError(f"impossible memo place {place}")


class _Storage(NamedTuple):
    key: str
    dtype: np.dtype
    n_elements: int


class _Module:
    """Stands for any known module: keeps what the pickle sets, runs nothing."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.state = dict(state)


class _StateDict(dict):
    """Stands for OrderedDict; takes attributes, as `state_dict()` sets `_metadata` on its own."""


class _StorageType(NamedTuple):
    dtype: np.dtype


class _Unpickler(pickle.Unpickler):
    """Builds placeholders only; `find_class` is the gate that every named object must pass."""

    def __init__(self, data, path, root, entries):
        super().__init__(io.BytesIO(data), encoding="utf-8")
        self.path, self.root, self.entries = path, root, entries
        self.file_size = path.stat().st_size
        self.allowed = {name: _Module for name in MODULES} | {
            ("collections", "OrderedDict"): _StateDict,
            ("__builtin__", "set"): set,
            ("builtins", "set"): set,
            ("torch", "device"): _describe_device,
            ("torch", "Size"): tuple,
            ("torch._utils", "_rebuild_tensor_v2"): self._rebuild_tensor,
            ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
        }
        for name, dtype in STORAGE_DTYPES.items():
            self.allowed["torch", name] = _StorageType(dtype)

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.allowed:
            raise UserError(
                f"{self.path} asks for {module}.{name}, which is no part of a known checkpoint and"
                " could run code; refused before anything ran. Use weights from a source you trust,"
                " as safetensors"
            )
        return self.allowed[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        kind, storage_type, key, _, n_elements = pid
        if kind != "storage":
            raise pickle.UnpicklingError(f"unknown reference {kind!r}")
        return _Storage(str(key), storage_type.dtype, int(n_elements))

    def _rebuild_tensor(self, storage, offset, shape, stride, *_unused) -> TensorRef:
        name = f"{self.root}data/{storage.key}"
        if name not in self.entries:
            raise UserError(f"{self.path} lacks the tensor data {name}; fetch it again")
        entry = self.entries[name]
        shape = tuple(int(size) for size in shape)
        if any(size < 0 for size in shape):
            raise UserError(f"{self.path} has a tensor of impossible shape {shape}; fetch it again")
        n_elements = math.prod(shape)
        if not _is_contiguous(shape, stride):
            raise UserError(
                f"{self.path} has a tensor {shape} that is not contiguous; save it as one"
            )
        needed = (offset + n_elements) * storage.dtype.itemsize
        start = self._data_offset(entry)
        if offset < 0 or needed > entry.file_size or start + entry.file_size > self.file_size:
            raise UserError(
                f"{self.path} is truncated: a tensor {shape} needs {needed} bytes, its entry has"
                f" {entry.file_size}; fetch it again"
            )
        return TensorRef(self.path, start + offset * storage.dtype.itemsize, storage.dtype, shape)

    def _data_offset(self, entry: zipfile.ZipInfo) -> int:
        """First byte of an entry's data: behind its local header, whose extra field may differ."""
        with self.path.open("rb") as handle:
            handle.seek(entry.header_offset)
            header = handle.read(30)
        if len(header) < 30 or header[:4] != b"PK\x03\x04":
            raise UserError(f"{self.path} is truncated; fetch it again")
        name_size, extra_size = struct.unpack("<HH", header[26:30])
        return entry.header_offset + 30 + name_size + extra_size


def _rebuild_parameter(data: Any, *_unused: Any) -> Any:
    return data


def _describe_device(*parts: Any) -> str:
    return ":".join(map(str, parts))


def _is_contiguous(shape: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    expected = 1
    for size, step in zip(reversed(shape), reversed(tuple(stride)), strict=True):
        if size != 1 and step != expected:
            return False
        expected *= size
    return True


def _walk(node: Any, prefix: str, tensors: dict, attributes: dict, path: pathlib.Path) -> None:
    """Collects tensors of a state dict or of a module graph under dotted names."""
    if isinstance(node, _Module):
        state = node.state
        for group in ("_parameters", "_buffers", "_modules"):
            _walk(state.get(group, {}), prefix, tensors, attributes, path)
        for name, value in state.items():
            if isinstance(value, TensorRef):
                tensors[prefix + name] = value
            elif isinstance(value, int | float | str) and not name.startswith("_"):
                attributes[prefix + name] = value
    elif isinstance(node, dict):
        for name, value in node.items():
            if isinstance(value, TensorRef):
                tensors[f"{prefix}{name}"] = value
            elif isinstance(value, _Module | dict):
                _walk(value, f"{prefix}{name}.", tensors, attributes, path)
    else:
        raise UserError(f"{path} holds neither a state dict nor a module")
