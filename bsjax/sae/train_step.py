"""One optimizer step of the RA-SAE, a pure function of arrays.

Written for one host; it holds no I/O and no device placement, so that the same function can be
jitted over a mesh.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from bsjax.sae import quality
from bsjax.sae.batch_topk import batch_topk, running_threshold
from bsjax.sae.dictionary import decode, dictionary, init_dictionary, project
from bsjax.sae.encoder import init_encoder, pre_codes
from bsjax.sae.losses import LOSSES
from bsjax.sae.sparse_grad import mse_and_gradient


class SAEState(NamedTuple):
    """Everything that training changes."""

    params: dict[str, Any]  # encoder: EncoderParams, dictionary: DictionaryParams
    opt_state: optax.OptState
    step: Int[Array, ""]
    threshold: Float[Array, ""]  # running threshold
    last_active: Int[Array, "K"]  # step at which a concept last fired, -1 before it ever did


class StepMetrics(NamedTuple):
    """What a step tells, each a scalar."""

    loss: Float[Array, ""]
    threshold: Float[Array, ""]  # running threshold after the step
    r2: Float[Array, ""]
    l0: Float[Array, ""]  # mean active concepts a token


def make_optimizer(
    peak_learning_rate: float,
    final_learning_rate: float,
    n_steps: int,
    warmup_share: float,
    weight_decay: float,
) -> optax.GradientTransformation:
    """AdamW (0.9, 0.999) with linear warm-up and cosine decay (METHOD 6)."""
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=peak_learning_rate,
        warmup_steps=max(int(warmup_share * n_steps), 1),
        decay_steps=max(n_steps, 2),
        end_value=final_learning_rate,
    )
    return optax.adamw(schedule, weight_decay=weight_decay)


def init_state(
    key: Key[Array, ""],
    C: Float[Array, "M D"],
    n_concepts: int,
    optimizer: optax.GradientTransformation,
) -> SAEState:
    """A fresh state."""
    params = {
        "encoder": init_encoder(key, C.shape[1], n_concepts),
        "dictionary": init_dictionary(n_concepts, C),
    }
    return state_of(params, optimizer)


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
    tokens: Float[Array, "N D"],
    C: Float[Array, "M D"],
    *,
    n_active: int,
    loss: str,
    relax_radius: float,
    optimizer: optax.GradientTransformation,
    sparse: bool = False,
) -> tuple[SAEState, StepMetrics]:
    """One step of AdamW.

    Args:
      state: before the step.
      tokens: batch.
      C: candidate points.
      n_active: codes kept over the whole batch, `n_active` a token times tokens.
      loss: "mse" or "aux".
      relax_radius: largest norm of a row of Lam.
      optimizer: as made by `make_optimizer`.
      sparse: the gradient through active codes alone (`sparse_grad`) instead of autodiff (mse).
    """
    if sparse and loss != "mse":
        raise ValueError(f"the sparse gradient is that of 'mse', got {loss!r}")
    # As in the reference, the projection precedes the forward pass and is no part of the gradient.
    params = state.params | {"dictionary": project(state.params["dictionary"], relax_radius)}

    evaluate = _evaluate_sparse if sparse else functools.partial(_evaluate_dense, loss=loss)
    result = evaluate(params, tokens, C, n_active)
    updates, opt_state = optimizer.update(result.gradient, state.opt_state, params)
    threshold = running_threshold(state.threshold, result.threshold, state.step)
    new_state = SAEState(
        params=optax.apply_updates(params, updates),
        opt_state=opt_state,
        step=state.step + 1,
        threshold=threshold,
        last_active=jnp.where(result.fired, state.step, state.last_active),
    )
    return new_state, StepMetrics(
        loss=result.loss,
        threshold=threshold,
        r2=quality.r2(tokens, result.x_hat),
        l0=result.l0,
    )


class _Evaluation(NamedTuple):
    loss: Float[Array, ""]
    gradient: dict[str, Any]
    threshold: Float[Array, ""]  # of this batch
    x_hat: Float[Array, "N D"]
    fired: Bool[Array, "K"]
    l0: Float[Array, ""]


def _evaluate_dense(params, tokens, C, n_active, *, loss) -> _Evaluation:
    def objective(params):
        pre = pre_codes(params["encoder"], tokens)
        codes, threshold = batch_topk(jax.nn.relu(pre), n_active)
        D = dictionary(params["dictionary"], C)
        x_hat = decode(codes, D)
        return LOSSES[loss](tokens, x_hat, pre, codes, D), (codes, x_hat, threshold)

    (value, (codes, x_hat, threshold)), gradient = jax.value_and_grad(objective, has_aux=True)(
        params
    )
    fired = jnp.any(codes > 0, axis=0)
    return _Evaluation(value, gradient, threshold, x_hat, fired, quality.l0(codes))


def _evaluate_sparse(params, tokens, C, n_active) -> _Evaluation:
    value, gradient, active, x_hat = mse_and_gradient(params, tokens, C, n_active)
    positive = active.values > 0
    fired = jnp.zeros(params["encoder"]["bias"].shape, bool).at[active.concepts].max(positive)
    l0 = jnp.sum(positive, dtype=jnp.float32) / tokens.shape[0]
    return _Evaluation(value, gradient, active.threshold, x_hat, fired, l0)
