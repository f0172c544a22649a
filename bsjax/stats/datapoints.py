"""How near each generated image is to its real counterpart: the most unusually alike on top."""

import numpy as np
import scipy.sparse as sp


def score_pairs(real: sp.csr_array, generated: sp.csr_array) -> dict[str, np.ndarray]:
    """Scores of n pairs of image codes [n, K] (rows agree), all float64 [n].

    Returns:
      mean_difference: mean over concepts of generated - real, the score of the paper; signed, so
        excesses and deficits cancel.
      absolute_difference: sum over concepts of |generated - real|; 0 for a copy.
      cosine: cosine of the two image codes; 1 for a copy and for whatever shows the same concepts,
        0 where one has no active concept.
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


def count_firing(real: sp.csr_array, generated: sp.csr_array) -> np.ndarray:
    """Concepts that fire in both images of each of n pairs, int [n]."""
    return np.asarray((real > 0).multiply(generated > 0).sum(axis=1)).ravel()


def rank_pairs(scores: dict[str, np.ndarray]) -> np.ndarray:
    """Order of the pairs, most unusually alike first.

    By z where it is among the scores, bland pairs behind all others and pairs without a z behind
    those that have one; then, and where patches are not known, by cosine of the codes and by
    absolute difference.

    Differs: the paper ranks by the (mean) energy difference, which is also near zero where large
    differences cancel or where hardly any concept fires; it stays in the table as a column.
    """
    # Rounded, so that copies whose cosine is 1 up to rounding are told apart by the second score.
    keys = [scores["absolute_difference"], -np.round(scores["cosine"], 9)]
    if "z" in scores:
        z = np.nan_to_num(scores["z"], nan=-np.inf, posinf=np.inf, neginf=-np.inf)
        keys += [-scores["patch_similarity"], -z, scores["bland"]]
    return np.lexsort(keys)


def first_of_each(order: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """An order [n] of rows without those whose label [n] came before."""
    _, first = np.unique(labels[order], return_index=True)
    return order[np.sort(first)]
