"""The RA-SAE as a Flax module: the pure functions' numbers, the reference's, and those by hand."""

import functools
import shutil

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from bsjax.convert.rasae import (
    as_module,
    as_trainable_module,
    load_parameters,
    load_rasae,
    save_trained,
)
from bsjax.core.errors import UserError
from bsjax.core.mesh import make_mesh
from bsjax.models.rasae import CANDIDATES, PLACES, RASAE, init_variables
from bsjax.sae.dictionary import dictionary, init_dictionary, project
from bsjax.sae.encoder import init_encoder, pre_codes, threshold_codes, tied_encoder
from bsjax.sae.gradient import Objective
from bsjax.sae.train_step import init_state, loss_and_gradient, shardings
from tests.sae import dense
from tests.sae.test_gradient import assert_close, random_problem

N, D, K, M = 64, 24, 320, 96
KEY = jax.random.key(7)


def candidates():
    return jax.random.normal(jax.random.key(1), (M, D))


@pytest.mark.parametrize("encoder_init", ["xavier", "candidates"])
@pytest.mark.parametrize("activation", ["batch_topk", "jumprelu"])
def test_a_seed_means_the_weights_it_always_meant(activation, encoder_init):
    C, n_concepts = candidates(), 80
    expected = {"encoder": init_encoder(KEY, D, n_concepts)}
    if encoder_init == "candidates":
        expected["encoder"] = tied_encoder(C, n_concepts)
    if activation == "jumprelu":
        expected["encoder"] |= {"log_threshold": jnp.full(n_concepts, -3.0)}
    expected["dictionary"] = init_dictionary(n_concepts, C)
    module = RASAE(D, n_concepts, M, activation, encoder_init)
    made = init_variables(module, KEY, C)
    state = init_state(KEY, C, n_concepts, optax.sgd(1.0), activation, encoder_init)
    for params in (made["params"], state.params):
        jax.tree.map(np.testing.assert_array_equal, params, expected)
    if encoder_init == "xavier":
        plain = nn.unbox(module.init(KEY, jnp.zeros((1, D))))
        jax.tree.map(np.testing.assert_array_equal, plain["params"], expected)


@pytest.mark.parametrize("activation", ["batch_topk", "jumprelu"])
def test_boxes_tell_where_training_lays_each_parameter(activation):
    module = RASAE(D, K, M, activation)
    shapes = jax.eval_shape(module.init, KEY, jnp.zeros((1, D)))
    specs = nn.get_partition_spec(shapes)
    mesh = make_mesh(4, 2)
    places = shardings(nn.unbox(shapes["params"]), mesh)
    boxed = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs["params"])
    assert places == boxed
    assert specs["params"]["dictionary"]["W"] == P("model", "data")
    assert specs["params"]["encoder"]["kernel"] == P(None, "model")
    assert specs["constants"]["candidates"] == CANDIDATES == P("data")
    assert set(specs["params"]["encoder"]) <= set(PLACES["encoder"])


def problem(activation="batch_topk"):
    params, C, tokens = random_problem(N, K, M, D)
    if activation == "jumprelu":
        params["encoder"]["log_threshold"] = jnp.linspace(-1.0, 1.0, K)
    constants = {"candidates": C, "threshold": jnp.float32(0.5)}
    return {"params": params, "constants": constants}, C, tokens


