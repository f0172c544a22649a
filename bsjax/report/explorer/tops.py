"""What the explorer shows of a concept's top images: where it fires in each, and what with it."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from bsjax.core.dims import Grid
from bsjax.report.explorer.encode import pack, pack_sparse
from bsjax.report.tables import Comparison, Measured
from bsjax.results.measures import TOP_IMAGES

LEVELS = 31  # of a map, of its image's strongest code; a code is told to within 1/62 of that
SPECIAL_LEVELS = 255  # of class tokens and registers
N_TOGETHER = 8  # co-occurring concepts shown
N_SHOWN = 6  # top images of an arm in the panel
MOST_MAPS = 1_600_000  # in a report, from which on those alone are kept that are shown at once


def kept(arm: Measured, number: int, comparisons: Sequence[Comparison]) -> Measured:
    """The arm with as many top images of each concept as the report keeps.

    All that were measured, unless that is more than MOST_MAPS: then N_SHOWN, and all of the
    concepts that findings show.

    Args:
      arm: one of the report.
      number: of the arm: 0 is the real one, i + 1 that of set i.
      comparisons: all sets of the report.
    """
    n_concepts, n_top = arm.top_rows.shape
    if n_concepts * n_top * (len(comparisons) + 1) <= MOST_MAPS or n_top <= N_SHOWN:
        return arm
    sets = comparisons if number == 0 else [comparisons[number - 1]]
    shown = {each.concepts[0] for comparison in sets for each in comparison.told}
    rows = np.array(arm.top_rows)
    others = np.setdiff1d(np.arange(n_concepts), sorted(shown))
    rows[others, N_SHOWN:] = -1
    known = {TOP_IMAGES: {"maps": arm.maps, "special": arm.special}}  # not read once more
    return dataclasses.replace(arm, top_rows=rows, parts={**arm.parts, **known})


def concept_payloads(
    arm: Measured, size: int, together: tuple[np.ndarray, np.ndarray] | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Top images of each concept, and which others fire with it, by chunks of `size` concepts.

    Args:
      arm: of the report.
      size: concepts in a chunk.
      together: which others fire on the same tokens, and how strongly, [K, n] each.
    """
    for chunk, start in enumerate(range(0, len(arm.top_rows), size)):
        part = slice(start, start + size)
        payload = {"rows": pack(arm.top_rows[part], "int32")}
        if together is not None:
            concepts, strength = (values[part, :N_TOGETHER] for values in together)
            payload |= {
                "together": pack(concepts, "int32"),
                "strength": pack(strength, "float32"),
            }
        yield chunk, payload


def map_payloads(arm: Measured, size: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Where each concept fires in its top images, by chunks of `size` concepts."""
    names = special_names(arm)
    for chunk, start in enumerate(range(0, len(arm.top_rows), size)):
        part = slice(start, start + size)
        rows = arm.top_rows[part]
        maps, special = (
            np.where(_like(rows >= 0, values), np.asarray(values, np.float32), 0)
            for values in (arm.maps[part], arm.special[part])
        )
        sizes = [math.prod(values.shape[2:]) for values in (maps, special)]  # special: may be none
        flat = [v.reshape(*rows.shape, n) for v, n in zip((maps, special), sizes, strict=True)]
        peak = np.maximum(*(np.abs(values).max(axis=2, initial=0) for values in flat))
        scale = np.where(peak > 0, peak, 1)
        levels = levels_of(flat[0], scale, LEVELS)
        yield (
            chunk,
            {
                "grid": list(maps.shape[2:]),
                "special_names": names,
                "special": pack(levels_of(flat[1], scale, SPECIAL_LEVELS), "uint8"),
                "n_levels": LEVELS,
                "maps": pack_sparse(levels.reshape(rows.size, -1)),
            },
        )


def _like(is_there: np.ndarray, values: np.ndarray) -> np.ndarray:
    return is_there.reshape(*is_there.shape, *(1,) * (values.ndim - 2))


def levels_of(codes: np.ndarray, scale: np.ndarray, n: int) -> np.ndarray:
    """Codes [K, slots, P] as levels of their image's scale [K, slots]; what fires has one."""
    levels = np.rint(np.maximum(codes, 0) / scale[..., None] * n)
    return np.where((codes > 0) & (levels < 1), 1, levels).astype(np.uint8)


def special_names(arm: Measured) -> list[str]:
    """What the tokens in front of the patches are, as far as the measures say."""
    known = arm.manifest.get("counts", {}).get("special_tokens", [])
    n_special = math.prod(arm.special.shape[2:])
    # Measures of before it was written down: encoders had a class token.
    return known or list(Grid(n_special - 1, 0, 0).special_names if n_special else ())
