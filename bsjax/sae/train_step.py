"""One optimizer step of the RA-SAE over a mesh, a pure function of arrays.

The mesh has the axes "data" and "model". Concepts lie over "model": the encoder's columns and the
rows of W and Lam with their optimizer state. Tokens lie over "data", and so do the candidate points
and with them the columns of W: D = W C is then a sum over "data", and the gradient dW = dD C^T
needs no communication at all. So no device holds more than its share of W, which is nearly all
there is.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int, Key

from bsjax.core.collectives import sum_over
from bsjax.core.mesh import DATA, MODEL
from bsjax.models.rasae import CANDIDATES, PLACES, RASAE, init_variables
from bsjax.sae import quality
from bsjax.sae.batch_topk import running_threshold
from bsjax.sae.dictionary import project
from bsjax.sae.gradient import BatchGradient, Objective, batch_gradient
from bsjax.sae.layouts import matmul


class SAEState(NamedTuple):
    """Everything that training changes."""

    params: dict[str, Any]  # encoder: EncoderParams, dictionary: DictionaryParams
    opt_state: optax.OptState
    step: Int[Array, ""]
    threshold: Float[Array, ""]  # running threshold
    last_active: Int[Array, " K"]  # step at which a concept last fired, -1 before it ever did


class StepMetrics(NamedTuple):
    """What a step tells, each a scalar."""

    loss: Float[Array, ""]
    threshold: Float[Array, ""]  # running threshold after the step
    r2: Float[Array, ""]
    l0: Float[Array, ""]  # mean active concepts per token


_BY_NAME = PLACES["encoder"] | PLACES["dictionary"] | {"last_active": P(MODEL)}
TOKENS = P(None, DATA)


def shardings(tree: Any, mesh: Mesh) -> Any:
    """Where each leaf of a state (or of its shapes) lies: by the name of the parameter in its path.

    Raises:
      ValueError: a dimension that its mesh axis does not divide.
    """

    def place(path, leaf):
        names = [getattr(key, "name", getattr(key, "key", None)) for key in path]
        spec = next((_BY_NAME[name] for name in reversed(names) if name in _BY_NAME), P())
        for size, axis in zip(leaf.shape, spec, strict=False):
            if axis is not None and size % mesh.shape[axis]:
                raise ValueError(
                    f"{names[-1]} has a dimension of {size}, which the mesh axis {axis}="
                    f"{mesh.shape[axis]} does not divide"
                )
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(place, tree)


def make_schedule(
    peak_learning_rate: float, final_learning_rate: float, n_steps: int, warmup_share: float
) -> optax.Schedule:
    """Linear warm-up, then cosine decay (METHOD 6)."""
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=peak_learning_rate,
        warmup_steps=max(int(warmup_share * n_steps), 1),
        decay_steps=max(n_steps, 2),
        end_value=final_learning_rate,
    )


def make_optimizer(schedule: optax.Schedule, weight_decay: float) -> optax.GradientTransformation:
    """AdamW (0.9, 0.999) on all parameters, as the reference has it."""
    return optax.adamw(schedule, weight_decay=weight_decay)


def init_state(
    key: Key[Array, ""],
    C: Float[Array, "M D"],
    n_concepts: int,
    optimizer: optax.GradientTransformation,
    activation: str = "batch_topk",
    encoder_init: str = "xavier",
) -> SAEState:
    """A fresh state; jit it with `out_shardings` and every array is born where it lies."""
    module = RASAE(C.shape[1], n_concepts, C.shape[0], activation, encoder_init)
    return state_of(init_variables(module, key, C)["params"], optimizer)


def state_of(params: dict[str, Any], optimizer: optax.GradientTransformation) -> SAEState:
    """The state before the first step from given parameters."""
    n_concepts = params["encoder"]["bias"].shape[0]
    return SAEState(
        params=params,
        opt_state=optimizer.init(params),
        step=jnp.zeros((), jnp.int32),
        threshold=jnp.zeros((), jnp.float32),
        last_active=jnp.full(n_concepts, -1, jnp.int32),
    )


def train_step(
    state: SAEState,
    tokens: Float[Array, "G N D"],
    C: Float[Array, "M D"],
    *,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
) -> tuple[SAEState, StepMetrics]:
    """One step of AdamW on the mean gradient of G micro-batches, each with a top-k of its own.

    Args:
      state: before the step, lying as `shardings` says.
      tokens: the micro-batches, lying as `TOKENS`.
      C: candidate points, lying as `CANDIDATES`.
      objective: what is minimised.
      optimizer: as made by `make_optimizer`.
      mesh: with the axes "data" and "model".
    """
    params, gradient, fired, measured = loss_and_gradient(
        state.params, tokens, C, objective=objective, mesh=mesh
    )
    updates, opt_state = optimizer.update(gradient, state.opt_state, params)
    threshold = running_threshold(state.threshold, measured.threshold, state.step)
    new_state = SAEState(
        params=optax.apply_updates(params, updates),
        opt_state=opt_state,
        step=state.step + 1,
        threshold=threshold,
        last_active=jnp.where(fired, state.step, state.last_active),
    )
    return new_state, measured._replace(threshold=threshold)


def loss_and_gradient(
    params: dict[str, Any],
    tokens: Float[Array, "G N D"],
    C: Float[Array, "M D"],
    *,
    objective: Objective,
    mesh: Mesh,
) -> tuple[dict[str, Any], dict[str, Any], Array, StepMetrics]:
    """Projects the parameters and takes the gradient there.

    Returns:
      The projected parameters, the gradient, which concepts fired [K], and the metrics with the
      threshold of this batch.
    """
    n_concepts = params["encoder"]["bias"].shape[0]
    n_data = mesh.shape[DATA]
    specs = {
        part: {name: PLACES[part][name] for name in params[part]}
        for part in ("encoder", "dictionary")
    }

    def local(params, tokens, C):
        encoder, n_micro = params["encoder"], tokens.shape[0]
        # As in the reference, the projection precedes the forward pass and is no part of the
        # gradient.
        weights = project(params["dictionary"], objective.relax_radius, (DATA,))
        stretch = jnp.exp(weights["multiplier"])
        hull = sum_over(matmul(weights["W"], C, objective.compute_dtype), (DATA,))
        # arXiv:2502.12892, eq. 4
        D = stretch * (hull + weights["Lam"])

        def one(x):
            return batch_gradient(encoder, D, x, objective, n_concepts, n_data)

        if n_micro == 1:
            summed = one(tokens[0])
        else:
            shapes = jax.eval_shape(one, tokens[0])
            zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
            add = lambda total, x: (jax.tree.map(jnp.add, total, one(x)), None)  # noqa: E731
            summed, _ = jax.lax.scan(add, zeros, tokens)
        summed: BatchGradient = sum_over(summed, (DATA,))
        totals = summed.totals
        d_encoder, dD = jax.tree.map(lambda leaf: leaf / n_micro, (summed.encoder, summed.D))
        gradient = {
            "encoder": d_encoder,
            "dictionary": {
                "W": stretch * matmul(dD, C.T, objective.compute_dtype),
                "Lam": stretch * dD,
                "multiplier": sum_over(jnp.sum(dD * D), (MODEL,)),
            },
        }
        # As floats: a Python integer beyond int32 is none that an array takes.
        n_tokens = float(tokens.shape[0] * tokens.shape[1] * n_data)
        n_numbers = n_tokens * tokens.shape[2]
        spread = totals.x_squared / n_numbers - jnp.square(totals.x / n_numbers)
        metrics = StepMetrics(
            loss=totals.loss / n_micro,
            threshold=totals.threshold / n_micro,
            r2=1 - totals.squared_error / n_numbers / (spread + quality.EPSILON),
            l0=totals.n_positive / n_tokens,
        )
        return encoder, weights, gradient, summed.fires > 0, metrics

    encoder, weights, gradient, fired, metrics = jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(specs, TOKENS, CANDIDATES),
        out_specs=(specs["encoder"], specs["dictionary"], specs, P(MODEL), P()),
        check_vma=False,
    )(params, tokens, C)
    return {"encoder": encoder, "dictionary": weights}, gradient, fired, metrics
