"""The RA-SAE as a Flax module: what training starts from, and a dense form to build on.

It stands on the formulas of `bsjax.sae`, which work on plain parameters; `bsjax.sae.train_step`
makes its parameters here and lays them as `PLACES` says. Its loss is what the written-out gradient
of `bsjax.sae.gradient` is held to.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Key

from bsjax.core.mesh import DATA, MODEL
from bsjax.sae import dictionary as atoms
from bsjax.sae import encoder
from bsjax.sae.batch_topk import batch_threshold, token_thresholds
from bsjax.sae.gradient import AUX_WEIGHT, Objective
from bsjax.sae.jump_relu import jump_relu

# Where jumprelu's thresholds start, as in the reference: exp(-3) = 0.05.
LOG_THRESHOLD = -3.0

# Where each parameter lies on the mesh ("data", "model"): concepts over "model"; the columns of W
# over "data", as the candidate points that they weigh.
PLACES: dict[str, dict[str, P]] = {
    "encoder": {
        "kernel": P(None, MODEL),
        "bias": P(MODEL),
        "scale": P(MODEL),
        "shift": P(MODEL),
        "log_threshold": P(MODEL),
    },
    "dictionary": {"W": P(MODEL, DATA), "Lam": P(MODEL), "multiplier": P(), "D": P(MODEL)},
}
CANDIDATES = P(DATA)


class Codes(NamedTuple):
    """What the whole module gives."""

    pre_codes: Float[Array, "N K"]
    codes: Float[Array, "N K"]
    reconstruction: Float[Array, "N D"]


class RASAE(nn.Module):
    """Relaxed archetypal sparse autoencoder (arXiv:2502.12892).

    Variables: "params" has "encoder" (`bsjax.sae.encoder.EncoderParams`) and "dictionary"; the
    latter `bsjax.sae.dictionary.DictionaryParams`, or D [K, D] alone where `n_candidates` is 0.
    "constants" has "threshold", that of all concepts at inference or of each [K], and
    "candidates" [M, D].

    Parameters are boxed with their places as `init` makes them: `nn.get_partition_spec` tells
    these, `nn.unbox` takes them off; `init_variables` does so.

    Attributes:
      width: D, features of a token.
      n_concepts: K.
      n_candidates: M; 0 for a dictionary that is fused already, for inference.
      activation: as in `bsjax.sae.gradient.Objective`.
      encoder_init: "xavier", or "candidates" (`bsjax.sae.encoder.tied_encoder`).
      relax_radius: largest norm of a row of Lam, in units of the features.
    """

    width: int
    n_concepts: int
    n_candidates: int = 0
    activation: str = "batch_topk"
    encoder_init: str = "xavier"
    relax_radius: float = 1.0

    def setup(self):
        constants = "constants"
        self._threshold = self.variable(constants, "threshold", jnp.zeros, ())
        if self.n_candidates:
            shape = (self.n_candidates, self.width)
            zeros = nn.with_partitioning(jnp.zeros, tuple(CANDIDATES))
            self._candidates = self.variable(constants, "candidates", zeros, shape)
        self._encoder = self.param("encoder", self._init_encoder)
        self._dictionary = self.param("dictionary", self._init_dictionary)

    def __call__(self, tokens: Float[Array, "N D"]) -> Codes:
        """Pre-codes [N, K], codes at inference [N, K] and reconstruction [N, D] of tokens."""
        pre = self.pre_codes(tokens)
        codes = self._at_inference(pre)
        return Codes(pre, codes, self.decode(codes))

    def pre_codes(self, tokens: Float[Array, "N D"]) -> Float[Array, "N K"]:
        """LayerNorm over the concepts of the tokens' linear image."""
        return encoder.pre_codes(dict(self._encoder), tokens)

    def encode(self, tokens: Float[Array, "N D"]) -> Float[Array, "N K"]:
        """Codes at inference: relu of the pre-codes where it reaches the threshold, else 0."""
        return self._at_inference(self.pre_codes(tokens))

    def dictionary(self) -> Float[Array, "K D"]:
        """The atoms D, of the parameters as projected to their constraints.

        As in the reference, the projection is no part of the gradient: that is taken where the
        projected parameters are.
        """
        if not self.n_candidates:
            return self._dictionary["D"]
        params = dict(self._dictionary)
        projected = jax.lax.stop_gradient(atoms.project(params, self.relax_radius))
        # p - p is 0: the value is the projected one to the last bit, the gradient p's.
        through = jax.tree.map(lambda p, q: q + (p - jax.lax.stop_gradient(p)), params, projected)
        return atoms.dictionary(through, self._candidates.value)

    def decode(self, codes: Float[Array, "N K"]) -> Float[Array, "N D"]:
        """Reconstruction of tokens from codes."""
        return atoms.decode(codes, self.dictionary())

    def active_codes(
        self, tokens: Float[Array, "N D"], objective: Objective
    ) -> tuple[Float[Array, "N K"], Float[Array, "N K"]]:
        """In training: relu of the pre-codes, and the codes that stay active of this batch.

        Raises:
          ValueError: an objective of another activation than the module's.
        """
        if objective.activation != self.activation:
            raise ValueError(
                f"expected an objective for {self.activation}, got {objective.activation}"
            )
        z = jax.nn.relu(self.pre_codes(tokens))
        if self.activation == "jumprelu":
            return z, jump_relu(z, self._encoder["log_threshold"], objective.bandwidth)
        constant = jax.lax.stop_gradient(z)
        if self.activation == "topk":
            bound = token_thresholds(constant, objective.n_active)[:, None]
        else:
            bound = batch_threshold(constant, objective.n_active * len(z))
        return z, jnp.where(constant >= bound, z, 0.0)

    def loss(self, tokens: Float[Array, "N D"], objective: Objective) -> Float[Array, ""]:
        """The training loss of a batch, in float32 (`objective.compute_dtype` is not for it).

        Raises:
          ValueError: an objective of another activation or relax_radius than the module's.
        """
        if objective.relax_radius != self.relax_radius:
            raise ValueError(
                f"expected an objective of relax_radius={self.relax_radius}, got"
                f" {objective.relax_radius}"
            )
        z, codes = self.active_codes(tokens, objective)
        D = self.dictionary()
        residual = tokens - atoms.decode(codes, D)
        value = jnp.mean(jnp.square(residual))
        value += objective.l1_weight * jnp.mean(jnp.sum(codes, axis=1))
        if objective.loss == "aux":
            # METHOD 6: of the codes left out, the largest K / 2 of each token explain the rest.
            left_out = jnp.where(codes > 0, 0.0, z)
            largest, concepts = jax.lax.top_k(left_out, self.n_concepts // 2)
            rows = jnp.arange(len(z))[:, None]
            top_half = jnp.zeros_like(z).at[rows, concepts].set(largest)
            explained = atoms.decode(top_half, jax.lax.stop_gradient(D))
            value += AUX_WEIGHT * jnp.mean(jnp.square(residual - explained))
        return value

    def parameters(self) -> dict[str, Any]:
        """The parameters themselves."""
        return {"encoder": dict(self._encoder), "dictionary": dict(self._dictionary)}

    def _at_inference(self, pre: Float[Array, "N K"]) -> Float[Array, "N K"]:
        threshold = self._threshold.value
        if "log_threshold" in self._encoder:
            threshold = jnp.exp(self._encoder["log_threshold"])
        return encoder.threshold_codes(pre, threshold)

    def _init_encoder(self, key: Key[Array, ""]) -> dict[str, Any]:
        if self.has_rng("params"):
            # The key itself, not one that Flax folds the parameter's name into: so a seed goes on
            # to mean the weights that it has always meant.
            key = self.scope.rngs["params"].rng
        if self.encoder_init == "candidates":
            params = encoder.tied_encoder(self._candidates.value, self.n_concepts)
        else:
            params = encoder.init_encoder(key, self.width, self.n_concepts)
        if self.activation == "jumprelu" and self.n_candidates:
            params |= {"log_threshold": jnp.full(self.n_concepts, LOG_THRESHOLD, jnp.float32)}
        return _boxed(params, PLACES["encoder"])

    def _init_dictionary(self, key: Key[Array, ""]) -> dict[str, Any]:
        del key
        if not self.n_candidates:
            params = {"D": jnp.zeros((self.n_concepts, self.width), jnp.float32)}
        else:
            params = atoms.init_dictionary(self.n_concepts, self._candidates.value)
        return _boxed(params, PLACES["dictionary"])


def init_variables(module: RASAE, key: Key[Array, ""], C: Float[Array, "M D"]) -> dict[str, Any]:
    """Fresh variables of a module over candidate points, without boxes.

    Jitted with `out_shardings` every array is born where it lies.
    """
    constants = {"candidates": C, "threshold": jnp.zeros(())}
    _, made = module.apply(
        {"constants": constants}, method="parameters", rngs={"params": key}, mutable=["params"]
    )
    return {"params": nn.unbox(made["params"]), "constants": constants}


def _boxed(params: Any, places: dict[str, P]) -> dict[str, Any]:
    return {name: nn.Partitioned(value, tuple(places[name])) for name, value in params.items()}
