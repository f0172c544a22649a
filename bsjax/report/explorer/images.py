"""What the explorer shows of single images and of pairs: how alike, of one caption, concepts."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp

from bsjax.report.explorer.encode import pack
from bsjax.report.tables import Comparison, Measured
from bsjax.results.pairing import pair_measured
from bsjax.stats import clusters

N_SHARED = 3  # concepts that both images of a pair show most
N_STRONGEST = 24  # concepts kept of an image
NO_SLOT = 255  # the image is not among the concept's top images
WHOLE = 65_535  # stands for a share of 1
SCORES = ("cosine", "absolute_difference", "mean_difference")
PATCH_SCORES = ("z", "patch_similarity")


def pairs_payload(comparison: Comparison) -> dict[str, Any]:
    """Pairs in the order of the table, with the concepts that both images show."""
    rows = comparison.datapoints
    real, generated = (_integers(rows, name) for name in ("row_real", "row_generated"))
    shared = _shared_concepts(comparison.real.codes[real], comparison.generated.codes[generated])
    # Where patch tokens were not kept, nothing is known of them.
    scores = SCORES + PATCH_SCORES * comparison.has_patches
    told = [say_place(row.get("place") or "") for row in rows]
    places = list(dict.fromkeys(told))
    number = {place: k for k, place in enumerate(places)}
    return {
        "real": pack(real, "int32"),
        "generated": pack(generated, "int32"),
        "scores": {
            name: pack(np.array([row[name] for row in rows], np.float64), "float32")
            for name in scores
        },
        "shared": pack(shared, "int32"),
        "places": places,
        "place": pack(np.array([number[place] for place in told]), "uint8"),
        "bland": pack(np.array([bool(row.get("bland")) for row in rows]), "uint8"),
        "twin": pack(_twins(comparison)[real], "int32"),
    }


def say_place(place: str) -> str:
    """Where a generated image is alike, in words: of "1 down, mirrored" and the like; "": in place.

    Args:
      place: as column `place` of datapoints.parquet has it.
    """
    parts = place.split(", ") if place else []
    shifts = [part for part in parts if part != "mirrored"]
    said = ["mirrored"] if "mirrored" in parts else []
    if shifts:
        numbers, directions = zip(*(part.split(" ", 1) for part in shifts), strict=True)
        n = "a patch" if set(numbers) == {"1"} else f"{' and '.join(numbers)} patches"
        said.append(f"shifted by {n} {' and '.join(directions)}")
    return ", ".join(said)


def counterparts_payload(comparison: Comparison) -> dict[str, Any]:
    """Which images of the two arms belong together, all pairs of one key among them.

    The table of pairs has one alone of several that share a real image.
    """
    real, generated = comparison.real, comparison.generated
    to_generated = np.full(len(real.keys), -1)
    to_real = np.full(len(generated.keys), -1)
    if comparison.datapoints:  # imported results have keys without images
        pairing = pair_measured(real, generated)
        to_generated[pairing.rows_real] = pairing.rows_generated
        to_real[pairing.rows_generated] = pairing.rows_real
        for pair in comparison.datapoints:
            to_generated[pair["row_real"]] = pair["row_generated"]
            to_real[pair["row_generated"]] = pair["row_real"]
    return {
        "generated": pack(to_generated, "int32"),
        "real": pack(to_real, "int32"),
        # Names of the others.
        "keys": {str(row): generated.keys[row] for row in np.flatnonzero(to_real < 0).tolist()},
    }


def repeats(real: Measured) -> np.ndarray:
    """Labels [n] of the real images: the same where caption or file are."""
    captions = [" ".join(caption.casefold().split()) for caption in real.captions]
    links, first = [], {}
    for kind, texts in enumerate((captions, real.paths)):
        links += [
            (first.setdefault((kind, text), row), row) for row, text in enumerate(texts) if text
        ]
    return clusters.join(np.array(links, np.int64).reshape(-1, 2), len(captions))


def showing_payloads(arm: Measured, size: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Which images show each concept, by chunks of `size` concepts.

    `rows` has those of the chunk's concepts one behind the other, each as its distance from the one
    before (the first from -1); those of concept k end at `ends[k]`.
    """
    by_concept = arm.codes.tocsc()
    by_concept.eliminate_zeros()
    by_concept.sort_indices()
    for chunk, start in enumerate(range(0, by_concept.shape[1], size)):
        pointers = by_concept.indptr[start : start + size + 1].astype(np.int64)
        rows = by_concept.indices[pointers[0] : pointers[-1]].astype(np.int64)
        steps = np.diff(rows, prepend=-1)
        firsts = pointers[:-1][np.diff(pointers) > 0] - pointers[0]
        steps[firsts] = rows[firsts] + 1
        yield (
            chunk,
            {
                "ends": pack(pointers[1:] - pointers[0], "int32"),
                "rows": pack(steps, "int32"),
            },
        )


