"""What is fixed of a training before its first step, for `train_sae` and for `plan` alike."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import ml_collections
from jax.sharding import Mesh

from bsjax.core.errors import UserError
from bsjax.core.mesh import replicated
from bsjax.core.rng import stage_key
from bsjax.data import token_store
from bsjax.sae.gradient import Objective
from bsjax.sae.train_step import (
    SAEState,
    init_state,
    make_optimizer,
    make_schedule,
    shardings,
    train_step,
)

# Tokens whose codes a platform works on together (see `Objective`): with 4,000 concepts a v5e holds
# what is made of so many in its fast memory, in float32 too; of 1,024 it no longer does.
ROWS_AT_ONCE = {"tpu": 512}


class Recipe(NamedTuple):
    """What is fixed before the first step."""

    n_steps: int
    n_low: int  # first steps in train.compute_dtype; the rest in float32
    schedule: Callable[[Any], Any]
    optimizer: Any
    low: Objective
    full: Objective


def check_mesh(config: ml_collections.ConfigDict, mesh: Mesh) -> None:
    """Refuses a mesh that does not divide what lies over it.

    Raises:
      UserError: with the key and the flag.
    """
    train = config.train
    per_batch = train.tokens_per_step // train.accumulate
    for key, size, axis in (
        ("n_concepts", train.n_concepts, "model"),
        ("n_candidates", train.n_candidates, "data"),
        ("tokens_per_step / train.accumulate", per_batch, "data"),
    ):
        n_devices = mesh.shape[axis]
        if size % n_devices:
            raise UserError(
                f"train.{key}={size} is not divisible by mesh.{axis}={n_devices}; set"
                f" --config.mesh.{axis} or --config.train.{key.split()[0]}"
            )


def make_recipe(config: ml_collections.ConfigDict, mesh: Mesh, n_tokens: int) -> Recipe:
    """Steps, learning rates and objectives of a training on `n_tokens` tokens per epoch."""
    train = config.train
    n_steps = train.steps
    if n_steps < 1:
        n_steps = max(round(train.epochs * n_tokens / train.tokens_per_step), 1)
    schedule = make_schedule(
        train.peak_learning_rate, train.final_learning_rate, n_steps, train.warmup_share
    )
    platform = mesh.devices.flat[0].platform
    full = Objective(
        n_active=train.n_active,
        loss=train.loss,
        activation=train.activation,
        l1_weight=train.l1_weight,
        relax_radius=train.relax_radius,
        is_compact=(
            mesh.size == 1
            # GPUs would access less memory too, but scatter by atomic additions in no fixed order,
            # and a run that was killed must end with the same bits. TPUs scatter rows slowly.
            and platform == "cpu"
            and (train.loss, train.activation) == ("mse", "batch_topk")
            # The compact layout names codes by their place.
            and train.tokens_per_step // train.accumulate * train.n_concepts < 2**31
        ),
        rows_at_once=ROWS_AT_ONCE.get(platform, 0),
        bfloat16_tokens=(
            platform == "tpu"
            and train.full_precision == "high"
            and train.supply == "store"
            and token_store.DTYPE.name == "bfloat16"
        ),
    )
    low = full
    if train.compute_dtype != "float32":
        low = dataclasses.replace(full, compute_dtype=train.compute_dtype, is_compact=False)
    return Recipe(
        n_steps=n_steps,
        n_low=n_steps - round(train.full_precision_share * n_steps),
        schedule=schedule,
        optimizer=make_optimizer(schedule, train.weight_decay),
        low=low,
        full=full,
    )


def jit_step(
    recipe: Recipe, objective: Objective, state: Any, mesh: Mesh, full_precision: str
) -> Callable[[SAEState, jax.Array, jax.Array], Any]:
    """The step that training runs and `plan` compiles; the state is donated.

    Args:
      recipe: for its optimizer.
      objective: recipe.low or recipe.full.
      state: the state or its shapes.
      mesh: where it lies.
      full_precision: of products in float32, as `jax.default_matmul_precision` names them.
    """
    step = functools.partial(train_step, objective=objective, optimizer=recipe.optimizer, mesh=mesh)
    precision = full_precision if objective.compute_dtype == "float32" else "default"

    def run(state, tokens, C):
        with jax.default_matmul_precision(precision):
            return step(state, tokens, C)

    out = (shardings(state, mesh), replicated(mesh))
    return jax.jit(run, donate_argnums=0, out_shardings=out)


def fresh_state(config: ml_collections.ConfigDict, recipe: Recipe, C: jax.Array) -> SAEState:
    """The state of a training from scratch, over candidate points C [M, D]."""
    train, key = config.train, stage_key(config.seed, "train_sae/init")
    return init_state(
        key, C, train.n_concepts, recipe.optimizer, train.activation, train.encoder_init
    )
