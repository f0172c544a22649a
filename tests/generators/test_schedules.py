"""Every sampler against torch's, with a made-up model, in few steps and in many."""

import inspect
import itertools
import json
import pathlib

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from bsjax.core.errors import UserError
from bsjax.generators import scheduler_keys, schedules

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
    "dpm euler at final": (
        diffusers.DPMSolverMultistepScheduler,
        SD | {"final_sigmas_type": "sigma_min", "euler_at_final": True},
    ),
    "dpm no lower order": (
        diffusers.DPMSolverMultistepScheduler,
        SD | {"final_sigmas_type": "sigma_min", "lower_order_final": False},
    ),
    "dpm first order": (diffusers.DPMSolverMultistepScheduler, SD | {"solver_order": 1}),
}


@pytest.fixture(autouse=True)
def one_thread():
    """Tables are short: threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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


PLAIN = {
    "DDIMScheduler": SD_DDIM,
    "PNDMScheduler": SD | {"skip_prk_steps": True, "steps_offset": 1},
    "DPMSolverMultistepScheduler": SD,
    "UnCLIPScheduler": {},
}


# The offset counts for one spacing alone.
SPACED = [("leading", 0), ("leading", 1), ("leading", 2), ("linspace", 1), ("trailing", 1)]


@pytest.mark.parametrize(
    ("name", "spacing", "steps_offset"),
    [
        *((name, *spaced) for name in list(PLAIN)[:3] for spaced in SPACED),
        ("UnCLIPScheduler", "", 0),
    ],
)
def test_every_number_of_steps_has_a_sound_table_or_is_refused(name, spacing, steps_offset):
    config = {"_class_name": name, **PLAIN[name]}
    if spacing:
        config |= {"timestep_spacing": spacing, "steps_offset": steps_offset}
    oracle = getattr(diffusers, name).from_config(config)
    refused = []
    for n_steps in range(3 if name == "PNDMScheduler" else 2, 1001):
        oracle.set_timesteps(n_steps)
        theirs = oracle.timesteps.numpy()
        try:
            table = schedules.make_schedule(config, n_steps)
        except UserError as error:
            refused.append(n_steps)
            assert "\n" not in str(error)
            fewer = int(str(error).rpartition("--config.generator.steps=")[2])
            assert 2 < fewer < n_steps
            schedules.make_schedule(config, fewer)
            falling = np.delete(theirs, 1) if name == "PNDMScheduler" else theirs
            assert theirs.max() > 999 or np.any(np.diff(falling) >= 0), n_steps
            continue
        ours = table.timesteps
        if name == "PNDMScheduler":
            assert ours[1] == ours[2]
            falling = np.delete(ours, 1)
        else:
            falling = ours
        assert len(falling) == n_steps
        assert np.all(np.diff(falling) < 0)
        assert 0 <= falling.min() <= falling.max() <= 999
        for column in table[:-1]:
            assert len(column) == len(ours)
            assert np.isfinite(column.astype(np.float32)).all()
        # Where theirs has one more, at -1, the others are the same.
        is_long = spacing == "trailing" and n_steps in ONE_MORE
        np.testing.assert_array_equal(ours, np.delete(theirs, -1) if is_long else theirs)
        assert not is_long or theirs[-1] == -1
    is_dpm = name == "DPMSolverMultistepScheduler"
    expected = [1000] if is_dpm and spacing != "trailing" else []
    if spacing == "leading":
        # The first timestep is n - 1 (of DPM-Solver: n) strides, and the offset, above 0.
        n = np.arange(3, 1001) + is_dpm
        expected = list(np.arange(3, 1001)[(n - 1) * (1000 // n) + steps_offset > 999])
        expected = sorted({*expected, *([1000] if is_dpm else [])})
    assert refused == expected


# Numbers of steps for which 1000 / n is no exact number and one step more fits above 0.
ONE_MORE = [n for n in range(2, 1001) if len(np.arange(1000, 0, -1000 / n)) > n]


def test_trailing_steps_of_which_one_more_fit():
    assert len(ONE_MORE) == 62
    config = {"_class_name": "DDIMScheduler", **SD_DDIM, "timestep_spacing": "trailing"}
    table = schedules.make_schedule(config, 61)
    assert list(table.timesteps[[0, 1, -2, -1]]) == [999, 983, 32, 15]


def test_the_entry_of_the_config_is_named():
    config = {"_class_name": "UnCLIPScheduler"}
    for n_steps in (1, 1001):
        with pytest.raises(UserError, match=r"x.y=\d+: expected 2 to 1000.*--config.x.y"):
            schedules.make_schedule(config, n_steps, steps="x.y")
    with pytest.raises(UserError, match="set --flag to"):
        schedules.make_schedule(config | {"new": 1}, 10, "--flag")


def real_configs():
    """Files of released repositories, where they are; and each scheduler's own settings."""
    hub = pathlib.Path(__file__).resolve().parents[3] / "shared" / "hub"
    for path in sorted(hub.glob("**/scheduler_config.json")):
        yield str(path.relative_to(hub)), json.loads(path.read_text())
    for name, settings in PLAIN.items():
        own = config_of(getattr(diffusers, name)(**settings))
        yield name, {k: v for k, v in own.items() if k != "_use_default_values"}


