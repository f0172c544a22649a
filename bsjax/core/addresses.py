"""Addresses of images: how an artifact says where an image lies, so that it is found again.

A file's path, or `kind::split:row:path` of a record in a larger file or data set. Split and path
may hold any character: the split is quoted, and the path is what remains. Within artifacts what
lies in the workdir begins with `./` and is relative to it, so that a workdir can be moved.
"""

import os
import urllib.parse
from typing import NamedTuple

LOCATION = "::"  # between kind and place in the address of a record
KINDS = ("arrayrecord", "parquet", "webdataset", "hf", "tfds", "scenes", "generated")
# Their path is one of files; that of scenes is a seed, those of others may be a data set's name.
OF_FILES = ("arrayrecord", "parquet", "webdataset", "generated")
HERE = "./"


class Address(NamedTuple):
    """Where an image lies."""

    kind: str  # "" for a file
    path: str
    split: str = ""
    row: int = 0


def write_address(address: Address) -> str:
    """As text, which `parse_address` takes apart again."""
    if not address.kind:
        return address.path
    split = urllib.parse.quote(address.split, safe="")
    return f"{address.kind}{LOCATION}{split}:{address.row}:{address.path}"


def parse_address(text: str) -> Address:
    """The parts of an address."""
    kind, mark, rest = text.partition(LOCATION)
    parts = rest.split(":", 2)
    if not mark or kind not in KINDS or len(parts) != 3 or not parts[1].isdecimal():
        return Address("", text)
    return Address(kind, parts[2], urllib.parse.unquote(parts[0]), int(parts[1]))


def within(text: str, workdir: str | os.PathLike) -> str:
    """An address as an artifact of a workdir keeps it: from there, or absolute."""
    address = parse_address(text)
    root = f"{os.fspath(workdir)}/"
    if "://" in root and address.path.startswith(root):  # an object store
        address = address._replace(path=HERE + address.path[len(root) :])
    elif _is_of_files(address):
        address = address._replace(path=_from(address.path, workdir))
    return write_address(address)


def find(text: str, workdir: str | os.PathLike) -> str:
    """The address that an artifact of a workdir keeps, as it is read from anywhere."""
    address = parse_address(text)
    if address.path.startswith(HERE):
        address = address._replace(path=os.path.join(workdir, address.path[len(HERE) :]))
    return write_address(address)


def _is_of_files(address: Address) -> bool:
    if address.kind in ("", *OF_FILES):
        return bool(address.path) and "://" not in address.path
    is_named = address.kind in ("tfds", "hf")
    return is_named and os.path.exists(os.path.expanduser(address.path))


def _from(path: str, workdir: str | os.PathLike) -> str:
    path = os.path.abspath(os.path.expanduser(path))
    for root in (os.path.abspath(workdir), os.path.realpath(workdir)):
        if path.startswith(root.rstrip(os.sep) + os.sep):
            return HERE + os.path.relpath(path, root)
    return path
