"""Files of `torch.save`, read without torch and without executing anything.

The pickle inside is unpickled into inert placeholders (`bsjax.convert.torch_pickle`). Tensor data
is read from its place in the zip archive by seeking, a block of rows at a time.
"""

import collections
import os
import pathlib
import pickle
import zipfile
import zlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from bsjax.convert.lfs import refuse_pointer
from bsjax.convert.pickle_bounds import check_bounds
from bsjax.convert.torch_pickle import Module, Named, TensorRef, Unpickler, Unreadable
from bsjax.core.errors import UserError

LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
# Dotted names of tensors are far shorter, and each begins with the names of all that hold it.
LONGEST_NAME = 1000
# Honest files unfold to fewer objects than they have bytes; small ones may.
FREE_VISITS, DEPTH = 10_000, 200


class TorchFile(NamedTuple):
    """Everything that a checkpoint holds, by dotted name."""

    path: pathlib.Path
    tensors: dict[str, TensorRef]
    # What is no tensor: numbers, strings, None, lists of these; classes and dtypes as their names.
    attributes: dict[str, Any]
    modules: Mapping[str, str] = MappingProxyType({})  # classes of a graph of modules


def open_torch_file(path: str | os.PathLike) -> TorchFile:
    """Lists the tensors of a zip `torch.save` file: a state dict or a graph of known modules.

    Nothing is left out but what torch keeps about modules for itself, where that is empty.

    Raises:
      UserError: not such a file, truncated, or it asks for anything that is not a known tensor or
        module (nothing has run then).
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise UserError(f"{path} does not exist; put a file of torch.save there")
    refuse_pointer(path)
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
    if len(entries) < len(archive.infolist()):
        counts = collections.Counter(archive.namelist())
        raise UserError(f"{path} has two entries {counts.most_common(1)[0][0]}; fetch it again")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
        raise UserError(f"{path} is a compressed archive; save it with torch.save")
    pickles = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise UserError(
            f"{path} is a zip file, but no torch checkpoint (no data.pkl); save the state dict with"
            " torch.save"
        )
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}byteorder" in entries and archive.read(f"{root}byteorder") != b"little":
        raise UserError(f"{path} has big-endian tensors; save it on a little-endian machine")
    data = archive.read(f"{root}data.pkl")
    try:
        check_bounds(data)
        content = Unpickler(data, path, root, entries).load()
        if not isinstance(content, Module | dict):
            raise UserError(f"{path} holds neither a state dict nor a module; save one of them")
        found = _Collector(path, FREE_VISITS + len(data))
        found.visit(content, "")
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
        StopIteration,
    ) as error:
        raise UserError(f"{path} has a damaged data.pkl ({error}); fetch it again") from error
    if not found.tensors:
        raise UserError(f"{path} holds no tensors; save the state dict of the model")
    return TorchFile(path, found.tensors, found.attributes, found.modules)


class _Collector:
    """Walks what the pickle holds and notes everything under its dotted name, once."""

    def __init__(self, path: pathlib.Path, n_visits: int) -> None:
        self.path, self.n_left = path, n_visits
        self.tensors: dict[str, TensorRef] = {}
        self.attributes: dict[str, Any] = {}
        self.modules: dict[str, str] = {}
        self._open: set[int] = set()  # containers that hold the one visited

    def visit(self, value: Any, name: str) -> None:
        """Notes a value and all that it holds."""
        self.n_left -= 1 + (len(value) if type(value) in (list, tuple) else 0)
        if self.n_left < 0:
            raise pickle.UnpicklingError("containers shared so often that they unfold without end")
        if len(name) > LONGEST_NAME:
            raise pickle.UnpicklingError(f"a name of {len(name)} letters")
        if isinstance(value, Unreadable):
            raise UserError(f"{self.path}: tensor {name} {value.why}")
        if isinstance(value, TensorRef):
            self._note(self.tensors, name, value)
        elif isinstance(value, Module | dict) or (
            type(value) in (list, tuple) and any(map(_is_container, value))
        ):
            if id(value) in self._open or len(self._open) > DEPTH:
                raise pickle.UnpicklingError(f"{name[:80]} holds itself, or is nested too deep")
            self._open.add(id(value))
            self._visit_items(value, name)
            self._open.remove(id(value))
        else:
            self._note(self.attributes, name, _plain(value))

    def _visit_items(self, value: Any, name: str) -> None:
        prefix = f"{name}." if name else ""
        if isinstance(value, Module):
            self.modules[name] = value.origin
            items = _items_of_module(value)
        else:
            items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            if not isinstance(key, str | int):
                raise pickle.UnpicklingError(f"a name that is a {type(key).__name__}")
            self.visit(item, f"{prefix}{key}")

    def _note(self, where: dict[str, Any], name: str, value: Any) -> None:
        if name in self.tensors or name in self.attributes:
            raise UserError(f"{self.path} has {name} twice; save it once")
        where[name] = value


def _items_of_module(module: Module):
    """Parameters, buffers, modules inside, and every attribute but torch's own that are empty."""
    groups = ("_parameters", "_buffers", "_modules")
    for group in groups:
        yield from dict.items(module.state.get(group, {}))
    for key, value in module.state.items():
        is_bookkeeping = key in groups or (key.startswith("_") and not value)
        if not is_bookkeeping:
            yield key, value


def _is_container(value: Any) -> bool:
    return isinstance(value, TensorRef | Unreadable | Module | dict | list | tuple)


def _plain(value: Any) -> Any:
    """Numbers, strings and lists as they are; all else by its name."""
    if isinstance(value, Named):
        return value.name
    if isinstance(value, type) and issubclass(value, Module):
        return value.origin
    if value is None or type(value) in (bool, int, float, str, bytes):
        return value
    if type(value) in (list, tuple, set, frozenset):
        return type(value)(map(_plain, value))
    return f"<{type(value).__name__}>"
