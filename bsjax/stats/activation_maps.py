"""Where a concept fires in its top images: the h x w maps of codes over patches."""

import numpy as np
import scipy.sparse as sp

from bsjax.core.dims import Grid


def fill_maps(
    maps: np.ndarray,
    top_rows: np.ndarray,
    token_codes: sp.csr_array,
    first_row: int,
    grid: Grid,
) -> None:
    """Writes the maps of the images in one shard into `maps`.

    Args:
      maps: [K, L, h, w], filled in place.
      top_rows: [K, L] image rows, -1 where none.
      token_codes: [images of the shard * T, K] codes.
      first_row: row of the shard's first image.
      grid: how tokens lie in an image.
    """
    n_images = token_codes.shape[0] // grid.n_tokens
    concepts, slots = np.nonzero((top_rows >= first_row) & (top_rows < first_row + n_images))
    if concepts.size == 0:
        return
    # Entries of the shard and the wanted (image, concept) pairs meet in one sorted key.
    n_concepts = token_codes.shape[1]
    entries = token_codes.tocoo()
    image, token = np.divmod(entries.row.astype(np.int64), grid.n_tokens)
    is_patch = token >= grid.n_special
    keys = image[is_patch] * n_concepts + entries.col[is_patch]
    patch = token[is_patch] - grid.n_special
    values = entries.data[is_patch]

    wanted = (top_rows[concepts, slots].astype(np.int64) - first_row) * n_concepts + concepts
    order = np.argsort(wanted, kind="stable")
    place = np.searchsorted(wanted[order], keys)
    found = (place < order.size) & (wanted[order][np.minimum(place, order.size - 1)] == keys)
    pair = order[place[found]]
    flat = maps.reshape(maps.shape[0], maps.shape[1], grid.n_patches)
    flat[concepts[pair], slots[pair], patch[found]] = values[found]
