"""The run card: how the numbers of a comparison came about, for the page and as JSON."""

import math
import pathlib
from collections.abc import Mapping
from typing import Any

from bsjax.core.artifacts import hash_json, read_manifest
from bsjax.report.said import LARGEST_FOLD
from bsjax.report.tables import Comparison

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


def run_card(workdir: pathlib.Path, comparison: Comparison) -> dict[str, str]:
    """Headings and texts, in reading order; what is not known is left out."""
    real, generated = comparison.real.manifest, comparison.generated.manifest
    settings, counts = comparison.manifest["config"], comparison.manifest["counts"]
    card = {
        "captions": f"{len(comparison.real.captions)} of real images, hash"
        f" {hash_json(comparison.real.captions)}",
        "pairs": f"{counts['pairs']} in {counts.get('clusters', counts['pairs'])} clusters, each of"
        f" which counts once; without partner: {counts['unpaired_real']} real,"
        f" {counts['unpaired_generated']} generated",
    }
    drawn = read_manifest(workdir / "images" / comparison.name, "generate")
    if drawn is not None:
        wanted = ((name, drawn["config"].get(key)) for name, key in GENERATOR.items())
        card["generator"] = ", ".join(f"{name} {value}" for name, value in wanted if value != "")
        card["generator's attrition"] = _listed(
            drawn["counts"], ("images", "failed", "without_caption", "truncated")
        )
    else:
        card["generator"] = "images made elsewhere"
    for arm, manifest in (("real", real), ("generated", generated)):
        names = ("listed", "images", "bad", "unlisted", "without_caption", "dead_concepts")
        card[f"measured, {arm}"] = _listed(manifest["counts"], names)
    card["encoder"] = _settings(real["config"], "encoder.")
    card["SAE"] = (
        f"{len(comparison.columns['concept'])} concepts, threshold"
        f" {real['config'].get('sae.threshold')}, hash {real['parents'].get('sae')}"
    )
    card["divergence"] = _settings(settings, "compare.")
    card |= reliability(comparison.manifest)
    card["versions"] = ", ".join(f"{k} {v}" for k, v in comparison.manifest["versions"].items())
    return card


def reliability(manifest: Mapping[str, Any]) -> dict[str, str]:
    """What the verdicts rest on, in sentences: control, smallest change told, common shift.

    Args:
      manifest: of a comparison; what it does not say is left out.
    """
    found = {}
    control = manifest.get("control")
    if control and control["eligible"]:
        judged = (
            "sound"
            if control["is_sound"]
            else "it fails: more than 5 % of swapped concepts pass, so images are repeated or pairs"
            " are not exchangeable"
        )
        found["control: arms swapped by chance"] = (
            f"{judged}. Of {control['eligible']} concepts {100 * control['share']:.1f} % pass at"
            f" 5 % and {control['called']:g} are called, mean of {control['draws']} swaps; lambda"
            f" {control['inflation']:.2f} (1 if all is well)"
        )
    folds = manifest.get("detectable_fold")
    if folds:
        told = {n: fold for n, fold in folds.items() if fold is not None and fold < LARGEST_FOLD}
        found["smallest change called, by images that show the concept (both arms)"] = (
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
        found["controls: real images, changed"] = _beyond(controls, manifest["verdicts_taken"])
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


def _settings(config: Mapping[str, Any], prefix: str) -> str:
    found = {k.removeprefix(prefix): v for k, v in config.items() if k.startswith(prefix)}
    return ", ".join(f"{name} {value}" for name, value in found.items())
