"""What a comparison found, in sentences: for the explorer, the summary, findings.csv and `run`.

Folds are told in the direction of the change and are at least 1: "2.7× too little" is a ratio
generated / real of 1 / 2.7. "At least" is the nearer end of the 95 % interval, rounded down.
"""

import csv
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bsjax.core.artifacts import atomic_path
from bsjax.core.text import as_cell
from bsjax.stats import verdicts

AMOUNTS = {verdicts.SUPPRESSED: "too little", verdicts.EXAGGERATED: "too much"}
SIGNS = {verdicts.SUPPRESSED: -1, verdicts.EXAGGERATED: 1}
TOLD_FOLD = 2.0  # of which an empty page tells how many images would show it
NBSP = "\N{NO-BREAK SPACE}"
LARGEST_FOLD = 100  # beyond it a change is no longer told in numbers
CELLS = (
    "set", "finding", "verdict", "words", "change", "interval", "images", "instead", "asked",
    "low", "log_ratio", "high", "concepts",
)  # fmt: skip


class Instead(NamedTuple):
    """A concept drawn in the place of another, or whose place another takes."""

    concept: int
    finding: int  # that it belongs to; 0: to none
    n: int  # pairs in which the other is missing (or added)
    lift: float  # share of these in which it appears (disappears), beyond all other pairs


class Told(NamedTuple):
    """A finding as a reader takes it."""

    finding: int  # number in findings.parquet
    concepts: list[int]  # the one with the most evidence first
    verdict: str
    words: str
    at_least: float  # fold; 1: by how much is open
    interval: tuple[float, float, float]  # log ratio and its ends: low, point, high
    change: str
    sure: str
    shown: str
    asked: str
    instead: list[Instead]
    missing: str = ""  # what images that are not there could do to it; empty where none is missing


def tell(
    found: Sequence[Mapping[str, Any]],
    replaced: Sequence[Mapping[str, Any]],
    columns: Mapping[str, Any],
    settings: Mapping[str, Any],
    attrition: Mapping[str, Any] | None = None,
) -> list[Told]:
    """Findings in words, those first whose change is the largest beyond doubt.

    Args:
      found: rows of findings.parquet.
      replaced: rows of substitutions.parquet.
      columns: of concepts.parquet: name -> values, an array or a list.
      settings: the config in the comparison's manifest.
      attrition: what that manifest tells of missing images.
    """
    bounds = {each["finding"]: each for each in (attrition or {}).get("findings", ())}
    finding_of = {k: row["finding"] for row in found for k in row["concepts"]}
    told = []
    for row in found:
        lead = row["concepts"][0]
        of_lead = {each["instead"]: each for each in replaced if each["concept"] == lead}
        instead = [of_lead[k] for k in row["instead"] if k in of_lead]
        told.append(
            Told(
                row["finding"],
                list(row["concepts"]),
                row["verdict"],
                row["words"],
                math.exp(at_least(row)),
                (row["low"], row["log_ratio"], row["high"]),
                change(row),
                sure(row),
                shown(columns, lead, len(row["concepts"]) > 1),
                asked(row, settings),
                [
                    Instead(s["instead"], finding_of.get(s["instead"], 0), s["n"], s["lift"])
                    for s in instead
                ],
                missing(row["verdict"], bounds.get(row["finding"]), attrition or {}),
            )
        )
    return sorted(told, key=lambda each: (-each.at_least, each.finding))


def at_least(row: Mapping[str, Any]) -> float:
    """Natural log of the fold that is beyond doubt, in the verdict's direction; 0: none is."""
    return max(0.0, -row["high"] if row["verdict"] == verdicts.SUPPRESSED else row["low"])


def change(row: Mapping[str, Any]) -> str:
    """How much less or more it is drawn."""
    amount, least = AMOUNTS[row["verdict"]], at_least(row)
    if least == 0:
        return f"Drawn {amount}; by how much is open."
    return f"Drawn at least {_floor(math.exp(least))}× {amount}."


