"""Tails of weighted sums of coin throws, by saddlepoint.

S = sum_i b_i x_i with x_i > 0 known and b_i = 1 with probability pi. With the cumulants' generating
function K(t) = sum_i log(1 - pi + pi exp(t x_i)), t such that K'(t) = s, w = sign(t) sqrt(2 (t s -
K(t))) and u = t sqrt(K''(t)), the tail beyond s is 1 - Phi(w) + phi(w) (1 / u - 1 / w) (Lugannani
and Rice 1980). It is exact where the sum is at its end.

The sums have from one to millions of terms: those of similar length are padded to one width and
solved together, jitted, in float64 on the host's processor (accelerators lack it or are slow).
"""

import contextlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import log_ndtr
from jaxtyping import Array, Float

# Values solved at once: one compiled program per width serves all lengths up to it.
BLOCK_VALUES = 1 << 16
LEAST_WIDTH = 16
MAX_STEPS = 60
TOLERANCE = 1e-9
# Nearer to its mean than this, in standard deviations, the tail is taken from its expansion there.
NEAR_THE_MEAN = 1e-4
TINY = np.finfo(np.float64).tiny


def upper_tails(
    values: np.ndarray, offsets: np.ndarray, observed: np.ndarray, probability: float
) -> np.ndarray:
    """P(S >= observed) for each of K weighted sums.

    Args:
      values: [M] weights above zero, those of each sum next to each other.
      offsets: [K + 1] where the weights of each sum begin and end, as of a CSC matrix.
      observed: [K] or [K, D] values of each sum, from 0 to the sum of its weights.
      probability: that a weight counts, above 0 and below 1.

    Returns:
      [K] or [K, D], above 0 and at most 1; 1 where a sum has no weight.
    """
    observed = np.asarray(observed, np.float64)
    flat = observed.reshape(len(offsets) - 1, -1)
    tails = np.ones_like(flat)
    lengths = np.diff(offsets)
    widths = np.array([max(_step(length), LEAST_WIDTH) for length in lengths.tolist()], np.int64)
    with _float64_on_host():
        for width in np.unique(widths[lengths > 0]).tolist():
            chosen = np.flatnonzero((widths == width) & (lengths > 0))
            n_rows = min(max(BLOCK_VALUES // width, 1), _step(chosen.size))
            for start in range(0, chosen.size, n_rows):
                rows = chosen[start : start + n_rows]
                weights = _gather(values, offsets, rows, n_rows, width)
                seen = np.zeros((n_rows, flat.shape[1]))
                seen[: rows.size] = flat[rows]
                for draw in range(flat.shape[1]):
                    found = _upper_tails(weights, seen[:, draw], np.float64(probability))
                    tails[rows, draw] = np.asarray(found)[: rows.size]
    return np.clip(tails, TINY, 1.0).reshape(observed.shape)


def _step(n: int) -> int:
    """The smallest power of 4 that is n or more: few shapes, so few programs to compile."""
    return 1 << (2 * (((n - 1).bit_length() + 1) // 2))


def _gather(
    values: np.ndarray, offsets: np.ndarray, rows: np.ndarray, n_rows: int, width: int
) -> np.ndarray:
    """[n_rows, width] weights of some sums, behind which come zeros."""
    place = offsets[rows][:, None] + np.arange(width)
    inside = place < offsets[rows + 1][:, None]
    weights = np.zeros((n_rows, width))
    weights[: rows.size] = np.where(inside, values[np.minimum(place, len(values) - 1)], 0.0)
    return weights


@contextlib.contextmanager
def _float64_on_host() -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        stack.enter_context(jax.enable_x64(True))
        # Where a run is restricted to its accelerator, that one computes.
        with contextlib.suppress(RuntimeError):
            stack.enter_context(jax.default_device(jax.local_devices(backend="cpu")[0]))
        yield


@jax.jit
def _upper_tails(
    weights: Float[Array, "R W"], observed: Float[Array, " R"], probability: Float[Array, ""]
) -> Float[Array, " R"]:
    return jax.vmap(_upper_tail, in_axes=(0, 0, None))(weights, observed, probability)


def _upper_tail(
    weights: Float[Array, " W"], observed: Float[Array, ""], probability: Float[Array, ""]
) -> Float[Array, ""]:
    counts = weights > 0
    n = jnp.sum(counts)
    # In units of the mean weight, so that t is of the order of a log-odds.
    scale = jnp.sum(weights) / jnp.maximum(n, 1)
    x = weights / jnp.where(n > 0, scale, 1.0)
    total = jnp.sum(x)
    s = observed / jnp.where(n > 0, scale, 1.0)
    odds = jnp.log(probability) - jnp.log1p(-probability)

    # Sums that were added in another order may miss the end by a rounding.
    rounding = 1e-12 * total
    is_all, is_none = s >= total - rounding, s <= rounding
    inner = jnp.where(is_all | is_none | (n == 0), total / 2, s)
    t = _solve(x, inner, total, odds)

    def moments(t):
        z = t * x + odds
        share = jax.nn.sigmoid(z)
        spread = jnp.sum(jnp.square(x) * share * jax.nn.sigmoid(-z))
        return share, spread

    _, spread = moments(t)
    # log(1 - pi + pi exp(t x)), without overflow.
    generating = jnp.where(
        counts, jnp.logaddexp(jnp.log1p(-probability), jnp.log(probability) + t * x), 0.0
    )
    exponent = jnp.maximum(t * inner - jnp.sum(generating), 0.0)
    w = jnp.sqrt(2 * exponent)  # |w|; the sign is that of t
    u = jnp.abs(t) * jnp.sqrt(spread)
    is_near = w < NEAR_THE_MEAN
    safe_w, safe_u = jnp.where(is_near, 1.0, w), jnp.where(is_near, 1.0, u)
    log_density = -jnp.square(safe_w) / 2 - jnp.log(2 * jnp.pi) / 2
    mills = jnp.exp(log_ndtr(-safe_w) - log_density)
    smaller = jnp.exp(log_density) * jnp.maximum(mills + 1 / safe_u - 1 / safe_w, 0.0)
    beyond = jnp.where(t > 0, smaller, 1 - smaller)
    third = probability * (1 - probability) * (1 - 2 * probability) * jnp.sum(x**3)
    second = probability * (1 - probability) * jnp.sum(jnp.square(x))
    at_mean = 0.5 - third / (6 * jnp.sqrt(2 * jnp.pi) * jnp.where(n > 0, second, 1.0) ** 1.5)
    tail = jnp.where(is_near, at_mean, beyond)
    tail = jnp.where(is_all, jnp.exp(n * jnp.log(probability)), tail)
    return jnp.where(is_none | (n == 0), 1.0, tail)


def _solve(x, s, total, odds) -> Float[Array, ""]:
    """t with K'(t) = s, by Newton's method on log-odds of K' within a bracket that it narrows.

    K' / total as a function of t is the very sigmoid if all weights are the same, so its log-odds
    are close to a line.
    """
    goal = jnp.log(s) - jnp.log(total - s)

    def evaluate(t):
        z = jnp.clip(t * x + odds, -700.0, 700.0)
        share, rest = jax.nn.sigmoid(z), jax.nn.sigmoid(-z)
        inside, outside = jnp.sum(x * share), jnp.sum(x * rest)
        slope = jnp.sum(jnp.square(x) * share * rest) * total / (inside * outside)
        return jnp.log(inside) - jnp.log(outside) - goal, slope

    def step(state):
        t, low, high, _, count = state
        miss, slope = evaluate(t)
        low, high = jnp.where(miss < 0, t, low), jnp.where(miss > 0, t, high)
        reach = 4 * (1 + jnp.abs(t))
        move = jnp.clip(-miss / jnp.maximum(slope, 1e-300), -reach, reach)
        ahead = t + move
        is_out = (ahead <= low) | (ahead >= high)
        ahead = jnp.where(is_out & (low > -jnp.inf) & (high < jnp.inf), (low + high) / 2, ahead)
        ahead = jnp.where(miss == 0, t, ahead)
        return ahead, low, high, jnp.abs(ahead - t), count + 1

    def is_open(state):
        t, _, _, moved, count = state
        return (moved > TOLERANCE * (1 + jnp.abs(t))) & (count < MAX_STEPS)

    start = (goal - odds, -jnp.inf, jnp.inf, jnp.inf, 0)
    start = jax.tree.map(lambda value: jnp.asarray(value, jnp.result_type(goal)), start[:4]) + (0,)
    return jax.lax.while_loop(is_open, step, start)[0]
