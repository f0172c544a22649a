"""Parquet files of a data set on the Hugging Face hub, read in part without fetching them whole."""

import io
from collections.abc import Iterator

import huggingface_hub

from bsjax.convert.hub import refusal
from bsjax.core.errors import UserError

DATASETS = "hf://datasets/"
CONVERTED = "refs%2Fconvert%2Fparquet"  # where the hub keeps other formats as parquet


def open_hub(source: str) -> Iterator[tuple[str, io.IOBase]]:
    """Name and open file of each parquet file.

    Args:
      source: owner/name, or hf://datasets/owner/name/PATTERN.

    Raises:
      UserError: why the hub does not give them, or there is none.
    """
    place = source.removeprefix(DATASETS)
    repo = "/".join(place.split("/")[:2]).partition("@")[0]
    patterns = (
        [f"datasets/{place}"]
        if source.startswith(DATASETS)
        else [f"datasets/{repo}/**/*.parquet", f"datasets/{repo}@{CONVERTED}/**/*.parquet"]
    )
    files = huggingface_hub.HfFileSystem()
    try:
        found = next((names for p in patterns if (names := sorted(files.glob(p)))), [])
        if not found:
            raise UserError(
                f"{source} has no parquet files that can be read; set --source to"
                f" {DATASETS}{repo}/PATTERN of files, or to a local copy"
            )
        for name in found:
            yield name, files.open(name, "rb")
    except UserError:
        raise
    except Exception as error:  # the client raises many types, which `refusal` tells apart
        raise refusal(error, repo, "--source", None) from error