def sure(row: Mapping[str, Any]) -> str:
    """The estimate with its interval."""
    sign = SIGNS[row["verdict"]]
    ends = sorted((sign * row["low"], sign * row["high"]))
    if math.isinf(ends[1]):
        arm = "generated" if sign < 0 else "real"
        return f"95 % interval from {_floor(math.exp(ends[0]))}× on; no {arm} image shows it."
    low, high = _floor(math.exp(ends[0])), _ceil(math.exp(ends[1]))
    estimate = fold_text(math.exp(sign * row["log_ratio"]))
    return f"Best estimate {estimate}, 95 % interval {low}× to {high}×."


def shown(columns: Mapping[str, Any], concept: int, is_one_of_several: bool = False) -> str:
    """In how many images."""
    real, generated = (
        percent(columns[f"prevalence_{arm}"][concept]) for arm in ("real", "generated")
    )
    what = f"Concept {concept}, which tells it best," if is_one_of_several else "It"
    return f"{what} is in {real} of the real images and in {generated} of the generated ones."


def asked(row: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """What happens where captions ask for it."""
    n, low, high = row["asked_n"], row["asked_low"], row["asked_high"]
    if not n or math.isnan(row["asked_log_ratio"]):
        return "Not known: no word of the captions goes with it."
    sign = SIGNS[row["verdict"]]
    near, far = sorted((sign * low, sign * high))
    aligned = settings.get("compare.aligned", math.nan)
    where = f"in the {_count(n, 'pair')} whose caption asks for it"
    if near > 0:
        amount = AMOUNTS[row["verdict"]]
        return f"Yes, and there too at least {_floor(math.exp(near))}× {amount}: {where}."
    if far < 0:
        amount = AMOUNTS[verdicts.EXAGGERATED if sign < 0 else verdicts.SUPPRESSED]
        return f"Yes, and there at least {_floor(math.exp(-far))}× {amount}: {where}."
    if max(-near, far) <= math.log(aligned):
        told = "Drawn when asked for" if sign < 0 else "Drawn right when asked for, added elsewhere"
        return f"{told}: within {aligned:g}-fold of the real images {where}."
    point, *ends = (fold_text(math.exp(row[f"asked_{e}"])) for e in ("log_ratio", "low", "high"))
    return f"Open: {point} the real amount, 95 % interval {' to '.join(ends)}, {where}."


def missing(verdict: str, found: Mapping[str, Any] | None, attrition: Mapping[str, Any]) -> str:
    """What missing images could do to a finding."""
    if not found or found["share"] is None:
        return ""
    arm = "generated" if verdict == verdicts.SUPPRESSED else "real"
    n = attrition[arm] + attrition["both"]
    if found["share"] == "none":
        if not n:
            return f"No {arm} image is missing that could change it."
        return f"It holds whatever the {n} missing {arm} images show."
    if found["share"] == 0:
        return "By the number of images that show it alone, it is within the margin."
    share = percent(found["share"])
    return f"It would be within the margin if {share} of the {n} missing {arm} images showed it."


def headline(counts: Mapping[str, int], n_found: int) -> str:
    """How many findings, of how many concepts."""
    findings = "1 finding" if n_found == 1 else f"{n_found or 'No'} findings"
    return (
        f"{findings} among {n_judged(counts)} concepts judged; {counts['not_enough_data']} seen too"
        " rarely to judge."
    )


def n_judged(counts: Mapping[str, int]) -> int:
    """Concepts with enough data for a verdict."""
    return sum(
        counts[kind.replace(" ", "_")]
        for kind in verdicts.KINDS
        if kind != verdicts.NOT_ENOUGH_DATA
    )


def basis(manifest: Mapping[str, Any]) -> str:
    """What stands behind the findings, and how often such calls are wrong."""
    counts, settings = manifest["counts"], manifest["config"]
    if "compare.margin" not in settings:
        return ""
    little, much = counts["suppressed"], counts["exaggerated"]
    if not little + much:
        return ""
    of = f"{_count(counts['pairs'], 'pair')} of images"
    if manifest.get("pairing", {}).get("by") == "lot":
        n = _count(counts["clusters"], "real image")
        of = f"{n} and as many generated ones of different captions (unpaired)"
    text = (
        f"From {of}: {_count(little, 'concept')} drawn too"
        f" little and {much} too much, by more than {settings['compare.margin']:g}-fold; those that"
        f" tell of the same change are one finding. At most {100 * settings['compare.fdr']:g} % of"
        " such calls are expected to be wrong."
    )
    control = manifest.get("control")
    if control and control["eligible"]:
        n = f"on average {control['called']:g} were" if control["called"] else "none was"
        text += f" Where real and generated images were swapped by chance, {n} called."
    return text


def nothing_called(manifest: Mapping[str, Any]) -> list[str]:
    """Why there is no finding, and what it would have taken; of a comparison without any."""
    counts, settings = manifest["counts"], manifest["config"]
    if "compare.margin" not in settings:
        return ["These results were imported: they tell no intervals, so nothing can be called."]
    margin, judged = settings["compare.margin"], n_judged(counts)
    said = [
        f"Of {judged} concepts judged, none is drawn too little or too much by more than"
        f" {margin:g}-fold beyond doubt. That is no proof that the model draws all of them."
        if judged
        else f"No concept was seen often enough: a verdict needs at least"
        f" {verdicts.least_images(margin)} images that show it, real and generated together."
    ]
    folds = {int(n): fold for n, fold in (manifest.get("detectable_fold") or {}).items()}
    told = {n: fold for n, fold in folds.items() if fold is not None and fold < LARGEST_FOLD}
    most = 2 * counts.get("clusters", counts["pairs"])  # images in which a concept can be seen
    here = {n: fold for n, fold in told.items() if n <= most}
    if here:
        smallest = "; ".join(f"{fold_text(fold)} if {n} images show it" for n, fold in here.items())
        said.append(f"What would have been called here, in 80 % of cases: {smallest}.")
    elif folds:
        seen = max((n for n in folds if n <= most), default=min(folds))
        said.append(
            f"Where up to {seen} images show a concept, no change below {LARGEST_FOLD}× would have"
            " been called."
        )
    enough = [n for n, fold in told.items() if fold <= TOLD_FOLD]
    if enough:
        said.append(
            f"A change of {TOLD_FOLD:g}× is called, in 80 % of cases, where {min(enough)} images"
            " show the concept, real and generated together. What is needed: more pairs, from"
            " captions that ask for what you want to know."
        )
    return said


def write_csv(path: pathlib.Path, sets: Mapping[str, Sequence[Told]], names: Sequence[str]) -> None:
    """Writes the findings of all sets as a table, in the order of `tell`.

    Args:
      path: of the file.
      sets: name of a set -> its findings.
      names: of the concepts.
    """
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(CELLS)
        for name, told in sets.items():
            for each in told:
                words = next((names[k] for k in each.concepts if names[k]), "")
                instead = dict.fromkeys(names[k.concept] or str(k.concept) for k in each.instead)
                cells = (words, each.change, each.sure, each.shown, "; ".join(instead), each.asked)
                said = [as_cell(text.replace(NBSP, " ")) for text in cells]
                rows.writerow(
                    (as_cell(name), each.finding, each.verdict, *said, *each.interval)
                    + (" ".join(map(str, each.concepts)),)
                )


def fold_text(fold: float) -> str:
    """A fold with two digits that tell: 1.3×, 27×, 350×."""
    if math.isinf(fold):
        return "no limit"
    return f"{fold:.0f}×" if fold >= 99.5 else f"{fold:.2g}×"


def percent(share: float) -> str:
    """A share of images."""
    if math.isnan(share):
        return "an unknown share"
    if share == 0:
        return f"0{NBSP}%"
    half_up = math.floor(1000 * share + 0.5 + 1e-6) / 10  # as the page's script rounds
    return f"{half_up:.1f}{NBSP}%" if half_up else f"under 0.1{NBSP}%"


def _floor(fold: float) -> str:
    """The same rounded down: what is told as "at least" must hold."""
    step = 10 if fold < 10 else 1
    return f"{math.floor(fold * step * (1 + 1e-9)) / step:g}"


def _ceil(fold: float) -> str:
    """The same rounded up."""
    step = 10 if fold < 10 else 1
    return f"{math.ceil(fold * step * (1 - 1e-9)) / step:g}"


def _count(n: int, thing: str) -> str:
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"
