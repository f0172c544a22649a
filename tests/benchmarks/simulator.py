"""Image codes of two arms with known changes, in the manner of an SAE's.

Whether an image shows a concept is decided by a latent normal: topics of the caption, shared by
both images of a pair and by concepts of similar loadings, a part that the pair shares for that
concept alone, and a part of its own. Frequencies and energies are lognormal; energies are partly
shared by the pair, and images differ in how strongly they show anything. The energy ratio of a
concept is the ratio of its two frequencies by construction.
"""

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from scipy.special import ndtri

TOPICS = 8
TOPIC, PAIR = 0.45, 0.35  # shares of the latent's variance
# Tokens on which a concept of the published SAE fires on ImageNet: quantiles over concepts.
LEVELS = (0.0, 0.01, 0.05, 0.5, 0.95, 0.99, 1.0)
FIRES = (2_000, 5_422, 13_027, 47_110, 314_321, 828_714, 2_000_000)
# A concept of twice the fires is in 2^0.53 times the images: 500 scenes' 512 concepts, by least
# squares of the logarithms.
IMAGES_BY_FIRES = 0.53
MEAN_FREQUENCY = 194 / 32_000  # non-zeros per image and concept of the published SAE
MOST_FREQUENT = 0.9
# Of a concept's log energies. The squared variation of energies that follows, 0.02 to 0.9 with a
# median of 0.25, is that of the same scenes: 0.03 to 0.88 from the first to the last tenth, 0.19.
ENERGY_SD = (0.15, 0.8)
FOLDS = (2.0, 4.0, 8.0)


class World(NamedTuple):
    """A draw of both arms."""

    real: sp.csr_array  # [n, K]
    generated: sp.csr_array
    log_ratio: np.ndarray  # [K] true, natural log
    frequency: np.ndarray  # [K] true, of the real arm


def draw_world(
    seed: int,
    n: int,
    n_concepts: int,
    *,
    planted: float = 0.1,
    moved_sd: float = 0.0,
    rarity: float = 0.0,
) -> World:
    """Draws n pairs.

    Args:
      seed: of everything.
      n: pairs.
      n_concepts: K.
      planted: share of the concepts changed 2-, 4- or 8-fold, up or down.
      moved_sd: of log2 of a change of every concept.
      rarity: log ratio that ten times the frequency adds.
    """
    rng = np.random.default_rng(seed)
    frequency = _frequencies(rng, n_concepts)
    mean_log = np.log(frequency).mean()
    energy_sd = rng.uniform(*ENERGY_SD, n_concepts)
    log_ratio = (
        rng.normal(0, moved_sd * np.log(2), n_concepts) if moved_sd else np.zeros(n_concepts)
    )
    is_planted = rng.random(n_concepts) < planted
    folds = np.log(rng.choice(FOLDS, n_concepts)) * rng.choice([-1, 1], n_concepts)
    log_ratio = np.where(is_planted, folds, log_ratio)
    if rarity:
        log_ratio += rarity * (np.log(frequency) - mean_log) / np.log(10)
    # A concept in nine of ten images has no room for eightfold more.
    other = np.minimum(frequency * np.exp(log_ratio), MOST_FREQUENT)
    log_ratio = np.where(log_ratio == 0, 0.0, np.log(other / frequency))

    topics = rng.standard_normal((n, TOPICS)).astype(np.float32)
    strength = [rng.normal(0, 0.2, n).astype(np.float32) for _ in range(2)]
    arms: list[list[sp.csc_array]] = [[], []]
    for start in range(0, n_concepts, 1000):
        block = slice(start, min(start + 1000, n_concepts))
        width = block.stop - block.start
        loadings = rng.standard_normal((TOPICS, width)).astype(np.float32)
        loadings /= np.linalg.norm(loadings, axis=0)
        shared = np.sqrt(TOPIC) * topics @ loadings
        shared += np.sqrt(PAIR) * rng.standard_normal((n, width), np.float32)
        for arm, rate in enumerate((frequency[block], other[block])):
            latent = shared + np.sqrt(1 - TOPIC - PAIR) * rng.standard_normal(
                (n, width), np.float32
            )
            rows, columns = np.nonzero(latent > -ndtri(rate)[None].astype(np.float32))
            # Half of an energy's spread is the pair's: a hash of the row and the concept.
            own = rng.standard_normal(rows.size)
            pair = _pair_noise(rows, columns + start, seed)
            spread = energy_sd[columns + start] * (np.sqrt(0.5) * own + np.sqrt(0.5) * pair)
            energy = np.exp(spread + strength[arm][rows])
            block_codes = (energy.astype(np.float32), (rows, columns))
            arms[arm].append(sp.csc_array(block_codes, shape=(n, width)))
    real, generated = (sp.csr_array(sp.hstack(blocks, format="csr")) for blocks in arms)
    return World(real, generated, log_ratio, frequency)


def _frequencies(rng: np.random.Generator, n_concepts: int) -> np.ndarray:
    """Share of images that show each concept."""
    log_fires = np.interp(rng.random(n_concepts), LEVELS, np.log(FIRES))
    shown = np.exp(IMAGES_BY_FIRES * log_fires)
    return np.minimum(shown * (MEAN_FREQUENCY / shown.mean()), MOST_FREQUENT)


def _pair_noise(rows: np.ndarray, columns: np.ndarray, seed: int) -> np.ndarray:
    """Standard normals that are the same for the same row and column."""
    mixed = rows.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= (columns.astype(np.uint64) + np.uint64(seed + 1)) * np.uint64(0xC2B2AE3D27D4EB4F)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    uniform = ((mixed >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53
    return ndtri(uniform)
