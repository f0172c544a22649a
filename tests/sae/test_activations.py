"""Top-k and JumpReLU: loss and gradient are overcomplete's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from bsjax.core.mesh import make_mesh
from bsjax.sae.gradient import Objective
from bsjax.sae.train_step import loss_and_gradient
from tests import overcomplete
from tests.sae.test_gradient import assert_close, random_problem

K, M, D = 320, 96, 24


def theirs(library, kind, params, C, tokens):
    """Loss and gradient of the reference's class, in our names."""
    encoder = library.MLPEncoder(D, K, norm_layer=torch.nn.LayerNorm)
    if kind == "topk":
        model = library.TopKSAE(D, K, top_k=5, encoder_module=encoder)
    else:
        # So wide that codes feel the kernel in a batch of 64 tokens.
        model = library.JumpSAE(D, K, bandwidth=0.5, encoder_module=encoder)
    model.dictionary = library.RelaxedArchetypalDictionary(D, K, torch.from_numpy(np.array(C)))
    linear, norm = model.encoder.final_block[:2]
    ours = {
        "kernel": (linear.weight, True),
        "bias": (linear.bias, False),
        "scale": (norm.weight, False),
        "shift": (norm.bias, False),
    }
    if kind == "jumprelu":
        ours["log_threshold"] = (model.thresholds, False)
    atoms = {"W": model.dictionary.W, "Lam": model.dictionary.Relax}
    atoms["multiplier"] = model.dictionary.multiplier
    with torch.no_grad():
        for name, (tensor, is_transposed) in ours.items():
            values = np.array(params["encoder"][name])
            tensor.copy_(torch.from_numpy(values.T.copy() if is_transposed else values))
        for name, tensor in atoms.items():
            tensor.copy_(torch.from_numpy(np.array(params["dictionary"][name])))
    x = torch.from_numpy(np.array(tokens))
    model.train()
    _, codes, x_hat = model(x)
    loss = torch.nn.functional.mse_loss(x_hat, x)
    loss.backward()
    gradient = {
        "encoder": {
            n: t.grad.numpy().T if flip else t.grad.numpy() for n, (t, flip) in ours.items()
        },
        "dictionary": {name: tensor.grad.numpy() for name, tensor in atoms.items()},
    }
    return loss.item(), gradient, (codes > 0).float().sum(1).mean().item()


@pytest.mark.parametrize("kind", ["topk", "jumprelu"])
@pytest.mark.parametrize("shape", [(1, 1), (4, 2)])
def test_loss_and_gradient(kind, shape):
    library = overcomplete.load_or_skip()
    params, C, tokens = random_problem(64, K, M, D)
    if kind == "jumprelu":
        spread = jnp.linspace(-1.0, 1.0, K)
        params["encoder"]["log_threshold"] = spread
    objective = Objective(n_active=5, activation=kind, bandwidth=0.5)
    mesh = make_mesh(*shape, jax.devices()[: shape[0] * shape[1]])
    evaluate = functools.partial(loss_and_gradient, objective=objective, mesh=mesh)
    _, gradient, _, metrics = jax.jit(evaluate)(params, tokens[None], C)
    loss, expected, l0 = theirs(library, kind, params, C, tokens)
    assert float(metrics.loss) == pytest.approx(loss, rel=1e-5)
    assert float(metrics.l0) == pytest.approx(l0, rel=1e-5)
    assert_close(gradient, expected, 1e-4)
