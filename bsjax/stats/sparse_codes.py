"""Codes as sparse matrices: compacted on the device, assembled on the host.

About 10 of 32,000 concepts are active on a token, so the dense codes never leave the device: each
token's largest codes do. If the smallest of them is zero, none was left behind.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jaxtyping import Array, Bool, Float, Int

from bsjax.core.topk import largest_of_rows


def active_rows(codes: sp.csr_array) -> sp.csr_array:
    """A copy of codes [n, K] in float64, by row, without stored zeros."""
    codes = sp.csr_array(codes.astype(np.float64, copy=True))
    codes.eliminate_zeros()
    return codes


def active_columns(codes: sp.csr_array | sp.csc_array) -> sp.csc_array:
    """A copy of codes [n, K] in float64, by concept, without stored zeros."""
    columns = sp.csc_array(codes.astype(np.float64, copy=True))
    columns.eliminate_zeros()
    return columns


class CompactCodes(NamedTuple):
    """The largest codes of every token, largest first; zero where fewer are active."""

    values: Float[Array, "B T k"]
    concepts: Int[Array, "B T k"]


def compact_codes(
    codes: Float[Array, "B T K"], mask: Bool[Array, "B ..."], n_kept: int
) -> CompactCodes:
    """Keeps the `n_kept` largest codes of each token that counts; codes are not negative.

    Args:
      codes: of all tokens.
      mask: of the images [B] or tokens [B, T] that count.
      n_kept: k.
    """
    values, concepts = largest_of_rows(codes, n_kept)  # [B, T, k]
    return CompactCodes(jnp.where(mask.reshape(len(mask), -1, 1), values, 0.0), concepts)


def is_complete(compact: CompactCodes, n_concepts: int) -> bool | np.bool_ | Bool[Array, ""]:
    """Whether every active code of every token was kept; on the device or on the host."""
    return (compact.values.shape[-1] >= n_concepts) | (compact.values[..., -1] == 0).all()


def to_csr(compact: CompactCodes, mask: np.ndarray, n_concepts: int) -> sp.csr_array:
    """Token codes [tokens of the unmasked images, K] of a batch fetched to the host.

    Raises:
      ValueError: a token has more active concepts than were kept.
    """
    if not is_complete(compact, n_concepts):
        raise ValueError(f"a token has more than the {compact.values.shape[-1]} codes kept")
    values = np.asarray(compact.values)[np.asarray(mask)]
    values = values.reshape(-1, values.shape[-1])  # [N, k]
    concepts = np.asarray(compact.concepts)[np.asarray(mask)].reshape(values.shape)
    active = values > 0
    indptr = np.concatenate([[0], np.cumsum(active.sum(axis=1))]).astype(np.int64)
    codes = sp.csr_array(
        (values[active], concepts[active], indptr), shape=(values.shape[0], n_concepts)
    )
    codes.sort_indices()
    return codes
