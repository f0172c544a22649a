"""Repositories of the Hugging Face hub, from the local cache or the network."""

import errno
import pathlib
from collections.abc import Iterator

import huggingface_hub
import requests
from huggingface_hub import constants, errors

from bsjax.core.errors import UserError

LIST_SECONDS = 30  # to wait for a listing
LONGEST = 200  # characters of an answer that an error shows
# What the system says where files cannot be written.
CACHE_FAULTS = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR,
    errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG, errno.EIO,
}  # fmt: skip
BAD_ADDRESS = (
    requests.exceptions.InvalidURL,
    requests.exceptions.MissingSchema,
    requests.exceptions.InvalidSchema,
)


def download_snapshot(
    repo: str, flag: str, patterns: tuple[str, ...], revision: str | None = None
) -> pathlib.Path:
    """The files of a hub repository that match `patterns`, in the local cache.

    Where the hub does not give them, what the cache has of that revision is used.

    Args:
      repo: owner/name.
      flag: what an error tells the user to set; "" where no local copy does as well.
      patterns: of file names.
      revision: branch, tag or commit; None: the main branch.

    Raises:
      UserError: why they are not to be had, with `flag` among the ways out.
    """
    try:
        folder = huggingface_hub.snapshot_download(
            repo, allow_patterns=list(patterns), revision=revision
        )
    except Exception as error:  # The hub client raises many types; `_reason` tells them apart.
        raise refusal(error, repo, flag, revision) from error
    return pathlib.Path(folder)


def list_repository(repo: str, flag: str, revision: str | None = None) -> dict[str, int] | None:
    """Names of a hub repository's files and their sizes in bytes; fetches none of them.

    None where the hub cannot be asked: offline, no network, overloaded; or where it refuses, but
    the cache has that revision. `download_snapshot` then says what can be had.

    Args:
      repo: owner/name.
      flag: what an error tells the user to set.
      revision: branch, tag or commit; None: the main branch.

    Raises:
      UserError: the hub answers and refuses, with `flag` among the ways out.
    """
    try:
        found = huggingface_hub.HfApi().model_info(
            repo, revision=revision, files_metadata=True, timeout=LIST_SECONDS
        )
        return {file.rfilename: file.size or 0 for file in found.siblings or ()}
    except Exception as error:  # as above
        if _is_unavailable(error) or _is_cached(repo, revision):
            return None
        raise refusal(error, repo, flag, revision) from error


def _is_cached(repo: str, revision: str | None) -> bool:
    """Whether the cache has a snapshot, complete or not, of that revision."""
    try:
        huggingface_hub.snapshot_download(repo, revision=revision, local_files_only=True)
    except (errors.LocalEntryNotFoundError, errors.HFValidationError, OSError):
        return False
    return True


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it came from: the client wraps what the network says."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _status(error: BaseException) -> int:
    """The hub's answer; 0: none."""
    for each in _causes(error):
        response = getattr(each, "response", None)
        if isinstance(response, requests.Response):
            return response.status_code
    return 0


def _is(error: BaseException, *kinds: type) -> bool:
    return any(isinstance(each, kinds) for each in _causes(error))


def _is_unavailable(error: BaseException) -> bool:
    """Whether another time it may answer."""
    status = _status(error)
    if status:
        return status in (408, 429) or status >= 500
    # These two are kinds of ConnectionError that no waiting mends.
    if _is(error, requests.exceptions.SSLError, requests.exceptions.ProxyError):
        return False
    return _is(error, requests.ConnectionError, requests.Timeout, errors.OfflineModeIsEnabled)


def refusal(
    error: Exception, repo: str, flag: str, revision: str | None, writes: bool = False
) -> UserError:
    """One line for what the hub's client raised.

    Args:
      error: of the client or the network.
      repo: owner/name.
      flag: that takes a local copy instead; "" where none does.
      revision: that was asked for.
      writes: whether something was to be written there.
    """
    reason, way_out = _reason(error, repo, flag, revision, writes)
    done = "written to" if writes else "fetched from"
    local = f", or set {flag} to a local copy" if flag else ""
    return UserError(f"{repo} could not be {done} the Hugging Face hub: {reason}; {way_out}{local}")


