"""Tar shards of WebDataset, as img2dataset writes them: an index of members, images by offset.

Members of one name up to its first dot are a sample: 000000012.jpg, 000000012.txt and
000000012.json. The index has offsets alone; what a sample holds is read when it is asked for.
"""

import functools
import json
import os
import posixpath
import tarfile
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from bsjax.core.errors import UserError
from bsjax.core.foreign import printable, valid_text
from bsjax.data.image_files import IMAGE_SUFFIXES
from bsjax.data.record_files import LONGEST, OPEN_FILES
from bsjax.data.text import CAPTION_FIELDS, IMAGE_FIELDS, Fields, captions_of, find_field

TEXT_PARTS = ("json", "txt", "text", "caption", "prompt")  # of a sample, in the order of trust
META = "__"  # begins and ends the names of what describes a shard, as webdataset has it
INDEXED = 64  # shards whose index is kept where images are read one by one


class Member(NamedTuple):
    """Where the bytes of one part of a sample lie."""

    offset: int
    size: int


class Shard(NamedTuple):
    """The samples of one tar file.

    Attributes:
      path: of the file.
      keys: [n] names of the samples.
      fields: names of the parts: jpg, txt, json, ...
      members: [n, fields, 2] offset and size of each part; -1 where a sample has none.
    """

    path: str
    keys: pa.StringArray
    fields: tuple[str, ...]
    members: np.ndarray

    def parts(self, row: int) -> dict[str, Member]:
        """The parts of a sample."""
        found = zip(self.fields, self.members[row].tolist(), strict=True)
        return {name: Member(*place) for name, place in found if place[0] >= 0}


def index_shard(path: str) -> Shard:
    """Lists the members of a tar file; reads none.

    Raises:
      UserError: no tar file, a compressed one, or a truncated one.
    """
    keys: dict[str, int] = {}
    fields: dict[str, int] = {}
    places: dict[tuple[int, int], tuple[int, int]] = {}  # (sample, field) -> (offset, size)
    links: dict[tuple[int, int], str] = {}  # of files that tar found twice -> member that has it
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                archive.members.clear()  # tarfile would keep them all
                name = _split(member.name)
                if not (member.isfile() or member.islnk() or member.issym()) or name is None:
                    continue
                key, field = name
                part = keys.setdefault(key, len(keys)), fields.setdefault(field, len(fields))
                if part in places or part in links:
                    raise ValueError(f"two members {key}.{field}")
                if member.isfile():
                    places[part] = member.offset_data, member.size
                else:
                    links[part] = _target(member)
            end = archive.offset
        for part, target in links.items():
            meant = _split(target) or ("", "")
            place = places.get((keys.get(meant[0], -1), fields.get(meant[1], -1)))
            if place is not None:  # else the sample lacks it, which is told where it is read
                places[part] = place
        _require_end(path, end)
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise UserError(
            f"{path}: not a tar file, or truncated or damaged behind {len(keys)} samples"
            f" ({_reason(path, error)}); download or write it again, or set the path to a pattern"
            " without it"
        ) from error
    members = np.full((len(keys), len(fields), 2), -1, np.int64)
    if places:
        samples, parts = np.array(list(places), np.int64).T
        members[samples, parts] = list(places.values())
    texts = pa.array(map(valid_text, keys), pa.string())
    return Shard(path, texts, tuple(fields), members)


def _target(link: tarfile.TarInfo) -> str:
    """The member that a link means; one that leaves the archive means none of it."""
    if link.islnk():
        return link.linkname
    return posixpath.normpath(posixpath.join(posixpath.dirname(link.name), link.linkname))


def _split(name: str) -> tuple[str, str] | None:
    """Sample and part of a member, as webdataset divides them; None where it is neither."""
    folder, _, base = name.removeprefix("./").rpartition("/")
    stem, dot, field = base.partition(".")
    if not dot or not stem or (base.startswith(META) and base.endswith(META)):
        return None
    return (f"{folder}/{stem}" if folder else stem), field.lower()


