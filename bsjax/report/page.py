"""report/summary.html: one page without scripts or files beside it, to print or to send."""

import functools
import itertools
import pathlib
from typing import Any

import jinja2
import numpy as np

from bsjax import __version__
from bsjax.core.artifacts import atomic_path
from bsjax.report.card import reliability
from bsjax.report.correlations import Matrix, as_text, find
from bsjax.report.figures import caption, draw_all
from bsjax.report.layout import BY_DICTIONARY
from bsjax.report.looks import LOOKS, SCHEMES, css_name, meanings, rule
from bsjax.report.overlays import LoadThumbnail, data_uri, heat_uri, image_uri
from bsjax.report.said import Told, basis, headline, nothing_called
from bsjax.report.style import OTHER
from bsjax.report.tables import Comparison, Measured, rank, top_pairs
from bsjax.stats import verdicts

UNKNOWN = "–"


def write_summary(
    folder: pathlib.Path,
    comparisons: list[Comparison],
    places: np.ndarray,
    load_thumbnail: LoadThumbnail,
    n_concepts: int = 24,
    n_images: int = 6,
    n_pairs: int = 12,
    matrix: Matrix | None = None,
    style: str = "light",
    places_are: str = BY_DICTIONARY,
) -> pathlib.Path:
    """Writes summary.html and figures/ of comparisons.

    Args:
      folder: of the report.
      comparisons: all against the same real images.
      places: [K, 2] of the concepts on the map.
      load_thumbnail: reads what the encoder saw of an image file.
      n_concepts: concepts shown under each heading.
      n_images: top images shown of each arm.
      n_pairs: nearest pairs shown.
      matrix: correlation of every two sets.
      style: of the figures' files; the page follows its reader's.
      places_are: what the places are, in words.

    Returns:
      Path of the page.
    """
    load = functools.cache(functools.partial(image_uri, load_thumbnail))
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bsjax.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number_text
    page = environment.get_template("summary.html.j2").render(
        version=__version__,
        sets=[
            _section(c, folder, places, load, n_concepts, n_images, n_pairs, style, places_are)
            for c in comparisons
        ],
        correlations=_correlations([c.name for c in comparisons], matrix),
        looks={css_name(kind): look for kind, look in LOOKS.items()},
        schemes={name: look._asdict() for name, look in SCHEMES.items()},
        style=style,
    )
    path = folder / "summary.html"
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def _section(
    comparison: Comparison,
    folder: pathlib.Path,
    places: np.ndarray,
    load,
    n_concepts: int,
    n_images: int,
    n_pairs: int,
    style: str = "light",
    places_are: str = BY_DICTIONARY,
) -> dict[str, Any]:
    """Everything that the template shows of one comparison."""
    rankings = rank(comparison, n_concepts)
    figures = draw_all(comparison, rankings, places, folder / "figures", style, places_are)
    told = comparison.told
    return {
        "headline": headline(comparison.manifest["counts"], len(told)),
        "basis": basis(comparison.manifest),
        "nothing": [] if told else nothing_called(comparison.manifest),
        "findings": [_finding(comparison, each, n_images, load) for each in told],
        "name": comparison.name,
        "form": comparison.form,
        "rule": rule(comparison.manifest["config"]),
        "reliability": reliability(comparison.manifest),
        "counts": comparison.manifest["counts"],
        "verdicts": [
            (kind, css_name(kind), comparison.manifest["counts"][kind.replace(" ", "_")], meaning)
            for kind, meaning in meanings(comparison.manifest["config"]).items()
        ],
        "notes": comparison.manifest["notes"],
        "versions": comparison.manifest["versions"],
        "n_concepts": len(comparison.columns["concept"]),
        "figures": [
            (
                data_uri("svg+xml", path.read_bytes()),
                data_uri("png", path.with_name(f"{path.stem}_{OTHER[style]}.png").read_bytes()),
                caption(name, places_are),
            )
            for name, path in figures.items()
        ],
        "rankings": [
            {
                "title": ranking.title,
                "kind": css_name(ranking.kind),
                "n_found": ranking.n_found,
                "concepts": [
                    _concept(comparison, concept, n_images, load) for concept in ranking.concepts
                ],
            }
            for ranking in rankings
        ],
        "copies": [_pair(comparison, row, load) for row in comparison.datapoints[:n_pairs]],
        "has_patches": comparison.has_patches,
        "duplicates": comparison.duplicates[:n_pairs],
        "n_duplicates": len(comparison.duplicates),
    }


