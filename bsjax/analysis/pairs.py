"""The table of pairs: how alike each generated image is to its counterpart, and in which order."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from bsjax.analysis import copies
from bsjax.results.statistics import Statistics
from bsjax.stats import closeness, clusters, comparison, datapoints

COLUMN = "closeness"


def same_real(codes: sp.csr_array, labels: Sequence[Any] | None) -> np.ndarray:
    """[n] labels of pairs: the same where cluster and real image are, as their codes tell."""
    found: list[Any] = []
    for row in range(codes.shape[0]):
        part = slice(codes.indptr[row], codes.indptr[row + 1])
        told = (codes.indices[part].tobytes(), codes.data[part].tobytes())
        found.append(row if labels is None else (labels[row], *told))
    return clusters.number(found)


def pair_table(
    codes: comparison.PairedCodes,
    rows_real: np.ndarray,
    rows_generated: np.ndarray,
    keys: pa.ChunkedArray | pa.Array,
    captions: pa.ChunkedArray | pa.Array,
    shares: np.ndarray,
    judged: copies.Judged | None = None,
    one_image: np.ndarray | None = None,
) -> pa.Table:
    """The pairs in their order; of several that share a real image the most alike alone.

    `shares` [n] says how close the two images of each are.
    """
    scores = datapoints.score_pairs(*codes)
    if judged is not None:
        scores |= judged.scores
    order = datapoints.rank_pairs(scores)
    order = datapoints.first_of_each(order, rows_real if one_image is None else one_image)
    scores["n_firing"] = datapoints.count_firing(*codes)
    scores[COLUMN] = shares
    columns = {
        "rank": np.arange(1, len(order) + 1, dtype=np.int32),
        "key": keys.take(order),
        "caption": captions.take(order),
        "row_real": rows_real[order].astype(np.int32),
        "row_generated": rows_generated[order].astype(np.int32),
        **{name: values[order] for name, values in scores.items()},
    }
    return copies.pair_table(columns)


def with_closeness(table: pa.Table, statistics: Statistics, fold: float) -> pa.Table:
    """The table of pairs with the closeness that another fold gives."""
    place = {key: row for row, key in enumerate(statistics.keys)}
    values = closeness.shares(statistics.real, statistics.generated, fold)
    told = pa.array(values[[place[key] for key in table["key"].to_pylist()]])
    column = table.column_names.index(COLUMN) if COLUMN in table.column_names else table.num_columns
    table = table.remove_column(column) if column < table.num_columns else table
    return table.add_column(column, COLUMN, told)
