"""The pickle inside a file of `torch.save`, unpickled into inert placeholders.

The pickle names the classes it wants; only the names listed here are accepted, and each stands for
a placeholder of ours. Every other name ends the reading before anything is built.
"""

import functools
import io
import math
import pathlib
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
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
# Storages that are told by name, not read.
UNREAD_STORAGES = (
    *("ComplexFloatStorage", "ComplexDoubleStorage", "QInt8Storage", "QUInt8Storage"),
    *("QInt32Storage", "QUInt4x2Storage", "QUInt2x4Storage"),
)
# Values that stand for themselves by name; a tensor of a dtype without a storage names it so.
DTYPES = (
    *("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8"),
    *("bool", "uint16", "uint32", "uint64", "complex64", "complex128", "float4_e2m1fn_x2"),
    *("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"),
    *("complex32", "bits8", "bits16", "bits1x8", "bits2x4", "bits4x2"),
)
# How a quantised tensor is scaled; it is told by its storage.
SCHEMES = ("per_tensor_affine", "per_channel_affine", "per_channel_affine_float_qparams")
UNREAD = (
    "is of {}, which is not read: expected float32, float16 or bfloat16; save it as float32, or use"
    " weights that have it so"
)
# Modules whose state is read as plain attributes.
MODULES = (
    ("torch.nn.parallel.data_parallel", "DataParallel"),
    ("torch.nn.modules.container", "ModuleList"),
    ("torch.nn.modules.container", "Sequential"),
    ("torch.nn.modules.linear", "Linear"),
    ("torch.nn.modules.linear", "Identity"),
    ("torch.nn.modules.normalization", "LayerNorm"),
    ("torch.nn.modules.batchnorm", "BatchNorm1d"),
    ("torch.nn.modules.activation", "ReLU"),
    ("torch.nn.modules.activation", "GELU"),
    ("overcomplete.sae.batchtopk_sae", "BatchTopKSAE"),
    ("overcomplete.sae.rasae", "RATopKSAE"),
    ("overcomplete.sae.modules", "MLPEncoder"),
    ("overcomplete.sae.archetypal_dictionary", "RelaxedArchetypalDictionary"),
)
# Longer lists stand in no shape, device or set of names that torch writes.
SHORT = 64


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


class Unreadable(NamedTuple):
    """A tensor of a kind that is not read; whoever knows its name refuses it."""

    why: str


class Named(NamedTuple):
    """A value that is nothing but its name: torch.float32."""

    name: str


class Storage(NamedTuple):
    """A tensor's numbers; dtype is None where the tensor itself tells it."""

    key: str
    dtype: np.dtype | None
    kind: str
    n_elements: int


class Module:
    """Stands for a known module: keeps what the pickle sets, runs nothing."""

    origin = ""
    state: Mapping[str, Any] = {}  # noqa: RUF012 (never written to: __setstate__ replaces it)

    def __setstate__(self, state: Any) -> None:
        if type(state) is not dict:
            raise pickle.UnpicklingError(f"a module whose state is a {type(state).__name__}")
        self.state = state


class StateDict(dict):
    """Stands for OrderedDict; `_metadata`, which `state_dict()` sets on its own, is let go."""

    def __setstate__(self, state: Any) -> None:
        del state


class _StorageType(NamedTuple):
    kind: str
    dtype: np.dtype | None


class _Call(NamedTuple):
    """A function of ours under a foreign name. A pickle can set no attribute of a tuple."""

    function: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)


class _NumpyDtype:
    """Stands for numpy.dtype inside a scalar."""

    def __init__(self, code: Any, *_unused: Any) -> None:
        if type(code) is not str or len(code) > SHORT:
            raise pickle.UnpicklingError("a numpy dtype of no name")
        self.dtype = np.dtype(code)
        if self.dtype.kind not in "fiub":
            raise pickle.UnpicklingError(f"a numpy scalar of {self.dtype}")

    def __setstate__(self, state: Any) -> None:
        if state[1] not in ("<", "|", "="):
            raise pickle.UnpicklingError(f"a numpy scalar of byte order {state[1]!r}")


