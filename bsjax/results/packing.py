"""Matrices and sketches as the arrays of a shard's npz, and back."""

from collections.abc import Mapping, Sequence

import numpy as np
import scipy.sparse as sp

from bsjax.stats.copies import Sketch

_SKETCH = tuple(f"patch_{name}" for name in Sketch._fields)


def pack(name: str, matrix: sp.csr_array) -> dict[str, np.ndarray]:
    """Parts of a matrix, by names that begin with its own."""
    matrix.sort_indices()
    return {
        f"{name}_data": matrix.data.astype(np.float32),
        f"{name}_indices": matrix.indices.astype(np.int32),
        f"{name}_indptr": matrix.indptr.astype(np.int64),
    }


def pack_sketches(sketches: Sequence[Sketch | None]) -> dict[str, np.ndarray]:
    """Sketches of consecutive batches, by name; nothing where there are none."""
    if any(sketch is None for sketch in sketches):
        return {}
    return {
        name: np.concatenate(parts)
        for name, parts in zip(_SKETCH, zip(*sketches, strict=True), strict=True)
    }


def unpack(name: str, shard: dict[str, np.ndarray], n_columns: int) -> sp.csr_array:
    """The matrix that `pack` took apart."""
    parts = tuple(shard[f"{name}_{part}"] for part in ("data", "indices", "indptr"))
    return sp.csr_array(parts, shape=(parts[2].size - 1, n_columns))


def has_sketches(shard: Mapping[str, np.ndarray]) -> bool:
    """Whether a shard holds any."""
    return set(_SKETCH) <= set(shard)


def unpack_sketches(shard: Mapping[str, np.ndarray]) -> Sketch:
    """The sketches of a shard that holds some."""
    return Sketch(*(shard[name] for name in _SKETCH))
