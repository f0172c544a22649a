"""Where a concept fires in its top images: its codes over the tokens of each."""

import numpy as np
import scipy.sparse as sp


def fill_codes(
    codes: np.ndarray, top_rows: np.ndarray, token_codes: sp.csr_array, first_row: int
) -> None:
    """Writes the codes of the images in one shard into `codes`.

    Args:
      codes: [K, L, T], filled in place.
      top_rows: [K, L] image rows, -1 where none.
      token_codes: [images of the shard * T, K] codes.
      first_row: row of the shard's first image.
    """
    n_tokens = codes.shape[2]
    n_images = token_codes.shape[0] // n_tokens
    concepts, slots = np.nonzero((top_rows >= first_row) & (top_rows < first_row + n_images))
    if concepts.size == 0:
        return
    # Entries of the shard and the wanted (image, concept) pairs meet in one sorted key.
    n_concepts = token_codes.shape[1]
    entries = token_codes.tocoo()
    image, token = np.divmod(entries.row.astype(np.int64), n_tokens)
    keys = image * n_concepts + entries.col

    wanted = (top_rows[concepts, slots].astype(np.int64) - first_row) * n_concepts + concepts
    order = np.argsort(wanted, kind="stable")
    place = np.searchsorted(wanted[order], keys)
    found = (place < order.size) & (wanted[order][np.minimum(place, order.size - 1)] == keys)
    pair = order[place[found]]
    codes[concepts[pair], slots[pair], token[found]] = entries.data[found]
