"""The run card: how the numbers of a comparison came about, for the page and as JSON.

It tells what decides the numbers, no more: without paths of a machine, with six digits at most.
"""

import datetime
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from bsjax.core.artifacts import hash_json, read_manifest
from bsjax.report.said import LARGEST_FOLD
from bsjax.report.tables import Comparison
from bsjax.results.ingested import REASONS, read_ingested

# Heading of the card -> key of the generate stage's config.
GENERATOR = {
    "weights": "generator.weights",
    "UNet": "generator.unet_weights",
    "steps": "generator.steps",
    "guidance": "generator.guidance",
    "height": "generator.height",
    "width": "generator.width",
    "precision": "generator.dtype",
    "seed": "seed",
}
# The same of the measure stage's.
ENCODER = {
    "variant": "encoder.variant",
    "weights": "encoder.weights",
    "short side": "encoder.resize",
    "crop": "encoder.crop",
    "precision": "encoder.dtype",
}
CONTROL = "control: arms swapped by chance"
SMALLEST = "smallest change called, by images that show the concept (both arms)"
CHANGED = "controls: real images, changed"
# Heads of the card and what stands under each, in reading order; what has no head comes last.
GROUPS = {
    "Data": ("source", "captions", "pairs"),
    "Model": ("generator",),
    "Encoder and SAE": ("encoder", "SAE"),
    "Verdicts": ("divergence", SMALLEST, "global shift", "closeness of pairs", "rarity"),
    "Controls": (CONTROL, CHANGED),
    "Attrition": (
        "images fetched", "generator's attrition", "measured, real", "measured, generated",
        "without partner", "missing images", "their captions", "pictures",
    ),
    "Versions and time": ("versions", "written"),
}  # fmt: skip
PASSED, FAILED = "passed", "failed"
ASSETS = "bsjax/assets/"  # what comes with bsjax is told from here on
CLUSTERED = {
    "auto": "pairs of one caption or one real image count once",
    "caption": "pairs of one caption count once",
    "image": "pairs of one real image count once",
    "none": "every pair counts",
}


class Entry(NamedTuple):
    """A line of the card."""

    name: str
    text: str
    outcome: str = ""  # of a control: passed or failed


def grouped(card: Mapping[str, str]) -> list[tuple[str, list[Entry]]]:
    """The card under heads; those without a line are left out."""
    known = {name for names in GROUPS.values() for name in names}
    rest = tuple(name for name in card if name not in known)
    return [
        (head, [Entry(name, card[name], _outcome(card[name])) for name in names if name in card])
        for head, names in (GROUPS | {"More": rest}).items()
        if any(name in card for name in names)
    ]


def _outcome(text: str) -> str:
    return next((word for word in (PASSED, FAILED) if text.startswith(f"{word}: ")), "")


