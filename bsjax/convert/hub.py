"""Repositories of the Hugging Face hub, from the local cache or the network."""

import pathlib

import huggingface_hub

from bsjax.core.errors import UserError


def download_snapshot(
    repo: str, flag: str, patterns: tuple[str, ...], revision: str | None = None
) -> pathlib.Path:
    """The files of a hub repository that match `patterns`, in the local cache.

    Args:
      repo: owner/name.
      flag: what an error tells the user to set.
      patterns: of file names.
      revision: branch, tag or commit; None: the main branch.

    Raises:
      UserError: no network and not cached, or no such repository; names `flag` as the way out.
    """
    try:
        folder = huggingface_hub.snapshot_download(
            repo, allow_patterns=list(patterns), revision=revision
        )
    except Exception as error:  # The hub client raises many types; each means: not to be had.
        raise UserError(
            f"{repo} could not be fetched from the Hugging Face hub ({type(error).__name__}:"
            f" offline, or a wrong name?); set {flag} to a local copy"
        ) from error
    return pathlib.Path(folder)
