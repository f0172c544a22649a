"""Which concepts fire on the same tokens."""

import numpy as np
import scipy.sparse as sp


def strongest_together(pairs: sp.csr_array, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Concepts that fire on the same tokens: ids and strength [K, n], strongest first.

    Strength is the cosine of the two concepts' codes over all tokens, Z_ij / sqrt(Z_ii Z_jj) of
    Z^T Z; ids are -1 and strengths 0 where there are fewer.
    """
    norms = np.sqrt(pairs.diagonal())
    ids, strength = np.full((len(norms), n), -1), np.zeros((len(norms), n))
    for concept in range(len(norms)):
        part = slice(pairs.indptr[concept], pairs.indptr[concept + 1])
        others, values = pairs.indices[part], pairs.data[part]
        values = values[others != concept]
        others = others[others != concept]
        values = values / np.maximum(norms[concept] * norms[others], 1e-30)
        order = np.argsort(-values, kind="stable")[:n]
        ids[concept, : order.size], strength[concept, : order.size] = others[order], values[order]
    return ids, strength
