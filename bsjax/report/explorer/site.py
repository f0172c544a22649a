"""Writes the explorer's data: what the page shows of comparisons, loaded when asked for.

site            everything about the run but the concepts' columns
columns/<set>   numbers of every concept, one array a column
findings/<set>  what was found, in words
called/<set>    what a panel says of the concepts that were called
pairs/<set>     image pairs, those most unusually alike for their caption first
counterparts/<set>, repeats
                which images belong together: by key, and by caption or file
moves/<a>-<b>   set b held against set a
histograms/<set>/<chunk>, concepts/<arm>/<chunk>, maps/<arm>/<chunk>, thumbnails/<arm>/<chunk>
                what a concept's panel needs, loaded chunk by chunk
showing/<arm>/<chunk>
                which images show a concept, by chunks of concepts
strongest/<arm>/<chunk>
                the strongest concepts of an image, by chunks of images

An arm is "0" for the real images and i + 1 for set i: names of sets never become file names.
Beside data/ lies originals.json, by which `bsjax explore` finds the image files of the arms.
Numbers of sets, images and chunks mean something within one report alone, so every file bears the
report's stamp, and a page that is given one of another asks to be loaded again.
"""

import base64
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import scipy.sparse as sp

from bsjax import __version__
from bsjax.core import checksums
from bsjax.core.artifacts import REAL, hash_json, write_json
from bsjax.report.card import grouped
from bsjax.report.correlations import Matrix, as_text, find
from bsjax.report.explorer.bundle import write_static
from bsjax.report.explorer.called import called_payload, findings_payload
from bsjax.report.explorer.encode import ORIGINALS, pack, pack_sparse, write_data
from bsjax.report.explorer.images import (
    counterparts_payload,
    pairs_payload,
    repeats,
    showing_payloads,
    strongest_payloads,
)
from bsjax.report.explorer.moves import Moved, moved_payload
from bsjax.report.explorer.stress import Stress
from bsjax.report.explorer.tops import concept_payloads, kept, map_payloads
from bsjax.report.layout import BY_DICTIONARY
from bsjax.report.looks import LOOKS, PALETTES, RATIO, meanings, rule
from bsjax.report.overlays import LoadThumbnail, encode_thumbnail
from bsjax.report.tables import Comparison, Measured
from bsjax.results.columns import COMPARED_CONCEPTS
from bsjax.stats import verdicts

CONCEPTS_PER_CHUNK, IMAGES_PER_CHUNK = 128, 64
THUMBNAIL = 128  # pixels
N_BINS = 20
N_SEARCHED = 4  # top images whose captions the search looks at
PAPER_KINDS = (verdicts.SUPPRESSED, verdicts.BETWEEN, verdicts.EXAGGERATED)
COLUMNS = (
    "delta", "delta_low", "delta_high", "delta_relative", "delta_difference", "relative",
    "difference", "energy_real", "energy_generated", "prevalence_real", "prevalence_generated",
    "fires_real", "fires_generated", "log_ratio", "low", "high", "near", "prevalence_ratio",
    "amount_ratio", "area_ratio", "q_direction", "q_material", "q_aligned",
)  # fmt: skip


