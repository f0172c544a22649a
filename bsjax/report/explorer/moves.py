"""What the explorer tells of two generated sets held against one another: models/<A>/<B>/."""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from absl import logging

from bsjax.core.artifacts import read_manifest
from bsjax.core.errors import UserError
from bsjax.report.explorer.encode import pack
from bsjax.report.tables import Comparison
from bsjax.results.models import folder_of, read_moved
from bsjax.stats import moves, verdicts
from bsjax.stats.proportions import wilson

# A move, and what it is called on the page.
WORDS = {
    moves.TOWARDS: "towards the real images",
    moves.AWAY: "away from the real images",
    moves.ELSEWHERE: "elsewhere: changed, neither of the two is established",
    moves.NOWHERE: "no change beyond the margin is established",
}
NUMBERS = ("log_ratio", "low", "high", "log_ratio_a", "log_ratio_b")


class Moved(NamedTuple):
    """A finished comparison of set B with set A."""

    table: pa.Table  # columns `results.columns.MOVED_CONCEPTS`
    manifest: Mapping[str, Any]


def read_all_moved(
    workdir: pathlib.Path, comparisons: Sequence[Comparison]
) -> dict[tuple[str, str], Moved]:
    """(A, B) -> B held against A, of all pairs of these sets for which that was done.

    One that was made of other comparisons than these is left out.

    Raises:
      UserError: a table is not what was written.
    """
    found = {}
    hashes = {f"comparisons/{c.name}": c.manifest.get("config_hash") for c in comparisons}
    for first in comparisons:
        for second in comparisons:
            folder = folder_of(workdir, first.name, second.name)
            try:
                manifest = read_manifest(folder, "compare")
            except UserError as error:
                logging.warning("%s is left out: %s", folder, error)
                continue
            if first is second or manifest is None:
                continue
            if any(hashes.get(parent) != sum_ for parent, sum_ in manifest["parents"].items()):
                logging.warning(
                    "%s is left out: it is of other comparisons; run `bsjax compare --against=%s`"
                    " again",
                    folder,
                    first.name,
                )
                continue
            found[first.name, second.name] = Moved(read_moved(folder, manifest), manifest)
    return found


def moved_payload(moved: Moved) -> dict[str, Any]:
    """Shares of the concepts by where they moved, closeness in words, and every concept."""
    columns = {name: np.array(moved.table[name].to_pylist()) for name in moved.table.column_names}
    judged = columns["verdict"] != verdicts.NOT_ENOUGH_DATA
    kinds = {kind: i for i, kind in enumerate(verdicts.KINDS)}
    places = {word: i for i, word in enumerate(WORDS)}
    return {
        "margin": moved.manifest["config"]["compare.margin"],
        "fdr": moved.manifest["config"]["compare.fdr"],
        "pairs": moved.manifest["counts"]["pairs"],
        "notes": list(moved.manifest["notes"]),
        "n": int(judged.sum()),
        "shares": [
            {"word": word, "text": text, **share(int((columns["moved"][judged] == word).sum()),
                                                 int(judged.sum()))}
            for word, text in WORDS.items()
        ],
        "closeness": closeness_text(moved.manifest),
        "words": list(WORDS),
        "moved": pack(np.array([places[word] for word in columns["moved"]]), "uint8"),
        "verdict": pack(np.array([kinds[kind] for kind in columns["verdict"]]), "uint8"),
        **{name: pack(columns[name], "float32") for name in NUMBERS},
    }  # fmt: skip


def share(n: int, total: int) -> dict[str, Any]:
    """A share with its 95 % interval (Wilson), as if concepts were independent."""
    low, high = wilson(n, total)
    return {"n": n, "share": n / total if total else None, "low": low, "high": high}


def closeness_text(manifest: Mapping[str, Any]) -> str:
    """Whether pairs of B are closer to the real images than those of A, in words."""
    a, b = manifest["sets"]["a"], manifest["sets"]["b"]
    near = manifest["closeness"]["difference"]
    if any(near[name] is None or math.isnan(near[name]) for name in ("mean", "low", "high")):
        return "How close the images are to the real ones is not known: too few pairs."
    point, low, high = (f"{near[name]:+.3f}" for name in ("mean", "low", "high"))
    told = f"the share of concepts that an image and its real one both show differs by {point}"
    interval = f"95 % interval {low} to {high}"
    if near["low"] > 0:
        return f"Images of {b} are closer to the real ones than those of {a}: {told}, {interval}."
    if near["high"] < 0:
        return (
            f"Images of {b} are less close to the real ones than those of {a}: {told}, {interval}."
        )
    return f"Images of {a} and of {b} are about as close to the real ones: {told}, {interval}."
