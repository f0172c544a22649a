"""Noise schedules of diffusion samplers, each written out as a table of coefficients.

Every sampler used here is linear in the current sample, the model's outputs of this and the last
steps and fresh noise. So a schedule is computed once, on the host in float64, and one loop runs all
of them. With p, q, a, b, c the rows of the table, x the sample and e the model's output:

    f = p x + q e                                  clipped where the schedule says so
    x = a x + b0 f + b1 f' + b2 f'' + b3 f''' + c noise

where f', f'', f''' are the f of earlier steps. Settings are those of diffusers'
scheduler_config.json; what the table cannot express is refused.

Sources: DDIM (arXiv:2010.02502, eq. 12), PNDM's linear multistep (arXiv:2202.09778, eq. 9 and 12),
DPM-Solver++ 2M (arXiv:2211.01095, algorithm 2), unCLIP's DDPM steps (arXiv:2006.11239, eq. 7).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from bsjax.core.errors import UserError

N_EARLIER = 3


class Schedule(NamedTuple):
    """Coefficients of S calls of the model; see the module's formula."""

    timesteps: Int[np.ndarray, "S"]
    p: Float[np.ndarray, "S"]
    q: Float[np.ndarray, "S"]
    a: Float[np.ndarray, "S"]
    b: Float[np.ndarray, "S 4"]
    c: Float[np.ndarray, "S"]
    is_kept: Bool[np.ndarray, "S"]  # whether f becomes one of the earlier ones
    clip: float  # largest |f|; inf: none


def run(
    schedule: Schedule,
    predict: Callable[[Float[Array, "B ..."], Int[Array, ""]], Float[Array, "B ..."]],
    x: Float[Array, "B ..."],
    draw: Callable[[Int[Array, ""]], Float[Array, "B ..."]] | None = None,
) -> Float[Array, "B ..."]:
    """Denoises: one compiled loop over the table, the sample in float32 throughout.

    Args:
      schedule: the table.
      predict: (sample, timestep) -> the model's output, guidance applied.
      x: the initial noise.
      draw: number of the step -> noise; only for schedules that add some.
    """
    table = [as_float32(column) for column in schedule[:-1]]
    numbers = jnp.arange(len(schedule.timesteps))
    earlier = jnp.zeros((N_EARLIER, *x.shape), jnp.float32)

    def step(carry, row):
        x, earlier = carry
        number, (t, p, q, a, b, c, is_kept) = row
        f = p * x + q * predict(x, t).astype(jnp.float32)
        if np.isfinite(schedule.clip):
            f = jnp.clip(f, -schedule.clip, schedule.clip)
        all_f = jnp.concatenate([f[None], earlier])
        x = a * x + jnp.tensordot(b, all_f, axes=1, precision="highest")
        if np.any(schedule.c):
            x = x + c * draw(number)
        return (x, jnp.where(is_kept, all_f[:N_EARLIER], earlier)), None

    (x, _), _ = jax.lax.scan(step, (x.astype(jnp.float32), earlier), (numbers, table))
    return x


def as_float32(column: np.ndarray) -> Array:
    """Coefficients are kept in float64 and used in float32."""
    return jnp.asarray(column, jnp.float32 if column.dtype == np.float64 else None)


def make_schedule(config: Mapping[str, Any], n_steps: int) -> Schedule:
    """The table of a diffusers scheduler.

    Args:
      config: as in scheduler_config.json; `_class_name` tells which.
      n_steps: inference steps. PNDM calls the model once more.

    Raises:
      UserError: a scheduler or a setting that the table does not know.
    """
    name = config.get("_class_name", "")
    makers = {
        "DDIMScheduler": _ddim,
        "PNDMScheduler": _pndm,
        "DPMSolverMultistepScheduler": _dpm_solver,
        "UnCLIPScheduler": _unclip,
    }
    if name not in makers:
        raise UserError(f"scheduler {name!r}: expected one of {', '.join(makers)}")
    n_train = config.get("num_train_timesteps", 1000)
    if not 1 < n_steps <= n_train:
        raise UserError(
            f"generator.steps={n_steps}: expected 2 to {n_train}; set --config.generator.steps"
        )
    for key, wanted in REFUSED.items():
        if key in config and config[key] not in (wanted, None):
            raise UserError(f"{name} with {key}={config[key]!r} is not supported, only {wanted!r}")
    return makers[name](config, n_steps, alphas_cumprod(config))


# Settings that only one value of is supported.
REFUSED = {
    "trained_betas": None,
    "thresholding": False,
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "use_lu_lambdas": False,
    "use_flow_sigmas": False,
    "rescale_betas_zero_snr": False,
    "euler_at_final": False,
    "algorithm_type": "dpmsolver++",
    "solver_type": "midpoint",
}


