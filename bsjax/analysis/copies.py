"""Which generated images are unusually alike to their real image: sketches of patches -> columns.

Reads the sketches that `measure` keeps, a batch of pairs at a time; the columns go into
datapoints.parquet, near duplicates among the real images into duplicates.parquet.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from bsjax.data.captions import Pairing
from bsjax.results.columns import DATAPOINTS, DUPLICATES
from bsjax.results.measures import Measured
from bsjax.stats import clusters, copies

BLOCK = 256  # images whose cosines with all others are held at a time
BATCH_BYTES = 1 << 24  # of cosines between patches at a time; four times as many take twice as long
N_NEAR = 8  # nearest real images among which near duplicates of one are looked for
DUPLICATE = 0.9  # similarity of two real images; the closest of 1,000 scenes come to 0.85


class Judged(NamedTuple):
    """What the patches say of n pairs.

    Attributes:
      scores: columns of `bsjax.results.columns.DATAPOINTS`, [n] each.
      duplicates: of real images, columns `bsjax.results.columns.DUPLICATES`.
    """

    scores: dict[str, np.ndarray]
    duplicates: pa.Table


class Near(NamedTuple):
    """Rows of the nearest others of each of n images [n, M], nearest first; -1: no more.

    Attributes:
      all: M = N_NEAR.
      other_captions: M = N_OTHERS.
    """

    all: np.ndarray
    other_captions: np.ndarray


def judge_pairs(real: Measured, generated: Measured, pairing: Pairing) -> Judged | None:
    """Looks at the pairs of two sets, patch by patch; None where a set has no sketches.

    Memory: the sketches of both sets, and BATCH_BYTES a few times over.

    Args:
      real: the real images.
      generated: the generated ones, by the same encoder.
      pairing: rows that belong together.
    """
    if real.patches is None or generated.patches is None:
        return None
    rows = pairing.rows_real
    sketches = _take(real.patches, rows), _take(generated.patches, pairing.rows_generated)
    if sketches[0].values.shape != sketches[1].values.shape:
        return None
    codes = real.codes[rows]
    captions = [real.captions[row] for row in rows]
    return judge_sketches(*sketches, codes, captions, pairing.keys(real.keys), rows)


def judge_sketches(
    real: copies.Sketch,
    generated: copies.Sketch,
    codes: sp.csr_array,
    captions: Sequence[str],
    keys: Sequence[str],
    images: np.ndarray | None = None,
) -> Judged:
    """The same of n sketches (rows agree).

    Args:
      real: of the real images.
      generated: of their counterparts.
      codes: of the real images [n, K].
      captions: of the pairs; an empty one is nobody else's.
      keys: of the pairs.
      images: which real image each pair has [n]; None: each another.
    """
    n = len(keys)
    # One pair of each real image: its further ones are no neighbours and no duplicates of it.
    labels = clusters.number(range(n) if images is None else images.tolist())
    _, one = np.unique(labels, return_index=True)
    near = nearest(codes[one], [captions[row] for row in one])
    alone = _take(real, one)
    # Of the real images of the pairs, for both arms: what is a copy stays one.
    centre = alone.mean.mean(axis=0, dtype=np.float64).astype(np.float32)
    among = _likeness(alone, alone, near.all, centre)
    is_twin = (near.all >= 0) & (among.evidence >= np.arctanh(DUPLICATE))
    i, j = np.nonzero(is_twin)
    # [images], equal for duplicates
    image = clusters.join(np.stack([i, near.all[i, j]], axis=1), len(one))
    pair = _likeness(real, generated, np.arange(n)[:, None], centre)
    other = near.other_captions[labels]  # [n, N_OTHERS] of the images
    null = _likeness(real, generated, np.where(other >= 0, one[other], -1), centre)
    is_other = (other >= 0) & (image[other] != image[labels][:, None])
    others = np.where(is_other, null.evidence, np.nan)
    unusual = copies.standardise(pair.evidence[:, 0].astype(np.float64), others)
    variances = (np.concatenate([copies.patch_variance(_take(sketch, part)) for part in
                                 np.array_split(np.arange(n), -(-n // BLOCK))])
                 for sketch in (real, generated))  # fmt: skip
    scores = {
        "patch_similarity": pair.similarity[:, 0].astype(np.float64),
        "place": _places(pair),
        "z": unusual.z,
        "null_mean": unusual.null_mean,
        "bland": copies.is_bland(*variances),
    }
    names = [keys[row] for row in one]
    return Judged(scores, _duplicate_table(names, near.all, among.similarity, is_twin))


def rows_of(duplicates: pa.Table, keys: Sequence[str]) -> np.ndarray:
    """Near duplicates [M, 2] as places in `keys`."""
    place = {key: row for row, key in enumerate(keys)}
    pairs = zip(duplicates["key"].to_pylist(), duplicates["other"].to_pylist(), strict=True)
    found = [(place[key], place[other]) for key, other in pairs]
    return np.array(found, np.int64).reshape(-1, 2)


def _places(pair: copies.Likeness) -> np.ndarray:
    parts = (pair.shift_rows, pair.shift_columns, pair.mirrored)
    told = zip(*(part[:, 0].tolist() for part in parts), strict=True)
    return np.array([describe_place(*each) for each in told], object)


def describe_place(rows: int, columns: int, mirrored: int) -> str:
    """Where the generated image is alike, in patches: "1 down, 1 left, mirrored"; "": in place."""
    told = [f"{abs(rows)} {'down' if rows > 0 else 'up'}"] if rows else []
    told += [f"{abs(columns)} {'right' if columns > 0 else 'left'}"] if columns else []
    return ", ".join([*told, *(["mirrored"] if mirrored else [])])


def pair_table(columns: Mapping[str, Any]) -> pa.Table:
    """The table of pairs; null is what is not known: what is NaN, and columns that are missing."""
    n = len(columns["rank"])
    filled = {}
    for column in DATAPOINTS:
        values = columns.get(column.name)
        if values is None:
            values = pa.nulls(n, column.type)
        elif column.name in ("z", "null_mean"):
            values = pa.array(values, column.type, from_pandas=True)
        filled[column.name] = values
    return pa.table(filled)


def nearest(codes: sp.csr_array, captions: Sequence[str]) -> Near:
    """The images nearest to each by cosine of their codes, a block of rows at a time.

    Args:
      codes: [n, K].
      captions: n texts; those that differ in case and blanks alone are the same.
    """
    n = codes.shape[0]
    texts = [" ".join(caption.lower().split()) for caption in captions]
    labels = clusters.number([text or row for row, text in enumerate(texts)])
    found = Near(*(np.full((n, m), -1, np.int64) for m in (N_NEAR, copies.N_OTHERS)))
    for rows, cosines in _cosines(codes):
        cosines[np.arange(rows.size), rows] = -np.inf
        found.all[rows] = _largest(cosines, N_NEAR)
        cosines[labels[rows, None] == labels[None]] = -np.inf
        found.other_captions[rows] = _largest(cosines, copies.N_OTHERS)
    return found


def _cosines(codes: sp.csr_array) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    norms = np.sqrt(codes.multiply(codes).sum(axis=1, dtype=np.float64))
    scale = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
    unit = sp.csr_array(sp.diags_array(scale.astype(np.float32)) @ codes)
    columns = sp.csr_array(unit.T)
    for start in range(0, codes.shape[0], BLOCK):
        rows = np.arange(start, min(start + BLOCK, codes.shape[0]))
        yield rows, (unit[rows] @ columns).toarray()


def _largest(cosines: np.ndarray, n: int) -> np.ndarray:
    """Columns of the n largest finite numbers of each row, largest first; -1: no more."""
    n_kept = min(n, cosines.shape[1])
    top = np.argpartition(-cosines, n_kept - 1, axis=1)[:, :n_kept]
    values = np.take_along_axis(cosines, top, axis=1)
    order = np.lexsort((top, -values), axis=1)
    top, values = (np.take_along_axis(array, order, axis=1) for array in (top, values))
    top = np.where(np.isfinite(values), top, -1)
    return np.pad(top, ((0, 0), (0, n - n_kept)), constant_values=-1)


def _likeness(
    first: copies.Sketch, others: copies.Sketch, rows: np.ndarray, centre: np.ndarray
) -> copies.Likeness:
    """Image i of `first` against the images rows[i] [n, M] of `others`, on the host."""
    n, n_others = rows.shape
    h, w, width = first.values.shape[1:]
    bytes_an_image = 4 * n_others * h * w * (h * w + width)
    batch = int(np.clip(BATCH_BYTES // max(bytes_an_image, 1), 1, n))
    parts = []
    for start in range(0, n, batch):
        here = np.minimum(np.arange(start, start + batch), n - 1)  # the last batch is filled up
        there = np.maximum(rows[here], 0)
        found = copies.find_likeness(_take(first, here), _take(others, there), centre)
        parts.append(jax.tree.map(np.asarray, found))
    return copies.Likeness(*(np.concatenate(arrays)[:n] for arrays in zip(*parts, strict=True)))


def _take(sketch: copies.Sketch, rows: np.ndarray) -> copies.Sketch:
    return copies.Sketch(*(array[rows] for array in sketch))


def _numbers(i: np.ndarray, k: np.ndarray, n: int) -> np.ndarray:
    return np.minimum(i, k) * n + np.maximum(i, k)


def _duplicate_table(
    keys: Sequence[str], rows: np.ndarray, similarity: np.ndarray, is_twin: np.ndarray
) -> pa.Table:
    i, j = np.nonzero(is_twin)
    k = rows[i, j]
    _, first = np.unique(_numbers(i, k, len(rows)), return_index=True)
    i, k, alike = (np.minimum(i, k)[first], np.maximum(i, k)[first], similarity[i, j][first])
    order = np.lexsort((k, i, -alike))
    columns: dict[str, Any] = {
        "key": [keys[row] for row in i[order]],
        "other": [keys[row] for row in k[order]],
        "patch_similarity": alike[order].astype(np.float64),
    }
    return pa.table({c.name: pa.array(columns[c.name], c.type) for c in DUPLICATES})
