"""The loss of an RA-SAE and its gradient, written out for codes that lie over a mesh.

`jax.grad` of the dense form (`bsjax.models.rasae.RASAE.loss`) is the tests' oracle. Written out,
the step saves what autodiff cannot see: LayerNorm spreads the gradient of the few active codes over
the whole row, but only by a constant and by a multiple of the row itself. So the gradient of
h = x kernel + bias is

    dh = u - a - s h,    u at the entries,    a, s one number per token,

and x^T dh = x^T u - (x^T a) 1^T - (x^T diag(s) x) kernel - (x^T s) bias^T: the last needs D x D x K
work, and dh is never made. With a compact layout x^T u, the decoder and its gradients are sums over
the entries. The dictionary stays D = W C + Lam: its product, and that of its gradient with C, are
made once per step, however many micro-batches the step has.

Everything here runs inside `jax.shard_map`: tokens lie over the mesh axis "data", concepts over
"model"; sums over either stand where the formula sums.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from bsjax.core.collectives import sum_over
from bsjax.core.mesh import DATA, MODEL
from bsjax.core.topk import by_blocks, nth_largest_of_rows
from bsjax.sae.batch_topk import batch_threshold, select_active, token_thresholds
from bsjax.sae.encoder import NORM_EPSILON, EncoderParams
from bsjax.sae.jump_relu import threshold_gradient
from bsjax.sae.layouts import Entries, Layout, Masked, compact, matmul, stored

AUX_WEIGHT = 0.1
ACTIVATIONS = ("batch_topk", "topk", "jumprelu")
LOSSES = ("mse", "aux")


@dataclasses.dataclass(frozen=True)
class Objective:
    """What is minimised.

    Attributes:
      n_active: active concepts per token, on average over a batch (batch_topk) or each (topk).
      loss: "mse", or "aux": plus 0.1 times the mean squared error of explaining the residual by the
        codes left out, of which the largest K / 2 of each token count (METHOD 6). The dictionary is
        a constant to this term, as in the reference's training numbers.
      activation: "batch_topk", "topk" or "jumprelu" (arXiv:2407.14435).
      l1_weight: times the mean over tokens of the summed codes; what makes jumprelu sparse.
      bandwidth: of the kernel in jumprelu's pseudo-gradient.
      relax_radius: largest norm of a row of Lam, in units of the features.
      compute_dtype: of the operands of matrix products; sums, norms and parameters are float32.
      is_compact: hold active codes alone (pays on a CPU and on a GPU; batch_topk with mse).
    """

    n_active: int
    loss: str = "mse"
    activation: str = "batch_topk"
    l1_weight: float = 0.0
    bandwidth: float = 1e-3
    relax_radius: float = 1.0
    compute_dtype: str = "float32"
    is_compact: bool = False

    def __post_init__(self):
        if self.loss not in LOSSES or self.activation not in ACTIVATIONS:
            raise ValueError(f"expected one of {LOSSES} and {ACTIVATIONS}, got {self}")
        if self.is_compact and (self.loss, self.activation) != ("mse", "batch_topk"):
            raise ValueError(f"the compact layout is for mse with batch_topk, got {self}")


class Totals(NamedTuple):
    """Sums over the tokens of this device, all concepts; `psum` over "data" completes them."""

    loss: Float[Array, ""]  # summed over micro-batches like a gradient
    squared_error: Float[Array, ""]
    x: Float[Array, ""]
    x_squared: Float[Array, ""]
    n_positive: Float[Array, ""]
    threshold: Float[Array, ""]  # of the batch, divided by the number of data shards


class BatchGradient(NamedTuple):
    """Of one batch, still to be summed over "data"."""

    encoder: dict[str, Any]
    D: Float[Array, "K D"]
    fires: Int[Array, " K"]  # tokens on which a concept is active
    totals: Totals


# Over 80 lines: one derivation, read from top to bottom with the formulas above; its parts would
# hand each other a dozen arrays.
def batch_gradient(
    encoder: EncoderParams,
    D: Float[Array, "K D"],
    x: Float[Array, "N D"],
    objective: Objective,
    n_concepts: int,
    n_data: int,
) -> BatchGradient:
    """Loss and gradient of one batch with respect to the encoder and the dictionary D.

    Args:
      encoder: the part of the encoder that lies here, with "log_threshold" [K] for jumprelu.
      D: the atoms that lie here.
      x: the tokens that lie here.
      objective: what is minimised.
      n_concepts: K over all devices.
      n_data: size of the mesh axis "data".
    """
    dtype = objective.compute_dtype
    n_model = n_concepts // D.shape[0]
    n_tokens = x.shape[0] * n_data
    size = float(n_tokens * x.shape[1])  # the loss is a mean over so many numbers
    kernel, bias = encoder["kernel"], encoder["bias"]
    # LayerNorm's mean over concepts is linear in the token, and known before the product is made:
    # so h is centred as it is written, and no pass over [N, K] is spent on it.
    mean_kernel = sum_over(jnp.mean(_rounded(kernel, dtype), axis=1), (MODEL,)) / n_model
    mean = _rounded(x, dtype) @ mean_kernel + sum_over(jnp.mean(bias), (MODEL,)) / n_model  # [N]
    h = stored(matmul(x, kernel, dtype) + bias[None] - mean[:, None], dtype)  # [N, K]
    variance = sum_over(jnp.sum(jnp.square(h), axis=1), (MODEL,)) / n_concepts
    inverse = jax.lax.rsqrt(variance + NORM_EPSILON)
    pre = h * inverse[:, None] * encoder["scale"][None] + encoder["shift"][None]
    z = jax.nn.relu(pre)
    if objective.is_compact:
        active, threshold = select_active(z, objective.n_active * n_tokens, (DATA, MODEL))
        layout = compact(z, active)
    else:
        # Made once: XLA may compute an array again inside each fusion that reads it, with another
        # rounding, and the code that defines a threshold would fall below it in one of them.
        z = jax.lax.optimization_barrier(z)
        bounds, threshold = _bounds(z, encoder, objective, n_data)
        layout = Masked(jnp.where(_reaches(z, bounds), z, 0.0), dtype)

    x_hat = sum_over(layout.times_atoms(layout.values, D), (MODEL,))
    residual = x - x_hat
    squared_error = jnp.sum(jnp.square(residual))
    loss = squared_error / size
    d_x_hat = -2 * residual / size
    if objective.loss == "aux":
        left_out = jnp.where(_reaches(z, bounds), 0.0, z)
        cut = by_blocks(functools.partial(_half_of, bounds[1], n_concepts), z, bounds[0])
        helps = (left_out >= cut[:, None]) & (left_out > 0)
        explained = sum_over(matmul(jnp.where(helps, left_out, 0.0), D, dtype), (MODEL,))
        unexplained = residual - explained
        loss += AUX_WEIGHT * jnp.sum(jnp.square(unexplained)) / size
        d_unexplained = 2 * AUX_WEIGHT * unexplained / size
        d_x_hat -= d_unexplained
    d_D = layout.times_tokens(layout.values, d_x_hat)
    dz = layout.inner(d_x_hat, D)
    if objective.l1_weight:
        weight = objective.l1_weight / n_tokens
        loss += weight * sum_over(jnp.sum(layout.values), (MODEL,))
        dz = jnp.where(layout.values > 0, dz + weight, 0.0)
    d_log_threshold = {}
    if objective.activation == "jumprelu":
        d_log_threshold = {"log_threshold": _jump_gradient(z, d_x_hat, D, encoder, objective)}
    if objective.loss == "aux":
        dz += jnp.where(helps, matmul(-d_unexplained, D.T, dtype), 0.0)
    dz = stored(dz, dtype)

    d_encoder = _encoder_gradient(
        encoder, x, h, mean, inverse, layout, dz, n_concepts=n_concepts, dtype=dtype
    )
    positive = layout.values > 0
    # Whole numbers: a sum of ones in float32 stays at 2^24.
    fires = layout.sum_by_concept(positive.astype(jnp.int32))
    totals = Totals(
        loss=loss,
        squared_error=squared_error,
        x=jnp.sum(x),
        x_squared=jnp.sum(jnp.square(x)),
        n_positive=sum_over(jnp.sum(fires, dtype=jnp.float32), (MODEL,)),
        threshold=threshold / n_data,
    )
    return BatchGradient(d_encoder | d_log_threshold, d_D, fires, totals)


def _rounded(array: Float[Array, "..."], dtype: str) -> Float[Array, "..."]:
    """As the operand of a product in `dtype`."""
    return array.astype(dtype).astype(jnp.float32)


def _encoder_gradient(
    encoder: EncoderParams,
    x: Float[Array, "N D"],
    centred: Float[Array, "N K"],
    mean: Float[Array, " N"],
    inverse: Float[Array, " N"],
    layout: Layout,
    dz: Entries,
    *,
    n_concepts: int,
    dtype: str,
) -> dict[str, Array]:
    """From the gradient of the codes back through LayerNorm and the linear map, never making dh."""
    normed = layout.of_matrix(centred) * layout.of_tokens(inverse)
    d_normed = layout.of_concepts(encoder["scale"]) * dz
    u = layout.of_tokens(inverse) * d_normed
    sums = jnp.stack([layout.sum_by_token(d_normed), layout.sum_by_token(d_normed * normed)])
    mean_d, mean_dn = sum_over(sums, (MODEL,)) / n_concepts
    # dh = u - a - s h, h not centred
    s = jnp.square(inverse) * mean_dn  # [N]
    a = inverse * mean_d - s * mean
    x_s, x_a = s @ x, a @ x  # [D]
    gram = matmul(x.T, s[:, None] * x, dtype)  # [D, D]
    kernel, bias = encoder["kernel"], encoder["bias"]
    return {
        "kernel": (
            layout.times_tokens(u, x).T
            - matmul(gram, kernel, dtype)
            - x_s[:, None] * bias[None]
            - x_a[:, None]
        ),
        "bias": layout.sum_by_concept(u) - x_s @ kernel - jnp.sum(s) * bias - jnp.sum(a),
        "scale": layout.sum_by_concept(dz * normed),
        "shift": layout.sum_by_concept(dz),
    }


def _bounds(
    z: Float[Array, "N K"], encoder: EncoderParams, objective: Objective, n_data: int
) -> tuple[tuple[Float[Array, "N 1"], Float[Array, "1 K"]], Float[Array, ""]]:
    """What a code must reach, by token and by concept, and the batch's threshold to remember.

    The latter is the batch's own (batch_topk) or the mean of all (topk, jumprelu).
    """
    by_token, by_concept = jnp.zeros((z.shape[0], 1)), jnp.zeros((1, z.shape[1]))
    if objective.activation == "batch_topk":
        n_active = objective.n_active * z.shape[0] * n_data
        threshold = batch_threshold(z, n_active, (DATA, MODEL))
        by_token += threshold
    elif objective.activation == "topk":
        by_token = token_thresholds(z, objective.n_active, (MODEL,))[:, None]
        threshold = sum_over(jnp.mean(by_token), (DATA,)) / n_data
    else:
        by_concept = jnp.exp(encoder["log_threshold"])[None]
        threshold = jax.lax.pmean(jnp.mean(by_concept), MODEL)
    return (by_token, by_concept), threshold


def _reaches(z, bounds):
    return (z >= bounds[0]) & (z >= bounds[1])


def _half_of(by_concept, n_concepts, z, by_token) -> Float[Array, " N"]:
    """The (K / 2)-th largest code of each token among those left out."""
    left_out = jnp.where(_reaches(z, (by_token, by_concept)), 0.0, z)
    return nth_largest_of_rows(left_out, n_concepts // 2, (MODEL,))


def _jump_gradient(z, d_x_hat, D, encoder, objective) -> Float[Array, " K"]:
    """Of the log threshold: every code near it counts, active or not."""
    dz = matmul(d_x_hat, D.T, objective.compute_dtype)
    if objective.l1_weight:
        dz += objective.l1_weight / (z.shape[0] * jax.lax.axis_size(DATA))
    return threshold_gradient(z, encoder["log_threshold"], dz, objective.bandwidth)
