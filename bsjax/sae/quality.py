"""How good an SAE is: fidelity, sparsity, dead concepts, the atoms' place and stability.

Definitions follow overcomplete 0.3.0, whose numbers the tests reproduce.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from jaxtyping import Array, Float

EPSILON = 1e-6
ATOMS_PER_BLOCK = 1024


def r2(x: Float[Array, "N D"], x_hat: Float[Array, "N D"]) -> Float[Array, ""]:
    """Share of variance explained; 1 is perfect, 0 no better than the one mean of all features."""
    spread = jnp.mean(jnp.square(x - jnp.mean(x)))
    return 1 - jnp.mean(jnp.square(x - x_hat)) / (spread + EPSILON)


def l0(codes: Float[Array, "N K"]) -> Float[Array, ""]:
    """Mean number of active concepts per token."""
    return jnp.mean(jnp.sum(codes != 0, axis=1).astype(jnp.float32))


def hoyer(codes: Float[Array, "N K"]) -> Float[Array, " N"]:
    """Hoyer sparsity of each token: 1 with one active concept, 0 with all equally active."""
    root = np.sqrt(codes.shape[1])
    l1 = jnp.sum(jnp.abs(codes), axis=1)
    l2 = jnp.sqrt(jnp.sum(jnp.square(codes), axis=1)) + EPSILON
    return (root - l1 / l2) / (root - 1)


def dead(codes: Float[Array, "N K"]) -> Float[Array, " K"]:
    """1 for a concept that fires on no token, else 0."""
    return jnp.all(codes == 0, axis=0).astype(jnp.float32)


def energy_of_codes(codes: Float[Array, "N K"], D: Float[Array, "K D"]) -> Float[Array, " K"]:
    """Length of each concept's mean contribution to the reconstruction."""
    mean = jnp.mean(codes, axis=0)
    return jnp.sqrt(jnp.sum(jnp.square(mean[:, None] * D), axis=1))


def relative_errors(x: Float[Array, "N D"], x_hat: Float[Array, "N D"]) -> Float[Array, " N"]:
    """Length of each token's residual by the length of the token; its mean is the relative L2."""
    error = jnp.linalg.norm(x - x_hat, axis=1)
    return error / (jnp.linalg.norm(x, axis=1) + EPSILON)


class EnergySpread(NamedTuple):
    """How evenly concepts carry the energy."""

    effective_share: float  # exp(entropy) of the energies, by K: 1 where all are equal
    top_percent: float  # share of the energy that the strongest 1 % of concepts carry


class Distributions(NamedTuple):
    """What the means and extremes of quality.json are taken of."""

    relative_error: Float[np.ndarray, " N"]  # of each token
    n_active: Float[np.ndarray, " N"]
    hoyer: Float[np.ndarray, " N"]
    energy: Float[np.ndarray, " K"]  # of each concept
    ood: Float[np.ndarray, " K"]
    collinearity: Float[np.ndarray, " K"]


def energy_spread(energy: Float[np.ndarray, " K"]) -> EnergySpread:
    """Evenness of non-negative energies; zeros for an SAE that never fires."""
    energy = np.asarray(energy, np.float64)
    total = energy.sum()
    if total == 0:
        return EnergySpread(0.0, 0.0)
    shares = energy[energy > 0] / total
    effective = np.exp(-(shares * np.log(shares)).sum()) / len(energy)
    n_top = max(len(energy) // 100, 1)
    return EnergySpread(float(effective), float(np.sort(energy)[-n_top:].sum() / total))


def ood_score(
    D: Float[Array, "K D"], points: Float[Array, "M D"], atoms_per_block: int = ATOMS_PER_BLOCK
) -> Float[Array, " K"]:
    """Distance of each atom to the data: 1 - the cosine to the nearest point (arXiv:2502.12892)."""
    return 1 - _largest_cosine(_unit(D), _unit(points), False, atoms_per_block)


def collinearity(
    D: Float[Array, "K D"], atoms_per_block: int = ATOMS_PER_BLOCK
) -> Float[Array, " K"]:
    """Largest absolute cosine of each atom to another; its maximum is the reference's number."""
    unit = _unit(D)
    return _largest_cosine(unit, unit, True, atoms_per_block)


def stability(
    D: Float[np.ndarray, "K D"], other: Float[np.ndarray, "K D"], exact_up_to: int = 4096
) -> float:
    """Mean cosine of the atoms of two trainings, matched one to one; 1 is the same dictionary.

    With the Hungarian matching, K (1 - stability) is the reference's `cosine_hungarian_loss`. Above
    `exact_up_to` atoms a matching by rounds stands for it, a lower bound: in each round every
    unmatched atom names its best unmatched partner, and those who name each other are matched.
    """
    D, other = np.asarray(_unit(jnp.asarray(D))), np.asarray(_unit(jnp.asarray(other)))
    if len(D) <= exact_up_to:
        cosines = D @ other.T
        rows, columns = scipy.optimize.linear_sum_assignment(cosines, maximize=True)
        return float(cosines[rows, columns].mean())
    return float(np.mean(_match_by_rounds(D, other)))


def _match_by_rounds(D: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Cosines of mutually best pairs; each round ends at least the closest pair of all."""
    left, right, found = np.arange(len(D)), np.arange(len(other)), []
    while len(left):
        to_right, cosine = _nearest(D[left], other[right])
        to_left, _ = _nearest(other[right], D[left])
        is_mutual = to_left[to_right] == np.arange(len(left))
        if not is_mutual.any():  # ties alone
            is_mutual[np.argmax(cosine)] = True
        found.append(cosine[is_mutual])
        keep = np.ones(len(right), bool)
        keep[to_right[is_mutual]] = False
        left, right = left[~is_mutual], right[keep]
    return np.concatenate(found)


def _nearest(D: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Place of and cosine to the nearest of the others, by blocks."""
    places, cosines = [], []
    for start in range(0, len(D), ATOMS_PER_BLOCK):
        block = D[start : start + ATOMS_PER_BLOCK] @ other.T
        places.append(block.argmax(axis=1))
        cosines.append(block.max(axis=1))
    return np.concatenate(places), np.concatenate(cosines)


def _unit(vectors: Float[Array, "K D"]) -> Float[Array, "K D"]:
    return vectors / (jnp.linalg.norm(vectors, axis=1, keepdims=True) + EPSILON)


@functools.partial(jax.jit, static_argnames=("is_same", "atoms_per_block"))
def _largest_cosine(
    vectors: Float[Array, "K D"], others: Float[Array, "M D"], is_same: bool, atoms_per_block: int
) -> Float[Array, " K"]:
    """Largest cosine (absolute, and not to itself, if both are the same), by blocks of vectors."""

    def largest(item):
        place, vector = item
        cosines = others @ vector
        if is_same:
            cosines = jnp.where(jnp.arange(len(others)) == place, 0.0, jnp.abs(cosines))
        return jnp.max(cosines)

    with jax.default_matmul_precision("highest"):
        items = (jnp.arange(len(vectors)), vectors)
        return jax.lax.map(largest, items, batch_size=atoms_per_block)
