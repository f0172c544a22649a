"""The first phase of `generate` where the text encoder is too large to stay: features on disk.

Each different caption is encoded once, in chunks that survive a kill; the encoder's parameters lie
divided over all devices, and leave memory before the sampler's come.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from bsjax.core import checksums
from bsjax.core.artifacts import atomic_path, identity_of
from bsjax.core.errors import UserError
from bsjax.core.logs import progress
from bsjax.core.mesh import make_mesh, put, replicated
from bsjax.core.paths import AnyPath
from bsjax.core.precision import matmul_precision
from bsjax.generators.loading import Opened, abstract_params
from bsjax.generators.protocol import Generator

CHUNK = 64  # captions per file
BATCH = 16  # captions per call of the encoder


class TextFeatures:
    """Features of all captions: made where they are missing, then read batch by batch.

    Args:
      folder: where the chunks lie.
      opened: a generator with a first phase.
      captions: of all prompts, in their order.
      chunk: captions per file.
      batch: captions per call of the encoder.
      identity: what the chunks belong to; None: as the folder above says.
    """

    def __init__(
        self,
        folder: AnyPath,
        opened: Opened,
        captions: Sequence[str],
        chunk: int = CHUNK,
        batch: int = BATCH,
        identity: str | None = None,
    ):
        self._of = identity_of(folder.parent) if identity is None else identity
        self.folder, self.opened = folder, opened
        self.chunk_size, self.batch_size = chunk, batch
        self.unique = list(dict.fromkeys(["", *captions]))  # the empty one guides
        place = {caption: i for i, caption in enumerate(self.unique)}
        self.rows = np.asarray([place[caption] for caption in captions])
        tokens = opened.generator.prompts(self.unique)
        self.arrays = tokens.arrays
        self.dtype = jnp.dtype(opened.generator.settings.dtype)
        self._chunks: dict[int, list[np.ndarray]] = {}

    def make(self) -> None:
        """Encodes what is not there yet."""
        paths = {i: self._path(i) for i in range(-(-len(self.unique) // self.chunk_size))}
        missing = [i for i, path in paths.items() if not self._is_whole(i, path)]
        if not missing:
            return
        generator = self.opened.generator
        mesh = make_mesh(1, -1, jax.local_devices())
        names = generator.TEXT_COMPONENTS
        shapes = abstract_params(generator, names)
        params = self.opened.place_params(names, text_shardings(generator, shapes, mesh))
        encode = jit_encode(generator, mesh)
        with progress("encode prompts", len(missing) * self.chunk_size, unit="prompt") as bar:
            for i in missing:
                rows = np.arange(
                    i * self.chunk_size, min((i + 1) * self.chunk_size, len(self.unique))
                )
                found = []
                for start in range(0, len(rows), self.batch_size):
                    part = np.resize(rows[start : start + self.batch_size], self.batch_size)
                    batch = {name: array[part] for name, array in self.arrays.items()}
                    found.append(np.asarray(encode(params, put(batch, replicated(mesh)))))
                features = np.concatenate(found)[: len(rows)]
                masks = self.arrays["mask"][rows]
                with atomic_path(paths[i]) as temporary:
                    # npz does not know bfloat16; padding is not kept.
                    values = features[masks].view(np.uint8)
                    lengths = masks.sum(axis=1)
                    checksums.save_arrays(
                        temporary, self._identity(i), values=values, lengths=lengths
                    )
                bar.update(self.chunk_size)

    def batch(self, places: np.ndarray) -> dict[str, np.ndarray]:
        """Arrays of the sampler for prompts at these places."""
        rows = self.rows[places]
        empty = np.zeros_like(rows)
        return {
            "features": self._features(rows),
            "mask": self.arrays["mask"][rows],
            "empty_features": self._features(empty),
            "empty_mask": self.arrays["mask"][empty],
        }

    def _features(self, rows: np.ndarray) -> np.ndarray:
        masks = self.arrays["mask"][rows]
        found = [self._load(row // self.chunk_size)[row % self.chunk_size] for row in rows]
        features = np.zeros((*masks.shape, found[0].shape[-1]), self.dtype)
        for row, mask, values in zip(features, masks, found, strict=True):
            row[mask] = values
        return features

    def _load(self, chunk: int) -> list[np.ndarray]:
        if chunk not in self._chunks:
            if len(self._chunks) > 16:
                self._chunks.clear()
            path = self._path(chunk)
            try:
                stored = checksums.load_arrays(path, self._identity(chunk))
            except (OSError, ValueError) as error:
                raise UserError(
                    f"{path} cannot be used ({error}); run the same command again: it is made anew"
                ) from error
            ends = np.cumsum(stored["lengths"])[:-1]
            self._chunks[chunk] = np.split(stored["values"].view(self.dtype), ends)
        return self._chunks[chunk]

    def _identity(self, chunk: int) -> str:
        """What a chunk belongs to: this set, and these captions."""
        captions = self.unique[chunk * self.chunk_size : (chunk + 1) * self.chunk_size]
        return f"{self._of}/{checksums.sum_of(captions)}"

    def _is_whole(self, chunk: int, path: AnyPath) -> bool:
        if not path.exists():
            return False
        try:
            checksums.load_arrays(path, self._identity(chunk))
        except (OSError, ValueError) as error:
            logging.warning("%s is made anew: %s", path, error)
            return False
        return True

    def _path(self, chunk: int) -> AnyPath:
        return self.folder / f"features-{chunk:05d}.npz"


def jit_encode(generator: Generator, mesh: Mesh) -> Callable[..., Any]:
    """(params, token arrays) -> features; parameters as `text_shardings` places them."""

    def encode(params, batch):
        with jax.default_matmul_precision(matmul_precision(generator.settings.dtype)):
            return generator.encode_text(params, batch)

    return jax.jit(encode, out_shardings=replicated(mesh))


def text_shardings(generator: Generator, params: Any, mesh: Mesh) -> Any:
    """Where the encoder's parameters lie: over `model`, where their sizes allow."""
    n_devices = mesh.shape["model"]

    def place(path, leaf):
        spec = generator.text_partition(jax.tree_util.keystr(path, simple=True, separator="/"))
        sizes = zip(leaf.shape, spec, strict=False)
        is_even = all(axis is None or size % n_devices == 0 for size, axis in sizes)
        return NamedSharding(mesh, spec if is_even else P())

    return jax.tree_util.tree_map_with_path(place, params)
