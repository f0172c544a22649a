"""pull: what `bsjax push` sent to a repository of the Hugging Face hub -> a workdir.

Writes sae/, comparisons/, ... as they were: every file is checked by its folder's manifest, which
comes last, so that a pull that is killed leaves nothing that looks finished, and goes on.
"""

import glob
import os
import shutil
from collections.abc import Iterable, Mapping

from absl import logging
from etils import epath

from bsjax.convert.hub import download_snapshot, list_repository
from bsjax.core import checksums
from bsjax.core.artifacts import MANIFEST, STARTED, atomic_path, is_remote
from bsjax.core.errors import UserError
from bsjax.core.paths import AnyPath
from bsjax.results import parts as travelling
from bsjax.results.parts import PARTS, Folder

MEND = "pull it again, or ask who pushed it"


def pull(
    workdir: AnyPath,
    repo: str,
    *,
    parts: Iterable[str] | None = None,
    revision: str | None = None,
    overwrite: bool = False,
) -> list[str]:
    """Fetches finished folders from a repository of the hub into a workdir.

    Args:
      workdir: made if it is not there; folders that it has and the repository lacks stay.
      repo: owner/name.
      parts: names of `bsjax.results.parts.PARTS`; None: all that it has but the checkpoints.
      revision: branch, tag or commit; None: the main branch.
      overwrite: folders that the workdir has from elsewhere go.

    Returns:
      Names of the folders that are there now.

    Raises:
      UserError: why the hub does not give them, nothing of bsjax there, a file that is not what its
        manifest lists, or a folder of the workdir that holds other results.
    """
    workdir = epath.Path(workdir).expanduser()
    chosen = travelling.choose(
        [name for name in PARTS if name != "checkpoints"] if parts is None else parts
    )
    source = _fetch(repo, chosen, revision)
    folders = [_there(source, each, repo) for each in travelling.finished(source, chosen, MEND)]
    if not folders:
        raise UserError(
            f"{repo} holds nothing of {', '.join(chosen)} that `bsjax push` sent; correct --repo,"
            " or name other --parts"
        )
    for folder in folders:
        listed = [name for name in folder.files if name != MANIFEST]
        checksums.check_files(source / folder.name, folder.manifest["files"], listed, MEND)
        _refuse_others(source, workdir, folder, overwrite)
    for folder in folders:
        n = _copy(source / folder.name, workdir / folder.name, folder)
        logging.info("%s: %s", folder.name, f"{n} files" if n else "is there already")
    return list(dict.fromkeys(folder.name for folder in folders))


def _there(source: AnyPath, folder: Folder, repo: str) -> Folder:
    """A folder with the files that the repository has: all of them, or of a part that was not sent
    the manifest alone.

    Raises:
      UserError: it has some of them.
    """
    there = [name for name in folder.files if (source / folder.name / name).is_file()]
    if len(there) > 1 and len(there) < len(folder.files):
        lacks = next(name for name in folder.files if name not in there)
        raise UserError(f"{repo} lacks {folder.name}/{lacks}, which its manifest lists; {MEND}")
    return folder._replace(files=there)


def _fetch(repo: str, chosen: Iterable[str], revision: str | None) -> epath.Path:
    """The files of some parts, in the local cache."""
    listed = list_repository(repo, "", revision)
    if listed is None:  # the cache may have it
        patterns = [f"{PARTS[name].folders}/*" for name in chosen]
    else:
        wanted = (name for name in listed if (travelling.part_of(name) or [""])[0] in chosen)
        manifests = {f"{PARTS[part].folders}/{MANIFEST}" for part in chosen}
        patterns = [*map(glob.escape, wanted), *manifests]
    return epath.Path(download_snapshot(repo, "", tuple(patterns), revision))


def _refuse_others(source: AnyPath, workdir: AnyPath, folder: Folder, overwrite: bool) -> None:
    """Refuses to write over what is not the same results, finished or begun."""
    if overwrite:
        return
    for name in (MANIFEST, STARTED):
        mine, theirs = workdir / folder.name / name, source / folder.name / name
        if not mine.exists():
            continue
        if _is_same(mine, theirs):
            return
        raise UserError(
            f"{workdir / folder.name} holds other results than the repository; choose another"
            " --workdir, or pass --overwrite to have them replaced"
        )


def _is_same(path: AnyPath, other: AnyPath) -> bool:
    return path.exists() and other.exists() and path.read_bytes() == other.read_bytes()


def _copy(source: AnyPath, target: AnyPath, folder: Folder) -> int:
    """Copies what is not there yet, the manifest last; returns how many files."""
    is_same = _is_same(target / MANIFEST, source / MANIFEST)
    if target.exists() and not (is_same or _is_same(target / STARTED, source / STARTED)):
        (target / MANIFEST).unlink(missing_ok=True)  # first what calls the old ones finished
        target.rmtree() if is_remote(target) else shutil.rmtree(target)
    n = 0
    for name in folder.files:
        if _has(target, name, folder.manifest["files"]) or (name == MANIFEST and is_same):
            continue
        with (
            atomic_path(target / name) as temporary,
            (source / name).open("rb") as file,
            temporary.open("wb") as out,
        ):
            shutil.copyfileobj(file, out)
        n += 1
    return n


def _has(target: AnyPath, name: str, listed: Mapping[str, Mapping[str, object]]) -> bool:
    """Whether a file is there already as it is listed."""
    path = target / name
    if name not in listed or not path.exists():
        return False
    proof = checksums.prove(os.fspath(path))
    return proof._asdict() == dict(listed[name])
