"""The file that the reference explorer reads, one per model: `<set>__enriched.json` (METHOD 8)."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from bsjax.core.artifacts import write_json
from bsjax.core.errors import UserError
from bsjax.core.paths import AnyPath
from bsjax.core.text import read_text
from bsjax.report.figures import PALETTE
from bsjax.report.tables import Comparison
from bsjax.results.columns import COMPARED_CONCEPTS
from bsjax.results.measures import COOCCURRENCE, TOP_IMAGES, Measured
from bsjax.stats import divergences, verdicts

IMPORTED = "imported"  # folder of the workdir with files of the reference's explorer
FIELDS = (
    "umap_x", "umap_y", "umap_colors", "umap_scale", "energy", "is_dead", "connections_idx",
    "connections_val", "nb_fire", "energy_diff", "relative_energy_diff", "color_diff",
    "color_relative_diff", "top_ai_image", "top_original_image",
)  # fmt: skip
NUMBERS = ("energy", "nb_fire", "energy_diff", "relative_energy_diff")  # read as numbers
AGAIN = "write it again as `bsjax report` or the reference does, or remove it"


def enriched(comparison: Comparison, places: np.ndarray) -> dict[str, Any]:
    """Every field, a list over the concepts.

    energy, nb_fire, is_dead and connections are those of the real images. Colours are [r, g, b]
    from 0 to 255: umap_colors by delta, color_diff and color_relative_diff by each form of it.
    umap_scale is the size of a point, from 0 to 1 by log fires. Top images are keys, or null.
    """
    columns = comparison.columns
    fires = np.log1p(columns["fires_real"].astype(np.float64))
    ids, strength = comparison.real.together
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
      UserError: not JSON, or a field is missing, shorter than the others, or of another kind.
    """
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as an enriched JSON ({error}); {AGAIN}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a JSON object, got a {type(content).__name__}; {AGAIN}")
    missing = [name for name in FIELDS if name not in content]
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}; {AGAIN}")
    wrong = [name for name in FIELDS if not isinstance(content[name], list)]
    if wrong:
        raise UserError(f"{path}: expected lists as {', '.join(wrong)}; {AGAIN}")
    lengths: dict[int, Sequence[str]] = {}
    for name in FIELDS:
        lengths.setdefault(len(content[name]), []).append(name)
    if len(lengths) > 1:
        told = "; ".join(f"{n}: {', '.join(names)}" for n, names in sorted(lengths.items()))
        raise UserError(f"{path}: fields have different numbers of concepts ({told}); {AGAIN}")
    for name in NUMBERS:
        is_count = name == "nb_fire"
        faults = (k for k, v in enumerate(content[name]) if not _is_number(v, is_count))
        place = next(faults, None)
        if place is not None:
            got = str(content[name][place])[:40]
            raise UserError(f"{path}: {name} of concept {place} is {got}, no number; {AGAIN}")
    place = _wrong_connection(content["connections_idx"], content["connections_val"])
    if place is not None:
        raise UserError(
            f"{path}: the connections of concept {place} are no concepts with a strength each;"
            f" {AGAIN}"
        )
    return {name: content[name] for name in FIELDS}


def _is_number(value: Any, is_needed: bool) -> bool:
    """Whether a field may hold it; where it is not needed, null stands for NaN."""
    if value is None:
        return not is_needed
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return not is_needed or abs(value) < 2**53


def _wrong_connection(ids: Sequence[Any], strengths: Sequence[Any]) -> int | None:
    """The first concept whose partners are not what they are taken for."""
    for place, (partners, values) in enumerate(zip(ids, strengths, strict=True)):
        if not isinstance(partners, list) or not isinstance(values, list):
            return place
        is_known = all(type(k) is int and 0 <= k < len(ids) for k in partners)
        if not is_known or len(partners) != len(values):
            return place
        if not all(_is_number(value, True) for value in values):
            return place
    return None


