"""Training goes on where it was, on any devices, and refuses what would spoil it."""

import json
import os
import pathlib
import runpy
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from safetensors.numpy import load_file

from bsjax.convert.rasae import load_parameters, load_rasae
from bsjax.core.errors import UserError
from bsjax.data.token_store import BLOCK, StepReader, TokenArray, TokenStore
from bsjax.sae.encoder import pre_codes, threshold_codes
from bsjax.stages.convert import convert
from bsjax.stages.train_sae import train_sae
from tests import overcomplete

REPO = pathlib.Path(__file__).resolve().parents[2]
CONFIG = REPO / "configs" / "rasae_imagenet.py"
N_STEPS = 20
# A checkpoint every five steps: an interruption hits between any two of them.
SETTINGS = {
    "real.limit": 12,
    "train.steps": N_STEPS,
    "train.n_concepts": 64,
    "train.n_candidates": 64,
    "train.tokens_per_step": 256,
    "train.look_every": 1,
    "train.checkpoint_every": 5,
    "train.judge_tokens": 512,
    "train.peak_learning_rate": 2e-3,
    "train.compute_dtype": "float32",
}


def command(workdir, **settings):
    merged = SETTINGS | {key.replace("__", "."): value for key, value in settings.items()}
    flags = [f"--config.{key}={value}" for key, value in merged.items()]
    program = [sys.executable, "-m", "bsjax.main", "train_sae"]
    return [*program, f"--config={CONFIG}:tiny", *flags, f"--workdir={workdir}"]


def environment(n_devices, **more):
    flags = f"--xla_force_host_platform_device_count={n_devices}"
    return os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags} | more


