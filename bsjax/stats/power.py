"""How many captions does it take to call a concept that changed by a known fold?

The material test asks whether the arm with more of a concept's energy has more than margin /
(1 + margin) of it. N firing images of both arms with the moderated k = 1 + cv^2 of their energies
weigh as M = N / k images of one energy, of which a binomial with pi0 = margin / (1 + margin) says
how much is too much, and one with pi1 = fold / (1 + fold) how often that much is seen. Images of
one pair that show a concept together make the share of an arm steadier than independent ones would
(`pairing`); the test, which does not know, gains power by it.
"""

from typing import NamedTuple

import numpy as np
from scipy import special

from bsjax.stats import ratios
from bsjax.stats.sums import Sums
from bsjax.stats.verdicts import least_images

# Bands of prevalence: from each to the one before, of all captions.
EDGES = (1.0, 0.3, 0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 0.0)
UNSEEN = 0.05  # chance of no fires at all at the largest prevalence of what was never seen
STEPS = 60  # of bisections, each halving the bracket
MOST_IMAGES = 1e12  # beyond any data set
LEVELS = np.logspace(-12, 0, 97)  # of p; between them M is interpolated
ROUNDS = 30  # until captions and level agree


class Pilot(NamedTuple):
    """What a comparison tells of another one of more captions.

    Attributes:
      captions: clusters of pairs.
      prevalence: [K] share of the real images that show each concept.
      other: [K] the same of the generated images.
      spread: [K] moderated 1 + cv^2 of firing energies.
      pairing: [K] of `pair_share`, over the concepts of like prevalence.
      called: share of the concepts with enough data that are suppressed or exaggerated.
      margin: of the material test.
      fdr: false discovery rate.
      tested: share of the captions that the tests rest on; 1 where none were used to choose.
    """

    captions: int
    prevalence: np.ndarray
    other: np.ndarray
    spread: np.ndarray
    pairing: np.ndarray
    called: float
    margin: float
    fdr: float
    tested: float = 1.0


class Band(NamedTuple):
    """Concepts of like prevalence; captions are those of the median concept."""

    low: float  # prevalence, above this
    high: float  # and up to this
    concepts: int
    prevalence: float  # median
    suppressed: float  # captions needed
    exaggerated: float
    level: float  # largest p that would be called then
    ready: int  # concepts for which the pilot has enough captions already, if suppressed


class Need(NamedTuple):
    """Captions needed to call concepts changed by a fold.

    Attributes:
      suppressed, exaggerated: [K]; NaN for concepts that no real image of the pilot shows.
      level: [K] largest p that would be called at the captions of `suppressed`.
      bands: with at least one concept, most frequent first.
      unseen: concepts that no real image of the pilot shows.
      unseen_below: their prevalence is below this, at 95 %.
      unseen_above: so they need more captions than this, if suppressed; how many is not known.
    """

    suppressed: np.ndarray
    exaggerated: np.ndarray
    level: np.ndarray
    bands: tuple[Band, ...]
    unseen: int
    unseen_below: float
    unseen_above: float


def learn(sums: Sums, **known: float) -> Pilot:
    """A pilot from the sums over its pairs.

    Args:
      sums: over pairs [K].
      **known: the fields of `Pilot` that sums do not tell.
    """
    prevalence = sums.n_real / sums.n
    pairing = np.zeros_like(prevalence)
    for _, _, members in _bands(prevalence):
        pairing[members] = pair_share(sums, members)
    return Pilot(
        prevalence=prevalence,
        other=sums.n_generated / sums.n,
        spread=ratios.spread(sums),
        pairing=pairing,
        **known,
    )


def captions_needed(pilot: Pilot, fold: float, power: float) -> Need:
    """Captions from which on concepts changed by `fold` are called with this power.

    The level is Benjamini and Hochberg's at that many captions, if of the concepts with enough data
    then as large a share is called as in the pilot. More captions usually call a larger share, so
    the captions are rather too many than too few.

    Args:
      pilot: what is known.
      fold: true change of the energy, above the margin.
      power: above 0 and below 1.

    Raises:
      ValueError: a fold within the margin: no number of captions calls it.
    """
    if not fold > pilot.margin:
        raise ValueError(f"expected a fold above the margin {pilot.margin}, got {fold}")
    n_concepts = pilot.prevalence.size
    found = [np.full(n_concepts, np.nan) for _ in range(3)]
    bands = []
    for low, high, members in _bands(pilot.prevalence):
        images = effective_images(LEVELS, fold, pilot.margin, power, pilot.pairing[members[0]])
        for place, values in enumerate(_solve(pilot, members, images, fold)):
            found[place][members] = values
        middle = float(np.median(pilot.prevalence[members]))
        needed, more, level = (float(np.median(values[members])) for values in found)
        ready = int((found[0][members] <= pilot.captions).sum())
        bands.append(Band(low, high, members.size, middle, needed, more, level, ready))
    below = 1 - UNSEEN ** (1 / pilot.captions)
    rarest = pilot.prevalence > 0
    above = float("nan")
    if rarest.any():
        # As the rarest that were seen, but for its prevalence.
        last = np.flatnonzero(pilot.prevalence == pilot.prevalence[rarest].min())
        above = float(np.median(found[0][last] * pilot.prevalence[last])) / below
    unseen = int((~rarest).sum())
    return Need(*found, tuple(bands), unseen, below, above)


