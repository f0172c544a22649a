"""Image codes and labels of any origin, as the statistics take them."""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp

from bsjax.api.sae import as_numbers
from bsjax.core.errors import UserError

# Codes whose squares and products no float64 can add up.
LARGEST, SMALLEST = 1e100, 1e-100


def as_labels(clusters: Sequence[Any] | np.ndarray) -> list[Any]:
    """One label per pair, as Python has them.

    Raises:
      UserError: one that cannot be told from others.
    """
    labels = [
        value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value
        for value in clusters
    ]
    for row, label in enumerate(labels):
        if not isinstance(label, Hashable) or label is None or label != label:
            raise UserError(
                f"{{clusters}} holds {label!r} at place {row}; give a number or a text for each"
                " pair, the same for those that count as one",
                "clusters",
            )
    return labels


def as_codes(codes: Any, name: str) -> sp.csr_array:
    """Image codes [n, K] as a sparse matrix of their own.

    Args:
      codes: an array of any framework, or a matrix of scipy.sparse.
      name: of the argument that they are.

    Raises:
      UserError: another shape, codes that are negative, not finite or beyond what can be summed.
    """
    values = codes.data if sp.issparse(codes) else codes
    array = as_numbers(values, name)
    if not sp.issparse(codes) and array.ndim != 2:
        raise UserError(
            f"{{{name}}} has the shape {list(array.shape)}; expected [n, K]: a row per image, a"
            " column per concept (sum the codes of an image's tokens)",
            name,
        )
    if not np.isfinite(array).all():
        n = int((~np.isfinite(array)).sum())
        raise UserError(f"{{{name}}} has {n} codes that are not finite", name)
    if array.size and array.min() < 0:
        raise UserError(
            f"{{{name}}} has negative codes, such as {array.min():g}; expected 0 or more, as after"
            " a ReLU",
            name,
        )
    if not (codes if sp.issparse(codes) else array).shape[1]:
        raise UserError(f"{{{name}}} has no concepts; expected a column for each", name)
    fires = array[array > 0]
    low, high = (float(fires.min()), float(fires.max())) if fires.size else (1.0, 1.0)
    if low < SMALLEST or high > LARGEST:
        raise UserError(
            f"{{{name}}} has codes from {low:g} to {high:g}; expected {SMALLEST:g} to {LARGEST:g},"
            " or 0: scale them",
            name,
        )
    if not sp.issparse(codes):
        return sp.csr_array(array)
    matrix = sp.csr_array(codes, dtype=array.dtype, copy=True)
    matrix.sum_duplicates()
    return matrix