def write_site(
    folder: pathlib.Path,
    comparisons: Sequence[Comparison],
    places: np.ndarray,
    names: Sequence[str],
    cards: Sequence[Mapping[str, str]],
    figures: Sequence[tuple[str, ...]],
    load_thumbnail: LoadThumbnail,
    has_thumbnails: bool = False,
    matrix: Matrix | None = None,
    stress: Mapping[str, Stress] = MappingProxyType({}),
    moved: Mapping[tuple[str, str], Moved] = MappingProxyType({}),
    places_are: str = BY_DICTIONARY,
) -> pathlib.Path:
    """Writes the page and its data.

    Args:
      folder: of the report.
      comparisons: the sets to show, all against the same real images.
      places: [K, 2] of the concepts on the map.
      names: of the concepts.
      cards: a set's run card: heading -> text.
      figures: (file in `folder`/figures, what it shows, its style: there is one of the other, too).
      load_thumbnail: reads what the encoder saw of an image file.
      has_thumbnails: `write_thumbnails` has been called for these comparisons.
      matrix: correlation of every two sets.
      stress: name of a set -> tests of its findings.
      moved: names of two sets -> the second held against the first.
      places_are: what the places are, in words.

    Returns:
      Path of the page.
    """
    data, stamp = folder / "data", stamp_of(comparisons)
    write_static(folder)
    number = {comparison.name: i for i, comparison in enumerate(comparisons)}
    held = {(number[a], number[b]): each for (a, b), each in moved.items()}
    site = site_payload(comparisons, places, names, cards, figures, matrix)
    site |= {"moves": [list(pair) for pair in held], "places_are": places_are}
    write_data(data, "site", site, stamp)
    for i, comparison in enumerate(comparisons):
        columns = columns_payload(comparison.columns, i, comparisons[0].columns)
        write_data(data, f"columns/{i}", columns, stamp)
        write_data(
            data,
            f"findings/{i}",
            findings_payload(comparison, stress.get(comparison.name, {})),
            stamp,
        )
        write_data(data, f"called/{i}", called_payload(comparison), stamp)
        write_data(data, f"pairs/{i}", pairs_payload(comparison), stamp)
        write_data(data, f"counterparts/{i}", counterparts_payload(comparison), stamp)
        for chunk, payload in histogram_payloads(comparison):
            write_data(data, f"histograms/{i}/{chunk}", payload, stamp)
    write_data(data, "repeats", pack(repeats(comparisons[0].real), "int32"), stamp)
    for (i, j), each in held.items():
        write_data(data, f"moves/{i}-{j}", moved_payload(each), stamp)
    arms = [comparisons[0].real, *(comparison.generated for comparison in comparisons)]
    for i, whole in enumerate(arms):
        arm = kept(whole, i, comparisons)
        for kind, payloads in (
            ("concepts", concept_payloads(arm, CONCEPTS_PER_CHUNK, None if i else whole.together)),
            ("maps", map_payloads(arm, CONCEPTS_PER_CHUNK)),
            ("showing", showing_payloads(arm, CONCEPTS_PER_CHUNK)),
            ("strongest", strongest_payloads(arm, IMAGES_PER_CHUNK)),
        ):
            for chunk, payload in payloads:
                write_data(data, f"{kind}/{i}/{chunk}", payload, stamp)
    write_json(folder / ORIGINALS, {"stamp": stamp, "arms": _origins(comparisons)})
    if not has_thumbnails:
        write_thumbnails(folder, comparisons, load_thumbnail)
    return folder / "index.html"


def _origins(comparisons: Sequence[Comparison]) -> list[dict[str, str]]:
    """Of each arm the measured set that it is: its name and what it was measured by.

    Imported results have none.
    """
    named = [(REAL, comparisons[0].real), *((c.name, c.generated) for c in comparisons)]
    return [{"set": name, "measures": arm.manifest.get("config_hash", "")} for name, arm in named]


def write_thumbnails(
    folder: pathlib.Path, comparisons: Sequence[Comparison], load_thumbnail: LoadThumbnail
) -> list[int]:
    """Writes the thumbnails of all arms; returns how many pictures of each could not be read."""
    unreadable, stamp = [], stamp_of(comparisons)
    arms = [comparisons[0].real, *(comparison.generated for comparison in comparisons)]
    for i, arm in enumerate(arms):
        unreadable.append(0)
        for chunk, payload in thumbnail_payloads(arm, load_thumbnail):
            write_data(folder / "data", f"thumbnails/{i}/{chunk}", payload, stamp)
            unreadable[i] += sum(picture is None for picture in payload)
    return unreadable


def stamp_of(comparisons: Sequence[Comparison]) -> str:
    """Tells reports apart whose data do not go together; the same for the same content.

    Names and places of concepts, which stand in one file, are left out.
    """
    arms = [comparisons[0].real, *(comparison.generated for comparison in comparisons)]
    told = [
        [__version__, CONCEPTS_PER_CHUNK, IMAGES_PER_CHUNK],
        [[c.name, c.manifest.get("config_hash"), _sum(c.columns, COLUMNS)] for c in comparisons],
        [[repr(c.findings), repr(c.substitutions)] for c in comparisons],
        [[a.manifest.get("config_hash"), a.keys, _sum({"": a.top_rows}, [""])] for a in arms],
    ]
    return hash_json(told)


def _sum(arrays: Mapping[str, np.ndarray], names: Sequence[str]) -> str:
    return checksums.sum_of_arrays({name: np.asarray(arrays[name]) for name in names})


