"""How sure a difference is: paired standard errors, intervals, p and q values.

The two arms share their captions, so images are paired and what varies is the difference within a
pair. Everything is a reduction over pairs of dense blocks [n, K'] of image codes, jitted.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key
from scipy import stats as scipy_stats


class PairedMoments(NamedTuple):
    """Means and standard errors of a block of concepts over n pairs of images."""

    mean_real: Float[Array, " K"]
    mean_generated: Float[Array, " K"]
    se_difference: Float[Array, " K"]  # of mean_generated - mean_real
    se_relative: Float[Array, " K"]  # of (generated - real) / (generated + real), delta method
    present_real: Int[Array, " K"]  # images in which the concept is active
    present_generated: Int[Array, " K"]
    present_either: Int[Array, " K"]  # pairs in which it is active in at least one image


@jax.jit
def paired_moments(real: Float[Array, "n K"], generated: Float[Array, "n K"]) -> PairedMoments:
    """Reduces the image codes of n >= 2 pairs (rows agree) to moments."""
    n = real.shape[0]
    mean_real = jnp.mean(real, axis=0)
    mean_generated = jnp.mean(generated, axis=0)
    total = mean_real + mean_generated
    scale = jnp.where(total > 0, jnp.square(total), 1.0)
    # First-order change of relative = (g - r) / (g + r) with each pair.
    influence = 2 * (mean_real[None] * generated - mean_generated[None] * real) / scale[None]
    return PairedMoments(
        mean_real=mean_real,
        mean_generated=mean_generated,
        se_difference=jnp.std(generated - real, axis=0, ddof=1) / np.sqrt(n),
        se_relative=jnp.std(influence, axis=0, ddof=1) / np.sqrt(n),
        present_real=jnp.sum(real > 0, axis=0, dtype=jnp.int32),
        present_generated=jnp.sum(generated > 0, axis=0, dtype=jnp.int32),
        present_either=jnp.sum((real > 0) | (generated > 0), axis=0, dtype=jnp.int32),
    )


@jax.jit
def resample(
    real: Float[Array, "n K"], generated: Float[Array, "n K"], weights: Float[Array, "R n"]
) -> tuple[Float[Array, "R K"], Float[Array, "R K"]]:
    """Bootstrap means of both arms: pairs weighted by how often each resample drew them."""
    n = real.shape[0]
    with jax.default_matmul_precision("highest"):
        return weights @ real / n, weights @ generated / n


def bootstrap_weights(key: Key[Array, ""], n_resamples: int, n: int) -> Float[Array, "R n"]:
    """How often each of n pairs is drawn in each resample of n pairs with replacement."""

    def one(key):
        drawn = jax.random.randint(key, (n,), 0, n, jnp.int32)
        return jnp.zeros(n, jnp.float32).at[drawn].add(1.0)

    keys = jax.random.split(key, n_resamples)
    return jax.lax.map(one, keys)


def t_quantile(n: int, level: float = 0.95) -> float:
    """Half-width of the interval of that level in standard errors, for n pairs."""
    return float(scipy_stats.t.ppf(0.5 + level / 2, n - 1))


def p_values(mean_difference: np.ndarray, standard_error: np.ndarray, n: int) -> np.ndarray:
    """Two-sided p of the paired t-test; 1 where the pairs do not differ at all."""
    difference = np.asarray(mean_difference, np.float64)
    varies = standard_error > 0
    t = np.divide(difference, standard_error, out=np.zeros_like(difference), where=varies)
    p = 2 * scipy_stats.t.sf(np.abs(t), n - 1)
    # Every pair differs by the same amount: no spread to test against.
    return np.where(varies, p, np.where(difference == 0, 1.0, 0.0))


def q_values(p: np.ndarray, eligible: np.ndarray) -> np.ndarray:
    """Benjamini-Hochberg adjusted p over the eligible concepts; NaN for the others."""
    q = np.full(p.shape, np.nan)
    if eligible.any():
        q[eligible] = scipy_stats.false_discovery_control(p[eligible], method="bh")
    return q


def absent_arm_bound(energy_other: np.ndarray, prevalence_other: np.ndarray, n: int) -> np.ndarray:
    """Largest energy [K] compatible with a concept that fired in none of an arm's n images.

    The rule of three bounds the prevalence at 95 % by 3 / n; the energy of an image in which the
    concept would be active is taken from the other arm.
    """
    per_image = np.divide(
        energy_other, prevalence_other, out=np.zeros_like(energy_other), where=prevalence_other > 0
    )
    return per_image * min(3.0 / n, 1.0)
