"""Do two models change the same concepts? Correlation of their log ratios without shared noise.

Both models are compared with the same real images, and a rare concept's real energy is known badly:
that error is in both log ratios, so that models which change nothing correlate at about 0.5. Here
one model is estimated on one half of the captions and the other on the other half, which share no
image, and what noise takes from a correlation is given back by each model's split-half covariance.
"""

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from scipy import stats as scipy_stats

from bsjax.stats.nearest import nearest

SPLITS = 12  # ways to halve the captions, averaged over
# Clusters of a half whose real image is expected to show a concept that is correlated.
LEAST_IMAGES = 5
LEAST_CONCEPTS = 10
# Groups of concepts that fire together, of which the jackknife leaves out one after the other.
MOST_GROUPS = 100
SKETCH_WIDTH, GROUPING_STEPS = 64, 5
# Standard errors by which a split-half covariance has to be above 0.
RELIABLE = 2.0
TOO_LOW = "reliability too low"


class Correlation(NamedTuple):
    """How far two models change concepts alike."""

    r: float  # of the true log ratios, from -1 to 1; NaN where `reason` says why
    low: float  # 95 % interval
    high: float
    reliability: tuple[float, float]  # of each model: split-half correlation of its log ratios
    n_concepts: int  # correlated: mean over the splits
    n_pairs: int  # captions' images that both models have
    reason: str = ""  # why there is no r


def unknown(reason: str, n_pairs: int = 0) -> Correlation:
    """Nothing is known, and why."""
    nan = float("nan")
    return Correlation(nan, nan, nan, (nan, nan), 0, n_pairs, reason)


