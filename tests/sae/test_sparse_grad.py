"""The gradient through active codes is that of autodiff through the dense form."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bsjax.core.mesh import make_mesh, over_data, put
from bsjax.core.topk import largest_of_rows, places_of_largest
from bsjax.sae import batch_topk as batch_topk_module
from bsjax.sae.batch_topk import batch_topk, select_active
from bsjax.sae.dictionary import dictionary, project
from bsjax.sae.encoder import pre_codes
from bsjax.sae.sparse_grad import mse_and_gradient
from bsjax.sae.train_step import init_state, state_of, train_step


def random_problem(n_tokens=64, n_concepts=320, n_candidates=90, width=24):
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


def dense(params, tokens, C, n_active):
    codes, _ = batch_topk(jax.nn.relu(pre_codes(params["encoder"], tokens)), n_active)
    return jnp.mean(jnp.square(tokens - codes @ dictionary(params["dictionary"], C)))


# 5 a token; so many that most rows are looked at whole; more than there are positive codes.
@pytest.mark.parametrize("n_active", [5 * 64, 100 * 64, 310 * 64])
def test_gradient_is_that_of_autodiff(n_active):
    params, C, tokens = random_problem()
    expected, gradient = jax.value_and_grad(dense)(params, tokens, C, n_active)
    loss, got, *_ = jax.jit(mse_and_gradient, static_argnums=3)(params, tokens, C, n_active)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)

    def close(a, b):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())

    jax.tree.map(close, got, gradient)


def test_a_token_with_many_codes_is_found_by_the_search_of_all(monkeypatch):
    monkeypatch.setattr(batch_topk_module, "PER_TOKEN", 2)
    codes = np.random.default_rng(0).uniform(size=(8, 320)).astype(np.float32)
    codes[3, :20] += 1  # all of the 20 largest on one token
    active = select_active(jnp.asarray(codes), 20)
    assert set(active.tokens.tolist()) == {3}
    assert sorted(active.concepts.tolist()) == list(range(20))
    assert active.threshold == codes[3, :20].min()


def test_many_steps_end_where_the_dense_ones_do():
    params, C, tokens = random_problem()
    optimizer = optax.adamw(1e-3)
    ends = []
    for sparse in (False, True):
        state = state_of(params, optimizer)

        @jax.jit
        def step(state, tokens, sparse=sparse):
            return train_step(
                state,
                tokens,
                C,
                n_active=320,
                loss="mse",
                relax_radius=1.0,
                optimizer=optimizer,
                sparse=sparse,
            )

        for i in range(10):
            state, metrics = step(state, jnp.roll(tokens, i, axis=1))
        ends.append((state, metrics))
    (a, metrics_a), (b, metrics_b) = ends
    np.testing.assert_allclose(metrics_a, metrics_b, rtol=1e-4)
    np.testing.assert_array_equal(a.last_active, b.last_active)
    # Adam turns a rounding of a gradient near zero into a small step.
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-4), a.params, b.params)


def test_the_other_loss_has_no_sparse_gradient():
    params, C, tokens = random_problem()
    optimizer = optax.sgd(1.0)
    with pytest.raises(ValueError, match="that of 'mse'"):
        train_step(
            state_of(params, optimizer),
            tokens,
            C,
            n_active=5,
            loss="aux",
            relax_radius=1.0,
            optimizer=optimizer,
            sparse=True,
        )


@pytest.mark.parametrize("shape", [(7, 320), (2, 3, 320), (4, 33)])
def test_largest_of_rows_are_those_of_a_sort(shape):
    rows = jax.random.normal(jax.random.key(1), shape)
    values, places = largest_of_rows(rows, 5)
    np.testing.assert_array_equal(values, -np.sort(-np.asarray(rows))[..., :5])
    np.testing.assert_array_equal(np.take_along_axis(np.asarray(rows), places, -1), values)


@pytest.mark.parametrize("n", [1, 2, 7, 50, 99, 100])
def test_places_of_largest_are_those_of_a_sort(n):
    rng = np.random.default_rng(n)
    values = np.maximum(rng.normal(size=100), 0).astype(np.float32) * 10.0 ** rng.integers(-9, 9)
    values[:10] = values[10]  # ties
    values[11] = np.float32(1e-42)  # a denormal number
    places, smallest = places_of_largest(jnp.asarray(values), n)
    assert smallest == np.sort(values)[::-1][n - 1]
    expected = np.argsort(-values, stable=True)[:n]
    np.testing.assert_array_equal(places, np.sort(expected))
    assert smallest == values[expected[-1]]


def test_places_of_largest_over_a_mesh_are_the_same():
    values = np.abs(np.random.default_rng(0).normal(size=640)).astype(np.float32)
    sharded = put(values, over_data(make_mesh()))
    places, smallest = jax.jit(places_of_largest, static_argnums=1)(sharded, 33)
    assert smallest == np.sort(values)[-33]
    np.testing.assert_array_equal(places, np.sort(np.argsort(-values)[:33]))
