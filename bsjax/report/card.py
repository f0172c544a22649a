"""The run card: how the numbers of a comparison came about, for the page and as JSON."""

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
    control = comparison.manifest.get("control")
    if control:
        card["control: real against real"] = (
            f"{control['called']} of {control['eligible']} concepts would be called between two"
            f" halves of the real images ({control['pairs']} pairs)"
        )
    card["versions"] = ", ".join(f"{k} {v}" for k, v in comparison.manifest["versions"].items())
    return card


def _listed(counts: Mapping[str, Any], names: tuple[str, ...]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {counts[name]}" for name in names if name in counts)


def _settings(config: Mapping[str, Any], prefix: str) -> str:
    found = {k.removeprefix(prefix): v for k, v in config.items() if k.startswith(prefix)}
    return ", ".join(f"{name} {value}" for name, value in found.items())
