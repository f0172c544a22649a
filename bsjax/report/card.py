"""The run card: how the numbers of a comparison came about, for the page and as JSON."""

import math
import pathlib
from collections.abc import Mapping
from typing import Any

from bsjax.core.artifacts import hash_json, read_manifest
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
        "pairs": f"{counts['pairs']}; without partner: {counts['unpaired_real']} real,"
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
    card |= _reliability(comparison.manifest)
    card["versions"] = ", ".join(f"{k} {v}" for k, v in comparison.manifest["versions"].items())
    return card


def _reliability(manifest: Mapping[str, Any]) -> dict[str, str]:
    """What the verdicts rest on: control, smallest change that shows, common shift."""
    found = {}
    control = manifest.get("control")
    if control and control["eligible"]:
        found["control: arms swapped by chance"] = (
            f"{control['share']:.1%} of {control['eligible']} concepts pass at 5 %,"
            f" {control['called']:g} are called, lambda {control['inflation']:.2f}"
            f" ({control['draws']} draws): {'sound' if control['is_sound'] else 'IT FAILS'}"
        )
    folds = manifest.get("detectable_fold", {})
    told = [f"{fold:.2g}-fold in {n}" for n, fold in folds.items() if fold is not None]
    if told:
        found["smallest change told, by firing images"] = ", ".join(told)
    shift = manifest.get("global_shift")
    if shift is not None:
        found["all concepts together"] = f"median generated / real {math.exp(shift):.2f}"
    return found


def _listed(counts: Mapping[str, Any], names: tuple[str, ...]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {counts[name]}" for name in names if name in counts)


def _settings(config: Mapping[str, Any], prefix: str) -> str:
    found = {k.removeprefix(prefix): v for k, v in config.items() if k.startswith(prefix)}
    return ", ".join(f"{name} {value}" for name, value in found.items())