def train(workdir, n_devices=1, **settings):
    result = subprocess.run(
        command(workdir, **settings),
        cwd=REPO,
        env=environment(n_devices),
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stderr


def config_of(**settings):
    config = runpy.run_path(str(CONFIG))["get_config"]("tiny")
    for key, value in (SETTINGS | settings).items():
        *sections, name = key.split(".")
        section = config
        for each in sections:
            section = section[each]
        section[name] = value
    return config


def weights(workdir):
    return load_file(workdir / "sae" / "sae.safetensors")


def assert_equal(got, expected):
    assert set(got) == set(expected)
    for name in expected:
        np.testing.assert_array_equal(got[name], expected[name], err_msg=name)


def curve(workdir, name):
    lines = (workdir / "sae" / "curves.jsonl").read_text().splitlines()
    return [json.loads(line)[name] for line in lines]


def steps_of(workdir):
    return curve(workdir, "step")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A training that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("whole")
    train(workdir)
    return workdir


def interrupt(workdir, number, after_step):
    """Starts a training and sends it a signal once a checkpoint is there."""
    victim = subprocess.Popen(
        command(workdir), cwd=REPO, env=environment(1), stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not (workdir / "sae" / "checkpoints" / str(after_step)).exists():
        assert victim.poll() is None, victim.stderr.read()
        assert time.monotonic() < deadline, "no checkpoint after two minutes"
        time.sleep(0.001)
    victim.send_signal(number)
    _, output = victim.communicate(timeout=60)
    return victim.returncode, output


def test_killed_at_a_random_step_it_ends_with_the_same_bits(whole, tmp_path):
    after = int(np.random.default_rng().choice([5, 10]))
    code, _ = interrupt(tmp_path, signal.SIGKILL, after)
    assert code == -signal.SIGKILL
    assert not (tmp_path / "sae" / "manifest.json").exists()
    output = train(tmp_path)
    assert "going on from step" in output
    assert_equal(weights(tmp_path), weights(whole))
    assert steps_of(tmp_path) == steps_of(whole) == list(range(1, N_STEPS + 1))


def test_sigterm_saves_and_exits_with_75(whole, tmp_path):
    code, output = interrupt(tmp_path, signal.SIGTERM, 5)
    assert code == 75, output
    assert "which is saved; the same command goes on from here" in output
    stopped = max(int(each.name) for each in (tmp_path / "sae" / "checkpoints").iterdir())
    assert f"going on from step {stopped}" in train(tmp_path)
    assert_equal(weights(tmp_path), weights(whole))


def test_half_written_and_damaged_checkpoints_are_passed_over(whole, tmp_path):
    shutil.copytree(whole / "sae", tmp_path / "sae")
    folder = tmp_path / "sae" / "checkpoints"
    for name in ("manifest.json", "sae.safetensors", "quality.json"):
        (tmp_path / "sae" / name).unlink()
    (folder / "25.orbax-checkpoint-tmp").mkdir()
    for file in (folder / str(N_STEPS) / "state").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    kept = sorted(int(each.name) for each in folder.iterdir() if each.name.isdigit())
    output = train(tmp_path)
    assert f"checkpoint {N_STEPS} cannot be read, taking an older one" in output
    assert f"going on from step {kept[-2]}" in output
    assert_equal(weights(tmp_path), weights(whole))


def test_checkpoints_of_another_training_are_refused(whole, tmp_path):
    for name in ("checkpoints", "checkpoints-proofs"):
        shutil.copytree(whole / "sae" / name, tmp_path / "sae" / name)
    config = config_of(**{"train.peak_learning_rate": 1e-3, "seed": 1})
    with pytest.raises(UserError, match="not the same: seed, train.peak_learning_rate"):
        train_sae(config, epath.Path(tmp_path))


def test_a_finished_training_is_not_repeated_and_another_config_is_refused(whole):
    config = config_of()
    before = (whole / "sae" / "sae.safetensors").stat().st_mtime_ns
    train_sae(config, epath.Path(whole))
    assert (whole / "sae" / "sae.safetensors").stat().st_mtime_ns == before
    config.train.n_active = 7
    with pytest.raises(UserError, match="train.n_active was 5 and is now 7"):
        train_sae(config, epath.Path(whole))


def test_constraints_hold_as_stored_and_numbers_are_written(whole):
    numbers = json.loads((whole / "sae" / "quality.json").read_text())
    assert numbers["largest_row_sum_error"] < 1e-5
    assert numbers["largest_relaxation"] <= 1 + 1e-5
    lines = (whole / "sae" / "curves.jsonl").read_text().splitlines()
    first, last = json.loads(lines[0]), json.loads(lines[-1])
    wanted = {"loss", "r2", "dead_share", "threshold", "learning_rate", "tokens_per_second", "l0"}
    assert wanted <= set(last)
    assert last["loss"] < first["loss"]
    for name in ("curves.png", "quality.png"):
        assert (whole / "sae" / name).stat().st_size > 10_000
    assert list((whole / "sae" / "tensorboard").iterdir())


def free_port():
    import socket

    with socket.socket() as server:
        server.bind(("localhost", 0))
        return server.getsockname()[1]


def start_hosts(workdir, n_hosts=2, n_devices=4, **settings):
    port = free_port()
    return [
        subprocess.Popen(
            command(workdir, **settings),
            cwd=REPO,
            env=environment(
                n_devices,
                BSJAX_COORDINATOR=f"localhost:{port}",
                BSJAX_NUM_PROCESSES=str(n_hosts),
                BSJAX_PROCESS_ID=str(i),
            ),
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(n_hosts)
    ]


@pytest.mark.parametrize("model", [1, 8])
def test_two_hosts_of_four_devices_end_where_one_device_does(whole, tmp_path, model):
    hosts = start_hosts(tmp_path, mesh__model=model)
    outputs = [host.communicate(timeout=300)[1] for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0], "\n".join(outputs)
    np.testing.assert_allclose(curve(tmp_path, "loss")[:3], curve(whole, "loss")[:3], rtol=1e-6)
    # Sums of other order round otherwise. Sooner or later two codes that are equal but for rounding
    # change places at the border of the top k, and the loss parts within a step (seen on one
    # processor: by 7e-8 until step 3, by 5e-4 from step 4 on; on another never).
    expected, got = weights(whole), weights(tmp_path)
    for name in expected:
        scale = np.abs(expected[name]).max()
        np.testing.assert_allclose(got[name], expected[name], atol=1e-2 * scale, err_msg=name)
    assert steps_of(tmp_path) == steps_of(whole)


def test_a_dead_host_ends_the_others_and_a_restart_goes_on(whole, tmp_path):
    hosts = start_hosts(tmp_path, mesh__model=2)
    deadline = time.monotonic() + 200
    while not (tmp_path / "sae" / "checkpoints" / "5").exists():
        assert all(host.poll() is None for host in hosts)
        assert time.monotonic() < deadline
        time.sleep(0.005)
    hosts[1].kill()
    started = time.monotonic()
    _, output = hosts[0].communicate(timeout=60)
    assert time.monotonic() - started < 60
    assert hosts[0].returncode != 0
    assert "another host" in output or "another task died" in output, output[-2000:]
    hosts[1].communicate()
    assert "going on from step" in train(tmp_path)
    for name, expected in weights(whole).items():
        scale = np.abs(expected).max()
        np.testing.assert_allclose(weights(tmp_path)[name], expected, atol=1e-5 * scale)


def test_sigterm_on_one_host_saves_on_all(tmp_path):
    hosts = start_hosts(tmp_path, n_devices=1, train__steps=5000, train__look_every=5)
    folder = tmp_path / "sae" / "checkpoints"
    deadline = time.monotonic() + 200
    while not (folder / "5").exists():
        assert all(host.poll() is None for host in hosts)
        assert time.monotonic() < deadline
        time.sleep(0.005)
    hosts[1].send_signal(signal.SIGTERM)
    outputs = [host.communicate(timeout=100)[1] for host in hosts]
    assert [host.returncode for host in hosts] == [75, 75], "\n".join(outputs)
    lines = {output.splitlines()[-1] for output in outputs}
    assert len(lines) == 1, lines
    newest = max(int(path.name) for path in folder.glob("[0-9]*") if path.name.isdigit())
    assert f"stopped before step {newest}, which is saved" in lines.pop()


def test_eight_devices_end_where_one_does(whole, tmp_path):
    train(tmp_path, n_devices=8, mesh__model=4)
    for name, expected in weights(whole).items():
        scale = np.abs(expected).max()
        np.testing.assert_allclose(weights(tmp_path)[name], expected, atol=1e-5 * scale)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A training from a token store of four shards."""
    folder = tmp_path_factory.mktemp("stored")
    config = config_of(**{"train.supply": "store", "train.token_store": str(folder / "tokens")})
    config.real.limit, config.train.shard_images = 24, 6
    train_sae(config, epath.Path(folder))
    return folder, config


def test_the_store_holds_the_tokens_of_all_images(stored):
    folder, _ = stored
    store = TokenStore(folder / "tokens")
    manifest = json.loads((folder / "tokens" / "manifest.json").read_text())
    assert len(store.shards) == 4
    per_image = 69  # 112 pixels: 8 x 8 patches, 4 registers, 1 class token
    assert store.n_tokens == 4 * (6 * per_image // BLOCK) * BLOCK == manifest["counts"]["tokens"]
    assert manifest["counts"]["images"] == 24


def test_damaged_and_foreign_stores_are_refused(stored, tmp_path):
    folder, config = stored
    copy = tmp_path / "tokens"
    shutil.copytree(folder / "tokens", copy)
    with pytest.raises(UserError, match="tokens of another encoder: expected x"):
        TokenStore(copy, {"encoder": "x"})
    shard = next(copy.glob("*.arrayrecord"))
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(UserError, match="truncated or absent: expected .* bytes, got"):
        TokenStore(copy)
    (copy / "manifest.json").unlink()
    with pytest.raises(UserError, match="no finished token store"):
        TokenStore(copy)
    config = config.copy_and_resolve_references()
    config.train.token_store, config.encoder.weights = str(folder / "tokens"), "random:1"
    with pytest.raises(UserError, match="another config: encoder.weights was 'random:0'"):
        train_sae(config, epath.Path(tmp_path / "other"))


def test_a_store_goes_on_behind_its_finished_shards(stored, tmp_path):
    folder, config = stored
    copy = tmp_path / "tokens"
    shutil.copytree(folder / "tokens", copy)
    (copy / "manifest.json").unlink()
    first, second = sorted(copy.glob("*.arrayrecord"))[:2]
    first.unlink()
    untouched = second.stat().st_mtime_ns
    config = config.copy_and_resolve_references()
    config.train.token_store = str(copy)
    train_sae(config, epath.Path(tmp_path))
    assert second.stat().st_mtime_ns == untouched
    assert_equal(weights(tmp_path), weights(folder))


def test_tokens_of_a_step_depend_on_seed_and_step_alone():
    source = TokenArray(np.arange(64, dtype=np.float32)[:, None] * np.ones((1, 3), np.float32))
    whole = StepReader(source, 0, 24, [(0, 24)])
    halves = [StepReader(source, 0, 24, [part]) for part in ((0, 12), (12, 24))]
    micro = StepReader(source, 0, 24, [(0, 8)], n_micro=3)
    for step in (0, 7, 3):
        joined = np.concatenate([half(step) for half in halves], axis=1)
        np.testing.assert_array_equal(joined, whole(step))
        np.testing.assert_array_equal(micro(step).reshape(1, 24, 3), whole(step))
    # An epoch is every token once, and the next comes in another order.
    epochs = np.concatenate([whole(step)[0, :, 0] for step in range(16)]).reshape(6, 64)
    assert all(sorted(epoch) == list(range(64)) for epoch in epochs)
    assert not (epochs[0] == epochs[1]).all()


def test_images_encoded_as_it_goes(tmp_path):
    config = config_of(**{"train.supply": "images", "train.steps": 10})
    train_sae(config, epath.Path(tmp_path))
    assert steps_of(tmp_path) == list(range(1, 11))
    assert np.isfinite(weights(tmp_path)["dictionary"]).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"mesh.model": 8, "train.n_concepts": 60},
            "n_concepts=60 is not divisible by mesh.model=8",
        ),
        ({"train.tokens_per_step": 250}, "tokens_per_step / train.accumulate=250 is not divisible"),
        ({"train.n_candidates": 4096}, "n_candidates=4096, but only 828 tokens of 12 images"),
        (
            {"train.peak_learning_rate": 1e30, "train.checkpoint_every": 1},
            r"(loss is (nan|inf)|state is not finite) between steps [0-9]+ and [0-9]+.*; the last"
            r" good checkpoint is that of step [0-9]+, and nothing was saved over it",
        ),
        ({"train.init_from": "none.pth"}, "train.init_from=none.pth does not exist"),
    ],
)
def test_what_spoils_a_training_is_one_line(tmp_path, settings, message):
    with pytest.raises(UserError, match=message):
        train_sae(config_of(**settings), epath.Path(tmp_path))


def test_tokens_that_are_not_finite_are_refused():
    tokens = np.ones((4, 3), np.float32)
    tokens[2, 1] = np.nan
    with pytest.raises(UserError, match="not finite in 1 of 4 tokens"):
        TokenArray(tokens)


def test_export_to_overcomplete_and_training_on_from_there(whole, tmp_path):
    convert(config_of(), epath.Path(whole))
    path = whole / "sae" / "overcomplete.safetensors"
    params, C = load_parameters(str(path))
    assert params["dictionary"]["W"].shape == (64, 64)
    config = config_of(**{"train.init_from": str(path), "train.peak_learning_rate": 1e-4})
    train_sae(config, epath.Path(tmp_path))
    first = json.loads((tmp_path / "sae" / "curves.jsonl").read_text().splitlines()[0])
    scratch = json.loads((whole / "sae" / "curves.jsonl").read_text().splitlines()[0])
    assert first["loss"] < scratch["loss"]

    reference = overcomplete.load_or_skip()
    import safetensors.torch
    import torch

    sae = load_rasae(str(whole))
    encoder = reference.MLPEncoder(384, 64, norm_layer=torch.nn.LayerNorm)
    model = reference.BatchTopKSAE(384, 64, top_k=320, encoder_module=encoder)
    model.dictionary = reference.RelaxedArchetypalDictionary(384, 64, torch.from_numpy(C))
    model.load_state_dict(safetensors.torch.load_file(path))
    with safetensors.safe_open(path, framework="numpy") as handle:
        threshold = float(handle.metadata()["running_threshold"])
    model.running_threshold = torch.tensor(threshold)
    # In training mode the reference projects, then keeps the result for inference.
    model.dictionary.get_dictionary()
    model.eval()
    tokens = np.random.default_rng(0).normal(size=(50, 384)).astype(np.float32)
    _, codes = model.encode(torch.from_numpy(tokens))
    ours = threshold_codes(
        pre_codes(jax.tree.map(jnp.asarray, sae.encoder), jnp.asarray(tokens)), sae.threshold
    )
    assert (codes > 0).any()
    np.testing.assert_allclose(ours, codes.detach().numpy(), atol=1e-4)
    np.testing.assert_allclose(
        sae.dictionary, model.dictionary.get_dictionary().detach().numpy(), atol=1e-4
    )
