"""The tests' oracle: the dense loss of the module, and active codes by sorting."""

import jax
import jax.numpy as jnp

from bsjax.models.rasae import RASAE
from bsjax.sae.dictionary import dictionary
from bsjax.sae.encoder import pre_codes

__all__ = ["active_codes", "dictionary", "loss", "pre_codes"]


def active_codes(codes, objective):
    """Codes that stay, by sorting; ties at a threshold all stay, as in the reference."""
    n_tokens = codes.shape[0]
    constant = jax.lax.stop_gradient(codes)
    if objective.activation == "topk":
        cut = -jnp.sort(-constant, axis=1)[:, objective.n_active - 1, None]
    else:
        cut = -jnp.sort(-constant.ravel())[objective.n_active * n_tokens - 1]
    return jnp.where(constant >= cut, codes, 0.0), jnp.mean(cut)


def loss(params, tokens, C, objective):
    module = RASAE(C.shape[1], len(params["encoder"]["bias"]), len(C), objective.activation)
    variables = {"params": params, "constants": {"candidates": C, "threshold": jnp.zeros(())}}
    return module.apply(variables, tokens, objective, method="loss")
