"""How near each generated image is to its real counterpart: copies stand on top."""

import numpy as np
import scipy.sparse as sp


def score_pairs(real: sp.csr_array, generated: sp.csr_array) -> dict[str, np.ndarray]:
    """Scores of n pairs of image codes [n, K] (rows agree), all float64 [n].

    Returns:
      mean_difference: mean over concepts of generated - real, the score of the paper; signed, so
        excesses and deficits cancel.
      absolute_difference: sum over concepts of |generated - real|; 0 for a copy.
      cosine: cosine of the two image codes; 1 for a copy, 0 where one has no active concept.
    """
    real, generated = real.astype(np.float64), generated.astype(np.float64)
    gap = sp.csr_array(generated - real)
    norms = np.sqrt(real.multiply(real).sum(axis=1) * generated.multiply(generated).sum(axis=1))
    product = real.multiply(generated).sum(axis=1)
    return {
        "mean_difference": gap.sum(axis=1) / real.shape[1],
        "absolute_difference": abs(gap).sum(axis=1),
        "cosine": np.divide(product, norms, out=np.zeros_like(norms), where=norms > 0),
    }


def rank_pairs(scores: dict[str, np.ndarray]) -> np.ndarray:
    """Order of the pairs, most alike first: by cosine, then by absolute difference.

    Differs: the paper ranks by the (mean) energy difference, which is also near zero where large
    differences cancel or where hardly any concept fires; it stays in the table as a column.
    """
    # Rounded, so that copies whose cosine is 1 up to rounding are told apart by the second score.
    return np.lexsort((scores["absolute_difference"], -np.round(scores["cosine"], 9)))
