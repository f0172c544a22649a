"""What becomes of a row that `bsjax ingest` draws: kept, or lost for exactly one reason.

The counts stand in the manifest beside the images.
"""

import json
import pathlib
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from bsjax.core import checksums
from bsjax.core.artifacts import MANIFEST

KEPT = "kept"
# Reason -> what it means; in the order in which a row is looked at.
REASONS = {
    "malformed": "the row has no address that can be asked for",
    "without_caption": "the row has no caption",
    "refused_address": "the address leads to a private or reserved network",
    "dead": "no answer, or one that says there is nothing",
    "opted_out": "its server asks not to use it (X-Robots-Tag: noai, noimageai)",
    "not_an_image": "the answer is of another type, such as a page",
    "too_large": "more bytes than asked for at most",
    "undecodable": "the bytes are no whole image of a known format",
    "too_small": "the short side has fewer pixels than asked for at least",
    "duplicate": "looks like an image kept before",
}
OUTCOMES = (KEPT, *REASONS)
# Of these nothing is missing: there was no captioned image, or it is there already.
NOT_MISSED = ("malformed", "without_caption", "duplicate")
TABLE = "attrition.parquet"


class Lost(NamedTuple):
    """A captioned image that could not be had."""

    key: str
    caption: str
    reason: str


def read_ingested(path: str) -> dict[str, Any] | None:
    """The counts of an ingest; None where a folder of images is none's.

    Args:
      path: of the images, as `real.path` has it. What lies there may be anything.
    """
    manifest = pathlib.Path(path).expanduser() / MANIFEST
    try:
        found = json.loads(manifest.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or found.get("stage") != "ingest":
        return None
    return found["counts"] if checksums.is_sealed(found) else None


def read_lost(path: str, n_listed: int) -> list[Lost]:
    """Images that an ingest could not have, of those drawn before the last image that a run reads.

    Args:
      path: of the images; those of no ingest have lost none.
      n_listed: images that the run reads, the first of the shards.
    """
    if read_ingested(path) is None:
        return []
    names = ["row", "caption", "outcome"]
    table = pq.read_table(pathlib.Path(path).expanduser() / TABLE, columns=names)
    lost, n_kept = [], 0
    for row, caption, outcome in zip(*(table[name].to_pylist() for name in names), strict=True):
        n_kept += outcome == KEPT
        if n_kept > n_listed:
            break
        if outcome != KEPT and outcome not in NOT_MISSED:
            lost.append(Lost(f"{row:09d}", caption, outcome))
    return lost
