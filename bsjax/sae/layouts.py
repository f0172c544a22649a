"""Two ways to hold the active codes of a batch, with one vocabulary for what is done with them.

A gradient written in these words (`bsjax.sae.gradient`) holds for both:

* `Masked`: matrices [N, K] with zeros. Everything is a matrix product or passes over whole arrays,
  which accelerators are made for.
* `Compact`: the active entries alone, [A]. With 5 of thousands of codes active the products with
  the dictionary become gathers and scatters of a few rows, which pays on CPUs and on GPUs (whose
  scatters add in no fixed order: two runs agree but for rounding).

An *entry* is an active (token, concept) pair; values of entries have the shape of `values`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Entries = Float[Array, "..."] | Int[Array, "..."]


def matmul(a: Float[Array, "n m"], b: Float[Array, "m k"], dtype: str) -> Float[Array, "n k"]:
    """a @ b with operands in `dtype`, summed and returned in float32."""
    # Of bfloat16 numbers one pass is exact, whatever precision products in float32 are to have.
    precision = "default" if dtype == "bfloat16" else None
    return jnp.matmul(
        a.astype(dtype), b.astype(dtype), precision=precision, preferred_element_type=jnp.float32
    )


def in_two_passes(product: Callable[[Array], Array], operand: Float[Array, "..."]) -> Array:
    """A matrix product in bfloat16, whose other operand holds bfloat16 numbers, of a float32 one.

    Of the three products that make up one in float32 on a TPU (the precision "high": high x high,
    high x low, low x high) the third is then zero, and is not made.

    Args:
      product: of an operand, linear in it.
      operand: float32.
    """
    # Not a cast there and back, which XLA may leave out.
    high = jax.lax.reduce_precision(operand, exponent_bits=8, mantissa_bits=7)
    return product(high) + product(operand - high)


def stored(array: Float[Array, "..."], dtype: str) -> Float[Array, "..."]:
    """The float32 array in `dtype`: half the bytes accessed in bfloat16."""
    if dtype == "float32":
        return array
    # Behind a barrier, or XLA would take rounding there and back for nothing and keep float32.
    return jax.lax.optimization_barrier(array.astype(dtype))


class Masked(NamedTuple):
    """Codes with zeros where inactive."""

    values: Float[Array, "N K"]
    dtype: str

    def of_tokens(self, vector: Float[Array, " N"]) -> Entries:
        """Each entry's element of a vector over tokens."""
        return vector[:, None]

    def of_concepts(self, vector: Float[Array, " K"]) -> Entries:
        """Each entry's element of a vector over concepts."""
        return vector[None]

    def of_matrix(self, matrix: Float[Array, "N K"]) -> Entries:
        """Each entry's element of a matrix."""
        return matrix

    def sum_by_token(self, entries: Entries) -> Float[Array, " N"]:
        """Sums the entries of each token."""
        return jnp.sum(entries, axis=1)

    def sum_by_concept(self, entries: Entries) -> Float[Array, " K"] | Int[Array, " K"]:
        """Sums the entries of each concept."""
        return jnp.sum(entries, axis=0)

    def times_atoms(self, entries: Entries, D: Float[Array, "K D"]) -> Float[Array, "N D"]:
        """entries @ D: rows of D summed by token."""
        return matmul(entries, D, self.dtype)

    def times_tokens(
        self, entries: Entries, x: Float[Array, "N D"], dtype: str = ""
    ) -> Float[Array, "K D"]:
        """entries^T @ x: rows of x summed by concept; in `dtype`, or the layout's."""
        return matmul(entries.T, x, dtype or self.dtype)

    def inner(self, x: Float[Array, "N D"], D: Float[Array, "K D"]) -> Entries:
        """x[token] . D[concept] of each entry, 0 elsewhere."""
        return jnp.where(self.values > 0, matmul(x, D.T, self.dtype), 0.0)


class Compact(NamedTuple):
    """The active entries alone; those with value 0 fill the room left."""

    values: Float[Array, " A"]
    tokens: Int[Array, " A"]
    concepts: Int[Array, " A"]
    n_tokens: int
    n_concepts: int

    def of_tokens(self, vector: Float[Array, " N"]) -> Entries:
        return vector[self.tokens]

    def of_concepts(self, vector: Float[Array, " K"]) -> Entries:
        return vector[self.concepts]

    def of_matrix(self, matrix: Float[Array, "N K"]) -> Entries:
        return matrix[self.tokens, self.concepts]

    def sum_by_token(self, entries: Entries) -> Float[Array, " N"]:
        return jnp.zeros(self.n_tokens, entries.dtype).at[self.tokens].add(entries)

    def sum_by_concept(self, entries: Entries) -> Float[Array, " K"] | Int[Array, " K"]:
        return jnp.zeros(self.n_concepts, entries.dtype).at[self.concepts].add(entries)

    def times_atoms(self, entries: Entries, D: Float[Array, "K D"]) -> Float[Array, "N D"]:
        rows = entries[:, None] * D[self.concepts]
        return jnp.zeros((self.n_tokens, D.shape[1]), D.dtype).at[self.tokens].add(rows)

    def times_tokens(
        self, entries: Entries, x: Float[Array, "N D"], dtype: str = ""
    ) -> Float[Array, "K D"]:
        del dtype  # no matrix product is made
        rows = entries[:, None] * x[self.tokens]
        return jnp.zeros((self.n_concepts, x.shape[1]), x.dtype).at[self.concepts].add(rows)

    def inner(self, x: Float[Array, "N D"], D: Float[Array, "K D"]) -> Entries:
        products = jnp.sum(x[self.tokens] * D[self.concepts], axis=1)
        return jnp.where(self.values > 0, products, 0.0)


Layout = Masked | Compact


def compact(codes: jax.Array, active: tuple) -> Compact:
    """The compact layout of what `batch_topk.select_active` found in codes [N, K]."""
    return Compact(*active, *codes.shape)
