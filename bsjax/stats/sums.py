"""The eight sums of a concept over pairs of images, from which every estimate follows.

Only non-zeros are visited, in float64: 32,000 concepts over 10,000 pairs take a second, where a
dense pass takes a minute.
"""

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from bsjax.stats.sparse_codes import active_rows


class Sums(NamedTuple):
    """Sums over n units (pairs, or means of clusters of pairs), each [K] but for n.

    Attributes:
      n: units.
      n_real, n_generated: units whose real (generated) image shows the concept.
      n_both: units of which both do.
      energy_real, energy_generated: sums of energies.
      square_real, square_generated: sums of their squares.
      product: sum of the two arms' products.
    """

    n: int
    n_real: np.ndarray
    n_generated: np.ndarray
    n_both: np.ndarray
    energy_real: np.ndarray
    energy_generated: np.ndarray
    square_real: np.ndarray
    square_generated: np.ndarray
    product: np.ndarray

    @property
    def n_firing(self) -> np.ndarray:
        """[K] images of both arms that show the concept."""
        return self.n_real + self.n_generated


def sum_pairs(real: sp.csr_array, generated: sp.csr_array) -> Sums:
    """The sums of n units of image codes [n, K]; rows agree, codes are 0 or more."""
    n, n_concepts = real.shape
    real, generated = active_rows(real), active_rows(generated)
    both = sp.csr_array(real.multiply(generated))

    def count(codes: sp.csr_array) -> np.ndarray:
        return np.bincount(codes.indices, minlength=n_concepts)

    def total(codes: sp.csr_array, values: np.ndarray) -> np.ndarray:
        # Of nothing it makes whole numbers.
        return np.bincount(codes.indices, values, minlength=n_concepts).astype(np.float64)

    return Sums(
        n=n,
        n_real=count(real),
        n_generated=count(generated),
        n_both=count(both),
        energy_real=total(real, real.data),
        energy_generated=total(generated, generated.data),
        square_real=total(real, np.square(real.data)),
        square_generated=total(generated, np.square(generated.data)),
        product=total(both, both.data),
    )


def merge(left: Sums, right: Sums) -> Sums:
    """The sums of two disjoint parts of the units, whichever comes first."""
    return Sums(*(a + b for a, b in zip(left, right, strict=True)))
