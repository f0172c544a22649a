"""How alike two images are, patch by patch: a copy agrees everywhere, two drawings do not.

`sketch_patches` makes of an image's patch tokens what `measure` keeps of them (patches.npz), in the
same step and image by image, so that shards of a set are simply put one behind the other.
`find_likeness` compares sketches, `standardise` says how unusual that is beside other captions.

The choices, by measurement on 1,000 scenes of 8 x 8 patches of width 192: AUROC of z for copies
shifted by a pixel and for mirrored ones, both as JPEG, against scenes drawn again from the same
caption (tests/benchmarks/copies.py does so with the constants below, half of a set being copies):

  kept of a token          bytes a patch   shifted   mirrored
  all, float32             768             0.990     0.987
  128 dimensions           128             0.990     0.987
  96                       96              0.991     0.986
  64                       64              0.989     0.982
  32                       32              0.989     0.977

So 96 dimensions of a fixed random projection are kept, a byte each (at 64 int8 and float32 differ
by less than 0.0001): 25.0 kB an image of 16 x 16 patches, 250 MB for 10,000 images. A pass of
`compare` over the pairs instead would encode every image again. At 64 dimensions: quantiles of 1,
2, 3 and 5 % give 0.991, 0.989, 0.989 and 0.987 (mirrored 0.985, 0.982, 0.980 and 0.976). Each place
that is searched lets other drawings come nearer, so that shift and mirror are charged for: with a
PENALTY of 0, 0.2 and 0.3 shifted copies have 0.984, 0.989 and 0.990, mirrored ones 0.989, 0.982 and
0.973.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int8

FORMAT = 1  # of a sketch: projection, pooling and rounding
N_DIMS = 96  # kept of a token
MAX_SIDE = 16  # patches; finer grids are averaged down to it
QUANTILE = 0.02  # of the cosines over patches
REACH = 1  # patches by which an image may be shifted against the other
PENALTY = 0.2  # of a shift, and of the mirror, in Fisher's z
LARGEST = 0.999  # cosine, since Fisher's z of 1 is infinite
N_OTHERS = 16  # images of other captions that a pair is held against
PSEUDO = 32.0  # degrees of freedom of the common variance, against N_OTHERS - 1 of its own
LEAST_SD = 0.01  # in Fisher's z: sets in which everything is alike
BLAND = 0.25  # share of the real images' median variance over patches
_SEED = 20506


class Sketch(NamedTuple):
    """Patch tokens of B images: mean + scale * values; each image by itself."""

    values: Int8[Array, "B h w c"]
    scale: Float[Array, " B"]
    mean: Float[Array, "B c"]  # over the image's patches


class Likeness(NamedTuple):
    """The best place of one image on the other.

    The patch (y, x) of the first shows what (y + shift_rows, x + shift_columns) of the second does,
    which is mirrored left to right before where `mirrored` is 1.
    """

    similarity: Float[Array, "B M"]  # cosine, the QUANTILE over patches
    evidence: Float[Array, "B M"]  # Fisher's z of it, less what the place is charged for
    shift_rows: Int[Array, "B M"]
    shift_columns: Int[Array, "B M"]
    mirrored: Int[Array, "B M"]


@functools.cache
def projection(width: int) -> np.ndarray:
    """[D, c] orthonormal columns, float32: the same on every host; narrow tokens stay as they are.

    Args:
      width: D, of a token.
    """
    if width <= N_DIMS:
        return np.eye(width, dtype=np.float32)
    rng = np.random.Generator(np.random.Philox(_SEED))
    q, r = np.linalg.qr(rng.standard_normal((width, N_DIMS)))
    return (q * np.sign(np.diagonal(r))).astype(np.float32)


def pooling(side: int) -> np.ndarray:
    """[s, side] weights that average `side` patches into at most MAX_SIDE equal parts, by area."""
    n = min(side, MAX_SIDE)
    edges = np.linspace(0, side, n + 1)
    low, high = edges[:-1, None], edges[1:, None]
    places = np.arange(side)[None]
    cover = np.clip(np.minimum(high, places + 1) - np.maximum(low, places), 0, None)
    return (cover * n / side).astype(np.float32)


def sketch_patches(patches: Float[Array, "B P D"], h: int, w: int) -> Sketch:
    """What is kept of patch tokens, which lie by rows on a grid of h x w.

    Tokens are projected and averaged, both linear: any mean can still be taken off them.
    """
    tokens = jnp.einsum(
        "bpd,dc->bpc", patches.astype(jnp.float32), projection(patches.shape[2]),
        precision="highest", preferred_element_type=jnp.float32,
    ).reshape(patches.shape[0], h, w, -1)  # [B, h, w, c]  # fmt: skip
    if max(h, w) > MAX_SIDE:
        tokens = jnp.einsum("yh,bhwc,xw->byxc", pooling(h), tokens, pooling(w), precision="highest")
    mean = jnp.mean(tokens, axis=(1, 2))
    rest = tokens - mean[:, None, None]
    scale = jnp.max(jnp.abs(rest), axis=(1, 2, 3)) / 127  # [B]
    values = rest / jnp.where(scale > 0, scale, 1)[:, None, None, None]
    return Sketch(jnp.round(values).astype(jnp.int8), scale, mean)


def bytes_an_image(h: int, w: int, width: int) -> int:
    """What is kept of an image with h x w patches of that width."""
    c = min(width, N_DIMS)
    return min(h, MAX_SIDE) * min(w, MAX_SIDE) * c + 4 * (c + 1)


def places(h: int, w: int) -> list[tuple[int, int, int, float]]:
    """(mirrored, shift_rows, shift_columns, penalty) that are tried, the plain one first.

    A shift leaves more than half of a side, or is not tried.
    """
    reach_y, reach_x = (min(REACH, (side - 1) // 2) for side in (h, w))
    found = [
        (mirrored, dy, dx, PENALTY * (mirrored + ((dy, dx) != (0, 0))))
        for mirrored in range(1 + (w > 1))
        for dy in range(-reach_y, reach_y + 1)
        for dx in range(-reach_x, reach_x + 1)
    ]
    return sorted(found, key=lambda place: place[3])


@jax.jit
def find_likeness(first: Sketch, others: Sketch, centre: Float[Array, " c"]) -> Likeness:
    """How alike B images are to M others each, at the best place.

    Args:
      first: of B images.
      others: of B x M.
      centre: mean token of a set, taken off all: what all images share makes none alike.

    Returns:
      Arrays [B, M]. A patch without any content has the cosine 0 with everything.
    """
    left, right = _directions(first, centre), _directions(others, centre)
    h, w = left.shape[1:3]
    left, right = (x.reshape(*x.shape[:-3], h * w, x.shape[-1]) for x in (left, right))
    # Of all patches with all: one matrix product, from which each place takes its own.
    cosines = jnp.einsum(
        "bpc,bmqc->bmpq", left, right, precision="highest", preferred_element_type=jnp.float32
    )
    cosines = cosines.reshape(*cosines.shape[:2], -1)  # [B, M, P * P]
    tried, (met, counts) = places(h, w), _meetings(h, w)
    cosines = jnp.take(cosines, met, axis=-1)  # [B, M, places, P]
    is_met = np.arange(met.shape[1]) < counts[:, None]
    cosines = jnp.where(is_met[None, None], cosines, jnp.inf)
    rank = (QUANTILE * (counts - 1)).astype(np.int32)  # of the quantile, from 0 on
    smallest, _ = jax.lax.top_k(-cosines, int(rank.max()) + 1)  # [B, M, places, n]
    similarity = -smallest[..., np.arange(rank.size), rank]
    evidence = jnp.arctanh(jnp.clip(similarity, -LARGEST, LARGEST))
    evidence -= np.array([[[penalty for *_, penalty in tried]]], np.float32)
    best = jnp.argmax(evidence, axis=-1)  # [B, M]; the first of equals
    mirrored, dy, dx = (jnp.array([place[i] for place in tried])[best] for i in range(3))

    def chosen(values):
        return jnp.take_along_axis(values, best[..., None], axis=-1)[..., 0]

    return Likeness(chosen(similarity), chosen(evidence), dy, dx, mirrored)


@jax.jit
def patch_variance(sketch: Sketch) -> Float[Array, " B"]:
    """Squared distance of the patch tokens of an image from their mean, averaged over patches."""
    squares = jnp.sum(jnp.square(sketch.values.astype(jnp.float32)), axis=-1, dtype=jnp.float32)
    return jnp.square(sketch.scale) * jnp.mean(squares, axis=(1, 2), dtype=jnp.float32)


class Unusual(NamedTuple):
    """How a pair stands beside other captions; float64 [n], NaN where there are none."""

    z: np.ndarray
    null_mean: np.ndarray  # as a cosine


def standardise(evidence: np.ndarray, others: np.ndarray) -> Unusual:
    """How far a pair's evidence lies above that of its real image with images of other captions.

    The standard deviation is moderated over images, as limma does (Smyth 2004): sixteen others say
    little of their own spread.

    Args:
      evidence: [n] of the pairs.
      others: [n, M] of the real image with M generated ones of other captions; NaN: there is none.
    """
    counted = np.isfinite(others)
    n_others = counted.sum(axis=1)
    total = np.where(counted, others, 0.0).sum(axis=1, dtype=np.float64)
    mean = np.divide(total, n_others, out=np.full(len(others), np.nan), where=n_others > 0)
    squares = np.square(np.where(counted, others - mean[:, None], 0.0)).sum(axis=1)
    degrees = np.maximum(n_others - 1, 0)
    if not degrees.sum():
        return Unusual(np.full(len(others), np.nan), np.tanh(mean))
    common = squares.sum() / degrees.sum()
    sd = np.sqrt((squares + PSEUDO * common) / (degrees + PSEUDO))
    return Unusual((evidence - mean) / np.maximum(sd, LEAST_SD), np.tanh(mean))


def is_bland(real: np.ndarray, generated: np.ndarray) -> np.ndarray:
    """Pairs [n] of which one image is so plain that likeness means little.

    Plain cards of one colour come out as alike (z 6.5 in the median) though none is a copy; their
    variance over patches is up to 0.29 of the scenes' median (95 % of them: 0.18), that of the
    plainest of 1,000 scenes 0.29. Numbers of firing concepts overlap (3 to 27, and 10 to 35).

    Args:
      real: variances over patches of the real images [n].
      generated: the same of the generated ones.
    """
    if not real.size:
        return np.zeros(0, bool)
    return np.minimum(real, generated) <= BLAND * np.median(real)


def _meetings(h: int, w: int) -> tuple[np.ndarray, np.ndarray]:
    """Which patches lie on each other at each place.

    Returns:
      Numbers p * P + q of the patches p of one image and q of the other [places, P], those of a
      shift filled up with 0; how many they are [places].
    """
    numbers, found = np.arange(h * w).reshape(h, w), []
    for mirrored, dy, dx, _ in places(h, w):
        turned = numbers[:, ::-1] if mirrored else numbers
        here = numbers[max(-dy, 0) : h - max(dy, 0), max(-dx, 0) : w - max(dx, 0)]
        there = turned[max(dy, 0) : h - max(-dy, 0), max(dx, 0) : w - max(-dx, 0)]
        found.append((here * (h * w) + there).ravel())
    filled = np.stack([np.pad(met, (0, h * w - met.size)) for met in found])
    return filled, np.array([met.size for met in found])


def _directions(sketch: Sketch, centre: Float[Array, " c"]) -> Float[Array, "... h w c"]:
    scale, mean = sketch.scale[..., None, None, None], sketch.mean[..., None, None, :]
    offset = mean - centre.reshape(*(1,) * (mean.ndim - 1), -1)
    tokens = sketch.values.astype(jnp.float32) * scale + offset
    norms = jnp.sqrt(jnp.sum(jnp.square(tokens), axis=-1, keepdims=True, dtype=jnp.float32))
    return tokens / jnp.where(norms > 0, norms, 1)
