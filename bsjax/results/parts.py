"""The parts of a workdir that travel: which folders make each, and which of their files.

Every folder travels with its manifest, by which whoever gets it checks what came.
"""

import fnmatch
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from bsjax.core.artifacts import MANIFEST, STARTED, read_manifest
from bsjax.core.errors import UserError
from bsjax.core.paths import AnyPath

CHECKPOINTS = "checkpoints/"


class Part(NamedTuple):
    """Folders of a workdir that belong together."""

    folders: str  # pattern of their names within the workdir
    holds: str  # for those who read it
    is_default: bool = True


PARTS = {
    "sae": Part("sae", "the trained SAE, its curves and quality"),
    "checkpoints": Part("sae", "what it takes to train it further", is_default=False),
    "statistics": Part("comparisons/*", "codes and captions of the pairs, verdicts, findings"),
    "models": Part("models/*/*", "generated sets against each other"),
    "replications": Part("replications/*/*", "verdicts beside those of another SAE"),
    "measures": Part(
        "measures/*", "what each image shows, with where it lay and its caption", is_default=False
    ),
    "report": Part("report", "the explorer, with thumbnails of images, and the figures"),
}


class Folder(NamedTuple):
    """A finished folder of a workdir, and which of its files travel."""

    part: str
    name: str  # within the workdir, with slashes
    files: list[str]  # within the folder; the manifest is the last
    manifest: dict[str, Any]


def choose(wanted: Iterable[str] | None) -> list[str]:
    """Names of parts, in order; those that travel unless others are asked for where None.

    Raises:
      UserError: there is no such part.
    """
    names = [name for name, part in PARTS.items() if part.is_default]
    if wanted is not None:
        wanted = list(wanted)
        unknown = [name for name in wanted if name not in PARTS]
        if unknown or not wanted:
            raise UserError(
                f"--parts: {', '.join(map(repr, unknown)) or 'nothing'} is no part of a workdir;"
                f" set it to some of {','.join(PARTS)}"
            )
        names = [name for name in PARTS if name in wanted]
    return names


def part_of(path: str) -> tuple[str, str] | None:
    """Part and folder that a file of a workdir belongs to, by its name; None: to no part."""
    for name, part in PARTS.items():
        depth = part.folders.count("/") + 1
        folder, within = _split(path, depth)
        if not within or not fnmatch.fnmatchcase(folder, part.folders):
            continue
        if name == "sae" and within.startswith(CHECKPOINTS):
            continue
        return name, folder
    return None


def _split(path: str, depth: int) -> tuple[str, str]:
    parts = path.split("/")
    return "/".join(parts[:depth]), "/".join(parts[depth:])


def finished(workdir: AnyPath, parts: Iterable[str], mend: str = "") -> list[Folder]:
    """The finished folders of some parts, with the files of theirs that travel.

    Args:
      workdir: or a copy of one.
      parts: names of `PARTS`.
      mend: what to do about a damaged manifest; "": run again what wrote it.

    Raises:
      UserError: a manifest is damaged, or of another version.
    """
    found = []
    for part in parts:
        for folder in sorted(workdir.glob(PARTS[part].folders)):
            name = folder.relative_to(workdir).as_posix()
            manifest = read_manifest(folder, mend=mend)
            if manifest is not None:
                found.append(Folder(part, name, travelling(part, name, manifest), manifest))
    return found


def travelling(part: str, folder: str, manifest: Mapping[str, Any]) -> list[str]:
    """Names of the files of a finished folder that travel: config.json first, the manifest last.

    Raises:
      UserError: it lists a file that lies elsewhere.
    """
    for name in manifest["files"]:
        path = pathlib.PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name:
            raise UserError(
                f"{folder}/{MANIFEST} lists {name!r}, which is no file of that folder; take another"
            )
    names = [name for name in manifest["files"] if part_of(f"{folder}/{name}") == (part, folder)]
    return [*sorted(names, key=lambda name: name != STARTED), MANIFEST]
