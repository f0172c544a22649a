"""Candidate points of the archetypal dictionary: k-means centroids of tokens."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

TOKENS_PER_BLOCK = 4096


def fit_candidates(
    key: Key[Array, ""], tokens: Float[Array, "N D"], n_candidates: int, n_iterations: int
) -> tuple[Float[Array, "M D"], float]:
    """Lloyd's k-means on tokens, seeded by drawing tokens far from one another.

    Args:
      key: random key.
      tokens: the sample, at least `n_candidates` of them.
      n_candidates: M.
      n_iterations: Lloyd iterations.

    Returns:
      The centroids and the inertia (sum of squared distances to the nearest centroid).

    Raises:
      ValueError: more candidates than tokens.
    """
    n_tokens = tokens.shape[0]
    if n_candidates > n_tokens:
        raise ValueError(f"expected at least {n_candidates} tokens, got {n_tokens}")
    key_seed, key_empty = jax.random.split(key)
    centroids = _seed(key_seed, tokens, n_candidates)
    for i in range(n_iterations):
        centroids = _lloyd(jax.random.fold_in(key_empty, i), tokens, centroids)
    _, distance = assign(tokens, centroids)
    return centroids, float(jnp.sum(distance))


@jax.jit
def assign(
    tokens: Float[Array, "N D"], centroids: Float[Array, "M D"]
) -> tuple[Int[Array, "N"], Float[Array, "N"]]:
    """Nearest centroid of each token and the squared distance to it, by blocks of tokens."""
    norms = jnp.sum(jnp.square(centroids), axis=1)  # [M]

    def nearest(token):
        scores = norms - 2 * (centroids @ token)
        place = jnp.argmin(scores)
        return place, jnp.maximum(scores[place] + jnp.sum(jnp.square(token)), 0.0)

    with jax.default_matmul_precision("highest"):
        return jax.lax.map(nearest, tokens, batch_size=TOKENS_PER_BLOCK)


@functools.partial(jax.jit, static_argnames="n_candidates")
def _seed(
    key: Key[Array, ""], tokens: Float[Array, "N D"], n_candidates: int
) -> Float[Array, "M D"]:
    """k-means++: each further seed is a token drawn in proportion to its squared distance."""
    n_tokens = tokens.shape[0]

    def step(carry, key):
        distance, newest = carry
        gap = jnp.sum(jnp.square(tokens - tokens[newest][None]), axis=1)
        distance = jnp.minimum(distance, gap)
        # With every token already a seed all distances are 0: any token will do.
        weights = jnp.where(jnp.sum(distance) > 0, distance, 1.0)
        chosen = jax.random.categorical(key, jnp.log(weights))
        return (distance, chosen), chosen

    key_first, key_rest = jax.random.split(key)
    first = jax.random.randint(key_first, (), 0, n_tokens)
    start = (jnp.full(n_tokens, jnp.inf), first)
    _, rest = jax.lax.scan(step, start, jax.random.split(key_rest, n_candidates - 1))
    return tokens[jnp.concatenate([first[None], rest])]


@jax.jit
def _lloyd(
    key: Key[Array, ""], tokens: Float[Array, "N D"], centroids: Float[Array, "M D"]
) -> Float[Array, "M D"]:
    """One iteration; a centroid without tokens moves to a token far from its own centroid."""
    place, distance = assign(tokens, centroids)
    n_candidates = centroids.shape[0]
    counts = jnp.zeros(n_candidates).at[place].add(1.0)
    sums = jnp.zeros_like(centroids).at[place].add(tokens)
    means = sums / jnp.maximum(counts, 1.0)[:, None]
    weights = jnp.where(jnp.sum(distance) > 0, distance, 1.0)
    spare = jax.random.categorical(key, jnp.log(weights), shape=(n_candidates,))
    return jnp.where((counts > 0)[:, None], means, tokens[spare])
