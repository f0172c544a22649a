"""What lies in a folder of images and is not read, where a user may think that it is."""

import os
import pathlib
from collections.abc import Sequence

from bsjax.core.foreign import printable
from bsjax.data.caption_tables import TABLES
from bsjax.data.downloads import STATS
from bsjax.data.image_files import IMAGE_SUFFIXES, Found

SHOWN = 3
OF_CAPTIONS = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
OTHERS = (STATS, "dataset_info", "prompts")  # ends of names of tables that are of something else


def notes(
    folder: pathlib.Path,
    root: pathlib.Path,
    found: Found,
    tables: Sequence[pathlib.Path],
    has_captions: bool,
    section: str,
) -> tuple[str, ...]:
    """Warnings about images and captions that are passed over.

    Args:
      folder: the data set.
      root: folder of its images: itself, or images/ in it.
      found: what lies in `root`.
      tables: of captions that are read.
      has_captions: whether any image has one.
      section: of the config.
    """
    told = []
    if root != folder and (outside := _images_outside(folder, root)):
        told.append(
            f"NOT READ: {folder} holds images outside of {root.name}/ ({_listed(outside)}); move"
            f" them there, or set --config.{section}.path to a folder without {root.name}/"
        )
    places = [pathlib.Path(path) for path in found.texts.values()]
    if root != folder:
        places += [path for path in sorted(folder.iterdir()) if path.suffix.lower() in OF_CAPTIONS]
    keys = {os.path.splitext(path)[0] for path in found.images.values()}
    more = [
        path
        for path in places
        if path not in tables
        and path.suffix.lower() in OF_CAPTIONS
        and not path.stem.endswith(OTHERS)
        and os.path.splitext(path)[0] not in keys
    ]
    if tables:
        more = [path for path in more if path.name in TABLES and path.parent in (folder, root)]
        if more:
            told.append(
                f"NOT READ: {folder} holds {_listed(path.name for path in more)}, but captions are"
                f" those of {tables[0].name}; remove one, or set --config.{section}.path to the"
                " table that counts"
            )
    elif more and not has_captions:
        names = _listed(path.relative_to(folder).as_posix() for path in more)
        told.append(
            f"NO CAPTIONS: {folder} holds {names}, which is not looked for under that name; if it"
            f" holds captions, set --config.{section}.path to it"
        )
    return tuple(told)


def _images_outside(folder: pathlib.Path, root: pathlib.Path) -> list[str]:
    """One image of each place beside `root`."""
    found = []
    for entry in sorted(folder.iterdir()):
        if entry == root or entry.name.startswith("."):
            continue
        for place, folders, names in (
            [("", [], [entry.name])] if entry.is_file() else os.walk(entry)
        ):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            name = next((each for each in sorted(names) if _is_image(each)), None)
            if name is not None:
                found.append(os.path.relpath(os.path.join(place, name), folder if place else ""))
                break
    return found


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not name.startswith(".")


def _listed(names) -> str:
    names = list(names)
    shown = ", ".join(printable(name) for name in names[:SHOWN])
    return f"{shown} and {len(names) - SHOWN} more" if len(names) > SHOWN else shown