def _require_end(path: str, end: int) -> None:
    """A tar file ends with blocks of zeros; one that was cut between two members has none."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        file.seek(end)
        block = file.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE or any(block):
        raise tarfile.ReadError(f"no end of the archive at byte {min(end, size)}")


def _reason(path: str, error: Exception) -> str:
    if os.path.isfile(path):
        with open(path, "rb") as file:
            first = file.read(6)
        for mark, kind in ((b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"), (b"\xfd7zXZ", "xz")):
            if first.startswith(mark):
                return f"it is compressed by {kind}: decompress it"
    return printable(" ".join(str(error).split()))[:LONGEST] or type(error).__name__


def find_image(fields: Sequence[str], chosen: str) -> str | None:
    """The part that is the image, or may be; None where there is none."""
    return next(iter(_images(fields, chosen)), None)


def _images(fields: Sequence[str], chosen: str) -> list[str]:
    """Parts that may be the image: all with an image's ending, else one of the usual names."""
    if chosen:
        return [chosen] if chosen in fields else []
    images = [name for name in fields if f".{name}" in IMAGE_SUFFIXES]
    return images or [name for name in IMAGE_FIELDS if name in fields][:1]


def captions_in_sample(shard: Shard, parts: dict[str, Member], chosen: str) -> list[str]:
    """The captions of a sample.

    Raises:
      ValueError: neither text nor JSON with one.
    """
    if chosen in parts and chosen != "json":
        return captions_of(read_member(shard.path, parts[chosen]))
    if "json" in parts:
        found = _in_json(read_member(shard.path, parts["json"]), chosen)
        if found or chosen:
            return found
    for name in () if chosen else TEXT_PARTS[1:]:
        if name in parts:
            return captions_of(read_member(shard.path, parts[name]))
    return []


def _in_json(data: bytes, chosen: str) -> list[str]:
    try:
        content: Any = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its json is none ({printable(error)})") from error
    if not isinstance(content, dict):
        raise ValueError("its json is no object with a caption")
    name = find_field(content, chosen, CAPTION_FIELDS)
    return [] if name is None else captions_of(content[name])


def caption_fields(shard: Shard, chosen: str, probed: int) -> tuple[list[str], bool]:
    """Names seen in the first samples, those in their JSON among them, and whether one is of
    captions."""
    seen: dict[str, None] = dict.fromkeys(shard.fields)
    has_captions = False
    for row in range(min(probed, len(shard.keys))):
        parts = shard.parts(row)
        try:
            has_captions |= bool(captions_in_sample(shard, parts, chosen))
            if "json" in parts:
                content = json.loads(read_member(shard.path, parts["json"]))
                seen |= dict.fromkeys(content if isinstance(content, dict) else ())
        except ValueError:
            continue  # told when the sample is used
    return list(seen), has_captions


def read_sample(shard: Shard, row: int, fields: Fields) -> tuple[list[str], bytes]:
    """Captions and encoded image of a sample.

    Raises:
      ValueError: it has no image or several, or a caption that is no text.
    """
    parts = shard.parts(row)
    images = _images(list(parts), fields.image)
    if not images:
        raise ValueError(
            f"no {fields.image or 'image'} in this sample, only {', '.join(parts) or 'nothing'}"
        )
    if len(images) > 1:
        raise ValueError(
            f"{len(images)} images in this sample, {', '.join(images)}; set image_field to one"
        )
    name = images[0]
    captions = captions_in_sample(shard, parts, fields.caption)
    return captions, read_member(shard.path, parts[name])


def read_member(path: str, member: Member) -> bytes:
    """The bytes of a part of a sample.

    Raises:
      ValueError: the file ends before.
    """
    stat = os.stat(path)
    file = _open(path, (stat.st_size, stat.st_mtime_ns))
    data = os.pread(file.handle, member.size, member.offset)
    if len(data) != member.size:
        raise ValueError(f"{path} ends before this sample; download or write it again")
    return data


class _OpenFile:
    """A file's handle, which any number of threads may read from.

    Closed when it falls out of the cache and the last thread that reads from it lets go.
    """

    def __init__(self, path: str):
        self.handle = os.open(path, os.O_RDONLY)

    def __del__(self):
        if hasattr(self, "handle"):
            os.close(self.handle)


@functools.lru_cache(maxsize=OPEN_FILES)
def _open(path: str, version: tuple[int, int]) -> _OpenFile:
    del version  # a file that was written anew is opened anew
    return _OpenFile(path)


@functools.lru_cache(maxsize=INDEXED)
def indexed(path: str, version: tuple[int, int]) -> Shard:
    """As `index_shard`, kept for files that were not written anew."""
    del version
    return index_shard(path)
