"""Who is missing from a comparison, with what captions, and what they could do to its findings."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from bsjax.core.artifacts import REAL, or_none
from bsjax.data.pairing import LOT, Pairing
from bsjax.results.columns import ATTRITION, make_table
from bsjax.results.comparisons import Compared
from bsjax.results.ingested import Lost
from bsjax.results.measures import Measured
from bsjax.stats import attrition

GENERATED, BOTH = "generated", "both"


def account(
    compared: Compared,
    pairing: Pairing,
    margin: float,
    before: Sequence[Lost] = (),
    drawn: Mapping[str, Any] | None = None,
) -> Compared:
    """A comparison with the account of its missing images, unless it is of pairs by lot.

    Args:
      compared: of two measured sets.
      pairing: that it was made with.
      margin: of its rules.
      before: captioned images that were lost before any was measured.
      drawn: manifest of the generated set, where it was drawn in this workdir.
    """
    if compared.real is None or compared.generated is None or pairing.by == LOT:
        return compared
    manifests = (compared.real.manifest, compared.generated.manifest, drawn or {})
    reasons = {
        image["key"]: image["reason"]
        for manifest in manifests
        for image in manifest.get("bad_images", ())
    }
    lost, told = audit(
        compared.real, compared.generated, pairing, compared.findings, margin, reasons, before
    )
    manifest = {**compared.manifest, "attrition": told}
    return dataclasses.replace(compared, manifest=manifest, attrition=lost)


def audit(
    real: Measured,
    generated: Measured,
    pairing: Pairing,
    findings: pa.Table,
    margin: float,
    reasons: Mapping[str, str],
    before: Sequence[Lost],
) -> tuple[pa.Table | None, dict[str, Any]]:
    """Accounts for captions of which an image is missing.

    Args:
      real: the real images.
      generated: the generated ones.
      pairing: rows that belong together, and the keys that have no partner.
      findings: of their comparison.
      margin: of its rules.
      reasons: key -> why an image could not be used or drawn, in either arm.
      before: captioned images that were lost before any was measured.

    Returns:
      A row for each of them, None where there is none; and what the manifest tells: how many by
      arm and reason, words that their captions have more often, and bounds of each finding.
    """
    rows: list[tuple[str, str, str, str]] = []
    for arm, partner, keys in (
        (GENERATED, real, pairing.unpaired_real), (REAL, generated, pairing.unpaired_generated),
    ):  # fmt: skip
        captions = partner.captions
        rows += [(key, captions[partner.place[key]], arm, reasons.get(key, "")) for key in keys]
    known = set(real.place) | set(generated.place)
    rows += [(key, "", BOTH, why) for key, why in reasons.items() if key not in known]
    rows += [(lost.key, lost.caption, BOTH, lost.reason) for lost in before]
    n = collections.Counter(arm for _, _, arm, _ in rows)
    missing = attrition.Missing(n[REAL], n[GENERATED], n[BOTH])
    kept = [real.captions[row] for row in pairing.rows_real.tolist()]
    words = attrition.words_of_missing([caption for _, caption, _, _ in rows], kept)
    told = missing._asdict() | {
        "reasons": dict(collections.Counter(why or "not known" for *_, why in rows)),
        "words": [word._asdict() for word in words],
        "findings": _bounds(real, generated, findings, missing, margin),
    }
    if not rows:
        return None, told
    columns = zip((c.name for c in ATTRITION), zip(*rows, strict=True), strict=True)
    return make_table(ATTRITION, dict(columns)), told


def _bounds(
    real: Measured, generated: Measured, findings: pa.Table, missing: attrition.Missing,
    margin: float,
) -> list[dict[str, Any]]:  # fmt: skip
    """Of each finding, by the concept that has the most evidence."""
    n_shows = [np.diff(arm.codes.tocsc().indptr) for arm in (real, generated)]
    found = []
    for row in findings.select(["finding", "concepts", "verdict"]).to_pylist():
        lead = row["concepts"][0]
        counts = (int(shows[lead]) for shows in n_shows)
        told = attrition.bound(*counts, missing, row["verdict"], margin)._asdict()
        is_told = {name: or_none(value) for name, value in told.items()}
        if told["share"] == np.inf:
            is_told["share"] = "none"  # JSON knows no infinity: no share would do
        found.append({"finding": row["finding"]} | is_told)
    return found