def alphas_cumprod(config: Mapping[str, Any]) -> Float[np.ndarray, "T"]:
    """Cumulative product of 1 - beta over the training timesteps."""
    n_train = config.get("num_train_timesteps", 1000)
    kind = config.get("beta_schedule", "linear")
    if config.get("_class_name") == "UnCLIPScheduler":
        kind = "squaredcos_cap_v2"
    start, end = config.get("beta_start", 1e-4), config.get("beta_end", 0.02)
    if kind == "linear":
        betas = np.linspace(start, end, n_train)
    elif kind == "scaled_linear":
        betas = np.linspace(start**0.5, end**0.5, n_train) ** 2
    elif kind == "squaredcos_cap_v2":
        edges = np.cos((np.arange(n_train + 1) / n_train + 0.008) / 1.008 * np.pi / 2) ** 2
        betas = np.minimum(1 - edges[1:] / edges[:-1], 0.999)
    else:
        raise UserError(f"scheduler with beta_schedule={kind!r} is not supported")
    return np.cumprod(1 - betas)


def _to_noise(config, alpha, sigma) -> tuple[np.ndarray, np.ndarray]:
    """(p, q) with noise = p x + q e, for samples x = alpha x0 + sigma noise."""
    kind = config.get("prediction_type", "epsilon")
    if kind == "epsilon":
        return np.zeros_like(alpha), np.ones_like(alpha)
    if kind == "v_prediction":
        return sigma, alpha
    if kind == "sample":
        return 1 / sigma, -alpha / sigma
    raise UserError(f"scheduler with prediction_type={kind!r} is not supported")


def _to_clean(config, alpha, sigma) -> tuple[np.ndarray, np.ndarray]:
    """(p, q) with x0 = p x + q e."""
    if config.get("prediction_type", "epsilon") == "sample":
        return np.zeros_like(alpha), np.ones_like(alpha)
    p, q = _to_noise(config, alpha, sigma)
    return (1 - sigma * p) / alpha, -sigma * q / alpha