def test_it_computes_what_the_pure_functions_do():
    variables, C, tokens = problem()
    params = variables["params"]
    module = RASAE(D, K, M)
    out = jax.jit(module.apply)(variables, tokens)
    pre = pre_codes(params["encoder"], tokens)
    codes = threshold_codes(pre, 0.5)
    np.testing.assert_allclose(out.pre_codes, pre, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(out.codes, codes, rtol=1e-5, atol=1e-5)
    atoms = dictionary(project(params["dictionary"], 1.0), C)
    np.testing.assert_array_equal(module.apply(variables, method="dictionary"), atoms)
    np.testing.assert_array_equal(module.apply(variables, tokens, method="encode"), codes)
    np.testing.assert_allclose(out.reconstruction, codes @ atoms, rtol=1e-4, atol=1e-4)
    decoded = module.apply(variables, codes, method="decode")
    np.testing.assert_allclose(decoded, codes @ atoms, rtol=1e-5, atol=1e-5)


def test_thresholds_that_were_trained_are_used():
    variables, _, tokens = problem("jumprelu")
    codes = RASAE(D, K, M, "jumprelu").apply(variables, tokens, method="encode")
    encoder = variables["params"]["encoder"]
    bounds = jnp.exp(encoder["log_threshold"])
    np.testing.assert_array_equal(codes, threshold_codes(pre_codes(encoder, tokens), bounds))
    assert (np.where(codes > 0, codes, np.inf).min(axis=0) >= bounds).all()


@pytest.mark.parametrize("shape", [(1, 1), (4, 2)])
@pytest.mark.parametrize(
    "objective",
    [
        Objective(n_active=5, l1_weight=0.1),
        Objective(n_active=5, activation="topk", loss="aux"),
        Objective(n_active=5, activation="jumprelu", bandwidth=0.5, l1_weight=0.1),
        Objective(n_active=5, activation="jumprelu", bandwidth=0.5, loss="aux"),
    ],
    ids=str,
)
def test_the_gradient_written_out_is_that_of_the_module(objective, shape):
    """From parameters that are not projected yet, as an optimizer leaves them."""
    variables, C, tokens = problem(objective.activation)
    params = variables["params"]
    params["dictionary"] = {
        "W": params["dictionary"]["W"] * 1.7 - 0.01,
        "Lam": params["dictionary"]["Lam"] * 3,
        "multiplier": params["dictionary"]["multiplier"],
    }
    expected, gradient = jax.value_and_grad(dense.loss)(params, tokens, C, objective)
    mesh = make_mesh(*shape, jax.devices()[: shape[0] * shape[1]])
    evaluate = functools.partial(loss_and_gradient, objective=objective, mesh=mesh)
    _, got, _, metrics = jax.jit(evaluate)(params, tokens[None], C)
    np.testing.assert_allclose(metrics.loss, expected, rtol=1e-6)
    assert_close(got, gradient, 2e-5)
    largest = jax.tree.map(lambda leaf: float(jnp.abs(leaf).max()), gradient)
    assert min(jax.tree.leaves(largest)) > 0


def test_it_is_the_same_over_eight_devices():
    """`jit` alone divides the work, by where variables and tokens lie."""
    variables, C, tokens = problem()
    objective = Objective(n_active=5)
    module, mesh = RASAE(D, K, M), make_mesh(4, 2)
    evaluate = jax.jit(
        jax.value_and_grad(
            lambda params, tokens, C: module.apply(
                {"params": params, "constants": {"candidates": C, "threshold": jnp.zeros(())}},
                tokens,
                objective,
                method="loss",
            )
        )
    )
    expected, gradient = evaluate(variables["params"], tokens, C)
    params = jax.device_put(variables["params"], shardings(variables["params"], mesh))
    over = NamedSharding(mesh, P("data"))
    value, got = evaluate(params, jax.device_put(tokens, over), jax.device_put(C, over))
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert_close(got, gradient, 2e-5)


def test_active_codes_are_those_of_a_sort():
    variables, _, tokens = problem()
    for activation in ("batch_topk", "topk"):
        objective = Objective(n_active=5, activation=activation)
        module = RASAE(D, K, M, activation)
        z, codes = module.apply(variables, tokens, objective, method="active_codes")
        np.testing.assert_array_equal(codes, dense.active_codes(z, objective)[0])
        assert (codes > 0).sum() == 5 * N


def test_an_objective_that_is_another_is_refused():
    variables, _, tokens = problem()
    for objective, expected in (
        (Objective(n_active=5, activation="topk"), "objective for batch_topk, got topk"),
        (Objective(n_active=5, relax_radius=0.5), "relax_radius=1.0, got 0.5"),
    ):
        with pytest.raises(ValueError, match=expected):
            RASAE(D, K, M).apply(variables, tokens, objective, method="loss")


def test_checkpoints_are_loaded_into_it(golden_dir, tmp_path):
    path = tmp_path / "published.pth"
    shutil.copy(golden_dir / "ra_sae" / "ra_sae_published.pth", path)
    golden = np.load(golden_dir / "ra_sae" / "encode.npz")
    tokens = jnp.asarray(golden["x"].reshape(-1, golden["x"].shape[-1]))
    sae = load_rasae(str(path))
    with pytest.raises(UserError, match="stores no threshold"):
        as_module(sae)
    fused = as_module(sae, float(golden["threshold"]))
    params, C = load_parameters(str(path))
    trainable = as_trainable_module(params, C, float(golden["threshold"]))
    for module, variables in (fused, trainable):
        out = jax.jit(module.apply)(variables, tokens)
        atoms = module.apply(variables, method="dictionary")
        for got, name in (
            (out.codes, "codes"),
            (out.reconstruction, "reconstruction"),
            (atoms, "dictionary"),
        ):
            expected = golden[name]
            np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    module, variables = fused
    assert jax.tree.map(jnp.shape, nn.unbox(module.init(KEY, tokens))) == jax.tree.map(
        jnp.shape, variables
    )
    each = np.linspace(0.5, 1, sae.n_concepts)
    saved = save_trained(tmp_path / "sae.safetensors", sae.encoder, sae.dictionary, each, "test")
    module, variables = as_module(saved)
    codes = module.apply(variables, tokens, method="encode")
    np.testing.assert_array_equal(
        codes, threshold_codes(pre_codes(variables["params"]["encoder"], tokens), jnp.float32(each))
    )
