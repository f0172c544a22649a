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
from bsjax.generators.scheduler_keys import read_scheduler_config

N_EARLIER = 3


class Schedule(NamedTuple):
    """Coefficients of S calls of the model; see the module's formula."""

    timesteps: Int[np.ndarray, " S"]
    p: Float[np.ndarray, " S"]
    q: Float[np.ndarray, " S"]
    a: Float[np.ndarray, " S"]
    b: Float[np.ndarray, "S 4"]
    c: Float[np.ndarray, " S"]
    is_kept: Bool[np.ndarray, " S"]  # whether f becomes one of the earlier ones
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


def make_schedule(
    config: Mapping[str, Any],
    n_steps: int,
    flag: str = "--config.generator.weights",
    steps: str = "generator.steps",
) -> Schedule:
    """The table of a diffusers scheduler.

    Args:
      config: as in scheduler_config.json; `_class_name` tells which.
      n_steps: inference steps. PNDM calls the model once more.
      flag: what an error about the config tells the user to set.
      steps: the config's entry that `n_steps` is from.

    Raises:
      UserError: a scheduler, a setting or a number of steps that there is no table of.
    """
    config = read_scheduler_config(config, flag)
    name, n_train = config["_class_name"], config["num_train_timesteps"]
    make_timesteps, make_table, least = {
        "DDIMScheduler": (_spaced, _ddim, 2),
        "PNDMScheduler": (_spaced, _pndm, 3),
        "DPMSolverMultistepScheduler": (_spaced_to_noise, _dpm_solver, 2),
        "UnCLIPScheduler": (_spread, _unclip, 2),
    }[name]
    if not least <= n_steps <= n_train:
        raise UserError(
            f"{steps}={n_steps}: expected {least} to {n_train} for {name}; set --config.{steps}"
        )
    timesteps = make_timesteps(config, n_steps)
    if not _is_sound(timesteps, n_steps, n_train):
        fewer = next(
            (n for n in range(n_steps - 1, least - 1, -1)
             if _is_sound(make_timesteps(config, n), n, n_train)),
            None,
        )  # fmt: skip
        more = f"{fewer} is the next number that works; set --config.{steps}={fewer}"
        none = f"no number works; set {flag} to a repository with another scheduler"
        raise UserError(
            f"{steps}={n_steps} asks {name} for timesteps that are doubled or outside 0 to"
            f" {n_train - 1} (timestep_spacing={config['timestep_spacing']}, steps_offset="
            f"{config['steps_offset']}): {more if fewer else none}"
        )
    cumulative = alphas_cumprod(config)
    # Steps divide by the shares of image and of noise, in float32.
    is_usable = np.finfo(np.float32).tiny < cumulative[-1] <= cumulative[0] < 1
    schedule = make_table(config, timesteps, cumulative) if is_usable else None
    if not is_usable or not _is_finite(schedule):
        raise UserError(
            f"{name} with {n_steps} steps has coefficients that are not finite: its betas leave no"
            f" noise, or nothing else; set {flag} to a repository with other ones"
        )
    return schedule


def _is_finite(schedule: Schedule) -> bool:
    with np.errstate(over="ignore"):  # that is what is looked for
        return all(np.isfinite(column.astype(np.float32)).all() for column in schedule[:-1])


def _is_sound(timesteps: np.ndarray, n_steps: int, n_train: int) -> bool:
    """As many as asked for, each below the one before, and all of them trained.

    PNDM's table repeats the second one; that is not among these yet.
    """
    return bool(
        len(timesteps) == n_steps
        and np.all(np.diff(timesteps) < 0)
        and 0 <= timesteps[-1] <= timesteps[0] < n_train
    )


def alphas_cumprod(config: Mapping[str, Any]) -> Float[np.ndarray, " T"]:
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
    else:
        edges = np.cos((np.arange(n_train + 1) / n_train + 0.008) / 1.008 * np.pi / 2) ** 2
        betas = np.minimum(1 - edges[1:] / edges[:-1], 0.999)
    return np.cumprod(1 - betas)


def _to_noise(config, alpha, sigma) -> tuple[np.ndarray, np.ndarray]:
    """(p, q) with noise = p x + q e, for samples x = alpha x0 + sigma noise."""
    kind = config["prediction_type"]
    if kind == "epsilon":
        return np.zeros_like(alpha), np.ones_like(alpha)
    if kind == "v_prediction":
        return sigma, alpha
    return 1 / sigma, -alpha / sigma  # the clean sample