def run_card(
    workdir: pathlib.Path, comparison: Comparison, unreadable: tuple[int, int] | None = None
) -> dict[str, str]:
    """Headings and texts, in reading order; what is not known is left out.

    Args:
      workdir: of the comparison.
      comparison: that the card is of.
      unreadable: real and generated pictures that could not be read; None: not looked at.
    """
    real, generated = comparison.real.manifest, comparison.generated.manifest
    settings, counts = comparison.manifest["config"], comparison.manifest["counts"]
    card = {
        "captions": f"{len(comparison.real.captions)} of real images, hash"
        f" {hash_json(comparison.real.captions)}",
        "pairs": f"{counts['pairs']} in {counts.get('clusters', counts['pairs'])} clusters, each of"
        " which counts once",
    }
    drawn = read_manifest(workdir / "images" / comparison.name, "generate")
    attrition = {}
    fetched = read_ingested(str(real.get("experiment", {}).get("real.path", "")))
    if fetched is not None:
        lost = [f"{fetched[name]} {name.replace('_', ' ')}" for name in REASONS if fetched[name]]
        attrition["images fetched"] = (
            f"{fetched['kept']} of {fetched['asked']} rows asked for, drawn from {fetched['rows']};"
            f" {', '.join(lost) or 'none lost'}"
        )
    if drawn is not None:
        card["generator"] = _settings(drawn["config"], GENERATOR, workdir)
        names = ("images", "failed", "without_caption", "truncated")
        attrition["generator's attrition"] = _listed(drawn["counts"], names)
    else:
        card["generator"] = "images made elsewhere"
    card["encoder"] = _settings(real["config"], ENCODER, workdir)
    known = {"threshold": real["config"].get("sae.threshold"), "hash": real["parents"].get("sae")}
    told = (f", {name} {value_text(value)}" for name, value in known.items() if value is not None)
    card["SAE"] = "".join((f"{len(comparison.columns['concept'])} concepts", *told))
    card["divergence"] = _rules(settings)
    card |= reliability(comparison.manifest)
    for arm, manifest in (("real", real), ("generated", generated)):
        names = (
            "listed", "images", "bad", "not_understood", "unlisted", "without_caption",
            "dead_concepts",
        )  # fmt: skip
        attrition[f"measured, {arm}"] = _listed(manifest["counts"], names)
    attrition["without partner"] = (
        f"{counts['unpaired_real']} real, {counts['unpaired_generated']} generated images"
    )
    attrition |= missing_images(comparison.manifest.get("attrition"))
    if unreadable is not None:
        attrition["pictures"] = (
            f"{unreadable[0]} real, {unreadable[1]} generated that this report could not read"
        )
    card |= attrition
    card["versions"] = ", ".join(f"{k} {v}" for k, v in comparison.manifest["versions"].items())
    written = _written(workdir, comparison.name)
    return card | ({"written": written} if written else {})


def missing_images(told: Mapping[str, Any] | None) -> dict[str, str]:
    """Captions of which an image is missing, why, and which words they have more often."""
    if not told or not told["real"] + told["generated"] + told["both"]:
        return {}
    why = ", ".join(f"{n} {reason.replace('_', ' ')}" for reason, n in told["reasons"].items())
    arms = {"real": "real", "generated": "generated", "both": "both images"}
    which = ", ".join(f"{told[arm]} {name}" for arm, name in arms.items() if told[arm])
    found = {"missing images": f"{which} ({why})"}
    words = []
    for each in told["words"]:
        shares = (f"{100 * each[name]:.2g} %" for name in ("share_missing", "share_kept"))
        words.append(f"{each['word']} ({next(shares)} of them, {next(shares)} of the others)")
    nothing = "no word stands out against those of the others"
    if not told.get("captions", 1):
        nothing = "are not known"
    found["their captions"] = f"have more often: {', '.join(words)}" if words else nothing
    return found


def value_text(value: Any, workdir: str | os.PathLike = "") -> str:
    """A setting as the card tells it: six significant digits, no path of this machine."""
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    if ASSETS in text:
        return text[text.index(ASSETS) :]
    for path in (pathlib.PurePosixPath(text), pathlib.PureWindowsPath(text)):
        if path.is_absolute() or text.startswith("~"):
            inside = workdir and path.is_relative_to(os.path.abspath(workdir))
            return os.fspath(path.relative_to(os.path.abspath(workdir)) if inside else path.name)
    return text


def _rules(settings: Mapping[str, Any]) -> str:
    """What decides verdicts, in words."""
    said = []
    if "compare.margin" in settings:
        said += [
            f"suppressed and exaggerated beyond a margin of {settings['compare.margin']:g}-fold",
            f"aligned within {settings['compare.aligned']:g}-fold",
            f"false discovery rate {settings['compare.fdr']:g}",
            CLUSTERED.get(settings.get("compare.clusters", ""), ""),
        ]
    if settings.get("compare.confirm"):
        said.append(f"{settings['compare.confirm']:g} of the captions held back to confirm")
    said.append(
        f"delta of the {settings['compare.form']} contrast, T = {settings['compare.temperature']:g}"
    )
    return "; ".join(filter(None, said))


