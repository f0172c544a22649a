"""Streaming concept statistics: codes of one batch in, running totals out (METHOD section 4).

The device encodes the tokens of a batch, reduces their codes to per-image numbers (`reduce_tokens`)
and keeps the list of top images (`update_top_images`); both are pure and are jitted by the stage
over the mesh.
The host adds the images up in float64 (`add_images`), image by image, so that totals depend neither
on the batch size nor on the number of devices and hosts.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jaxtyping import Array, Bool, Float, Int

from bsjax.core.dims import Grid
from bsjax.stats.copies import Sketch
from bsjax.stats.sparse_codes import CompactCodes, compact_codes, is_complete

# Dense codes of the tokens that a CPU works on at once: few arrays of that size stay in its caches,
# and below the 32 MiB from which on glibc fetches fresh memory from the system at every step.
PART_BYTES = 12_000_000
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


def reduce_tokens(
    encode: Callable[[Float[Array, "N D"]], Float[Array, "N K"]],
    tokens: Float[Array, "B T D"],
    mask: Bool[Array, " B"],
    grid: Grid,
    n_concepts: int,
    n_kept: int,
) -> tuple[BatchStatistics, CompactCodes]:
    """Encodes the tokens of a batch and reduces the codes; images with a False mask count nothing.

    Accelerators sum the dense codes: one pass, always in the same order. A CPU takes a few tokens
    at a time and adds up the compact codes, a five-hundredth of the numbers, unless a token has
    more than were kept; token by token either way, with the same bits.

    Args:
      encode: tokens to codes, each token by itself.
      tokens: of the images.
      mask: of the images that count.
      grid: how an image's tokens lie.
      n_concepts: K.
      n_kept: codes kept of each token.
    """
    sizes = {"encode": encode, "grid": grid, "n_concepts": n_concepts, "n_kept": n_kept}
    (special, patches), fires, compact = jax.lax.platform_dependent(
        tokens,
        mask,
        cpu=functools.partial(_sums_by_parts, **sizes),
        default=functools.partial(_sums_at_once, **sizes),
    )
    energy = special + patches
    statistics = BatchStatistics(
        image_energy=energy,
        patch_mean=patches / grid.n_patches,
        fires=jnp.sum(fires, axis=0),
        present=jnp.sum(energy > 0, axis=0, dtype=jnp.int32),
    )
    return statistics, compact


def _sums_at_once(
    tokens: Float[Array, "B T D"], mask: Bool[Array, " B"], *, encode, grid, n_concepts, n_kept
):
    """Sums over special and over patch tokens, counts of active tokens, each [B, K]; the codes."""
    codes = encode(tokens.reshape(-1, tokens.shape[2])).reshape(*tokens.shape[:2], n_concepts)
    compact = compact_codes(codes, mask, n_kept)
    codes = jnp.where(mask[:, None, None], codes, 0.0)
    special = jnp.sum(codes[:, : grid.n_special], axis=1)
    patches = jnp.sum(codes[:, grid.n_special :], axis=1)
    return (special, patches), jnp.sum(codes > 0, axis=1, dtype=jnp.int32), compact


def _sums_by_parts(
    tokens: Float[Array, "B T D"], mask: Bool[Array, " B"], *, encode, grid, n_concepts, n_kept
):
    """The same, a part of each image's tokens at a time."""
    batch, n_tokens, width = tokens.shape
    n_parts = -(-4 * n_tokens * n_concepts // PART_BYTES)
    length = -(-n_tokens // n_parts)
    n_parts = -(-n_tokens // length)
    rest = ((0, 0), (0, n_parts * length - n_tokens), (0, 0))
    parts = jnp.pad(tokens, rest).reshape(batch, n_parts, length, width).swapaxes(0, 1)
    places = jnp.arange(n_parts * length).reshape(n_parts, length)

    def add(sums, part):
        tokens, places = part  # [B, t, D], [t]
        codes = encode(tokens.reshape(-1, width)).reshape(batch, length, n_concepts)
        kept = mask[:, None] & (places < n_tokens)[None]  # [B, t]
        compact = compact_codes(codes, kept, n_kept)
        kind = jnp.where(places < grid.n_special, 0, 1)  # [t]
        sums = jax.lax.cond(
            is_complete(compact, n_concepts),
            _add_compact,
            _add_dense,
            sums,
            kind,
            compact,
            codes,
            kept,
        )
        return sums, compact

    zeros = jnp.zeros((batch, 2, n_concepts), tokens.dtype)
    none = (zeros, jnp.zeros((batch, n_concepts), jnp.int32))
    (energy, fires), compact = jax.lax.scan(add, none, (parts, places))
    compact = jax.tree.map(
        lambda leaf: leaf.swapaxes(0, 1).reshape(batch, n_parts * length, -1)[:, :n_tokens], compact
    )
    return (energy[:, 0], energy[:, 1]), fires, compact


def _add_compact(sums, kind, compact, codes, kept):
    del codes, kept

    def add(energy, fires, values, concepts):  # [2, K], [K], [t, k] of one image
        energy = energy.at[kind[:, None], concepts].add(values)
        return energy, fires.at[concepts].add((values > 0).astype(jnp.int32))

    return jax.vmap(add)(*sums, *compact)


def _add_dense(sums, kind, compact, codes, kept):
    """One token after the other, as `_add_compact`; rarely needed."""
    del compact

    def add(i, sums):
        energy, fires = sums
        code = jnp.where(kept[:, i, None], codes[:, i], 0.0)  # [B, K]
        return energy.at[:, kind[i]].add(code), fires + (code > 0).astype(jnp.int32)

    return jax.lax.fori_loop(0, codes.shape[1], add, sums)


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