def imported(path: pathlib.Path) -> Comparison:
    """Another's results as a comparison, to be shown beside ours, on our map.

    The file tells no images but one key per concept, no intervals and no significance: those are
    NaN, and every verdict is "not enough data".

    Raises:
      UserError: as `read_enriched`.
    """
    content = read_enriched(path)
    relative = np.array(content["relative_energy_diff"], np.float64)
    difference = np.array(content["energy_diff"], np.float64)
    fires = np.array(content["nb_fire"], np.int64)
    energy = np.array(content["energy"], np.float64)
    unknown = np.full(relative.size, np.nan)
    temperatures = divergences.REFERENCE_TEMPERATURE
    columns = {
        "concept": np.arange(relative.size),
        "relative": relative,
        "difference": difference,
        "energy_real": energy,
        "energy_generated": energy + difference,
        "fires_real": fires,
        "fires_generated": np.zeros_like(fires),
        "delta": divergences.delta(relative, temperatures["relative"]),
        "delta_relative": divergences.delta(relative, temperatures["relative"]),
        "delta_difference": divergences.delta(difference, temperatures["difference"]),
        "verdict": np.full(relative.size, verdicts.NOT_ENOUGH_DATA),
        "words": np.full(relative.size, ""),
    }
    columns["verdict_paper"] = verdicts.judge_as_paper(columns["delta"])
    for column in COMPARED_CONCEPTS:
        if column.type == "double":
            columns.setdefault(column.name, unknown)
    columns["near"] = unknown
    name = path.name.removesuffix(".json").removesuffix("__enriched")
    manifest = {
        "config": {
            "compare.form": "relative",
            "compare.temperature": temperatures["relative"],
            "compare.fdr": float("nan"),
        },
        "counts": {"pairs": 0, "clusters": 0, "unpaired_real": 0, "unpaired_generated": 0}
        | {kind.replace(" ", "_"): 0 for kind in verdicts.KINDS}
        | {"not_enough_data": relative.size},
        "notes": [f"Imported from {path.name}: no images, no intervals, no significance."],
        "versions": {},
    }
    pairs = _connections(content)
    real = _without_images(content["top_original_image"], pairs)
    generated = _without_images(content["top_ai_image"], pairs)
    return Comparison(name, columns, [], manifest, real, generated)


def read_imported(workdir: AnyPath, n_concepts: int) -> dict[str, Comparison]:
    """What others made with the same SAE: file name -> comparison.

    Raises:
      UserError: a file that cannot be read, or of another number of concepts.
    """
    found, folder = {}, workdir / IMPORTED
    files = folder.iterdir() if folder.is_dir() else ()
    for path in sorted(path for path in files if path.suffix == ".json"):
        comparison = found[path.name] = imported(path)
        if len(comparison.columns["concept"]) != n_concepts:
            raise UserError(
                f"{path} has {len(comparison.columns['concept'])} concepts, the SAE here"
                f" {n_concepts}; import results of the same SAE, or remove it"
            )
    return found


def _connections(content: dict[str, Any]) -> sp.csr_array:
    """Strengths as the cosines of Z^T Z with a diagonal of 1."""
    n = len(content["connections_idx"])
    rows = np.repeat(np.arange(n), [len(ids) for ids in content["connections_idx"]])
    columns = [k for ids in content["connections_idx"] for k in ids]
    values = [v for strengths in content["connections_val"] for v in strengths]
    pairs = sp.coo_array((values, (rows, columns)), shape=(n, n), dtype=np.float64).tolil()
    pairs.setdiag(1.0)
    return sp.csr_array(pairs)


def _without_images(keys: Sequence[str | int | None], pairs: sp.csr_array) -> Measured:
    """An arm of which nothing is known but the key of each concept's top image."""
    n = len(keys)
    known = [str(key) for key in dict.fromkeys(keys) if key is not None]
    place = {key: row for row, key in enumerate(known)}
    rows = np.array([[-1 if key is None else place[str(key)]] for key in keys], np.int32)
    nothing = [""] * len(known)
    texts = {"key": known, "caption": nothing, "path": nothing}
    top_codes = {"maps": np.zeros((n, 1, 1, 1)), "special": np.zeros((n, 1, 1))}
    return Measured(
        manifest={"config": {"encoder.resize": 1, "encoder.crop": 1}},
        images=pa.table({name: pa.array(values, pa.string()) for name, values in texts.items()}),
        codes=sp.csr_array((len(known), n)),
        top_rows=rows,
        parts={COOCCURRENCE: pairs, TOP_IMAGES: top_codes},
    )
