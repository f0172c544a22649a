"""What lies in a folder of images: pictures, texts beside them, and files that are neither."""

import os
import pathlib
from typing import NamedTuple

from bsjax.core.foreign import is_valid, same_name, valid_text

# Format of Pillow -> suffixes. EPS is left out on purpose: Pillow starts Ghostscript for it.
SUFFIXES_BY_FORMAT = {
    "PNG": (".png", ".apng"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "WEBP": (".webp",),
    "AVIF": (".avif", ".avifs"),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "JPEG2000": (".jp2", ".j2k", ".jpc", ".jpf", ".jpx", ".j2c"),
}
IMAGE_SUFFIXES = frozenset(s for suffixes in SUFFIXES_BY_FORMAT.values() for s in suffixes)
TEXT_SUFFIXES = frozenset((".txt", ".json", ".csv", ".tsv", ".jsonl", ".parquet"))


class Found(NamedTuple):
    """Names are paths below the folder, in the form in which names are matched."""

    images: dict[str, str]  # name -> path
    texts: dict[str, str]  # name with the suffix in small letters -> path
    unusable: dict[str, str]  # name of an image -> why
    not_understood: list[str]  # files of no known kind


def find_files(root: pathlib.Path, folder: pathlib.Path, follow_links: bool) -> Found:
    """Looks through `root` and the folders below it; hidden files are left out.

    Linked folders are not entered, so that a loop of links ends.

    Args:
      root: where the images lie.
      folder: the data set, which contains `root`.
      follow_links: whether images may be links to files outside of `folder`.
    """
    found = Found({}, {}, {}, [])
    ahead = [""]
    while ahead:
        below = ahead.pop()
        try:
            entries = sorted(os.scandir(root / below), key=lambda entry: entry.name)
        except OSError:
            found.not_understood.append(valid_text(below))
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                ahead.append(f"{below}{entry.name}/")
            else:
                _add(found, entry, below + entry.name, folder, follow_links)
    return found


def read_file(path: str) -> bytes:
    """All of a file, as `pathlib.Path.read_bytes` reads it in twice the time."""
    with open(path, "rb", buffering=0) as file:
        return file.read()


def lies_within(path: str | os.PathLike, folder: str | os.PathLike) -> bool:
    """Whether a path, its links followed, ends in the folder."""
    folder = os.path.realpath(folder)
    return os.path.commonpath([os.path.realpath(path), folder]) == folder


def _add(found: Found, entry: os.DirEntry, name: str, folder, follow_links: bool) -> None:
    stem, suffix = os.path.splitext(name)
    suffix = suffix.lower()
    is_file = os.path.isfile(entry.path)  # False for links in a circle, at which entry raises
    if suffix in TEXT_SUFFIXES and is_file:
        found.texts[same_name(stem) + suffix] = entry.path
        return
    is_dangling = entry.is_symlink() and not os.path.exists(entry.path)
    if suffix not in IMAGE_SUFFIXES or not (is_file or is_dangling):
        found.not_understood.append(valid_text(name))
    elif not is_valid(name):
        found.unusable[valid_text(name)] = "its file name is no UTF-8; rename it"
    elif is_dangling:
        found.unusable[same_name(name)] = "a link to nothing"
    elif entry.is_symlink() and not follow_links and not lies_within(entry.path, folder):
        found.unusable[same_name(name)] = "a link that leaves the folder"
    elif same_name(name) in found.images:
        found.unusable[same_name(name)] = "two files whose names look the same (NFC and NFD)"
    else:
        found.images[same_name(name)] = entry.path