def _written(workdir: pathlib.Path, name: str) -> str:
    """When the stages' files were written, UTC, by the clock of the machine."""
    stages = {"images": f"images/{name}", "measured": f"measures/{name}",
              "compared": f"comparisons/{name}"}  # fmt: skip
    told = []
    for what, folder in stages.items():
        path = workdir / folder / "manifest.json"
        if path.is_file():
            time = datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC)
            told.append(f"{what} {time:%Y-%m-%d %H:%M}")
    return f"{', '.join(told)} (UTC)" if told else ""


def reliability(manifest: Mapping[str, Any]) -> dict[str, str]:
    """What the verdicts rest on, in sentences: control, smallest change told, common shift.

    Args:
      manifest: of a comparison; what it does not say is left out.
    """
    found = {}
    control = manifest.get("control")
    if control and control["eligible"]:
        judged = (
            f"{PASSED}: where nothing differs, hardly anything is called"
            if control["is_sound"]
            else f"{FAILED}: more than 5 % of swapped concepts pass, so images are repeated or"
            " pairs are not exchangeable; do not rely on the verdicts"
        )
        found[CONTROL] = (
            f"{judged}. Of {control['eligible']} concepts {100 * control['share']:.1f} % pass at"
            f" 5 % and {control['called']:g} are called, mean of {control['draws']} swaps; lambda"
            f" {control['inflation']:.2f} (1 if all is well)"
        )
    folds = manifest.get("detectable_fold")
    if folds:
        told = {n: fold for n, fold in folds.items() if fold is not None and fold < LARGEST_FOLD}
        found[SMALLEST] = (
            ", ".join(f"{n}: {fold:.2g}-fold" for n, fold in told.items())
            + f"{'; ' if told else ''}fewer: none below {LARGEST_FOLD}-fold"
            + " (of the median concept, in 80 % of cases)"
        )
    shift = manifest.get("global_shift")
    if shift is not None:
        found["global shift"] = (
            f"the median concept is drawn {math.exp(shift):.2f} times as much as in real images"
            " (1: the arms are alike as a whole)"
        )
    controls = manifest.get("controls")
    if controls:
        found[CHANGED] = _beyond(controls, manifest["verdicts_taken"])
    near = manifest.get("closeness")
    if near and near["low"] is not None:
        found["closeness of pairs"] = (
            f"{near['mean']:.3f} [{near['low']:.3f}, {near['high']:.3f}] of the concepts that"
            " either image shows are shown by both about as much; for comparing models, since two"
            " drawings of one caption always differ"
        )
    rarity = manifest.get("rarity")
    if rarity:
        fold, low, high = (math.exp(-rarity[name]) for name in ("slope", "high", "low"))
        found["rarity"] = (
            f"ten times rarer concepts are drawn {fold:.2f} times as much, compared with real"
            f" images [{low:.2f}, {high:.2f}] (1: rare ones are drawn as faithfully as frequent"
            f" ones; {rarity['concepts']} concepts, frequency and ratio from different captions)"
        )
    return found


def _beyond(controls: Mapping[str, Any], n_taken: int) -> str:
    """What controls moved, and how many verdicts did not go beyond them."""
    parts = []
    for kind, told in controls.items():
        median = told["median_log_ratio"]
        moved = "" if median is None else f" moves the median concept {math.exp(median):.2f}-fold"
        parts.append(f"{kind}{moved} and takes {told['verdicts_taken']} verdicts")
    return (
        f"a concept is called where the model goes beyond all of them: {'; '.join(parts)};"
        f" together {n_taken}"
    )


def _listed(counts: Mapping[str, Any], names: tuple[str, ...]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {counts[name]}" for name in names if name in counts)


def _settings(
    config: Mapping[str, Any], names: Mapping[str, str], workdir: str | os.PathLike
) -> str:
    wanted = ((name, config.get(key)) for name, key in names.items())
    return ", ".join(
        f"{name} {value_text(value, workdir)}" for name, value in wanted if value not in ("", None)
    )