class Unpickler(pickle.Unpickler):
    """Builds placeholders only; `find_class` is the gate that every named object must pass."""

    def __init__(
        self,
        data: bytes,
        path: pathlib.Path,
        root: str,
        entries: Mapping[str, zipfile.ZipInfo],
    ) -> None:
        super().__init__(io.BytesIO(data), encoding="utf-8")
        self.path, self.root, self.entries = path, root, entries
        self.file_size = path.stat().st_size
        self.allowed: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): StateDict,
            ("__builtin__", "set"): _Call(_make_set),
            ("builtins", "set"): _Call(_make_set),
            ("torch", "device"): _Call(_describe_device),
            ("torch", "Size"): _Call(_make_size),
            ("torch._utils", "_rebuild_tensor_v2"): _Call(self._rebuild_tensor),
            ("torch._utils", "_rebuild_qtensor"): _Call(self._rebuild_tensor),
            ("torch._utils", "_rebuild_tensor_v3"): _Call(self._rebuild_other_tensor),
            ("torch._utils", "_rebuild_parameter"): _Call(_rebuild_parameter),
            ("torch.storage", "UntypedStorage"): _StorageType("UntypedStorage", None),
            ("numpy", "dtype"): _Call(_NumpyDtype),
            ("numpy.core.multiarray", "scalar"): _Call(_make_scalar),
            ("numpy._core.multiarray", "scalar"): _Call(_make_scalar),
            ("_codecs", "encode"): _Call(_encode),
        }
        self.allowed |= {name: _placeholder(*name) for name in MODULES}
        self.allowed |= {("torch", name): Named(f"torch.{name}") for name in (*DTYPES, *SCHEMES)}
        for name, dtype in STORAGE_DTYPES.items():
            self.allowed["torch", name] = _StorageType(name, dtype)
        for name in UNREAD_STORAGES:
            self.allowed["torch", name] = _StorageType(name, None)

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.allowed:
            raise UserError(
                f"{self.path} asks for {module}.{name}, which is no part of a known checkpoint and"
                " could run code; refused before anything ran. Use weights from a source you trust,"
                " as safetensors"
            )
        return self.allowed[module, name]

    def persistent_load(self, pid: Any) -> Storage:
        kind, storage_type, key, _, n_elements = pid
        if kind != "storage" or type(key) is not str:
            raise pickle.UnpicklingError("an unknown reference")
        return Storage(key, storage_type.dtype, storage_type.kind, int(n_elements))

    def _rebuild_tensor(self, storage, offset, shape, stride, *_unused) -> TensorRef | Unreadable:
        if storage.dtype is None:
            return Unreadable(UNREAD.format(f"torch.{storage.kind}"))
        name = f"{self.root}data/{storage.key}"
        if name not in self.entries:
            raise UserError(f"{self.path} lacks the tensor data {name}; fetch it again")
        entry = self.entries[name]
        shape = _make_size(shape)
        if any(size < 0 for size in shape):
            raise UserError(f"{self.path} has a tensor of impossible shape {shape}; fetch it again")
        if not _is_contiguous(shape, _make_size(stride)):
            return Unreadable(f"{shape} is not contiguous; save it as one that is (.contiguous())")
        needed = (offset + math.prod(shape)) * storage.dtype.itemsize
        start = self._data_offset(entry)
        if offset < 0 or needed > entry.file_size or start + entry.file_size > self.file_size:
            raise UserError(
                f"{self.path} is truncated: a tensor {shape} needs {needed} bytes, its entry has"
                f" {entry.file_size}; fetch it again"
            )
        return TensorRef(self.path, start + offset * storage.dtype.itemsize, storage.dtype, shape)

    def _rebuild_other_tensor(self, *arguments: Any) -> Unreadable:
        """A tensor of a dtype that has no storage of its own: the small and the unsigned ones."""
        dtype = next(value.name for value in arguments if isinstance(value, Named))
        return Unreadable(UNREAD.format(dtype))

    def _data_offset(self, entry: zipfile.ZipInfo) -> int:
        """First byte of an entry's data: behind its local header, whose extra field may differ."""
        with self.path.open("rb") as handle:
            handle.seek(entry.header_offset)
            header = handle.read(30)
        if len(header) < 30 or header[:4] != b"PK\x03\x04":
            raise UserError(f"{self.path} is truncated; fetch it again")
        name_size, extra_size = struct.unpack("<HH", header[26:30])
        return entry.header_offset + 30 + name_size + extra_size


@functools.cache
def _placeholder(module: str, name: str) -> type[Module]:
    return type(name, (Module,), {"origin": f"{module}.{name}"})


def _short(items: Any, *kinds: type) -> tuple[Any, ...]:
    if type(items) not in (tuple, list) or len(items) > SHORT:
        raise pickle.UnpicklingError("a list where torch writes a short one")
    if not all(type(item) in kinds for item in items):
        raise pickle.UnpicklingError("a list with items of the wrong kind")
    return tuple(items)


def _make_size(items: Any = ()) -> tuple[int, ...]:
    return _short(items, int)


def _make_set(items: Any = ()) -> set[Any]:
    return set(_short(items, str, int))


def _describe_device(*parts: Any) -> str:
    return ":".join(str(part)[:SHORT] for part in _short(parts, str, int))


def _rebuild_parameter(data: Any, *_unused: Any) -> Any:
    return data


def _encode(text: Any, encoding: Any) -> bytes:
    """The bytes of a numpy scalar, which old pickle protocols write as text."""
    if type(text) is not str or len(text) > SHORT or encoding != "latin1":
        raise pickle.UnpicklingError("encoded text where a number was expected")
    return text.encode("latin1")


def _make_scalar(dtype: Any, data: Any) -> bool | int | float:
    if type(dtype) is not _NumpyDtype or type(data) is not bytes:
        raise pickle.UnpicklingError("a numpy scalar of no number")
    return np.frombuffer(data, dtype.dtype, 1)[0].item()


def _is_contiguous(shape: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    if 0 in shape:
        return True
    expected = 1
    for size, step in zip(reversed(shape), reversed(stride), strict=True):
        if size != 1 and step != expected:
            return False
        expected *= size
    return True
