"""push: finished results of a workdir -> a repository of the Hugging Face hub.

Reads sae/, comparisons/, models/, replications/, report/ (and what else `--parts` names); writes
them there in one commit, with a model card. What the repository has already is not sent again.
"""

import pathlib
import re
import sys
import warnings
from collections.abc import Iterable
from typing import Any

import huggingface_hub
from absl import logging
from etils import epath
from huggingface_hub import CommitOperationAdd, CommitOperationDelete

from bsjax.convert import hub
from bsjax.core.artifacts import MANIFEST, check_files, is_remote
from bsjax.core.errors import UserError
from bsjax.core.paths import AnyPath
from bsjax.report import model_card
from bsjax.results import parts as travelling
from bsjax.results.parts import Folder

SHOWN = 5  # settings named at most that tell a place of this machine


def push(
    workdir: AnyPath,
    repo: str,
    *,
    parts: Iterable[str] | None = None,
    private: bool = False,
    revision: str | None = None,
    dry_run: bool = False,
) -> str:
    """Sends finished folders of a workdir to a repository of the hub, in one commit.

    Files of these parts that the repository has and the workdir lacks are removed there. The model
    card (README.md) is written anew, unless somebody has written one by hand.

    Args:
      workdir: of a run.
      repo: owner/name; made if it is not there.
      parts: names of `bsjax.results.parts.PARTS`; None: those that travel by default.
      private: make it a private one.
      revision: branch; None: the main one.
      dry_run: only print what would be sent.

    Returns:
      The commit's address; "" of a dry run.

    Raises:
      UserError: nothing finished, a damaged file, or why the hub cannot be written to.
    """
    workdir = epath.Path(workdir).expanduser()
    chosen = travelling.choose(parts)
    folders = travelling.finished(workdir, chosen)
    if not folders:
        raise UserError(
            f"{workdir} holds nothing finished of {', '.join(chosen)}; run `bsjax report` to the"
            " end first, or name others with --parts"
        )
    for folder in folders:
        listed = [name for name in folder.files if name != MANIFEST]
        check_files(workdir / folder.name, folder.manifest, listed)
    _tell_places(folders)
    card = model_card.write(workdir, repo, folders)
    sources = {f"{each.name}/{name}": None for each in folders for name in each.files}
    if dry_run:
        sys.stdout.write(_listing(workdir, folders))
        sys.stdout.flush()
        return ""
    api = huggingface_hub.HfApi()
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repo, branch=revision, exist_ok=True)
        there = api.list_repo_files(repo, revision=revision)
        changes: list[Any] = [
            CommitOperationAdd(path_in_repo=name, path_or_fileobj=_content(workdir / name))
            for name in sources
        ]
        stale = [name for name in there if _is_stale(name, chosen) and name not in sources]
        changes += [CommitOperationDelete(path_in_repo=name) for name in stale]
        if model_card.NAME not in there or _is_ours(api, repo, revision):
            changes.append(
                CommitOperationAdd(path_in_repo=model_card.NAME, path_or_fileobj=card.encode())
            )
        else:
            logging.info("%s has a model card of its own, which stays", repo)
        told = ", ".join(dict.fromkeys(each.name for each in folders))
        with warnings.catch_warnings():
            # The client asks whether tables were not better a data set: an SAE goes with them.
            warnings.filterwarnings("ignore", "It seems that you are about to commit a data file")
            done = api.create_commit(
                repo, changes, commit_message=f"bsjax push: {told}"[:200], revision=revision
            )
    except UserError:
        raise
    except Exception as error:  # the client raises many types, which `refusal` tells apart
        raise hub.refusal(error, repo, "", revision, writes=True) from error
    logging.info("pushed: %s", done.commit_url)
    return done.commit_url


def _content(path: AnyPath) -> str | bytes:
    """What the client takes: a file's name, or what lies in an object store."""
    return path.read_bytes() if is_remote(path) else str(path)


def _is_stale(name: str, chosen: list[str]) -> bool:
    """Whether a file there belongs to a part that is written anew."""
    found = travelling.part_of(name)
    return found is not None and found[0] in chosen


def _is_ours(api: Any, repo: str, revision: str | None) -> bool:
    path = api.hf_hub_download(repo, model_card.NAME, revision=revision)
    return model_card.MARK in pathlib.Path(path).read_text(encoding="utf-8")


def _tell_places(folders: Iterable[Folder]) -> None:
    """Warns of settings that tell a place of this machine: manifests travel as they are."""
    found = {
        f"{key}={value}"
        for folder in folders
        for key, value in folder.manifest["config"].items()
        if isinstance(value, str) and re.match(r"(/|~|[A-Za-z]:\\)", value)
    }
    if found:
        shown = ", ".join(sorted(found)[:SHOWN])
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        logging.warning("the manifests tell places of this machine: %s%s", shown, more)


def _listing(workdir: AnyPath, folders: Iterable[Folder]) -> str:
    lines = []
    for folder in folders:
        sizes = [(workdir / folder.name / name).stat().length for name in folder.files]
        held = travelling.PARTS[folder.part].holds
        size = f"{sum(sizes) / 1e6:.1f} MB"
        lines.append(f"{folder.name}: {len(sizes)} files, {size} ({folder.part}: {held})")
    return "\n".join(lines) + "\n"
