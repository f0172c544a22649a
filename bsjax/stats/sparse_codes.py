"""Codes as sparse matrices: compacted on the device, assembled on the host.

About 10 of 32,000 concepts are active on a token, so the dense codes never leave the device: each
token's largest codes do, with the count that proves that none was left behind.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jaxtyping import Array, Bool, Float, Int


class CompactCodes(NamedTuple):
    """The largest codes of every token, largest first; zero where fewer are active."""

    values: Float[Array, "B T k"]
    concepts: Int[Array, "B T k"]
    max_active: Int[Array, ""]  # most active concepts on any one token of the batch


def compact_codes(
    codes: Float[Array, "B T K"], mask: Bool[Array, "B"], n_kept: int
) -> CompactCodes:
    """Keeps the `n_kept` largest codes of each token; exact if `max_active` <= `n_kept`."""
    active = jnp.sum(codes > 0, axis=2, dtype=jnp.int32)  # [B, T]
    values, concepts = jax.lax.top_k(codes, n_kept)  # [B, T, k]
    return CompactCodes(
        values=jnp.where(mask[:, None, None], values, 0.0),
        concepts=concepts,
        max_active=jnp.max(jnp.where(mask[:, None], active, 0)),
    )


def to_csr(compact: CompactCodes, mask: np.ndarray, n_concepts: int) -> sp.csr_array:
    """Token codes [tokens of the unmasked images, K] of a batch fetched to the host.

    Raises:
      ValueError: a token has more active concepts than were kept.
    """
    values = np.asarray(compact.values)[np.asarray(mask)]
    if int(compact.max_active) > values.shape[-1]:
        raise ValueError(f"{int(compact.max_active)} codes active, {values.shape[-1]} kept")
    values = values.reshape(-1, values.shape[-1])  # [N, k]
    concepts = np.asarray(compact.concepts)[np.asarray(mask)].reshape(values.shape)
    active = values > 0
    indptr = np.concatenate([[0], np.cumsum(active.sum(axis=1))]).astype(np.int64)
    codes = sp.csr_array(
        (values[active], concepts[active], indptr), shape=(values.shape[0], n_concepts)
    )
    codes.sort_indices()
    return codes
