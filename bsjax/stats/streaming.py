"""Streaming concept statistics: codes of one batch in, running totals out (METHOD section 4).

The device reduces a batch of codes [B, T, K] to per-image numbers (`reduce_batch`) and keeps the
list of top images (`update_top_images`); both are pure and are jitted by the stage over the mesh.
The host adds the images up in float64 (`add_images`), image by image, so that totals depend neither
on the batch size nor on the number of devices and hosts.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jaxtyping import Array, Bool, Float, Int

from bsjax.core.dims import Grid
from bsjax.stats.copies import Sketch
from bsjax.stats.sparse_codes import CompactCodes, is_complete

FEW = 4  # images of a batch, up to which putting each in its place takes less time than a sort


class BatchStatistics(NamedTuple):
    """What the device leaves of a batch of codes. Rows of masked images are zero."""

    image_energy: Float[Array, "B K"]  # sum of codes over all T tokens
    patch_mean: Float[Array, "B K"]  # mean code over the P patch tokens
    fires: Int[Array, " K"]  # (image, token) pairs with a code above zero
    present: Int[Array, " K"]  # images with any code above zero
    sketch: Sketch | None = None  # of the patch tokens; None where there are none


class TopImages(NamedTuple):
    """The L images of each concept with the largest mean code over patches, best first."""

    scores: Float[Array, "K L"]  # 0 where the list is not full
    rows: Int[Array, "K L"]  # index of the image, -1 where the list is not full


def reduce_batch(
    codes: Float[Array, "B T K"], compact: CompactCodes, mask: Bool[Array, " B"], grid: Grid
) -> BatchStatistics:
    """Reduces the codes of a batch; images with a False mask count nothing.

    Accelerators sum the dense codes: one pass, always in the same order. A CPU adds up the compact
    codes, a five-hundredth of the numbers, unless a token has more than were kept.
    """
    special, patches, fires = jax.lax.platform_dependent(
        codes,
        compact,
        mask,
        cpu=functools.partial(_sums_sparse_if_complete, grid=grid),
        default=functools.partial(_sums_dense, grid=grid),
    )
    energy = special + patches
    return BatchStatistics(
        image_energy=energy,
        patch_mean=patches / grid.n_patches,
        fires=jnp.sum(fires, axis=0),
        present=jnp.sum(energy > 0, axis=0, dtype=jnp.int32),
    )


def _sums_dense(
    codes: Float[Array, "B T K"], compact: CompactCodes, mask: Bool[Array, " B"], grid: Grid
):
    """Sums over special and over patch tokens, and counts of active tokens, each [B, K]."""
    del compact
    codes = jnp.where(mask[:, None, None], codes, 0.0)
    special = jnp.sum(codes[:, : grid.n_special], axis=1)
    patches = jnp.sum(codes[:, grid.n_special :], axis=1)
    return special, patches, jnp.sum(codes > 0, axis=1, dtype=jnp.int32)


def _sums_sparse(
    codes: Float[Array, "B T K"], compact: CompactCodes, mask: Bool[Array, " B"], grid: Grid
):
    """The same from the compact codes, if those are complete; they are zero of masked images."""
    del mask

    def add_up(values, concepts):  # [T, k] of one image
        zeros = jnp.zeros(codes.shape[2], values.dtype)
        special = zeros.at[concepts[: grid.n_special]].add(values[: grid.n_special])
        patches = zeros.at[concepts[grid.n_special :]].add(values[grid.n_special :])
        fires = zeros.astype(jnp.int32).at[concepts].add((values > 0).astype(jnp.int32))
        return special, patches, fires

    return jax.vmap(add_up)(compact.values, compact.concepts)


def _sums_sparse_if_complete(
    codes: Float[Array, "B T K"], compact: CompactCodes, mask: Bool[Array, " B"], grid: Grid
):
    return jax.lax.cond(
        is_complete(compact, codes.shape[2]),
        functools.partial(_sums_sparse, grid=grid),
        functools.partial(_sums_dense, grid=grid),
        codes,
        compact,
        mask,
    )


def init_top_images(n_concepts: int, n_top: int) -> TopImages:
    """Empty lists of length `n_top`."""
    return TopImages(
        scores=jnp.zeros((n_concepts, n_top), jnp.float32),
        rows=jnp.full((n_concepts, n_top), -1, jnp.int32),
    )


def update_top_images(
    top: TopImages, patch_mean: Float[Array, "B K"], rows: Int[Array, " B"]
) -> TopImages:
    """Merges a batch into the lists. Of equal scores the image seen first stays in front."""
    if len(rows) <= FEW:
        for score, row in zip(patch_mean, rows, strict=True):
            top = _with_image(top, score, row)
        return top
    n_top = top.scores.shape[1]
    scores = jnp.concatenate([top.scores, patch_mean.T], axis=1)  # [K, L + B]
    new_rows = jnp.broadcast_to(rows[None, :], patch_mean.T.shape)
    candidates = jnp.concatenate([top.rows, new_rows], axis=1)
    best, place = jax.lax.top_k(scores, n_top)  # [K, L]
    kept = jnp.take_along_axis(candidates, place, axis=1)
    return TopImages(scores=best, rows=jnp.where(best > 0, kept, -1))


def _with_image(top: TopImages, score: Float[Array, " K"], row: Int[Array, ""]) -> TopImages:
    """One image put into the lists, where it belongs in them."""
    place = jnp.sum(top.scores >= score[:, None], axis=1, keepdims=True)  # [K, 1]
    slots = jnp.arange(top.scores.shape[1])[None]

    def put_in(old, new):
        shifted = jnp.roll(old, 1, axis=1)
        return jnp.where(slots < place, old, jnp.where(slots == place, new, shifted))

    scores = put_in(top.scores, score[:, None])
    return TopImages(scores, jnp.where(scores > 0, put_in(top.rows, row[None, None]), -1))


def empty_top_images(n_concepts: int, n_top: int) -> TopImages:
    """`init_top_images` on the host."""
    scores = np.zeros((n_concepts, n_top), np.float32)
    return TopImages(scores, np.full((n_concepts, n_top), -1, np.int32))


def merge_top_images(first: TopImages, then: TopImages) -> TopImages:
    """The lists of two parts of a set, on the host; of equal scores those of `first` stay in front.

    What `update_top_images` makes of all images, where the parts come in the order of the images.
    """
    n_top = first.scores.shape[1]
    scores, rows = np.array(first.scores), np.array(first.rows)
    # Once the lists are long most of a part is no match for them.
    changed = np.flatnonzero(then.scores[:, 0] > scores[:, -1])
    both = np.concatenate([scores[changed], then.scores[changed]], axis=1)
    candidates = np.concatenate([rows[changed], then.rows[changed]], axis=1)
    best = np.argsort(-both, axis=1, kind="stable")[:, :n_top]
    scores[changed] = np.take_along_axis(both, best, axis=1)
    rows[changed] = np.take_along_axis(candidates, best, axis=1)
    return TopImages(scores, rows)


def top_by_energy(image_codes: sp.csr_array, n_top: int) -> np.ndarray:
    """Images with the largest energy of each concept, best first [K, L]; -1 where none are left.

    Differs: the reference ranks by patches alone and shows nothing for a concept that fires on
    class and register tokens only. Those are ranked by this.

    Args:
      image_codes: energies [n, K]. Of equal ones the image seen first stays in front.
      n_top: L.
    """
    by_concept = image_codes.tocsc()
    rows = np.full((image_codes.shape[1], n_top), -1, np.int32)
    for concept in range(image_codes.shape[1]):
        part = slice(by_concept.indptr[concept], by_concept.indptr[concept + 1])
        images, energies = by_concept.indices[part], by_concept.data[part]
        order = np.lexsort((images, -energies))[:n_top]
        rows[concept, : order.size] = images[order]
    return rows


class Totals(NamedTuple):
    """Sums over images, on the host: float64 and int64 [K]."""

    n_images: int
    energy: np.ndarray
    energy_squared: np.ndarray
    fires: np.ndarray
    present: np.ndarray


def init(n_concepts: int) -> Totals:
    """No image yet."""
    zeros, counts = np.zeros(n_concepts), np.zeros(n_concepts, np.int64)
    return Totals(0, zeros, zeros, counts, counts)


def update(totals: Totals, batch: BatchStatistics, mask: np.ndarray) -> Totals:
    """Adds a batch (fetched to the host) to the totals."""
    energy = np.asarray(batch.image_energy, np.float64)[np.asarray(mask)]
    return Totals(
        n_images=totals.n_images + energy.shape[0],
        energy=totals.energy + energy.sum(axis=0),
        energy_squared=totals.energy_squared + np.square(energy).sum(axis=0),
        fires=totals.fires + np.asarray(batch.fires, np.int64),
        present=totals.present + np.asarray(batch.present, np.int64),
    )


def add_images(
    totals: Totals, codes: sp.csr_array, fires: np.ndarray, present: np.ndarray
) -> Totals:
    """Adds images to the totals, one after the other.

    So the sums are the same to the last bit for any batch, number of devices and division into
    parts, where these come in the order of the images.

    Args:
      totals: of the images before.
      codes: energies [n, K] of each image; float32.
      fires: tokens of all of them [K].
      present: images [K].
    """
    energy, squared = totals.energy.copy(), totals.energy_squared.copy()
    values = codes.data.astype(np.float64)
    # In the order of the entries, unlike sum: image by image.
    np.add.at(energy, codes.indices, values)
    np.add.at(squared, codes.indices, np.square(values))
    return Totals(
        totals.n_images + codes.shape[0],
        energy,
        squared,
        totals.fires + np.asarray(fires, np.int64),
        totals.present + np.asarray(present, np.int64),
    )


def merge(left: Totals, right: Totals) -> Totals:
    """Totals of two disjoint parts of a set."""
    return Totals(*(a + b for a, b in zip(left, right, strict=True)))


def finalize(totals: Totals) -> dict[str, np.ndarray]:
    """Per-concept statistics of a set of n images.

    Returns:
      energy: mean over images of the sum of codes over tokens.
      energy_sd: standard deviation of that sum over images (n - 1 in the denominator).
      fires: number of (image, token) pairs with a code above zero.
      prevalence: share of images with a code above zero.
    """
    n = max(totals.n_images, 1)
    energy = totals.energy / n
    centred = np.maximum(totals.energy_squared - n * np.square(energy), 0.0)
    return {
        "energy": energy,
        "energy_sd": np.sqrt(centred / max(n - 1, 1)),
        "fires": totals.fires,
        "prevalence": totals.present / n,
    }
