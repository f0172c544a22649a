"""The file that the reference explorer reads, one a model: `<set>__enriched.json` (METHOD 8)."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from bsjax.core.artifacts import write_json
from bsjax.core.errors import UserError
from bsjax.report.explorer.site import strongest_together
from bsjax.report.figures import PALETTE
from bsjax.report.tables import Comparison, Measured

N_CONNECTIONS = 10
FIELDS = (
    "umap_x", "umap_y", "umap_colors", "umap_scale", "energy", "is_dead", "connections_idx",
    "connections_val", "nb_fire", "energy_diff", "relative_energy_diff", "color_diff",
    "color_relative_diff", "top_ai_image", "top_original_image",
)  # fmt: skip


def enriched(comparison: Comparison, places: np.ndarray) -> dict[str, Any]:
    """Every field, a list over the concepts.

    energy, nb_fire, is_dead and connections are those of the real images. Colours are [r, g, b]
    from 0 to 255: umap_colors by delta, color_diff and color_relative_diff by each form of it.
    umap_scale is the size of a point, from 0 to 1 by log fires. Top images are keys, or null.
    """
    columns = comparison.columns
    fires = np.log1p(columns["fires_real"].astype(np.float64))
    ids, strength = strongest_together(comparison.real.cooccurrence, N_CONNECTIONS)
    has_partner = [row >= 0 for row in ids]
    return {
        "umap_x": places[:, 0].astype(np.float64).tolist(),
        "umap_y": places[:, 1].astype(np.float64).tolist(),
        "umap_colors": colours(columns["delta"]),
        "umap_scale": (fires / max(fires.max(initial=0.0), 1e-12)).tolist(),
        "energy": columns["energy_real"].tolist(),
        "is_dead": (columns["fires_real"] == 0).tolist(),
        "connections_idx": [r[m].tolist() for r, m in zip(ids, has_partner, strict=True)],
        "connections_val": [r[m].tolist() for r, m in zip(strength, has_partner, strict=True)],
        "nb_fire": columns["fires_real"].astype(np.int64).tolist(),
        "energy_diff": columns["difference"].tolist(),
        "relative_energy_diff": columns["relative"].tolist(),
        "color_diff": colours(columns["delta_difference"]),
        "color_relative_diff": colours(columns["delta_relative"]),
        "top_ai_image": _top_keys(comparison.generated),
        "top_original_image": _top_keys(comparison.real),
    }


def colours(delta: np.ndarray) -> list[list[int]]:
    """[r, g, b] of each delta, from 0 to 255."""
    return np.rint(255 * PALETTE(np.clip(delta, 0, 1))[:, :3]).astype(int).tolist()


def _top_keys(arm: Measured) -> list[str | None]:
    return [arm.keys[row] if row >= 0 else None for row in arm.top_rows[:, 0]]


def write_enriched(folder: pathlib.Path, comparison: Comparison, places: np.ndarray) -> None:
    """Writes `folder`/<set>__enriched.json."""
    write_json(folder / f"{comparison.name}__enriched.json", enriched(comparison, places))


def read_enriched(path: pathlib.Path) -> dict[str, Any]:
    """Reads such a file, ours or the reference's, as lists over the concepts.

    Raises:
      UserError: not JSON, or a field is missing or shorter than the others.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as an enriched JSON: {error}") from error
    missing = [name for name in FIELDS if name not in content]
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}; expected all fields of METHOD 8")
    lengths: dict[int, Sequence[str]] = {}
    for name in FIELDS:
        lengths.setdefault(len(content[name]), []).append(name)
    if len(lengths) > 1:
        told = "; ".join(f"{n}: {', '.join(names)}" for n, names in sorted(lengths.items()))
        raise UserError(f"{path}: fields have different numbers of concepts ({told})")
    return {name: content[name] for name in FIELDS}
