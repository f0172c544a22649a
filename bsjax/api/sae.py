"""Sparse autoencoders: tokens -> codes -> tokens, on arrays."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp

from bsjax.api.arguments import naming_arguments
from bsjax.convert.rasae import LoadedSAE, load_rasae
from bsjax.core.errors import UserError
from bsjax.experiment.inputs import threshold_of
from bsjax.sae.dictionary import decode
from bsjax.sae.encoder import codes_of

NAMES = {"sae.weights": "source", "sae.threshold": "threshold"}
BLOCK_VALUES = 1 << 25  # dense codes that are on the device at a time


@dataclasses.dataclass(frozen=True, eq=False)
class SAE:
    """A sparse autoencoder ready for inference.

    Attributes:
      loaded: encoder, dictionary and where they come from; host arrays, float32.
      threshold: codes from it on fire: one for all concepts, or one for each [K].
    """

    loaded: LoadedSAE
    threshold: float | np.ndarray

    def __repr__(self) -> str:
        return f"SAE({self.source}: {self.n_concepts} concepts of width {self.width})"

    @property
    def dictionary(self) -> np.ndarray:
        """[K, D] float32: the atom of each concept."""
        return self.loaded.dictionary

    @property
    def width(self) -> int:
        """Features of a token, D."""
        return self.loaded.width

    @property
    def n_concepts(self) -> int:
        """K."""
        return self.loaded.n_concepts

    @property
    def source(self) -> str:
        """What it was loaded from."""
        return self.loaded.source

    @property
    def digest(self) -> str:
        """Tells its weights from others."""
        return self.loaded.digest

    @functools.cached_property
    def _placed(self) -> tuple[Any, jax.Array, jax.Array]:
        """Encoder, threshold and dictionary on the device."""
        placed = (self.loaded.encoder, np.float32(self.threshold), self.dictionary)
        return jax.tree.map(jnp.asarray, placed)

    def encode(self, tokens: Any, *, sparse: bool = False) -> np.ndarray | sp.csr_array:
        """Codes of tokens: relu(LayerNorm(tokens W + b)) where it reaches the threshold, else 0.

        LayerNorm is over the K concepts (arXiv:2502.12892, as published).

        Args:
          tokens: [..., D], such as `Encoder.encode` gives them.
          sparse: a matrix instead of an array: with 32,000 concepts and 261 tokens per image dense
            codes take 33 MB per image, sparse ones 20 kB.

        Returns:
          [..., K] float32; or scipy.sparse CSR [N, K], N tokens one below the other.

        Raises:
          UserError: not numbers of that width, or values that are not finite.
        """
        tokens = self._checked(tokens, "tokens", self.width)
        flat = tokens.reshape(-1, self.width)
        encoder, threshold, _ = self._placed
        parts = []
        for rows in self._blocks(len(flat)):
            codes = np.asarray(_encode(encoder, threshold, flat[rows]))
            parts.append(sp.csr_array(codes) if sparse else codes)
        if sparse:
            empty = sp.csr_array((0, self.n_concepts), dtype=np.float32)
            return sp.csr_array(sp.vstack(parts, format="csr")) if parts else empty
        found = np.concatenate(parts) if parts else np.empty((0, self.n_concepts), np.float32)
        return found.reshape(*tokens.shape[:-1], self.n_concepts)

    def decode(self, codes: Any) -> np.ndarray:
        """Reconstruction of tokens: codes times the dictionary.

        Args:
          codes: [..., K], or scipy.sparse [N, K].

        Returns:
          [..., D] float32.

        Raises:
          UserError: not numbers of that many concepts, or values that are not finite.
        """
        if sp.issparse(codes):
            codes = sp.csr_array(codes)
            self._checked(codes.data, "codes")
            _require_width("codes", codes.shape, self.n_concepts, "concepts")
            return np.asarray(codes.astype(np.float32) @ self.dictionary)
        codes = self._checked(codes, "codes", self.n_concepts)
        flat = codes.reshape(-1, self.n_concepts)
        parts = [
            np.asarray(_decode(flat[rows], self._placed[2])) for rows in self._blocks(len(flat))
        ]
        found = np.concatenate(parts) if parts else np.empty((0, self.width), np.float32)
        return found.reshape(*codes.shape[:-1], self.width)

    def _blocks(self, n: int) -> list[slice]:
        size = max(BLOCK_VALUES // self.n_concepts, 1)
        return [slice(start, start + size) for start in range(0, n, size)]

    def _checked(self, values: Any, name: str, width: int | None = None) -> np.ndarray:
        array = as_numbers(values, name)
        if width is not None:
            _require_width(name, array.shape, width, "features" if name == "tokens" else "concepts")
        if not np.isfinite(array).all():
            raise UserError(f"{{{name}}} has values that are not finite", name)
        return array


def load_sae(source: str, *, threshold: float | None = None) -> SAE:
    """Loads a sparse autoencoder for inference.

    Args:
      source: hub id, `.pth` in the published form (read without torch and without executing
        anything in it), `.safetensors`, or the sae folder of a workdir (or the workdir).
      threshold: codes from it on fire; None: the checkpoint's own, else the published 0.829.

    Raises:
      UserError: no such file, damaged, of another form, with values that are not finite, or asking
        to run code.
    """
    if threshold is not None and not 0 <= threshold < np.inf:
        raise UserError(f"{{threshold}}={threshold}: expected 0 or more; set it so", "threshold")
    source = str(source)
    with naming_arguments(NAMES):
        loaded = load_rasae(source)
    return SAE(loaded, threshold_of(loaded, threshold, source, "threshold"))


def as_numbers(values: Any, name: str) -> np.ndarray:
    """An array of floats, from whatever holds real numbers.

    Raises:
      UserError: it does not.
    """
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{{{name}}} is no array of numbers: {error}", name) from error
    if array.dtype.kind not in "fiub" and array.dtype.name != "bfloat16":
        raise UserError(f"{{{name}}} is an array of {array.dtype}; expected real numbers", name)
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)


def _require_width(name: str, shape: tuple[int, ...], width: int, what: str) -> None:
    if not shape or shape[-1] != width:
        raise UserError(
            f"{{{name}}} has the shape {list(shape)}; expected [..., {width}], the SAE's {what}",
            name,
        )


@jax.jit
def _encode(encoder: Any, threshold: jax.Array, tokens: jax.Array) -> jax.Array:
    return codes_of(encoder, tokens, threshold)


@jax.jit
def _decode(codes: jax.Array, D: jax.Array) -> jax.Array:
    with jax.default_matmul_precision("highest"):
        return decode(codes, D)