def sample(table, model):
    """What a table makes of a made-up model without fresh noise, in float64."""
    x, earlier = np.linspace(-2, 2, 7), [np.zeros(7)] * 3
    for i, t in enumerate(table.timesteps):
        f = np.clip(table.p[i] * x + table.q[i] * model(x, float(t)), -table.clip, table.clip)
        x = table.a[i] * x + sum(w * each for w, each in zip(table.b[i], [f, *earlier]))  # noqa: B905
        if table.is_kept[i]:
            earlier = [f, *earlier[:2]]
    return x


def sample_of_torch(scheduler, n_steps, monkeypatch):
    """The same by diffusers."""
    is_unclip = isinstance(scheduler, diffusers.UnCLIPScheduler)
    module = "diffusers.schedulers.scheduling_unclip.randn_tensor"
    monkeypatch.setattr(module, lambda shape, **_: torch.zeros(shape))
    scheduler.set_timesteps(n_steps)
    x, timesteps = torch.linspace(-2, 2, 7, dtype=torch.float64)[None], scheduler.timesteps
    for i, t in enumerate(timesteps):
        more = {}
        if is_unclip:
            more = {"prev_timestep": timesteps[i + 1] if i + 1 < len(timesteps) else None}
        x = scheduler.step(model(x, float(t), torch), t, x, **more).prev_sample.double()
    return timesteps.numpy(), x[0].numpy()


WRONG = [None, True, False, 0, 1, -1, 2, 3, 7, 0.5, 1.0, 1e9, 10**30, float("nan"), float("inf")]
WRONG += [-float("inf"), "1000", "", "a\nb", "linear", "sample", "epsilon", "v_prediction"]
WRONG += ["trailing", "leading", "sigma_min", "heun", "learned_range", [], [0.1, 0.2], {}, {"a": 1}]


@pytest.mark.parametrize(("name", "config"), list(real_configs()))
def test_every_key_is_followed_as_in_torch_or_refused(name, config, monkeypatch):
    """Removes each field and gives it every kind of value: the oracle's table, or one line."""
    known = scheduler_keys.KEYS[config["_class_name"]]
    fields = dict.fromkeys([*config, *known, *scheduler_keys.harmless_keys(config["_class_name"])])
    variants = [config]
    for field in fields:
        variants.append({k: v for k, v in config.items() if k != field})
        values = WRONG if field in known else [None, 3, "a\nb"]
        variants += [config | {field: value} for value in values]
    scheduler_class = getattr(diffusers, config["_class_name"])
    taken = set(inspect.signature(scheduler_class.__init__).parameters)
    of_torch = {}  # by what the class takes of a file
    n_same = n_refused = 0
    for variant, n_steps in itertools.product(variants, (5, 20)):
        try:
            table = schedules.make_schedule(variant, n_steps)
        except UserError as error:
            assert "\n" not in str(error)
            n_refused += 1
            continue
        scheduler = scheduler_class.from_config(variant)
        key = n_steps, repr(sorted((k, v) for k, v in scheduler.config.items() if k in taken))
        if key not in of_torch:
            of_torch[key] = sample_of_torch(scheduler, n_steps, monkeypatch)
        timesteps, wanted = of_torch[key]
        np.testing.assert_array_equal(table.timesteps, timesteps, err_msg=str(variant))
        ours = sample(table, lambda x, t: model(x, t, np))
        # torch's alphas are float32: 1 - alphas_cumprod[0] is wrong by up to 1e-3 of itself.
        scale = np.abs(wanted).max()
        np.testing.assert_allclose(ours, wanted, atol=3e-3 * scale, err_msg=str(variant))
        n_same += 1
    assert n_same > 2 * len(fields)
    assert n_refused > 20 * len(known)
    with pytest.raises(UserError, match="brand_new=1 is unknown"):
        schedules.make_schedule(config | {"brand_new": 1}, 20)


@pytest.mark.parametrize("name", PLAIN)
def test_keys_of_a_scheduler_are_those_of_torch(name):
    scheduler_class = getattr(diffusers, name)
    mine = set(inspect.signature(scheduler_class.__init__).parameters) - {"self"}
    foreign = set()
    if scheduler_class.has_compatibles:
        for other in scheduler_class._get_compatibles():
            if other.__init__ is not object.__init__ and other.__module__.startswith("diffusers.s"):
                foreign |= set(inspect.signature(other.__init__).parameters) - {"self"}
    known, harmless = set(scheduler_keys.KEYS[name]), scheduler_keys.harmless_keys(name)
    assert known <= mine
    assert mine - known <= harmless  # details of what is off
    assert harmless - mine == foreign - mine
    for key, entry in scheduler_keys.KEYS[name].items():
        default = inspect.signature(scheduler_class.__init__).parameters[key].default
        assert entry.default == default, key


@pytest.mark.parametrize(
    "more",
    [
        {"beta_start": 0.0},
        {"beta_start": -1e-4},
        {"beta_start": 0.02, "beta_end": 0.01},
        {"beta_end": 1.0},
        {"beta_end": 1.5},
        {"beta_end": float("nan")},
        {"num_train_timesteps": 0},
        {"num_train_timesteps": 1},
        {"num_train_timesteps": 10**9},
        {"num_train_timesteps": 10_000, "beta_end": 0.5},  # nothing of the image is left
        {"steps_offset": 1000},
    ],
)
@pytest.mark.parametrize("name", list(PLAIN)[:3])
def test_noise_that_no_table_can_have(name, more):
    with pytest.raises(UserError) as error:
        schedules.make_schedule(
            {"_class_name": name, "timestep_spacing": "leading"} | PLAIN[name] | more, 10
        )
    assert "--config.generator." in str(error.value)
