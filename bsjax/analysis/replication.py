"""Two comparisons of the same images under two SAEs -> whose verdicts hold."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from bsjax.core.artifacts import as_json
from bsjax.core.errors import UserError
from bsjax.results.columns import REPLICATED, make_table
from bsjax.results.replications import Replication
from bsjax.results.statistics import Statistics
from bsjax.stats import replication, verdicts

# What decides verdicts beside the codes.
RULES = tuple(f"compare.{name}" for name in ("margin", "aligned", "fdr", "confirm", "clusters"))
SHOWN = 3  # keys that a message names
SETTINGS = {
    "replicate.least_correlation": replication.LEAST,
    "replicate.least_together": replication.LEAST_TOGETHER,
}
SAME_SAE = "the other SAE is the very same: agreement says nothing"


@dataclasses.dataclass(frozen=True, eq=False)
class Judged:
    """One comparison.

    Attributes:
      name: what messages call it.
      statistics: of it.
      concepts: its table.
      manifest: of it.
    """

    name: str
    statistics: Statistics
    concepts: pa.Table
    manifest: Mapping[str, Any]


def replicate(here: Judged, there: Judged) -> Replication:
    """Compares the verdicts of one SAE's concepts with those of their counterparts in another.

    Args:
      here: whose verdicts are in question.
      there: of the same images by another SAE.

    Raises:
      UserError: other pairs, or other rules of the verdicts.
    """
    _check_rules(here, there)
    order = _order(here, there)
    left, right = here.statistics.real, sp.csr_array(there.statistics.real[order])
    notes = [SAME_SAE] if _is_same(left, right) else []
    match = replication.match(left, right)
    is_matched = match.other >= 0
    table = {name: here.concepts[name] for name in ("concept", "log_ratio", "low", "high", "words")}
    table["verdict"] = here.concepts["verdict"]
    table["other"] = pa.array(match.other, pa.int32(), mask=~is_matched)
    table["correlation"] = pa.array(match.correlation, pa.float64(), mask=~is_matched)
    for name in ("log_ratio", "low", "high", "verdict"):
        table[f"other_{name}"] = there.concepts[name].take(table["other"])
    told = [
        np.array(table[name].to_pylist(), kind)
        for name, kind in (
            ("verdict", object), ("log_ratio", float), ("other_verdict", object),
            ("other_log_ratio", float),
        )
    ]  # fmt: skip
    table["replicates"] = replication.relate(*told)
    called = np.isin(told[0], verdicts.CALLED)
    counts = {"pairs": left.shape[0], "matched": int(is_matched.sum()), "called": int(called.sum())}
    counts["matched_by_chance"] = replication.match_by_chance(left, right)
    is_rare = np.asarray((left > 0).sum(axis=0)).ravel() < replication.LEAST_TOGETHER
    counts["shown_by_too_few"] = int((called & is_rare).sum())
    for kind in replication.MEANINGS:
        if kind != replication.NOT_HERE:
            counts[kind.replace(" ", "_")] = int((table["replicates"][called] == kind).sum())
    shares = replication.shares(*told)
    unmatched = counts[replication.UNMATCHED] / counts["called"] if counts["called"] else None
    manifest = {
        "config": SETTINGS,
        "parents": {},
        "counts": counts,
        "notes": notes,
        "unmatched": unmatched,
        **{name: as_json(share._asdict()) for name, share in shares.items()},
    }
    return Replication(
        make_table(REPLICATED, {c.name: table[c.name] for c in REPLICATED}), manifest
    )


def _check_rules(here: Judged, there: Judged) -> None:
    for key in (*RULES, "compare.subset"):
        found = here.manifest["config"].get(key), there.manifest["config"].get(key)
        if found[0] != found[1]:
            raise UserError(
                f"{here.name} and {there.name} differ in {key}: {found[0]} and {found[1]}; compare"
                " both by the same rules"
            )


def _order(here: Judged, there: Judged) -> np.ndarray:
    """Row there of each pair here."""
    place = {key: row for row, key in enumerate(there.statistics.keys)}
    keys = here.statistics.keys
    known = set(keys)
    only = [
        [key for key in keys if key not in place],
        [key for key in there.statistics.keys if key not in known],
    ]
    if any(only):
        parts = [
            f"{len(found)} are of {side.name} alone (such as {', '.join(map(repr, found[:SHOWN]))})"
            for side, found in zip((here, there), only, strict=True)
            if found
        ]
        raise UserError(
            f"{here.name} compares {len(keys)} pairs, {there.name} {len(place)}:"
            f" {'; '.join(parts)}. Replication takes the same images; measure and compare the same"
            " in both"
        )
    order = np.array([place[key] for key in keys], np.int64)
    captions = here.statistics.captions, there.statistics.captions
    if None not in captions:
        moved = [captions[1][row] for row in order.tolist()]
        differ = [key for key, a, b in zip(keys, captions[0], moved, strict=True) if a != b]
        if differ:
            raise UserError(
                f"{here.name} and {there.name} differ in the captions of {len(differ)} pairs, such"
                f" as {differ[0]!r}; measure and compare the same images in both"
            )
    return order


def _is_same(left: sp.csr_array, right: sp.csr_array) -> bool:
    if left.shape != right.shape or left.nnz != right.nnz:
        return False
    return (left != right).nnz == 0
