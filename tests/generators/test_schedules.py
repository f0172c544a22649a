"""Every sampler against torch's, with a made-up model, in few steps and in many."""

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from bsjax.core.errors import UserError
from bsjax.generators import schedules

# diffusers' DPM-Solver turns a torch tensor to numpy in a way that numpy deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")
SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SD_DDIM = SD | {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}
CASES = {
    "ddim": (diffusers.DDIMScheduler, SD_DDIM),
    "ddim v": (diffusers.DDIMScheduler, SD_DDIM | {"prediction_type": "v_prediction"}),
    "ddim sample": (diffusers.DDIMScheduler, SD_DDIM | {"prediction_type": "sample"}),
    "ddim alpha one": (diffusers.DDIMScheduler, SD_DDIM | {"set_alpha_to_one": True}),
    "ddim trailing": (diffusers.DDIMScheduler, SD_DDIM | {"timestep_spacing": "trailing"}),
    "ddim linear": (diffusers.DDIMScheduler, SD_DDIM | {"beta_schedule": "linear"}),
    "pndm": (diffusers.PNDMScheduler, SD | {"skip_prk_steps": True, "steps_offset": 1}),
    "pndm v": (
        diffusers.PNDMScheduler,
        SD | {"skip_prk_steps": True, "steps_offset": 1, "prediction_type": "v_prediction"},
    ),
    "dpm zero": (diffusers.DPMSolverMultistepScheduler, {}),
    "dpm sigma_min": (
        diffusers.DPMSolverMultistepScheduler,
        SD | {"final_sigmas_type": "sigma_min"},
    ),
    "dpm v": (
        diffusers.DPMSolverMultistepScheduler,
        SD | {"prediction_type": "v_prediction", "final_sigmas_type": "sigma_min"},
    ),
    "dpm leading": (
        diffusers.DPMSolverMultistepScheduler,
        SD | {"timestep_spacing": "leading", "steps_offset": 1},
    ),
    "dpm trailing": (diffusers.DPMSolverMultistepScheduler, SD | {"timestep_spacing": "trailing"}),
    "dpm first order": (diffusers.DPMSolverMultistepScheduler, SD | {"solver_order": 1}),
}


def config_of(scheduler):
    """As save_pretrained writes it."""
    return {"_class_name": type(scheduler).__name__, **scheduler.config}


def model(x, t, module):
    return module.tanh(1.3 * x + 0.2 * module.cos(x * 3)) + 0.001 * t * module.sin(2 * x)


@pytest.mark.parametrize("n_steps", [4, 10, 20, 50])
@pytest.mark.parametrize("case", CASES)
def test_samples_are_those_of_torch(case, n_steps):
    scheduler_class, settings = CASES[case]
    scheduler = scheduler_class(**settings)
    noise = np.random.default_rng(n_steps).normal(size=(2, 3, 4)).astype(np.float32)

    scheduler.set_timesteps(n_steps)
    x = torch.from_numpy(noise)
    for t in scheduler.timesteps:
        x = scheduler.step(model(x, float(t), torch), t, x).prev_sample

    schedule = schedules.make_schedule(config_of(scheduler), n_steps)
    np.testing.assert_array_equal(schedule.timesteps, scheduler.timesteps.numpy())
    ours = jax.jit(lambda x: schedules.run(schedule, lambda x, t: model(x, t, jnp), x))(noise)
    scale = np.abs(x.numpy()).max()
    np.testing.assert_allclose(ours, x.numpy(), atol=2e-5 * scale)


@pytest.mark.parametrize("n_steps", [5, 25])
@pytest.mark.parametrize("prediction", ["sample", "epsilon"])
def test_unclip(n_steps, prediction, monkeypatch):
    settings = {"clip_sample_range": 2.0, "prediction_type": prediction}
    scheduler = diffusers.UnCLIPScheduler(variance_type="fixed_small_log", **settings)
    # In float32, as torch has it, 1 - alphas_cumprod[0] is wrong by 5e-4 of itself.
    cumulative = schedules.alphas_cumprod({"_class_name": "UnCLIPScheduler"})
    scheduler.alphas_cumprod = torch.from_numpy(cumulative)
    scheduler.alphas = torch.from_numpy(cumulative / np.append(1.0, cumulative[:-1]))
    np.testing.assert_allclose(scheduler.betas, 1 - scheduler.alphas, rtol=2e-6)
    scheduler.betas = 1 - scheduler.alphas
    noises = np.random.default_rng(0).normal(size=(n_steps + 1, 2, 6)).astype(np.float32)
    drawn = iter(noises[1:])
    module = "diffusers.schedulers.scheduling_unclip.randn_tensor"
    monkeypatch.setattr(module, lambda *_, **__: torch.from_numpy(next(drawn)))
    scheduler.set_timesteps(n_steps)
    x, timesteps = torch.from_numpy(noises[0]), scheduler.timesteps
    for i, t in enumerate(timesteps):
        before = timesteps[i + 1] if i + 1 < n_steps else None
        x = scheduler.step(model(x, float(t), torch), t, x, prev_timestep=before).prev_sample

    schedule = schedules.make_schedule(config_of(scheduler), n_steps)
    np.testing.assert_array_equal(schedule.timesteps, timesteps.numpy())
    stored = jnp.asarray(noises[1:])
    ours = schedules.run(
        schedule, lambda x, t: model(x, t, jnp), jnp.asarray(noises[0]), lambda i: stored[i]
    )
    np.testing.assert_allclose(ours, x.numpy(), atol=2e-5 * np.abs(x.numpy()).max())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"_class_name": "EulerDiscreteScheduler"}, "expected one of DDIMScheduler"),
        ({"_class_name": "DDIMScheduler"}, "clip_sample=true"),
        ({"_class_name": "DPMSolverMultistepScheduler", "use_karras_sigmas": True}, "karras"),
        (
            {"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver++"},
            "sde",
        ),
        ({"_class_name": "PNDMScheduler"}, "skip_prk_steps"),
        ({"_class_name": "UnCLIPScheduler", "variance_type": "learned_range"}, "learned"),
    ],
)
def test_what_is_not_supported_is_refused(config, message):
    with pytest.raises(UserError, match=message):
        schedules.make_schedule(config, 10)