def _reason(
    error: Exception, repo: str, flag: str, revision: str | None, writes: bool
) -> tuple[str, str]:
    """What went wrong, and what to do about it."""
    hub, status = constants.ENDPOINT, _status(error)
    log_in = "log in with `hf auth login` or HF_TOKEN"
    if _is(error, errors.HFValidationError):
        return "this is no repository's name", "write it as owner/name"
    if _is(error, errors.OfflineModeIsEnabled):
        cached = "" if writes else f", and the cache {constants.HF_HUB_CACHE} lacks it"
        return f"HF_HUB_OFFLINE is set{cached}", "unset HF_HUB_OFFLINE"
    if _is(error, errors.GatedRepoError):
        if huggingface_hub.get_token():
            return "it is gated, and your account has no access", f"ask for it at {hub}/{repo}"
        return "it is gated", f"accept its terms at {hub}/{repo} and {log_in}"
    if _is(error, errors.RevisionNotFoundError):
        section = flag.rpartition(".")[0] or "--config.generator"
        name = f"{section}.revision" if flag else "--revision"
        return (
            f"it has no revision {revision or constants.DEFAULT_REVISION!r}",
            f"set {name} to a branch, tag or commit that it has",
        )
    if _is(error, errors.DisabledRepoError):
        return "the hub has disabled access to it", "choose another repository"
    if status == 401 and huggingface_hub.get_token():
        return "the hub does not accept your token", "renew it with `hf auth login` or HF_TOKEN"
    if writes and (status in (401, 403) or _is(error, errors.RepositoryNotFoundError)):
        return f"you may not write there ({status})", f"{log_in} with a token that may write it"
    if status == 401 or _is(error, errors.RepositoryNotFoundError):
        return f"{hub} has no such repository, or it is private", f"correct the name, or {log_in}"
    if status == 403:
        return "the hub forbids it (403)", f"{log_in} with a token that may read it"
    if status == 429:
        return "the hub's rate limit is reached (429)", f"wait some minutes, {log_in}"
    if status >= 500:
        return f"{hub} has trouble of its own ({status})", "try again later"
    if status:
        return f"{hub} answers {status}", "see whether HF_ENDPOINT is a hub"
    if _is(error, *BAD_ADDRESS):
        return f"HF_ENDPOINT={hub} is no address", "unset it or correct it"
    if _is(error, requests.exceptions.SSLError):
        return f"{hub} has no certificate that is trusted", "see to the proxy or REQUESTS_CA_BUNDLE"
    if _is(error, requests.exceptions.ProxyError):
        return "the proxy cannot be reached", "see to HTTPS_PROXY"
    if _is(error, requests.Timeout):
        return f"{hub} does not answer in time", "try again later"
    if _is(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke off", "run it again: it goes on from there"
    if _is(error, requests.ConnectionError):
        cached = "" if writes else ", and the cache lacks it"
        return f"{hub} cannot be reached{cached}", "see to the network"
    # What the client trips over where an answer has another form than the hub's.
    if isinstance(
        error, requests.exceptions.JSONDecodeError | TypeError | KeyError | AttributeError
    ):
        return f"{hub} does not answer as a hub does", "unset HF_ENDPOINT or correct it"
    for each in _causes(error):
        if isinstance(each, OSError) and each.errno in CACHE_FAULTS:
            return (
                f"the cache {constants.HF_HUB_CACHE} cannot be written ({each.strerror})",
                "set HF_HOME to a folder with room that you may write",
            )
    text = " ".join(str(error).split())[:LONGEST]
    return f"{type(error).__name__}: {text}", "see to the network and HF_ENDPOINT"