def _to_clean(config, alpha, sigma) -> tuple[np.ndarray, np.ndarray]:
    """(p, q) with x0 = p x + q e."""
    if config["prediction_type"] == "sample":
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
    n_train, spacing = config["num_train_timesteps"], config["timestep_spacing"]
    if spacing == "linspace":
        return np.linspace(0, n_train - 1, n_steps).round().astype(np.int64)[::-1]
    if spacing == "leading":
        return np.arange(n_steps)[::-1] * (n_train // n_steps) + config["steps_offset"]
    return _trailing(n_train, n_steps)


def _spaced_to_noise(config, n_steps: int) -> np.ndarray:
    """Timesteps of DPM-Solver, latest first: one more, of which the noiseless one is left out."""
    n_train, spacing = config["num_train_timesteps"], config["timestep_spacing"]
    if spacing == "linspace":
        return np.linspace(0, n_train - 1, n_steps + 1).round().astype(np.int64)[:0:-1]
    if spacing == "leading":
        ratio = n_train // (n_steps + 1)
        return np.arange(n_steps + 1)[:0:-1] * ratio + config["steps_offset"]
    return _trailing(n_train, n_steps)


def _trailing(n_train: int, n_steps: int) -> np.ndarray:
    # The step is no exact number, so that for some n_steps one more fits in, near 0. It is cut off;
    # the others are diffusers' to the last bit, whose rounding of halves exact numbers would miss.
    timesteps = np.arange(n_train, 0, -n_train / n_steps)[:n_steps]
    return np.round(timesteps).astype(np.int64) - 1


def _spread(config, n_steps: int) -> np.ndarray:
    """Timesteps of unCLIP, latest first."""
    ratio = (config["num_train_timesteps"] - 1) / (n_steps - 1)
    return (np.arange(n_steps) * ratio).round().astype(np.int64)[::-1]


def _alpha_sigma_before(config, cumulative, timesteps, step):
    """alpha and sigma at each timestep and at the one that its step leads to."""
    # What stands for the end of the schedule, behind timestep 0.
    final = 1.0 if config["set_alpha_to_one"] else cumulative[0]
    before = timesteps - step
    products = np.where(before >= 0, cumulative[np.maximum(before, 0)], final)
    here = cumulative[timesteps]
    return np.sqrt(here), np.sqrt(1 - here), np.sqrt(products), np.sqrt(1 - products)


def _ddim(config, timesteps, cumulative) -> Schedule:
    step = len(cumulative) // len(timesteps)
    alpha, sigma, alpha_next, sigma_next = _alpha_sigma_before(config, cumulative, timesteps, step)
    p, q = _to_noise(config, alpha, sigma)
    # x0 = (x - sigma f) / alpha, with f the noise.
    a = alpha_next / alpha
    return _table(timesteps, p, q, a, sigma_next - a * sigma)


def _pndm(config, plain, cumulative) -> Schedule:
    """Linear multistep; the second call repeats the first step with the mean of both outputs."""
    timesteps = np.concatenate([plain[:1], plain[1:2], plain[1:]])
    # The second call is made at the next timestep, but steps from the first to it once more.
    step = len(cumulative) // len(plain)
    from_timesteps = timesteps.copy()
    from_timesteps[1] += step
    alpha, sigma, alpha_next, sigma_next = _alpha_sigma_before(
        config, cumulative, from_timesteps, step
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


def _dpm_solver(config, timesteps, cumulative) -> Schedule:
    """DPM-Solver++ of order 1 or 2 (midpoint), in steps of lambda = log(alpha / sigma)."""
    n_steps, final = len(timesteps), config["final_sigmas_type"]
    last = cumulative[0] if final == "sigma_min" else 1.0
    products = np.append(cumulative[timesteps], last)
    alpha, sigma = np.sqrt(products), np.sqrt(1 - products)
    p, q = _to_clean(config, alpha[:-1], sigma[:-1])
    with np.errstate(divide="ignore"):
        steps = np.diff(np.log(alpha) - np.log(sigma))  # infinite where it ends without noise
    gain = alpha[1:] * -np.expm1(-steps)
    b = np.stack([gain, np.zeros(n_steps)], axis=1)
    is_short = config["lower_order_final"] and n_steps < 15
    is_last_of_first_order = is_short or config["euler_at_final"] or final == "zero"
    if config["solver_order"] == 2:
        half = gain[1:] * steps[1:] / (2 * steps[:-1])
        half[-1] = 0 if is_last_of_first_order else half[-1]
        b[1:] += np.stack([half, -half], axis=1)
    return _table(timesteps, p, q, sigma[1:] / sigma[:-1], b)


def _unclip(config, timesteps, cumulative) -> Schedule:
    """DDPM steps over clipped predictions of the clean sample, with fresh noise."""
    here = cumulative[timesteps]
    there = np.append(cumulative[timesteps[1:]], 1.0)  # the last timestep is 0, and ends clean
    beta = 1 - here / there
    p, q = _to_clean(config, np.sqrt(here), np.sqrt(1 - here))
    a = np.sqrt(1 - beta) * (1 - there) / (1 - here)
    b = np.sqrt(there) * beta / (1 - here)
    variance = np.maximum((1 - there) / (1 - here) * beta, 1e-20)
    c = np.where(timesteps > 0, np.sqrt(variance), 0)
    clip = config["clip_sample_range"] if config["clip_sample"] else np.inf
    return _table(timesteps, p, q, a, b, c=c, clip=float(clip))
