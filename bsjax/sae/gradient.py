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
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from bsjax.core.collectives import sum_over
from bsjax.core.mesh import DATA, MODEL
from bsjax.core.topk import by_blocks, in_parts, join_rows, nth_largest_of_rows, split_rows
from bsjax.sae.batch_topk import (
    batch_threshold,
    largest_of_groups,
    select_active,
    token_thresholds,
)
from bsjax.sae.encoder import NORM_EPSILON, EncoderParams
from bsjax.sae.jump_relu import threshold_gradient
from bsjax.sae.layouts import Entries, Layout, Masked, compact, in_two_passes, matmul, stored

AUX_WEIGHT = 0.1
# Of so many concepts a device's sums [K, D] fit its fast memory beside some tokens' codes. With
# more (16,000 on a v4) working on a few tokens at a time accesses more memory than on all.
FEW_CONCEPTS = 4096
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
      rows_at_once: tokens whose codes are worked on together, 0 for all. A TPU keeps what is made
        of a few in its fast memory, and most arrays [N, K] are never written to the other. For
        devices with at most FEW_CONCEPTS.
      bfloat16_tokens: tokens are bfloat16 numbers, and products in float32 are made of bfloat16
        ones (a TPU in the precision "high"): those with tokens then take two, not three.
    """

    n_active: int
    loss: str = "mse"
    activation: str = "batch_topk"
    l1_weight: float = 0.0
    bandwidth: float = 1e-3
    relax_radius: float = 1.0
    compute_dtype: str = "float32"
    is_compact: bool = False
    rows_at_once: int = 0
    bfloat16_tokens: bool = False

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
    rows = objective.rows_at_once if D.shape[0] <= FEW_CONCEPTS else 0
    rows = 0 if rows and x.shape[0] % rows else rows
    by_parts = functools.partial(in_parts, rows=rows)

    def times_tokens(product, operand):
        if dtype == "float32" and objective.bfloat16_tokens:
            return in_two_passes(functools.partial(product, dtype="bfloat16"), operand)
        return product(operand, dtype=dtype)

    # LayerNorm's mean over concepts is linear in the token, and known before the product is made:
    # so h is centred as it is written, and no pass over [N, K] is spent on it.
    mean_kernel = sum_over(jnp.mean(_rounded(kernel, dtype), axis=1), (MODEL,)) / n_model
    mean_bias = sum_over(jnp.mean(bias), (MODEL,)) / n_model

    def encode(x):
        mean = _rounded(x, dtype) @ mean_kernel + mean_bias
        h = times_tokens(lambda kernel, dtype: matmul(x, kernel, dtype), kernel)
        h = stored(h + bias[None] - mean[:, None], dtype)
        squares = jnp.sum(jnp.square(h.astype(jnp.float32)), axis=1)
        return (h, mean, squares), (jnp.sum(x), jnp.sum(jnp.square(x)))

    x_parts = split_rows(x, rows)
    # h is [N, K], in parts and in the compute dtype.
    (h, mean, squares), (sum_x, sum_x_squared) = by_parts(encode, x_parts)
    variance = sum_over(join_rows(squares, rows), (MODEL,)) / n_concepts
    inverse = jax.lax.rsqrt(variance + NORM_EPSILON)

    def activate(h, inverse):
        pre = h * inverse[:, None] * encoder["scale"][None] + encoder["shift"][None]
        z = jax.nn.relu(pre)
        if objective.is_compact:
            return (z, []), ()
        # Made once: XLA may compute an array again inside each fusion that reads it, with another
        # rounding, and the code that defines a threshold would fall below it in one of them.
        z = jax.lax.optimization_barrier(z)
        return (z, largest_of_groups(z) if objective.activation == "batch_topk" else []), ()

    inverse_parts = split_rows(inverse, rows)
    (z, group_maxima), _ = by_parts(activate, h, inverse_parts)
    if objective.is_compact:
        active, threshold = select_active(z, objective.n_active * n_tokens, (DATA, MODEL))
        bounds = (jnp.zeros((x.shape[0], 1)), jnp.zeros((1, 1)))  # not looked at
    else:
        bounds, threshold = _bounds(z, group_maxima, encoder, objective, n_data, rows)

    def layout_of(z, by_token):
        if objective.is_compact:
            return compact(z, active)
        return Masked(jnp.where(_reaches(z, (by_token, bounds[1])), z, 0.0), dtype)

    def decode(z, by_token):
        layout = layout_of(z, by_token)
        x_hat = layout.times_atoms(layout.values, D)
        if objective.loss != "aux":
            return (x_hat, (), ()), ()
        cut = by_blocks(functools.partial(_half_of, bounds[1], n_concepts), z, by_token)
        helping, _ = _that_help(z, (by_token, bounds[1]), cut)
        return (x_hat, matmul(helping, D, dtype), cut), ()

    by_token = split_rows(bounds[0], rows)
    (x_hat, explained, cut), _ = by_parts(decode, z, by_token)
    # Of both by one call: no device waits twice for the others.
    x_hat, explained = sum_over((x_hat, explained), (MODEL,))

    def backward(x, z, h, inverse, by_token, x_hat, cut, explained):
        residual = x - x_hat
        squared_error = jnp.sum(jnp.square(residual))
        d_x_hat = -2 * residual / size
        squared_rest = ()
        if objective.loss == "aux":
            unexplained = residual - explained
            squared_rest = jnp.sum(jnp.square(unexplained))
            d_unexplained = 2 * AUX_WEIGHT * unexplained / size
            d_x_hat -= d_unexplained
        layout = layout_of(z, by_token)
        d_D = layout.times_tokens(layout.values, d_x_hat)
        dz = layout.inner(d_x_hat, D)
        l1, d_log_threshold = (), ()
        if objective.l1_weight:
            l1 = jnp.sum(layout.values)
            dz = jnp.where(layout.values > 0, dz + objective.l1_weight / n_tokens, 0.0)
        if objective.activation == "jumprelu":
            d_log_threshold = _jump_gradient(z, d_x_hat, D, encoder, objective, n_tokens)
        if objective.loss == "aux":
            _, helps = _that_help(z, (by_token, bounds[1]), cut)
            dz += jnp.where(helps, matmul(-d_unexplained, D.T, dtype), 0.0)
        dz = stored(dz, dtype).astype(jnp.float32)
        by_row, u, of_encoder = _entry_sums(encoder["scale"], h, inverse, layout, dz)
        of_encoder["kernel"] = times_tokens(lambda u, dtype: layout.times_tokens(u, x, dtype), u)
        # Whole numbers: a sum of ones in float32 stays at 2^24.
        fires = layout.sum_by_concept((layout.values > 0).astype(jnp.int32))
        errors = (squared_error, squared_rest, l1)
        return by_row, (errors, d_D, d_log_threshold, of_encoder, fires)

    by_row, (errors, d_D, d_log_threshold, of_encoder, fires) = by_parts(
        backward, x_parts, z, h, inverse_parts, by_token, x_hat, cut, explained
    )
    squared_error, squared_rest, l1 = errors
    loss = squared_error / size
    if objective.loss == "aux":
        loss += AUX_WEIGHT * squared_rest / size
    if objective.l1_weight:
        loss += objective.l1_weight / n_tokens * sum_over(l1, (MODEL,))
    mean, by_row = join_rows((mean, by_row), rows)
    d_encoder = _encoder_gradient(
        encoder, x, mean, inverse, by_row, of_encoder,
        n_concepts=n_concepts, dtype=dtype, gram_parts=n_model if objective.rows_at_once else 1,
    )  # fmt: skip
    if objective.activation == "jumprelu":
        d_encoder |= {"log_threshold": d_log_threshold}
    totals = Totals(
        loss=loss,
        squared_error=squared_error,
        x=sum_x,
        x_squared=sum_x_squared,
        n_positive=sum_over(jnp.sum(fires, dtype=jnp.float32), (MODEL,)),
        threshold=threshold / n_data,
    )
    return BatchGradient(d_encoder, d_D, fires, totals)


def _rounded(array: Float[Array, "..."], dtype: str) -> Float[Array, "..."]:
    """As the operand of a product in `dtype`."""
    return array.astype(dtype).astype(jnp.float32)


def _entry_sums(
    scale: Float[Array, " K"],
    centred: Float[Array, "N K"],
    inverse: Float[Array, " N"],
    layout: Layout,
    dz: Entries,
) -> tuple[Float[Array, "N 2"], Entries, dict[str, Array]]:
    """What the encoder's gradient needs of the gradient of the codes: sums by token and by concept.

    Returns:
      By token of d_normed, and of its product with the normed codes; u; and those by concept.
    """
    normed = layout.of_matrix(centred) * layout.of_tokens(inverse)
    d_normed = layout.of_concepts(scale) * dz
    u = layout.of_tokens(inverse) * d_normed
    by_token = [layout.sum_by_token(d_normed), layout.sum_by_token(d_normed * normed)]
    return (
        jnp.stack(by_token, axis=1),
        u,
        {
            "bias": layout.sum_by_concept(u),
            "scale": layout.sum_by_concept(dz * normed),
            "shift": layout.sum_by_concept(dz),
        },
    )


def _encoder_gradient(
    encoder: EncoderParams,
    x: Float[Array, "N D"],
    mean: Float[Array, " N"],
    inverse: Float[Array, " N"],
    by_token: Float[Array, "N 2"],
    sums: dict[str, Array],
    *,
    n_concepts: int,
    dtype: str,
    gram_parts: int,
) -> dict[str, Array]:
    """From `_entry_sums` and x^T u back through LayerNorm and the linear map, never making dh."""
    mean_d, mean_dn = (sum_over(by_token, (MODEL,)) / n_concepts).T
    # dh = u - a - s h, h not centred
    s = jnp.square(inverse) * mean_dn  # [N]
    a = inverse * mean_d - s * mean
    x_s, x_a = s @ x, a @ x  # [D]
    kernel, bias = encoder["kernel"], encoder["bias"]
    return {
        "kernel": (
            sums["kernel"].T
            - matmul(_gram(x, s, dtype, gram_parts), kernel, dtype)
            - x_s[:, None] * bias[None]
            - x_a[:, None]
        ),
        "bias": sums["bias"] - x_s @ kernel - jnp.sum(s) * bias - jnp.sum(a),
        "scale": sums["scale"],
        "shift": sums["shift"],
    }


def _gram(
    x: Float[Array, "N D"], s: Float[Array, " N"], dtype: str, n_parts: int
) -> Float[Array, "D D"]:
    """x^T diag(s) x; devices of "model" hold the same tokens and may each take a part of them."""
    if n_parts == 1 or x.shape[0] % n_parts:
        return matmul(x.T, s[:, None] * x, dtype)
    share = x.shape[0] // n_parts
    first = share * jax.lax.axis_index(MODEL)
    x, s = (jax.lax.dynamic_slice_in_dim(each, first, share) for each in (x, s))
    return sum_over(matmul(x.T, s[:, None] * x, dtype), (MODEL,))


def _bounds(
    z: Float[Array, "*N K"],
    group_maxima: list[Float[Array, "*N G"]],
    encoder: EncoderParams,
    objective: Objective,
    n_data: int,
    rows: int,
) -> tuple[tuple[Float[Array, "N 1"], Float[Array, "1 K"]], Float[Array, ""]]:
    """What a code must reach, by token and by concept, and the batch's threshold to remember.

    The latter is the batch's own (batch_topk) or the mean of all (topk, jumprelu).
    """
    n_tokens = math.prod(z.shape[:-1])
    by_token, by_concept = jnp.zeros((n_tokens, 1)), jnp.zeros((1, z.shape[-1]))
    if objective.activation == "batch_topk":
        n_active = objective.n_active * n_tokens * n_data
        threshold = batch_threshold(z, n_active, (DATA, MODEL), group_maxima)
        by_token += threshold
    elif objective.activation == "topk":
        # (results by row, no sums)
        find = lambda z: (token_thresholds(z, objective.n_active, (MODEL,)), ())  # noqa: E731
        by_token = join_rows(in_parts(find, z, rows=rows)[0], rows)[:, None]
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


def _that_help(z, bounds, cut) -> tuple[Float[Array, "N K"], Bool[Array, "N K"]]:
    """Codes that explain the residual, 0 elsewhere: the largest of those left out; and which."""
    left_out = jnp.where(_reaches(z, bounds), 0.0, z)
    helps = (left_out >= cut[:, None]) & (left_out > 0)
    return jnp.where(helps, left_out, 0.0), helps


def _jump_gradient(z, d_x_hat, D, encoder, objective, n_tokens) -> Float[Array, " K"]:
    """Of the log threshold: every code near it counts, active or not."""
    dz = matmul(d_x_hat, D.T, objective.compute_dtype)
    if objective.l1_weight:
        dz += objective.l1_weight / n_tokens
    return threshold_gradient(z, encoder["log_threshold"], dz, objective.bandwidth)