def correlate(
    real: sp.csr_array,
    left: sp.csr_array,
    right: sp.csr_array,
    *,
    labels: np.ndarray | None = None,
    frequency: np.ndarray | None = None,
    seed: int = 0,
) -> Correlation:
    """Correlation over concepts of two models' log ratios generated / real.

    r = C(a, b) / sqrt(C(a, a) C(b, b)), where a and b are the models' log ratios, each C(x, y) is
    the covariance over concepts of x on one half of the clusters with y on the other, both ways,
    and all three are means over the same splits. A third part of the clusters, another one in each
    split, chooses the concepts, unless their frequency is known from elsewhere.

    Args:
      real: codes [n, K] of the real image of each pair.
      left: of the image that one model generated for it.
      right: of the image that the other model generated.
      labels: cluster [n] of each pair, numbered from 0; None: each pair is one. No cluster is in
        two parts.
      frequency: share of images [K] that show each concept, from other images than these.
      seed: of the splits.

    Returns:
      r with its 95 % interval, by jackknife over groups of concepts that fire together.
    """
    n = real.shape[0]
    labels = np.arange(n) if labels is None else labels
    n_units = int(labels.max(initial=-1)) + 1
    nothing = unknown("", n)
    parts = _split(n_units, SPLITS, seed, 2 if frequency is not None else 3)
    weights = _weights(parts, labels)  # [n, 2 S]
    shown, energy = _totals(real, weights)
    a = _log_ratios((shown, energy), _totals(left, weights))  # [K, 2, S]
    b = _log_ratios((shown, energy), _totals(right, weights))
    if frequency is not None:
        expected = np.repeat(frequency[:, None] * (n_units // 2), SPLITS, axis=1)
    else:
        expected = (real > 0).T @ ((parts == 2)[labels] / np.bincount(labels)[labels][:, None])
    chosen = expected >= LEAST_IMAGES  # [K, S]
    n_concepts = round(float(chosen.sum(axis=0).mean()))
    if chosen.sum(axis=0).min(initial=n_concepts) < LEAST_CONCEPTS:
        reason = (
            f"{n_concepts} concepts are frequent enough, expected {LEAST_CONCEPTS} or more: shown"
            f" by {LEAST_IMAGES} real images of each part of the captions"
        )
        return nothing._replace(n_concepts=n_concepts, reason=reason)
    groups = group_concepts(real, chosen.any(axis=1))
    moments = _moments(a, b, chosen, groups)  # [G, S, 13]
    return _estimate(moments, nothing._replace(n_concepts=n_concepts))


def _split(n_units: int, n_splits: int, seed: int, n_parts: int) -> np.ndarray:
    """Part 0, 1 or 2 of each unit [n_units, S]; 0 and 1 are the halves, 2 the rest if any."""
    rng = np.random.default_rng(seed)
    equal = np.arange(n_units) % n_parts
    return np.stack([rng.permutation(equal) for _ in range(n_splits)], axis=1)


def _weights(parts: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """[n, 2 S]: what a row counts in each half, so that each cluster counts once."""
    halves = np.concatenate([parts == 0, parts == 1], axis=1)
    return halves[labels] / np.bincount(labels)[labels][:, None]


def _totals(codes: sp.csr_array, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images that show each concept, and their energy, [K, 2 S] each."""
    by_concept = sp.csr_array(codes.T)
    return (by_concept > 0) @ weights, by_concept.astype(np.float64) @ weights


def _log_ratios(
    real: tuple[np.ndarray, np.ndarray], generated: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Log ratios [K, 2, S] as `bsjax.stats.ratios` has them; 0 where neither arm shows it."""
    n, energy = real[0] + generated[0], real[1] + generated[1]
    half = np.divide(energy, 2 * n, out=np.ones_like(energy), where=n > 0)
    ratio = np.log((generated[1] + half) / (real[1] + half))
    return ratio.reshape(len(ratio), 2, -1)


def group_concepts(codes: sp.csr_array, chosen: np.ndarray) -> np.ndarray:
    """Groups [K] of concepts that fire in the same images, numbered from 0; -1: not chosen.

    k-means by cosine of the concepts' centred firing, which a random projection of the images
    keeps; the first centres are concepts spread evenly over the frequencies.
    """
    concepts = np.flatnonzero(chosen)
    fires = sp.csr_array((codes > 0)[:, concepts].T, dtype=np.float64)
    directions = np.random.default_rng(0).standard_normal((codes.shape[0], SKETCH_WIDTH))
    sketch = fires @ (directions - directions.mean(axis=0))
    sketch = _unit(sketch)
    n_groups = min(MOST_GROUPS, concepts.size)
    by_frequency = np.argsort(np.diff(fires.indptr), kind="stable")
    centres = sketch[by_frequency[np.linspace(0, concepts.size - 1, n_groups).astype(int)]]
    labels = np.zeros(concepts.size, np.int64)
    for _ in range(GROUPING_STEPS):
        labels = nearest(sketch, centres)
        members = sp.csr_array(
            (np.ones(concepts.size), (labels, np.arange(concepts.size))),
            shape=(n_groups, concepts.size),
        )
        centres = _unit(members @ sketch)
    groups = np.full(codes.shape[1], -1)
    groups[concepts] = np.unique(labels, return_inverse=True)[1]
    return groups


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)


def _moments(a: np.ndarray, b: np.ndarray, chosen: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Sums [G, S, 13] over the chosen concepts of each group, of what covariances are made of."""
    (a1, a2), (b1, b2) = (np.moveaxis(each, 1, 0) for each in (a, b))  # [K, S] each
    values = np.stack(
        [np.ones_like(a1), a1, a2, b1, b2, a1 * b2, a2 * b1, a1 * a2, b1 * b2,
         a1 * a1, a2 * a2, b1 * b1, b2 * b2],
        axis=-1,
    )  # fmt: skip
    values *= chosen[:, :, None]
    known = np.flatnonzero(groups >= 0)
    shape = (int(groups.max()) + 1, known.size)
    members = sp.csr_array(
        (np.ones(known.size), (groups[known], np.arange(known.size))), shape=shape
    )
    summed = members @ values[known].reshape(known.size, -1)
    return summed.reshape(shape[0], *values.shape[1:])


def _estimate(moments: np.ndarray, nothing: Correlation) -> Correlation:
    """r and what goes with it, from sums [G, S, 13] of groups of concepts."""
    total, n_groups = moments.sum(axis=0), len(moments)
    # 0 / 0 where all ratios are the same or one group has all concepts: no reliability.
    with np.errstate(invalid="ignore"):
        whole = _covariances(total)
        without = _covariances(total - moments)  # [G, 5]
        reliability = (float(whole[1] / whole[3]), float(whole[2] / whole[4]))
        errors = _jackknife(without[:, 1:3])
    if not (whole[1:3] > RELIABLE * errors).all():
        return nothing._replace(reliability=reliability, reason=TOO_LOW)

    def disattenuate(covariances: np.ndarray) -> np.ndarray:
        ab, aa, bb = covariances[..., 0], covariances[..., 1], covariances[..., 2]
        return ab / np.sqrt(np.maximum(aa * bb, np.finfo(np.float64).tiny))

    r = float(disattenuate(whole[None])[0])
    (error,) = _jackknife(disattenuate(without)[:, None]).tolist()
    reach = scipy_stats.t.ppf(0.975, n_groups - 1) * error
    low, r, high = (float(np.clip(value, -1, 1)) for value in (r - reach, r, r + reach))
    return nothing._replace(r=r, low=low, high=high, reliability=reliability)


def _covariances(sums: np.ndarray) -> np.ndarray:
    """Means over the splits [..., 5] of C(a, b), C(a, a), C(b, b) and the variances of a and b."""
    n = sums[..., 0]
    a1, a2, b1, b2 = (sums[..., i] / n for i in range(1, 5))
    products = np.moveaxis(sums[..., 5:] / n[..., None], -1, 0)
    a1b2, a2b1, a1a2, b1b2, a1a1, a2a2, b1b1, b2b2 = products
    found = (
        (a1b2 - a1 * b2 + a2b1 - a2 * b1) / 2,
        a1a2 - a1 * a2,
        b1b2 - b1 * b2,
        (a1a1 - a1 * a1 + a2a2 - a2 * a2) / 2,
        (b1b1 - b1 * b1 + b2b2 - b2 * b2) / 2,
    )
    return np.stack([each.mean(axis=-1) for each in found], axis=-1)


def _jackknife(without: np.ndarray) -> np.ndarray:
    """Standard errors [M] of what has these values [G, M] without each group."""
    n = len(without)
    return np.sqrt((n - 1) / n * np.square(without - without.mean(axis=0)).sum(axis=0))
