"""Candidate points of the archetypal dictionary: k-means centroids of a token sample.

The sample is divided over all devices, the centroids lie on each. Random draws and their order do
not depend on the number of devices.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int, Key

from bsjax.core.mesh import DATA, MODEL, divide, replicated

TOKENS_PER_BLOCK = 4096
# k-means++ draws one seed a round; so many rounds at most, with more seeds each for many centroids.
SEEDING_ROUNDS = 512
EVERYWHERE = (DATA, MODEL)


def fit_candidates(
    key: Key[Array, ""],
    tokens: Float[np.ndarray, "N D"] | Float[Array, "N D"],
    n_candidates: int,
    n_iterations: int,
    mesh: Mesh,
) -> tuple[Float[Array, "M D"], float]:
    """Lloyd's k-means on a token sample, seeded by k-means++ (greedy while rounds draw one seed).

    Args:
      key: random key.
      tokens: the sample, at least `n_candidates` of them; the same on every host.
      n_candidates: M.
      n_iterations: Lloyd iterations.
      mesh: the devices that share the work.

    Returns:
      The centroids and the inertia (sum of squared distances to the nearest centroid).

    Raises:
      ValueError: more candidates than tokens.
    """
    n_tokens = tokens.shape[0]
    if n_candidates > n_tokens:
        raise ValueError(f"expected at least {n_candidates} tokens, got {n_tokens}")
    padding = -n_tokens % mesh.size
    weights = np.pad(np.ones(n_tokens, np.float32), (0, padding))
    tokens = np.pad(np.asarray(tokens), ((0, padding), (0, 0)))
    over = NamedSharding(mesh, P(EVERYWHERE))
    tokens, weights = divide(tokens, over), divide(weights, over)
    key_seed, key_empty = jax.random.split(key)
    with jax.default_matmul_precision("highest"):
        centroids = _seed(key_seed, tokens, weights, n_candidates, mesh)
        for i in range(n_iterations):
            empty_key = jax.random.fold_in(key_empty, i)
            centroids, _ = _lloyd(empty_key, tokens, weights, centroids, mesh)
        _, inertia = _lloyd(key_empty, tokens, weights, centroids, mesh)
    return centroids, float(inertia)


def assign(
    tokens: Float[Array, "N D"], centroids: Float[Array, "M D"]
) -> tuple[Int[Array, " N"], Float[Array, " N"]]:
    """Nearest centroid of each token and the squared distance to it, by blocks of tokens."""
    norms = jnp.sum(jnp.square(centroids), axis=1)  # [M]

    def nearest(token):
        scores = norms - 2 * (centroids @ token)
        place = jnp.argmin(scores)
        return place, jnp.maximum(scores[place] + jnp.sum(jnp.square(token)), 0.0)

    return jax.lax.map(nearest, tokens, batch_size=TOKENS_PER_BLOCK)


@functools.partial(jax.jit, static_argnames=("n_candidates", "mesh"))
def _seed(key, tokens, weights, n_candidates, mesh) -> Float[Array, "M D"]:
    """k-means++: seeds are tokens drawn in proportion to the squared distance to those before.

    A round that draws one seed takes the best of a few draws (greedy k-means++); rounds that draw
    several keep them all, as in k-means|| without its second clustering, which Lloyd stands for.
    """
    per_round = math.ceil(n_candidates / SEEDING_ROUNDS)
    n_rounds = math.ceil((n_candidates - 1) / per_round)
    n_drawn = 2 + int(math.log(n_candidates)) if per_round == 1 else per_round
    squares = jnp.sum(jnp.square(tokens), axis=1)

    def to_seeds(seeds):
        """Squared distances [N, drawn]."""
        gaps = squares[:, None] - 2 * tokens @ seeds.T + jnp.sum(jnp.square(seeds), axis=1)[None]
        return jnp.maximum(gaps, 0.0)

    def step(distance, key):
        # With every token already a seed all distances are 0: any token will do.
        chances = jnp.where(jnp.sum(distance * weights) > 0, distance, 1.0) * weights
        seeds = _draw(key, tokens, chances, n_drawn)
        after = jnp.minimum(distance[:, None], to_seeds(seeds))  # [N, drawn]
        if per_round > 1:
            return jnp.min(after, axis=1), seeds
        best = jnp.argmin(jnp.sum(after * weights[:, None], axis=0))
        return after[:, best], seeds[best][None]

    key_first, key_rest = jax.random.split(key)
    n_tokens = jnp.sum(weights > 0, dtype=jnp.int32)  # float32 counts to 2^24 alone
    first = tokens[jax.random.randint(key_first, (), 0, n_tokens, jnp.int32)][None]
    _, rest = jax.lax.scan(step, to_seeds(first)[:, 0], jax.random.split(key_rest, n_rounds))
    seeds = jnp.concatenate([first, rest.reshape(-1, tokens.shape[1])])[:n_candidates]
    return jax.lax.with_sharding_constraint(seeds, replicated(mesh))


@functools.partial(jax.jit, static_argnames="mesh")
def _lloyd(key, tokens, weights, centroids, mesh) -> tuple[Float[Array, "M D"], Float[Array, ""]]:
    """One iteration and the inertia before it.

    A centroid without tokens moves to a token drawn in proportion to its squared distance.
    """
    n_candidates = centroids.shape[0]

    def local(tokens, weights, centroids):
        place, distance = assign(tokens, centroids)
        counts = jnp.zeros(n_candidates, jnp.int32).at[place].add((weights > 0).astype(jnp.int32))
        sums = jnp.zeros_like(centroids).at[place].add(tokens * weights[:, None])
        return *jax.lax.psum((counts, sums), EVERYWHERE), distance

    over = P(EVERYWHERE)
    counts, sums, distance = jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(over, over, P()),
        out_specs=(P(), P(), over),
        check_vma=False,
    )(tokens, weights, centroids)
    distance = distance * weights
    means = sums / jnp.maximum(counts, 1).astype(jnp.float32)[:, None]
    chances = jnp.where(jnp.sum(distance) > 0, distance, weights)
    moved = jnp.where((counts > 0)[:, None], means, _draw(key, tokens, chances, n_candidates))
    return moved, jnp.sum(distance)


def _draw(key, tokens, chances, n_drawn) -> Float[Array, "M D"]:
    """Different tokens, drawn in proportion to their chances."""
    # The largest of log chances + Gumbel noise are a draw without replacement.
    scores = jnp.log(chances) + jax.random.gumbel(key, chances.shape, jnp.float32, "low")
    return tokens[jax.lax.top_k(scores, n_drawn)[1]]
