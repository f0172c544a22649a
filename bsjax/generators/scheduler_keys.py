"""What scheduler_config.json may say, for each scheduler that `schedules` has a table of.

Defaults are those of diffusers 0.39, whose classes take the same file.
"""

import math
from collections.abc import Mapping
from types import NoneType
from typing import Any

from bsjax.convert.config_keys import Key, check_keys, shown
from bsjax.core.errors import UserError

LONGEST = 10_000  # timesteps; a table of more is nobody's, and would fill the memory


def _only(value: Any) -> Key:
    return Key((type(value),), only=value, default=value)


_OFF = _only(False)
_NULL = Key((list, str, NoneType), only=None, default=None)


def _spacing(default: str) -> Key:
    return Key((str,), only=("leading", "linspace", "trailing"), default=default)


def _prediction(*kinds: str) -> Key:
    return Key((str,), only=kinds, default="epsilon")


_STEPS = {"num_train_timesteps": Key((int,), default=1000, least=2, most=LONGEST)}
_BETAS = _STEPS | {
    "beta_start": Key((float,), default=1e-4),
    "beta_end": Key((float,), default=0.02),
    "beta_schedule": Key(
        (str,), only=("linear", "scaled_linear", "squaredcos_cap_v2"), default="linear"
    ),
    "trained_betas": _NULL,
    "steps_offset": Key((int,), default=0, least=0, most=LONGEST),
}
KEYS: dict[str, dict[str, Key]] = {
    "DDIMScheduler": _BETAS
    | {
        "timestep_spacing": _spacing("leading"),
        "prediction_type": _prediction("epsilon", "sample", "v_prediction"),
        "set_alpha_to_one": Key((bool,), default=True),
        "clip_sample": Key((bool,), only=False, default=True),
        "thresholding": _OFF,
        "rescale_betas_zero_snr": _OFF,
    },
    "PNDMScheduler": _BETAS
    | {
        "timestep_spacing": _spacing("leading"),
        "prediction_type": _prediction("epsilon", "v_prediction"),
        "set_alpha_to_one": Key((bool,), default=False),
        "skip_prk_steps": Key((bool,), only=True, default=False),
    },
    "DPMSolverMultistepScheduler": _BETAS
    | {
        "timestep_spacing": _spacing("linspace"),
        "prediction_type": _prediction("epsilon", "sample", "v_prediction"),
        "algorithm_type": _only("dpmsolver++"),
        "solver_type": _only("midpoint"),
        "solver_order": Key((int,), only=(1, 2), default=2),
        "lower_order_final": Key((bool,), default=True),
        "euler_at_final": Key((bool,), default=False),
        "final_sigmas_type": Key((str,), only=("zero", "sigma_min"), default="zero"),
        "lambda_min_clipped": _only(-math.inf),
        # A learned one would cut the model's output to three channels.
        "variance_type": _NULL,
        "thresholding": _OFF,
        "rescale_betas_zero_snr": _OFF,
        "use_karras_sigmas": _OFF,
        "use_exponential_sigmas": _OFF,
        "use_beta_sigmas": _OFF,
        "use_lu_lambdas": _OFF,
        "use_flow_sigmas": _OFF,
        "use_dynamic_shifting": _OFF,
    },
    "UnCLIPScheduler": _STEPS
    | {
        "prediction_type": _prediction("epsilon", "sample"),
        "variance_type": _only("fixed_small_log"),
        "clip_sample": Key((bool,), default=True),
        "clip_sample_range": Key((float,), default=1.0, least=0, most=1e6),
        "beta_schedule": _only("squaredcos_cap_v2"),
    },
}
# Details of what is off above.
_UNUSED = {
    "DDIMScheduler": ("clip_sample_range", "dynamic_thresholding_ratio", "sample_max_value"),
    "PNDMScheduler": (),
    "DPMSolverMultistepScheduler": (
        "dynamic_thresholding_ratio",
        "sample_max_value",
        "flow_shift",
        "time_shift_type",
    ),
    "UnCLIPScheduler": (),
}
# Keys of diffusers' other schedulers that these are exchanged for. A file keeps them when its
# scheduler is exchanged, and a class leaves alone those that are not its own.
_FOREIGN = frozenset((
    "algorithm_type", "clip_sample", "clip_sample_range", "disable_corrector",
    "dynamic_thresholding_ratio", "euler_at_final", "final_sigmas_type", "flow_shift",
    "interpolation_type", "lambda_min_clipped", "lower_order_final", "predict_x0",
    "rescale_betas_zero_snr", "rho", "sample_max_value", "set_alpha_to_one", "shift_terminal",
    "sigma_data", "sigma_max", "sigma_min", "sigma_schedule", "skip_prk_steps", "solver_order",
    "solver_p", "solver_type", "thresholding", "time_shift_type", "timestep_type",
    "use_beta_sigmas", "use_dynamic_shifting", "use_exponential_sigmas", "use_flow_sigmas",
    "use_karras_sigmas", "use_lu_lambdas", "variance_type",
))  # fmt: skip


def harmless_keys(name: str) -> frozenset[str]:
    """Keys that change nothing in the scheduler of this name."""
    foreign = _FOREIGN if name != "UnCLIPScheduler" else frozenset()  # it is exchanged for none
    return (foreign | set(_UNUSED[name])) - set(KEYS[name])


def read_scheduler_config(config: Mapping[str, Any], flag: str) -> dict[str, Any]:
    """The settings of a scheduler, with defaults for those that are absent.

    Args:
      config: as in scheduler_config.json; `_class_name` tells which scheduler.
      flag: what an error tells the user to set.

    Raises:
      UserError: a scheduler or settings that no table is of.
    """
    if not isinstance(config, Mapping):
        raise UserError(
            f"scheduler_config.json: expected a JSON object, got {shown(config)}; set"
            f" {flag} to a complete repository"
        )
    name = config.get("_class_name")
    if not isinstance(name, str) or name not in KEYS:
        raise UserError(
            f"scheduler {shown(name)}: expected one of {', '.join(KEYS)}; set {flag} to a"
            " repository that has one"
        )
    where = f"{name}'s scheduler_config.json"
    values = check_keys(where, config, KEYS[name], harmless_keys(name), flag)
    if "beta_start" in values and not 0 < values["beta_start"] <= values["beta_end"] < 1:
        raise UserError(
            f"{where} has beta_start={shown(values['beta_start'])} and"
            f" beta_end={shown(values['beta_end'])}: expected 0 < beta_start <= beta_end < 1; set"
            f" {flag} to a repository without that"
        )
    return values | {"_class_name": name}
