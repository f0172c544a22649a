"""Every number of overcomplete 0.3.0 in tests/golden/ra_sae, to 1e-4 relative."""

import functools
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.sparse as sp

from bsjax.convert.rasae import load_rasae
from bsjax.core.mesh import make_mesh
from bsjax.sae import quality
from bsjax.sae.dictionary import decode
from bsjax.sae.encoder import pre_codes, threshold_codes
from bsjax.sae.gradient import Objective
from bsjax.sae.train_step import state_of, train_step
from bsjax.stats.cooccurrence import cooccurrence

RELATIVE = 1e-4


def assert_close(got, expected):
    """Equal to 1e-4 of the largest value."""
    expected = np.asarray(expected)
    got = np.asarray(got)
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=0, atol=RELATIVE * np.abs(expected).max())


@pytest.fixture(scope="module")
def encoded(golden_dir, tmp_path_factory):
    path = tmp_path_factory.mktemp("golden") / "published.pth"
    shutil.copy(golden_dir / "ra_sae" / "ra_sae_published.pth", path)
    golden = np.load(golden_dir / "ra_sae" / "encode.npz")
    sae = load_rasae(str(path))
    sae = sae._replace(
        encoder=jax.tree.map(jnp.asarray, sae.encoder), dictionary=jnp.asarray(sae.dictionary)
    )
    tokens = jnp.asarray(golden["x"].reshape(-1, golden["x"].shape[-1]))
    codes = threshold_codes(pre_codes(sae.encoder, tokens), float(golden["threshold"]))
    return golden, sae, tokens, codes


def test_dictionary_codes_and_reconstruction(encoded):
    golden, sae, _, codes = encoded
    assert_close(sae.dictionary, golden["dictionary"])
    assert_close(codes, golden["codes"])
    assert_close(decode(codes, sae.dictionary), golden["reconstruction"])
    assert sae.threshold is None


def test_statistics(encoded):
    golden, _, _, codes = encoded
    n_images, n_tokens, _ = golden["x"].shape
    per_image = np.asarray(codes, np.float64).reshape(n_images, n_tokens, -1).sum(axis=1)
    assert_close(per_image.mean(axis=0), golden["energy"])
    np.testing.assert_array_equal((np.asarray(codes) > 0).sum(axis=0), golden["nb_fire"])
    pairs = cooccurrence(sp.csr_array(np.asarray(codes)))
    assert_close(pairs.toarray(), golden["cooccurrence"])


def test_quality(encoded):
    golden, sae, tokens, codes = encoded
    assert_close(quality.r2(tokens, decode(codes, sae.dictionary)), golden["r2"])
    assert_close(quality.l0(codes), golden["l0"])
    assert_close(quality.hoyer(codes), golden["hoyer"])
    np.testing.assert_array_equal(quality.dead(codes), golden["dead"])
    assert_close(quality.energy_of_codes(codes, sae.dictionary), golden["energy_of_codes"])


def parameters(golden, prefix):
    def get(name):
        return jnp.asarray(golden[f"{prefix}/{name}"])

    return {
        "encoder": {
            "kernel": get("encoder.final_block.0.weight").T,
            "bias": get("encoder.final_block.0.bias"),
            "scale": get("encoder.final_block.1.weight"),
            "shift": get("encoder.final_block.1.bias"),
        },
        "dictionary": {
            "W": get("dictionary.W"),
            "Lam": get("dictionary.Relax"),
            "multiplier": get("dictionary.multiplier"),
        },
    }


@pytest.mark.parametrize("shape", [(1, 1), (4, 2)])
@pytest.mark.parametrize(
    "objective",
    [
        Objective(n_active=5),
        Objective(n_active=5, is_compact=True),
        Objective(n_active=5, loss="aux"),
    ],
    ids=str,
)
def test_training(golden_dir, objective, shape):
    golden = np.load(golden_dir / "ra_sae" / "training.npz")
    loss, n_tokens = objective.loss, golden["x"].shape[1]
    assert int(golden["top_k"]) == objective.n_active * n_tokens
    optimizer = optax.adamw(5e-3, weight_decay=1e-5)
    mesh = make_mesh(*shape, jax.devices()[: shape[0] * shape[1]])
    state = state_of(parameters(golden, "init"), optimizer)
    step = jax.jit(
        functools.partial(train_step, objective=objective, optimizer=optimizer, mesh=mesh)
    )
    losses, thresholds = [], []
    for tokens in golden["x"][: len(golden[f"{loss}/losses"])]:
        state, metrics = step(state, tokens[None], jnp.asarray(golden["points"]))
        losses.append(float(metrics.loss))
        thresholds.append(float(metrics.threshold))
    np.testing.assert_allclose(losses, golden[f"{loss}/losses"], rtol=RELATIVE)
    np.testing.assert_allclose(thresholds, golden[f"{loss}/thresholds"], rtol=RELATIVE)
    jax.tree.map(assert_close, state.params, parameters(golden, f"{loss}/final"))