def _finding(comparison: Comparison, told: Told, n_images: int, load) -> dict[str, Any]:
    """A finding in words, with the images that show it beside their counterparts."""
    lead, words = told.concepts[0], comparison.columns["words"]
    is_missing = told.verdict == verdicts.SUPPRESSED
    arms = [comparison.real, comparison.generated][:: 1 if is_missing else -1]
    pairs = []
    for slot, *rows in top_pairs(comparison, lead, told.verdict, n_images):
        images = [
            load(arm.paths[row], arm.resize, arm.crop)
            for arm, row in zip(arms, rows, strict=True)
            if row >= 0
        ]
        heat = heat_uri(np.asarray(arms[0].maps[lead, slot]))
        row = rows[0 if is_missing else 1]
        caption = comparison.real.captions[row] if row >= 0 else arms[0].captions[rows[0]]
        pairs.append({"images": images, "heat": heat, "caption": caption})
    return told._asdict() | {
        "kind": css_name(told.verdict),
        "is_missing": is_missing,
        "named": [(k, words[k]) for k in told.concepts],
        "instead": [one._asdict() | {"words": words[one.concept]} for one in told.instead],
        "pairs": pairs,
    }


def _concept(comparison: Comparison, concept: int, n_images: int, load) -> dict[str, Any]:
    row = {name: values[concept] for name, values in comparison.columns.items()}
    row["arms"] = [
        ("real", _top_images(comparison.real, comparison.real, concept, n_images, load)),
        ("generated", _top_images(comparison.generated, comparison.real, concept, n_images, load)),
    ]
    row["ratio"] = fold_text(row["log_ratio"], row["low"], row["high"])
    return row


def fold_text(log_ratio: float, low: float, high: float) -> str:
    """A ratio generated / real with its interval, as a reader takes it: 0.12 [0.05, 0.31]."""
    if np.isnan(log_ratio):
        return UNKNOWN
    point, *ends = (number_text(np.exp(value)) for value in (log_ratio, low, high))
    return f"{point} [{ends[0]}, {ends[1]}]"


def number_text(value: float, digits: int = 3) -> str:
    """A number with so many significant digits; what is not known as a dash."""
    if np.isnan(value):
        return UNKNOWN
    return "∞" if np.isposinf(value) else f"{value:.{digits}g}"


def _top_images(
    arm: Measured, real: Measured, concept: int, n_images: int, load
) -> list[dict[str, Any]]:
    rows = arm.top_rows[concept][:n_images].tolist()
    return [
        {
            "image": load(arm.paths[row], arm.resize, arm.crop),
            "heat": heat_uri(np.asarray(arm.maps[concept, slot])),
            "caption": _caption(arm, real, row),
            "key": arm.keys[row],
        }
        for slot, row in enumerate(rows)
        if row >= 0
    ]


def _caption(arm: Measured, real: Measured, row: int) -> str:
    """An image's caption; a generated image without one has that of its real counterpart."""
    caption = arm.captions[row]
    if not caption and arm.keys[row] in real.place:
        caption = real.captions[real.place[arm.keys[row]]]
    return caption


def _pair(comparison: Comparison, row: dict[str, Any], load) -> dict[str, Any]:
    arms = (comparison.real, row["row_real"]), (comparison.generated, row["row_generated"])
    return row | {"images": [load(arm.paths[place], arm.resize, arm.crop) for arm, place in arms]}


def _correlations(names: list[str], matrix: Matrix | None) -> list[tuple[str, str, str, int]]:
    """Correlation of every two sets in words, and the number of concepts that it is of."""
    rows = []
    for left, right in itertools.combinations(names, 2):
        found = find(matrix, left, right)
        rows.append((left, right, as_text(found), found.n_concepts))
    return rows