def strongest_payloads(arm: Measured, size: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """The N_STRONGEST concepts of each image, by chunks of `size` images.

    concepts [n, N] (-1: no more), their shares of the image's energy, `count` of all that it shows,
    and the slot that it has among the top images of each, where a map of its patches is kept.
    """
    codes = arm.codes
    slots = _slots(arm.top_rows, codes.shape)
    total = np.asarray(codes.sum(axis=1, dtype=np.float64)).ravel()
    for chunk, start in enumerate(range(0, codes.shape[0], size)):
        rows = np.arange(start, min(start + size, codes.shape[0]))
        found, energy = _largest(codes[rows], N_STRONGEST)
        share = energy / np.where(total[rows] > 0, total[rows], 1)[:, None]
        there = slots[rows].toarray()[np.arange(rows.size)[:, None], found] - 1  # -1: none
        slot = np.where((found >= 0) & (there >= 0), there, NO_SLOT)
        yield (
            chunk,
            {
                "concepts": pack(found, "int32"),
                "shares": pack(np.rint(WHOLE * share), "uint16"),
                "slots": pack(slot, "uint8"),
                "count": pack((codes[rows] > 0).sum(axis=1), "int32"),
            },
        )


def _slots(top_rows: np.ndarray, shape: tuple[int, int]) -> sp.csr_array:
    """[n, K] 1 + the slot that an image has among the top images of a concept."""
    concept, slot = np.nonzero(top_rows >= 0)
    places = (top_rows[concept, slot], concept)
    return sp.csr_array((slot.astype(np.int32) + 1, places), shape=shape)


def _integers(rows: list[dict[str, Any]], name: str) -> np.ndarray:
    return np.array([row[name] for row in rows], np.int64)


def _twins(comparison: Comparison) -> np.ndarray:
    """Of each real image the real image that is most nearly the same; -1: none is."""
    place, twins = comparison.real.place, np.full(len(comparison.real.keys), -1)
    for row in reversed(comparison.duplicates):  # the most alike stand first, and win
        one, other = place[row["key"]], place[row["other"]]
        twins[one], twins[other] = other, one
    return twins


def _shared_concepts(real: sp.csr_array, generated: sp.csr_array) -> np.ndarray:
    """Concepts with the largest smaller energy of the two [n, S]; -1 where there are fewer."""
    return _largest(sp.csr_array(real.minimum(generated)), N_SHARED)[0]


def _largest(codes: sp.csr_array, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The n concepts with the most energy in each image, largest first, and that energy; -1, 0."""
    found = np.full((codes.shape[0], n), -1)
    energy = np.zeros((codes.shape[0], n))
    for row in range(codes.shape[0]):
        part = slice(codes.indptr[row], codes.indptr[row + 1])
        order = np.argsort(-codes.data[part], kind="stable")[:n]
        order = order[codes.data[part][order] > 0]
        found[row, : order.size] = codes.indices[part][order]
        energy[row, : order.size] = codes.data[part][order]
    return found, energy
