"""The loop that trains each of the small networks: batches made beside, checkpoints, curves."""

import concurrent.futures
import contextlib
import json
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jaxtyping import Array, Float

from bsjax.core.checkpoint import Checkpoints
from bsjax.core.errors import UserError
from bsjax.core.logs import progress
from bsjax.core.rng import seed_key
from bsjax.data import scenes
from bsjax.sae import health

CURVES = "curves.jsonl"
DECAY = 0.999  # of the average; it starts lower

# (params, batch, random key) -> loss, metrics
Loss = Callable[[Any, Any, jax.Array], tuple[Float[Array, ""], dict[str, Float[Array, ""]]]]


class FitState(struct.PyTreeNode):
    """All that a training goes on from."""

    params: Any
    average: Any  # exponential moving average of the parameters, which is what is kept
    opt_state: Any
    step: Any  # int32; jax hands its shape, or nothing, through the same tree


def fit(
    folder: pathlib.Path,
    params: Any,
    loss: Loss,
    make_batch: Callable[[int], Any],
    *,
    steps: int,
    peak_learning_rate: float,
    batch: int,
    weight_decay: float = 0.01,
    checkpoint_every: int = 250,
    look_every: int = 50,
) -> tuple[Any, float]:
    """Trains with AdamW, linear warm-up over 3 % of the steps and a cosine to zero.

    Step s takes `make_batch(s)` and a key that follows from s: a training that was killed goes on
    from its newest checkpoint to the same end.

    Args:
      folder: of checkpoints and curves.
      params: to begin with.
      loss: what falls.
      make_batch: step -> host arrays; runs in a thread of its own, one step ahead.
      steps: in all.
      peak_learning_rate: reached after the warm-up.
      batch: images per step, for the rate shown.
      weight_decay: of matrices and kernels alone.
      checkpoint_every: steps.
      look_every: steps between two lines of curves.jsonl.

    Returns:
      The averaged parameters, and the seconds that it took, interruptions left out.
    """
    optimizer = make_optimizer(params, steps, peak_learning_rate, weight_decay)
    advance = jit_advance(loss, optimizer)
    params = jax.tree.map(jnp.asarray, params)
    state = FitState(params, params, optimizer.init(params), jnp.zeros((), jnp.int32))
    checkpoints = Checkpoints(folder / "checkpoints", keep=2)
    seconds, found = 0.0, checkpoints.restore(jax.tree.map(ocp_shape, state))
    if found:
        state, seconds = found[0], found[1]["seconds"]
    first, started = int(state.step), time.perf_counter() - seconds
    with (
        contextlib.closing(checkpoints),
        concurrent.futures.ThreadPoolExecutor(1) as beside,
        progress(folder.name, steps * batch, first * batch) as bar,
        (folder / CURVES).open("a", encoding="utf-8") as curves,
    ):
        ahead = beside.submit(make_batch, first)
        for step in range(first, steps):
            now = ahead.result()
            ahead = beside.submit(make_batch, step + 1)
            state, metrics = advance(state, now)
            bar.update(batch)
            if (step + 1) % look_every == 0 or step + 1 == steps:
                values = {name: round(float(value), 5) for name, value in metrics.items()}
                bar.set_postfix(values)
                curves.write(json.dumps({"step": step + 1, **values}) + "\n")
                curves.flush()
            if (step + 1) % checkpoint_every == 0 or step + 1 == steps:
                seconds = time.perf_counter() - started
                if not np.all(jax.jit(health.are_finite)(state)):
                    raise UserError(
                        f"the training has values that are not finite at step {step + 1}, which is"
                        f" not saved; the last checkpoint is that of step {checkpoints.newest()};"
                        " lower its peak_learning_rate"
                    )
                checkpoints.save(step + 1, state, {"seconds": seconds})
        ahead.cancel()
    return jax.tree.map(np.asarray, state.average), seconds


def make_optimizer(
    params: Any, steps: int, peak_learning_rate: float, weight_decay: float
) -> optax.GradientTransformation:
    """AdamW as `fit` describes it; gradients are clipped to a norm of 1."""
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, peak_learning_rate, max(steps * 3 // 100, 1), steps
    )
    is_matrix = jax.tree.map(lambda leaf: leaf.ndim > 1, params)
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(schedule, b2=0.99, weight_decay=weight_decay, mask=is_matrix),
    )


def jit_advance(loss: Loss, optimizer: optax.GradientTransformation) -> Callable[..., Any]:
    """(state, batch) -> state one step on, metrics."""

    @jax.jit
    def advance(state: FitState, batch: Any) -> tuple[FitState, dict[str, Array]]:
        key = jax.random.fold_in(seed_key(0), state.step)
        grads, metrics = jax.grad(loss, has_aux=True)(state.params, batch, key)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        keep = jnp.minimum(DECAY, (1 + state.step) / (10 + state.step))
        average = jax.tree.map(lambda a, p: a + (1 - keep) * (p - a), state.average, params)
        return FitState(params, average, opt_state, state.step + 1), metrics

    return advance


def ocp_shape(leaf: Array) -> jax.ShapeDtypeStruct:
    """What a checkpoint is restored into."""
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)


def read_curves(folder: pathlib.Path) -> list[dict[str, Any]]:
    """The rows that `fit` wrote; those that were written twice once."""
    text = (folder / CURVES).read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    return list({row["step"]: row for row in rows}.values())


def stack(parts: Sequence[scenes.Scene]) -> dict[str, np.ndarray]:
    """Scenes as arrays: images, masks, factors [B, 4]."""
    return {
        "image": np.stack([part.image for part in parts]),
        "mask": np.stack([part.mask for part in parts]),
        "factors": np.array([part.factors for part in parts], np.int32),
    }