def _table(timesteps, p, q, a, b, c=None, is_kept=None, clip=np.inf) -> Schedule:
    n = len(timesteps)
    b = np.asarray(b, np.float64)
    b = np.pad(b.reshape(n, -1), ((0, 0), (0, N_EARLIER + 1 - b.size // n)))
    c = np.zeros(n) if c is None else c
    is_kept = np.ones(n, bool) if is_kept is None else is_kept
    return Schedule(np.asarray(timesteps, np.int32), p, q, a, b, c, is_kept, clip)


def _spaced(config, n_steps: int) -> np.ndarray:
    """Timesteps of DDIM and PNDM, latest first."""
    n_train, spacing = (
        config.get("num_train_timesteps", 1000),
        config.get("timestep_spacing", "leading"),
    )
    if spacing == "linspace":
        return np.linspace(0, n_train - 1, n_steps).round().astype(np.int64)[::-1]
    if spacing == "leading":
        steps = np.arange(n_steps) * (n_train // n_steps)
        return steps[::-1] + config.get("steps_offset", 0)
    if spacing == "trailing":
        return np.round(np.arange(n_train, 0, -n_train / n_steps)).astype(np.int64) - 1
    raise UserError(f"scheduler with timestep_spacing={spacing!r} is not supported")


def _alpha_sigma_before(config, cumulative, timesteps, n_steps):
    """alpha and sigma at each timestep and at the one that its step leads to."""
    step = config.get("num_train_timesteps", 1000) // n_steps
    # What stands for the end of the schedule, behind timestep 0.
    final = 1.0 if config.get("set_alpha_to_one", True) else cumulative[0]
    before = timesteps - step
    products = np.where(before >= 0, cumulative[np.maximum(before, 0)], final)
    here = cumulative[timesteps]
    return np.sqrt(here), np.sqrt(1 - here), np.sqrt(products), np.sqrt(1 - products)


def _ddim(config, n_steps: int, cumulative) -> Schedule:
    if config.get("clip_sample", True):
        raise UserError("DDIMScheduler with clip_sample=true is not supported")
    timesteps = _spaced(config, n_steps)
    alpha, sigma, alpha_next, sigma_next = _alpha_sigma_before(
        config, cumulative, timesteps, n_steps
    )
    p, q = _to_noise(config, alpha, sigma)
    # x0 = (x - sigma f) / alpha, with f the noise.
    a = alpha_next / alpha
    return _table(timesteps, p, q, a, sigma_next - a * sigma)


def _pndm(config, n_steps: int, cumulative) -> Schedule:
    """Linear multistep; the second call repeats the first step with the mean of both outputs."""
    if not config.get("skip_prk_steps", False):
        raise UserError("PNDMScheduler with skip_prk_steps=false is not supported")
    if n_steps < 3:
        raise UserError("PNDMScheduler takes 3 steps or more; set --config.generator.steps")
    plain = _spaced(config, n_steps)
    timesteps = np.concatenate([plain[:1], plain[1:2], plain[1:]])
    # The second call is made at the next timestep, but steps from the first to it once more.
    step = config.get("num_train_timesteps", 1000) // n_steps
    from_timesteps = timesteps.copy()
    from_timesteps[1] += step
    config = {"set_alpha_to_one": False} | dict(config)
    alpha, sigma, alpha_next, sigma_next = _alpha_sigma_before(
        config, cumulative, from_timesteps, n_steps
    )
    # The step takes a combination of earlier outputs, and turns it into noise at its own timestep.
    p, q = _to_noise(config, alpha, sigma)
    ratio = alpha_next / alpha
    noise = sigma_next - ratio * sigma
    a, b0 = ratio + noise * p, noise * q
    weights = np.zeros((len(timesteps), 4))
    weights[:] = np.array([55, -59, 37, -9]) / 24
    weights[0] = 1, 0, 0, 0
    weights[1] = 0.5, 0.5, 0, 0
    weights[2] = 1.5, -0.5, 0, 0
    weights[3] = np.array([23, -16, 5, 0]) / 12
    b = b0[:, None] * weights
    # Undo the first step: x before it is (x - b f') / a.
    b[1, 1] -= a[1] * b[0, 0] / a[0]
    a[1] /= a[0]
    is_kept = np.arange(len(timesteps)) != 1
    ones = np.ones(len(timesteps))
    return _table(timesteps, 0 * ones, ones, a, b, is_kept=is_kept)


def _dpm_solver(config, n_steps: int, cumulative) -> Schedule:
    """DPM-Solver++ of order 1 or 2 (midpoint), in steps of lambda = log(alpha / sigma)."""
    order = config.get("solver_order", 2)
    if order not in (1, 2):
        raise UserError(f"DPMSolverMultistepScheduler with solver_order={order} is not supported")
    n_train, spacing = len(cumulative), config.get("timestep_spacing", "linspace")
    if np.isfinite(float(config.get("lambda_min_clipped", -np.inf))):
        raise UserError("DPMSolverMultistepScheduler with lambda_min_clipped is not supported")
    if spacing == "linspace":
        timesteps = np.linspace(0, n_train - 1, n_steps + 1).round()[::-1][:-1]
    elif spacing == "leading":
        timesteps = (np.arange(n_steps + 1) * (n_train // (n_steps + 1)))[::-1][:-1]
        timesteps = timesteps + config.get("steps_offset", 0)
    elif spacing == "trailing":
        timesteps = np.arange(n_train, 0, -n_train / n_steps).round() - 1
    else:
        raise UserError(f"scheduler with timestep_spacing={spacing!r} is not supported")
    timesteps = timesteps.astype(np.int64)
    final = config.get("final_sigmas_type", "zero")
    if final not in ("zero", "sigma_min"):
        raise UserError(f"scheduler with final_sigmas_type={final!r} is not supported")
    last = cumulative[0] if final == "sigma_min" else 1.0
    products = np.append(cumulative[timesteps], last)
    alpha, sigma = np.sqrt(products), np.sqrt(1 - products)
    p, q = _to_clean(config, alpha[:-1], sigma[:-1])
    with np.errstate(divide="ignore"):
        steps = np.diff(np.log(alpha) - np.log(sigma))  # infinite where it ends without noise
    gain = alpha[1:] * -np.expm1(-steps)
    b = np.stack([gain, np.zeros(n_steps)], axis=1)
    for i in range(1, n_steps):
        is_last = i == n_steps - 1
        is_short = config.get("lower_order_final", True) and n_steps < 15
        if order == 2 and not (is_last and (is_short or final == "zero")):
            half = gain[i] * steps[i] / (2 * steps[i - 1])
            b[i] = gain[i] + half, -half
    return _table(timesteps, p, q, sigma[1:] / sigma[:-1], b)


def _unclip(config, n_steps: int, cumulative) -> Schedule:
    """DDPM steps over clipped predictions of the clean sample, with fresh noise."""
    if config.get("variance_type", "fixed_small_log") != "fixed_small_log":
        raise UserError("UnCLIPScheduler with a learned variance is not supported")
    n_train = len(cumulative)
    timesteps = (np.arange(n_steps) * ((n_train - 1) / (n_steps - 1))).round()[::-1]
    timesteps = timesteps.astype(np.int64)
    here = cumulative[timesteps]
    there = np.append(cumulative[timesteps[1:]], 1.0)  # the last timestep is 0, and ends clean
    beta = 1 - here / there
    p, q = _to_clean(config, np.sqrt(here), np.sqrt(1 - here))
    a = np.sqrt(1 - beta) * (1 - there) / (1 - here)
    b = np.sqrt(there) * beta / (1 - here)
    variance = np.maximum((1 - there) / (1 - here) * beta, 1e-20)
    c = np.where(timesteps > 0, np.sqrt(variance), 0)
    clip = config.get("clip_sample_range", 1.0) if config.get("clip_sample", True) else np.inf
    return _table(timesteps, p, q, a, b, c=c, clip=float(clip))
