"""Who is missing from a comparison, with what captions, and what they could do to its findings."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from bsjax.core.artifacts import REAL, or_none
from bsjax.data.pairing import LOT, NAMES, SAMPLES, Named, Pairing, real_names, sample_of
from bsjax.results.columns import ATTRITION, make_table
from bsjax.results.comparisons import Compared
from bsjax.results.ingested import Lost
from bsjax.results.measures import Measured
from bsjax.results.pairing import clusters_of
from bsjax.stats import attrition

GENERATED, BOTH = "generated", "both"
ORDER = (GENERATED, REAL, BOTH)  # of rows


def account(
    compared: Compared,
    pairing: Pairing,
    margin: float,
    before: Sequence[Lost] = (),
    drawn: Mapping[str, Any] | None = None,
) -> Compared:
    """A comparison with the account of its missing images.

    Args:
      compared: of two measured sets.
      pairing: that it was made with.
      margin: of its rules.
      before: captioned images that were lost before any was measured.
      drawn: manifest of the generated set, where it was drawn in this workdir.
    """
    if compared.real is None or compared.generated is None:
        return compared
    arms = {
        REAL: (compared.real.manifest,),
        GENERATED: (compared.generated.manifest, drawn or {}),
    }
    bad = {
        arm: {
            image["key"]: image["reason"]
            for manifest in manifests
            for image in manifest.get("bad_images", ())
        }
        for arm, manifests in arms.items()
    }
    lost, told, shows = audit(
        compared.real, compared.generated, pairing, compared.findings, margin, bad, before
    )
    statistics = compared.statistics
    if statistics is not None and lost is not None:
        statistics = dataclasses.replace(statistics, shows=shows)
    return dataclasses.replace(
        compared,
        manifest={**compared.manifest, "attrition": told},
        attrition=lost,
        statistics=statistics,
    )


def account_again(
    told: Mapping[str, Any] | None,
    shows: tuple[np.ndarray, np.ndarray] | None,
    findings: pa.Table,
    margin: float,
) -> dict[str, Any]:
    """What a manifest told of missing images, with the bounds of other findings.

    Args:
      told: by that manifest; None: nothing.
      shows: as `bsjax.results.statistics.Statistics` has them; None: there are no bounds.
      findings: the other ones.
      margin: of their rules.
    """
    if not told:
        return {}
    weights = told.get("weights")
    bounds: list[dict[str, Any]] = []
    if shows is not None and weights is not None:
        bounds = _bounds(shows, findings, attrition.Missing(**weights), margin)
    return {"attrition": {**told, "findings": bounds}}


_Row = tuple[str, str, str, str]  # as columns.ATTRITION


class _Caption:
    """What is there of one caption: its real image, and generated ones."""

    def __init__(self) -> None:
        self.has_real, self.known, self.bad = False, [], []


def audit(
    real: Measured,
    generated: Measured,
    pairing: Pairing,
    findings: pa.Table,
    margin: float,
    bad: Mapping[str, Mapping[str, str]],
    before: Sequence[Lost],
) -> tuple[pa.Table | None, dict[str, Any], tuple[np.ndarray, np.ndarray]]:
    """Accounts for captions of which an image is missing.

    Args:
      real: the real images.
      generated: the generated ones.
      pairing: rows that belong together, and the keys that have no partner.
      findings: of their comparison.
      margin: of its rules.
      bad: "real" and "generated" -> key -> why an image could not be used or drawn.
      before: captioned images that were lost before any was measured.

    Returns:
      A row for each of them, None where there is none; what the manifest tells: how many by arm and
      reason, of how many the caption is known, words that these have more often, and bounds of each
      finding; and how many images of either arm show each concept [K], those of one caption
      weighing as one.
    """
    if pairing.by == LOT:
        rows, missing, weight = _of_arms(real, generated, bad, before)
    else:
        rows, missing, weight = _of_captions(real, generated, pairing, bad, before)
    n = collections.Counter(arm for _, _, arm, _ in rows)
    kept = [real.captions[row] for row in pairing.rows_real.tolist()]
    words = attrition.words_of_missing([caption for _, caption, _, _ in rows], kept)
    shows = (
        np.diff(real.codes.tocsc().indptr).astype(float),
        np.asarray((generated.codes > 0).astype(float).T @ weight),
    )
    told = {arm: n[arm] for arm in (REAL, GENERATED, BOTH)} | {
        "reasons": dict(collections.Counter(why or "not known" for *_, why in rows)),
        "captions": sum(bool(caption) for _, caption, _, _ in rows),
        "words": [word._asdict() for word in words],
        "findings": _bounds(shows, findings, missing, margin),
    }
    if not rows:
        return None, told, shows
    columns = zip((c.name for c in ATTRITION), zip(*rows, strict=True), strict=True)
    told["weights"] = missing._asdict()
    return make_table(ATTRITION, dict(columns)), told, shows


def _of_captions(
    real: Measured,
    generated: Measured,
    pairing: Pairing,
    bad: Mapping[str, Mapping[str, str]],
    before: Sequence[Lost],
) -> tuple[list[_Row], attrition.Missing, np.ndarray]:
    """Rows of the missing images of pairs, their number, and weights of the generated ones [N]:
    those of one caption weigh as one."""
    reasons = {**bad[REAL], **bad[GENERATED]}
    cut = {arm for arm, each in ((REAL, real), (GENERATED, generated)) if _is_cut(each, arm)}
    captions = _by_caption(real, generated, pairing, bad[REAL], bad[GENERATED])
    rows: list[_Row] = []
    weight, n_unknown = np.zeros(len(generated.keys)), collections.Counter()
    for name, each in captions.items():
        text = next((generated.captions[row] for row in each.known), "")
        text = real.captions[real.place[name]] if name in real.place else text
        for row in each.known:
            weight[row] = 1 / (len(each.known) + len(each.bad))
        if not each.has_real and not each.known:
            rows.append((name, "", BOTH, reasons.get(name, "")))
            n_unknown[BOTH] += 1
            continue
        if not each.has_real and not (REAL in cut and name not in reasons):
            rows.append((name, text, REAL, reasons.get(name, "")))
            n_unknown[REAL] += 1
        for key in each.bad:
            rows.append((key, text, GENERATED, reasons[key]))
            n_unknown[GENERATED] += 1 / (len(each.known) + len(each.bad))
        if not each.known and not each.bad and GENERATED not in cut:
            why = reasons.get(name, "") or ("" if text.strip() else "no caption")
            rows.append((name, text, GENERATED, why))
            n_unknown[GENERATED] += 1
    rows.sort(key=lambda row: (ORDER.index(row[2]),))
    rows += [(lost.key, lost.caption, BOTH, lost.reason) for lost in before]
    n_unknown[BOTH] += len(before)
    return (
        rows,
        attrition.Missing(*(float(n_unknown[arm]) for arm in (REAL, GENERATED, BOTH))),
        weight,
    )


def _of_arms(
    real: Measured,
    generated: Measured,
    bad: Mapping[str, Mapping[str, str]],
    before: Sequence[Lost],
) -> tuple[list[_Row], attrition.Missing, np.ndarray]:
    """As `_of_captions`, of sets of different captions: an image is missing from its own arm alone.

    Generated images weigh as many real ones as come to each, so that the ratio of two counts is
    that of two shares.
    """
    rows: list[_Row] = [
        (key, "", arm, reason)
        for arm, measured in ((GENERATED, generated), (REAL, real))
        for key, reason in bad[arm].items()
        if key not in measured.place
    ]
    rows += [(lost.key, lost.caption, REAL, lost.reason) for lost in before]
    n = collections.Counter(arm for _, _, arm, _ in rows)
    one = (len(real.keys) + n[REAL]) / (len(generated.keys) + n[GENERATED])
    missing = attrition.Missing(float(n[REAL]), n[GENERATED] * one)
    return rows, missing, np.full(len(generated.keys), one)


def _by_caption(
    real: Measured,
    generated: Measured,
    pairing: Pairing,
    bad_real: Mapping[str, str],
    bad_generated: Mapping[str, str],
) -> dict[str, _Caption]:
    """Real image -> what is there of its caption; a generated image of none is its own."""
    names = [*real.keys, *(key for key in bad_real if key not in real.place)]
    known = set(names)
    bad = [key for key in bad_generated if key not in generated.place]
    made = Named([*generated.keys, *bad], (), [*clusters_of(generated), *bad])
    if pairing.by in (NAMES, SAMPLES):
        of = real_names(names, made)
    else:
        of = [""] * len(made.keys)
        for row, other in zip(pairing.rows_real, pairing.rows_generated, strict=True):
            of[other] = real.keys[row]
        of[len(generated.keys) :] = [key if key in known else "" for key in bad]
    found: dict[str, _Caption] = {}
    for name in names:
        found.setdefault(name, _Caption()).has_real = name in real.place
    for place, (key, name) in enumerate(zip(made.keys, of, strict=True)):
        each = found.setdefault(
            name or _unknown_real(key, made.clusters[place], pairing.by), _Caption()
        )
        if place < len(generated.keys):
            each.known.append(place)
        elif each.has_real or name != key:
            each.bad.append(key)
    return found


def _unknown_real(key: str, cluster: str, by: str) -> str:
    """What a real image that nobody lists is called by images that were made for it."""
    if cluster != key:
        return cluster
    return sample_of(key) if by == SAMPLES else key


def _is_cut(measured: Measured, arm: str) -> bool:
    """Whether a limit ended a set, so that nothing behind it is missing."""
    limit = measured.manifest.get("experiment", {}).get(f"{arm}.limit", -1)
    return 0 <= limit == measured.manifest.get("counts", {}).get("listed")


def _bounds(
    shows: tuple[np.ndarray, np.ndarray],
    findings: pa.Table,
    missing: attrition.Missing,
    margin: float,
) -> list[dict[str, Any]]:
    """Of each finding, by the concept that has the most evidence."""
    found = []
    for row in findings.select(["finding", "concepts", "verdict"]).to_pylist():
        lead = row["concepts"][0]
        counts = (float(each[lead]) for each in shows)
        told = attrition.bound(*counts, missing, row["verdict"], margin)._asdict()
        is_told = {name: or_none(value) for name, value in told.items()}
        if told["share"] == np.inf:
            is_told["share"] = "none"  # JSON knows no infinity: no share would do
        found.append({"finding": row["finding"]} | is_told)
    return found