def site_payload(
    comparisons, places, names, cards, figures, matrix: Matrix | None = None
) -> dict[str, Any]:
    """All that the page needs before it can draw."""
    real = comparisons[0].real
    sets = []
    for comparison, card in zip(comparisons, cards, strict=True):
        settings = comparison.manifest["config"]
        sets.append(
            {
                "name": comparison.name,
                "form": settings["compare.form"],
                "temperature": settings["compare.temperature"],
                "meanings": list(meanings(settings).values()),
                "rule": rule(settings),
                "counts": comparison.manifest["counts"],
                "notes": comparison.manifest["notes"],
                "card": grouped(card),
            }
        )
    told = [c.name for c in comparisons]
    found = [[find(matrix, left, right) for right in told] for left in told]
    return {
        "version": __version__,
        "sets": sets,
        "correlations": [[_finite(each.r) for each in row] for row in found],
        "correlation_texts": [
            [as_text(each, is_self=i == j) for j, each in enumerate(row)]
            for i, row in enumerate(found)
        ],
        "names": list(names),
        "places": pack(places, "float32"),
        "top": pack(real.top_rows[:, :N_SEARCHED], "int32"),
        "keys": real.keys,
        "captions": real.captions,
        # What of an image the encoder saw, by which a map of its patches lies on it.
        "frames": [[arm.resize, arm.crop] for arm in (real, *(c.generated for c in comparisons))],
        "chunk": {"concepts": CONCEPTS_PER_CHUNK, "images": IMAGES_PER_CHUNK},
        "verdicts": [{"name": kind, **LOOKS[kind]._asdict()} for kind in verdicts.KINDS],
        "verdicts_paper": PAPER_KINDS,
        "called": verdicts.CALLED,
        "palettes": PALETTES,
        "ratio": RATIO,
        "columns": {c.name: [c.unit, c.meaning] for c in COMPARED_CONCEPTS},
        "figures": list(figures),
    }


def columns_payload(
    columns: Mapping[str, np.ndarray],
    number: int = 0,
    first: Mapping[str, np.ndarray] | None = None,
) -> dict[str, Any]:
    """Numbers of every concept of a set.

    A column that is another's twin is told as {"set", "column"} of the other: delta is one of its
    two forms, and the real images are the same of all sets.

    Args:
      columns: of the set.
      number: of the set.
      first: columns of set 0.
    """
    payload: dict[str, Any] = {}
    known: dict[str, tuple[int, str]] = {}
    for i, each in (
        ((0, first), (number, columns)) if first is not None and number else ((number, columns),)
    ):
        for name in COLUMNS:
            packed = pack(each[name], "float32")
            twin = known.setdefault(packed["data"], (i, name))
            if i == number:
                payload[name] = (
                    packed if twin == (i, name) else dict(zip(("set", "column"), twin, strict=True))
                )
    kinds = {kind: i for i, kind in enumerate(verdicts.KINDS)}
    payload["verdict"] = pack(np.array([kinds[v] for v in columns["verdict"]]), "uint8")
    paper = [PAPER_KINDS.index(v) for v in columns["verdict_paper"]]
    payload["verdict_paper"] = pack(np.array(paper), "uint8")
    return payload


def histogram_payloads(comparison: Comparison) -> Iterator[tuple[int, dict[str, Any]]]:
    """Image energies of each concept in both arms over the pairs, in equal bins up to the top."""
    rows = comparison.datapoints
    codes = [
        arm.codes[np.array([row[name] for row in rows], np.int64)].tocsc()
        for arm, name in (
            (comparison.real, "row_real"),
            (comparison.generated, "row_generated"),
        )
    ]
    top = np.zeros(codes[0].shape[1])
    if rows:
        top = np.maximum(*(arm.max(axis=0).toarray().ravel() for arm in codes))
    counts = [_binned(arm, top) for arm in codes]
    for chunk, part in _chunks(top.size, CONCEPTS_PER_CHUNK):
        yield (
            chunk,
            {
                "top": pack(top[part], "float32"),
                "bins": N_BINS,
                "real": pack_sparse(counts[0][part]),
                "generated": pack_sparse(counts[1][part]),
            },
        )


def _binned(codes: sp.csc_array, top: np.ndarray) -> np.ndarray:
    """Images by energy [K, bins]; those without the concept are in no bin."""
    concept = np.repeat(np.arange(codes.shape[1]), np.diff(codes.indptr))
    place = np.minimum((codes.data / top[concept] * N_BINS).astype(np.int64), N_BINS - 1)
    flat = np.bincount(concept * N_BINS + place, minlength=codes.shape[1] * N_BINS)
    return flat.reshape(-1, N_BINS)


def thumbnail_payloads(
    arm: Measured, load: LoadThumbnail
) -> Iterator[tuple[int, list[str | None]]]:
    """Every image as base64 WebP; null where the file is gone."""
    for chunk, part in _chunks(len(arm.paths), IMAGES_PER_CHUNK):
        found = (
            encode_thumbnail(load, path, arm.resize, arm.crop, THUMBNAIL, "webp")
            for path in arm.paths[part]
        )
        yield chunk, [data and base64.b64encode(data).decode() for data in found]


def _chunks(n: int, size: int) -> Iterator[tuple[int, slice]]:
    for chunk, start in enumerate(range(0, n, size)):
        yield chunk, slice(start, start + size)


def _finite(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 6)
