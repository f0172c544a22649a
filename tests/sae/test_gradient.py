"""The gradient written out, in both layouts and over every mesh, is that of autodiff."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bsjax.core.mesh import make_mesh
from bsjax.sae.dictionary import project
from bsjax.sae.gradient import Objective
from bsjax.sae.layouts import in_two_passes, matmul
from bsjax.sae.train_step import init_state, loss_and_gradient, shardings, state_of, train_step
from tests.sae import dense

MESHES = [(1, 1), (8, 1), (4, 2), (2, 4), (1, 8)]


def mesh_of(data, model):
    return make_mesh(data, model, jax.devices()[: data * model])


def random_problem(n_tokens=64, n_concepts=320, n_candidates=96, width=24):
    """Parameters with nothing at its special initial value, candidates, tokens."""
    keys = iter(jax.random.split(jax.random.key(0), 10))

    def normal(*shape):
        return jax.random.normal(next(keys), shape)

    C, tokens = normal(n_candidates, width), 2 + normal(n_tokens, width)
    params = init_state(next(keys), C, n_concepts, optax.sgd(1.0)).params
    params["dictionary"] = project(
        {
            "W": params["dictionary"]["W"] + 0.1 * jnp.abs(normal(n_concepts, n_candidates)),
            "Lam": 0.3 * normal(n_concepts, width),
            "multiplier": jnp.float32(0.2),
        },
        1.0,
    )
    params["encoder"] |= {
        "bias": 0.5 * normal(n_concepts),
        "scale": 1 + 0.2 * normal(n_concepts),
        "shift": 0.2 * normal(n_concepts),
    }
    return params, C, tokens


def assert_close(got, expected, tolerance=1e-5):
    def close(a, b):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(b).max())

    jax.tree.map(close, got, expected)


OBJECTIVES = [
    Objective(n_active=5),
    Objective(n_active=5, is_compact=True),
    Objective(n_active=5, loss="aux"),
    Objective(n_active=5, activation="topk"),
    Objective(n_active=5, activation="topk", loss="aux", l1_weight=0.1),
    # So many that most rows are looked at whole; more than there are positive codes.
    Objective(n_active=100, is_compact=True),
    Objective(n_active=310, is_compact=True),
    Objective(n_active=310),
    # A device works on a few tokens at a time.
    Objective(n_active=5, rows_at_once=4),
    Objective(n_active=5, loss="aux", rows_at_once=4),
    Objective(n_active=5, activation="topk", loss="aux", l1_weight=0.1, rows_at_once=4),
]


@pytest.mark.parametrize("shape", MESHES)
@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
def test_gradient_is_that_of_autodiff(objective, shape):
    params, C, tokens = random_problem()
    expected, gradient = jax.value_and_grad(dense.loss)(params, tokens, C, objective)
    evaluate = functools.partial(loss_and_gradient, objective=objective, mesh=mesh_of(*shape))
    projected, got, fired, metrics = jax.jit(evaluate)(params, tokens[None], C)
    np.testing.assert_allclose(metrics.loss, expected, rtol=1e-6)
    assert_close(got, gradient)
    assert_close(projected, params)
    codes, threshold = dense.active_codes(
        jax.nn.relu(dense.pre_codes(params["encoder"], tokens)), objective
    )
    np.testing.assert_array_equal(fired, jnp.any(codes > 0, axis=0))
    np.testing.assert_allclose(metrics.threshold, threshold, rtol=1e-5)
    np.testing.assert_allclose(metrics.l0, jnp.sum(codes > 0) / len(tokens), rtol=1e-6)
    residual = tokens - codes @ dense.dictionary(params["dictionary"], C)
    r2 = 1 - jnp.mean(jnp.square(residual)) / jnp.var(tokens)
    np.testing.assert_allclose(metrics.r2, r2, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("loss", ["mse", "aux"])
def test_micro_batches_give_the_mean_gradient(loss):
    params, C, tokens = random_problem()
    objective, parts = Objective(n_active=5, loss=loss), tokens.reshape(4, 16, -1)
    single = [jax.value_and_grad(dense.loss)(params, part, C, objective) for part in parts]
    value, gradient = jax.tree.map(lambda *leaves: sum(leaves) / 4, *single)
    evaluate = functools.partial(loss_and_gradient, objective=objective, mesh=mesh_of(4, 2))
    _, got, _, metrics = jax.jit(evaluate)(params, parts, C)
    np.testing.assert_allclose(metrics.loss, value, rtol=1e-6)
    assert_close(got, gradient)


def run_steps(objective, shape, n_steps=20):
    params, C, tokens = random_problem()
    optimizer, mesh = optax.adamw(1e-3), mesh_of(*shape)
    state = state_of(params, optimizer)
    state = jax.device_put(state, shardings(state, mesh))
    step = jax.jit(
        functools.partial(train_step, objective=objective, optimizer=optimizer, mesh=mesh)
    )
    for i in range(n_steps):
        state, metrics = step(state, jnp.roll(tokens, i, axis=1)[None], C)
    return state, metrics


@pytest.mark.parametrize("loss", ["mse", "aux"])
def test_twenty_steps_end_where_those_of_one_device_do(loss):
    objective = Objective(n_active=5, loss=loss)
    one, metrics = run_steps(objective, (1, 1))
    for shape in [(8, 1), (4, 2), (1, 8)]:
        spread, metrics_spread = run_steps(objective, shape)
        W = spread.params["dictionary"]["W"]
        assert W.addressable_shards[0].data.size == W.size // 8
        assert_close(metrics_spread, metrics)
        assert_close(spread.params, one.params)
        np.testing.assert_array_equal(spread.last_active, one.last_active)


def test_twenty_compact_steps_end_where_the_masked_ones_do():
    ends = [run_steps(Objective(n_active=5, is_compact=c), (1, 1)) for c in (False, True)]
    (masked, metrics_masked), (compact, metrics_compact) = ends
    assert_close(metrics_compact, metrics_masked)
    assert_close(compact.params, masked.params)


def test_low_precision_is_near():
    params, C, tokens = random_problem()
    expected = jax.grad(dense.loss)(params, tokens, C, Objective(n_active=5))
    low = Objective(n_active=5, compute_dtype="bfloat16")
    evaluate = functools.partial(loss_and_gradient, objective=low, mesh=mesh_of(1, 1))
    _, got, _, _ = jax.jit(evaluate)(params, tokens[None], C)
    error = np.linalg.norm(got["encoder"]["kernel"] - expected["encoder"]["kernel"])
    assert 1e-4 < error / np.linalg.norm(expected["encoder"]["kernel"]) < 0.1
    assert got["dictionary"]["W"].dtype == jnp.float32


@pytest.mark.parametrize("shape", [(1, 1), (2, 4)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("activation", ["batch_topk", "topk", "jumprelu"])
def test_a_few_tokens_at_a_time_change_no_code(activation, dtype, shape):
    # So many concepts that the threshold is looked for among the largest of groups.
    params, C, tokens = random_problem(n_concepts=1024 * shape[1])
    if activation == "jumprelu":
        params["encoder"]["log_threshold"] = jnp.linspace(-1.0, 1.0, 1024 * shape[1])
    whole = Objective(
        n_active=5, loss="aux", activation=activation, l1_weight=0.1, bandwidth=0.5,
        compute_dtype=dtype,
    )  # fmt: skip
    ends = []
    for objective in (whole, dataclasses.replace(whole, rows_at_once=8)):
        evaluate = functools.partial(loss_and_gradient, objective=objective, mesh=mesh_of(*shape))
        ends.append(jax.jit(evaluate)(params, tokens[None], C))
    (_, expected, fired, metrics), (_, got, fired_in_parts, metrics_in_parts) = ends
    np.testing.assert_array_equal(fired_in_parts, fired)
    if activation == "batch_topk":  # one of the codes; of the others a mean
        assert metrics_in_parts.threshold == metrics.threshold
    assert metrics_in_parts.l0 == metrics.l0
    assert_close(metrics_in_parts, metrics, 1e-6)
    # Sums of float32 in another order, of bfloat16 numbers that are the same.
    assert_close(got, expected, 1e-5 if dtype == "float32" else 1e-4)


def test_two_passes_are_the_product_in_three_when_an_operand_is_bfloat16():
    keys = jax.random.split(jax.random.key(0), 2)
    x = jax.random.normal(keys[0], (40, 60)).astype(jnp.bfloat16).astype(jnp.float32)
    kernel = jax.random.normal(keys[1], (60, 50))

    def product(kernel):
        return matmul(x, kernel, "bfloat16")

    exact = np.asarray(x, np.float64) @ np.asarray(kernel, np.float64)
    scale = np.abs(np.asarray(x)) @ np.abs(np.asarray(kernel))
    got = jax.jit(functools.partial(in_two_passes, product))(kernel)
    # The low part is rounded to 8 bits of its own: an error of 2^-17 of each term.
    assert np.max(np.abs(got - exact) / scale) < 2**-16
    assert np.max(np.abs(product(kernel) - exact) / scale) > 2**-12


def test_products_with_bfloat16_tokens_in_two_passes():
    params, C, tokens = random_problem()
    tokens = tokens.astype(jnp.bfloat16).astype(jnp.float32)
    ends = []
    for is_short in (False, True):
        objective = Objective(n_active=5, loss="aux", bfloat16_tokens=is_short, rows_at_once=16)
        evaluate = functools.partial(loss_and_gradient, objective=objective, mesh=mesh_of(1, 2))
        ends.append(jax.jit(evaluate)(params, tokens[None], C)[1])
    assert_close(ends[1], ends[0], 1e-4)
    differ = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), *ends)
    assert differ["encoder"]["kernel"]


def test_compact_layout_is_for_mse_alone():
    with pytest.raises(ValueError, match="for mse with batch_topk"):
        Objective(n_active=5, loss="aux", is_compact=True)


def test_a_mesh_that_does_not_divide_is_refused():
    params, _, _ = random_problem(n_concepts=12)
    with pytest.raises(ValueError, match="Lam has a dimension of 12, which the mesh axis model=8"):
        shardings(params, mesh_of(1, 8))
