"""Which pairs are repetitions of one another: the same caption, or the same real image.

Rows are no units: captions that come five times (COCO has five an image, LAION duplicates) make
five rows out of one piece of evidence.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from scipy.sparse import csgraph

# Cosine of the codes of two real images from which on they count as the same image.
SAME_IMAGE = 0.99
# Concepts that both show, below which a cosine says little: plain images are alike.
LEAST_CONCEPTS = 8
# Sketch of the codes that finds candidates: its cosine misses the true one by at most about
# (1 - cosine^2) / sqrt(width), 0.0025 at 0.99, so nothing above `SAME_IMAGE` is below `CANDIDATE`.
SKETCH_WIDTH, CANDIDATE = 64, 0.95
ROWS_PER_BLOCK = 2048


def find_clusters(
    captions: Sequence[str] | None,
    real: sp.csr_array | None,
    same_image: float = SAME_IMAGE,
    twins: np.ndarray | None = None,
    known: np.ndarray | None = None,
) -> np.ndarray:
    """Labels [n] of the pairs' clusters, numbered in order of first mention.

    Args:
      captions: pairs of one caption belong together; an empty one is like no other. None: do not
        look at captions.
      real: image codes [n, K]; pairs of one real image belong together. None: do not look.
      same_image: least cosine of two images that are the same.
      twins: rows [M, 2] of images that are the same, where that is known better than from codes.
      known: rows [M, 2] that belong together whatever captions and images say.
    """
    links = [] if known is None else [tuple(link) for link in known.tolist()]
    n = len(captions) if captions is not None else real.shape[0]
    if captions is not None:
        first: dict[str, int] = {}
        links += [
            (first.setdefault(text, row), row) for row, text in enumerate(captions) if text.strip()
        ]
    if real is not None:
        found = alike(real, same_image) if twins is None else twins
        links += [tuple(link) for link in found]
    return join(np.array(links, np.int64).reshape(-1, 2), n)


def join(pairs: np.ndarray, n: int) -> np.ndarray:
    """Labels [n] of what pairs of rows [M, 2] hold together, in order of first mention."""
    graph = sp.coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    return number(csgraph.connected_components(graph, directed=False)[1])


def within(twins: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    """The pairs of rows [M, 2] of which both are among `rows`, as places in these."""
    if twins is None:
        return None
    place = np.full(max(int(rows.max(initial=0)), int(twins.max(initial=0))) + 1, -1)
    place[rows] = np.arange(rows.size)
    moved = place[twins]
    return moved[(moved >= 0).all(axis=1)]


def number(labels: Sequence[object] | np.ndarray) -> np.ndarray:
    """Labels [n] as whole numbers, in order of first mention."""
    places: dict[object, int] = {}
    return np.array([places.setdefault(label, len(places)) for label in labels], np.int64)


def alike(codes: sp.csr_array, least: float) -> np.ndarray:
    """Pairs of rows [M, 2] that share 8 concepts or more and whose cosine is at least `least`.

    A random projection finds candidates in blocks, the codes themselves decide.
    """
    norms = np.sqrt(codes.astype(np.float64).power(2).sum(axis=1))
    rows = np.flatnonzero((codes > 0).sum(axis=1) >= LEAST_CONCEPTS)
    unit = sp.csr_array(codes[rows].astype(np.float64).multiply(1 / norms[rows, None]))
    directions = np.random.default_rng(0).standard_normal((codes.shape[1], SKETCH_WIDTH))
    sketch = unit @ directions
    sketch /= np.maximum(np.linalg.norm(sketch, axis=1, keepdims=True), 1e-30)
    sketch = jnp.asarray(sketch, jnp.float32)
    found = [np.empty((0, 2), np.int64)]
    for start in range(0, len(rows), ROWS_PER_BLOCK):
        block = sketch[start : start + ROWS_PER_BLOCK]
        left, right = np.nonzero(np.asarray(_exceeds(block, sketch[start:])))
        left, right = left[right > left] + start, right[right > left] + start
        products = sp.csr_array(unit[left].multiply(unit[right]))
        keep = (products.sum(axis=1) >= least) & ((products > 0).sum(axis=1) >= LEAST_CONCEPTS)
        found.append(np.stack([rows[left[keep]], rows[right[keep]]], axis=1))
    return np.concatenate(found)


@jax.jit
def _exceeds(block: jax.Array, sketch: jax.Array) -> jax.Array:
    return jnp.matmul(block, sketch.T, precision="highest") >= CANDIDATE


def averages(labels: np.ndarray) -> sp.csr_array:
    """[clusters, n] whose product with codes [n, K] averages those of each cluster."""
    weights = 1.0 / np.bincount(labels)[labels]
    shape = (int(labels.max(initial=-1)) + 1, len(labels))
    return sp.csr_array((weights, (labels, np.arange(len(labels)))), shape=shape)


def draw(labels: np.ndarray, seed: int) -> np.ndarray:
    """One row of each cluster, by chance, in the order of the clusters."""
    order = np.random.default_rng(seed).permutation(len(labels))
    _, first = np.unique(labels[order], return_index=True)
    return order[first]