def _solve(
    pilot: Pilot, members: np.ndarray, images: np.ndarray, fold: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Captions of each member if suppressed and if exaggerated, and the level at the former.

    Args:
      pilot: what is known.
      members: [m] concepts.
      images: effective images at each of `LEVELS`.
      fold: true change.
    """
    least = least_images(pilot.margin)
    rates = np.sort(pilot.prevalence + pilot.other)

    def level_at(captions: np.ndarray) -> np.ndarray:
        eligible = rates.size - np.searchsorted(rates, least / (captions * pilot.tested))
        return np.minimum(pilot.fdr * (pilot.called + 1 / np.maximum(eligible, 1)), pilot.fdr)

    def captions_at(level: np.ndarray, heavier: np.ndarray) -> np.ndarray:
        wanted = np.exp(np.interp(np.log(level), np.log(LEVELS), np.log(images)))
        firing = np.maximum(wanted * pilot.spread[members], least)
        return np.ceil(firing / (heavier * (1 + 1 / fold) * pilot.tested))

    prevalence = pilot.prevalence[members]
    found = []
    # Suppressed: real images have the more; exaggerated: generated ones, `fold` times as many.
    for heavier in (prevalence, np.minimum(prevalence * fold, 1.0)):
        captions = np.full(members.size, float(pilot.captions))
        for _ in range(ROUNDS):
            captions = captions_at(level_at(captions), heavier)
        found.append(captions)
    return *found, level_at(found[0])


def _bands(prevalence: np.ndarray) -> list[tuple[float, float, np.ndarray]]:
    """Bounds and members of each band that has any."""
    found = []
    for high, low in zip(EDGES[:-1], EDGES[1:], strict=True):
        members = np.flatnonzero((prevalence > low) & (prevalence <= high))
        if members.size:
            found.append((low, high, members))
    return found


def effective_images(
    level: np.ndarray, fold: float, margin: float, power: float, pairing: float
) -> np.ndarray:
    """Firing images M of one energy, of both arms together, that a concept needs.

    Args:
      level: largest p that is called, any shape.
      fold: true change, above `margin`.
      margin: of the material test.
      power: share of such concepts that shall be called.
      pairing: of `pair_share`.
    """
    low, high = np.zeros_like(level), np.full_like(level, np.log(MOST_IMAGES))
    for _ in range(STEPS):
        middle = (low + high) / 2
        enough = power_of(np.exp(middle), level, fold, margin, pairing) >= power
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return np.exp(high)


def power_of(
    images: np.ndarray, level: np.ndarray, fold: float, margin: float, pairing: float
) -> np.ndarray:
    """Share of concepts of M effective firing images, changed by `fold`, with p <= `level`."""
    share = margin / (1 + margin)
    least = _critical_share(images, level, share)
    steadier = images / (1 - 2 * pairing / (1 + fold))
    power = _tail(least * steadier, steadier, fold / (1 + fold))
    # With all images in one arm p is share^M: of fewer none is called, whatever the fold.
    return np.where(images * np.log(share) <= np.log(level), power, 0.0)


def _tail(count: np.ndarray, n: np.ndarray, share: float) -> np.ndarray:
    """P(X >= count) of a binomial of n, between whole numbers too; of X = count a half counts."""
    return special.betainc(count + 0.5, np.maximum(n - count, 0.0) + 0.5, share)


def _critical_share(images: np.ndarray, level: np.ndarray, share: float) -> np.ndarray:
    """Smallest share of M images in one arm whose tail is at most `level`; 1 where none is."""
    low, high = np.full_like(images, share), np.ones_like(images)
    for _ in range(STEPS):
        middle = (low + high) / 2
        is_beyond = _tail(middle * images, images, share) <= level
        low, high = np.where(is_beyond, low, middle), np.where(is_beyond, middle, high)
    return high


def pair_share(sums: Sums, members: np.ndarray) -> float:
    """How far the images of a pair show some concepts together and alike, from 0 to 1.

    Sum of products over the smaller sum of squares: thinning either arm leaves it as it is.
    """
    squares = np.minimum(sums.square_real[members], sums.square_generated[members]).sum()
    return float(min(sums.product[members].sum() / squares, 1.0)) if squares > 0 else 0.0
