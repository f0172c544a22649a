"""Images depend on seed and caption alone; a killed run ends with the same bytes."""

import csv
import errno
import io
import json
import os
import pathlib
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
from etils import epath
from PIL import Image

from bsjax.core.errors import UserError
from bsjax.core.mesh import make_mesh
from bsjax.data import image_shards
from bsjax.data.image_shards import list_generated
from bsjax.experiment import text_phase
from bsjax.generators import loading
from bsjax.generators.protocol import Settings
from bsjax.generators.released import RELEASED
from bsjax.stages.convert import convert
from bsjax.stages.generate import generate, jit_sample
from bsjax.stages.measure import measure
from tests.generators import hub

REPO = pathlib.Path(__file__).resolve().parents[2]
CAPTIONS = ["a red panda", "two owls", "", "a red panda", "日本語 🎉 مرحبا", "x " * 5_000, "d", "e"]


def get_config(name, captions=None, folder=None, **generator):
    config = runpy.run_path(str(REPO / "configs" / f"{name}.py"))["get_config"]("tiny")
    config.generator.update(height=32, width=32, steps=3, prior_steps=3, **generator)
    if captions is not None:
        (folder / "images").mkdir(parents=True)
        with (folder / "captions.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(("image", "caption"))
            for i, caption in enumerate(captions):
                Image.new("RGB", (8, 8)).save(folder / "images" / f"{i:02d}.png")
                rows.writerow((f"{i:02d}.png", caption))
        config.real.path = str(folder)
    return config


def stripes(captions, folder, kind="stripes:Stripes", **generator):
    config = get_config("sd15", captions, folder, **generator)
    config.generator.name = f"tests.generators.{kind}"
    return config


def read(workdir, name="sd15"):
    """Key -> pixels, caption."""
    records = list_generated(epath.Path(workdir) / "images" / name).records
    return {r.key: (np.asarray(Image.open(io.BytesIO(r.read()))), r.caption) for r in records}


def manifest(workdir, name="sd15"):
    return json.loads((pathlib.Path(workdir) / "images" / name / "manifest.json").read_text())


@pytest.mark.parametrize("family", ["stable_diffusion", "pixart", "kandinsky"])
def test_images_do_not_depend_on_batch_or_devices(family):
    variant = next(name for name in RELEASED[family] if name.endswith("_tiny"))
    settings = Settings(3, 4.0, 32, 32, "float32", 3, 4.0)
    opened = loading.open_generator(family, variant, {"": "random:0"}, settings)
    generator, params = opened.generator, opened.read_params()
    arrays = generator.prompts([f"caption {i}" for i in range(8)]).arrays
    if generator.TEXT_COMPONENTS:
        features = np.asarray(generator.encode_text(params, jax.tree.map(jnp.asarray, arrays)))
        arrays = {"features": features, "mask": arrays["mask"],
                  "empty_features": features, "empty_mask": arrays["mask"]}  # fmt: skip
        arrays["empty_features"] = np.repeat(features[:1], 8, axis=0)
        arrays["empty_mask"] = np.repeat(arrays["mask"][:1], 8, axis=0)
    key, indices = jax.random.key(1), np.arange(8, dtype=np.int32)
    many = jit_sample(generator, make_mesh(8, 1))(params, key, arrays, indices).images
    one = jit_sample(generator, make_mesh(1, 1, jax.devices()[:1]))
    batch = one(params, key, arrays, indices).images
    single = [
        one(params, key, jax.tree.map(lambda a, i=i: a[i : i + 1], arrays), indices[i : i + 1])
        for i in (0, 5)
    ]
    many, batch = np.asarray(many, int), np.asarray(batch, int)
    assert np.abs(many - batch).max() <= 1
    for i, samples in zip((0, 5), single, strict=True):
        assert np.abs(np.asarray(samples.images[0], int) - batch[i]).max() <= 1
    assert np.abs(batch[0] - batch[1]).max() > 5  # another caption and other noise


def test_awkward_captions(tmp_path):
    config = get_config("sd15", CAPTIONS, tmp_path / "real")
    generate(config, epath.Path(tmp_path))
    found = read(tmp_path)
    assert set(found) == {"00", "01", "03", "04", "05", "06", "07"}
    assert found["04"][1] == CAPTIONS[4]
    # The same caption twice: two images.
    assert np.abs(found["00"][0].astype(int) - found["03"][0]).max() > 5
    counts = manifest(tmp_path)["counts"]
    assert counts == {"images": 7, "failed": 0, "without_caption": 1, "truncated": 1}
    with Image.open(tmp_path / "images" / "sd15" / "contact_sheet.png") as sheet:
        assert sheet.size == (8 * 160 + 7 * 4, 160)


def test_a_finished_set_is_left_alone_and_another_config_refused(tmp_path):
    config = stripes(CAPTIONS, tmp_path / "real")
    generate(config, epath.Path(tmp_path))
    shard = tmp_path / "images" / "sd15" / "shard-00000.arrayrecord"
    before = shard.stat().st_mtime_ns
    generate(config, epath.Path(tmp_path))
    assert shard.stat().st_mtime_ns == before
    config.generator.steps += 1
    with pytest.raises(UserError, match="generator.steps was 3 and is now 4"):
        generate(config, epath.Path(tmp_path))


@pytest.mark.parametrize("name", ["sd15", pytest.param("pixart", marks=pytest.mark.slow)])
def test_killed_run_ends_with_the_same_bytes(name, tmp_path):
    command = [sys.executable, "-m", "bsjax.main", "generate", f"--config=configs/{name}.py:tiny"]
    command += ["--config.generator.batch_per_device=1", "--config.generator.height=32"]
    command += ["--config.generator.width=32", "--config.real.limit=24"]
    environment = os.environ | {"XLA_FLAGS": ""}

    def start(workdir):
        return subprocess.Popen([*command, f"--workdir={workdir}"], cwd=REPO, env=environment,
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip

    assert start(tmp_path / "whole").wait() == 0
    victim = start(tmp_path / "killed")
    journal = tmp_path / "killed" / "images" / name / "journal-00000"
    deadline = time.monotonic() + 120
    while not (journal.exists() and journal.stat().st_size > 8_000):
        assert victim.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    partial = journal.read_bytes()
    assert partial and not (journal.parent / "manifest.json").exists()
    journal.write_bytes(partial[:-7])  # as if the last write had been cut off
    assert start(tmp_path / "killed").wait() == 0
    files = {path.name for path in (tmp_path / "whole" / "images" / name).iterdir()}
    assert files == {path.name for path in journal.parent.iterdir()}
    for file in files:
        whole = (tmp_path / "whole" / "images" / name / file).read_bytes()
        assert (journal.parent / file).read_bytes() == whole, file


def test_two_hosts_draw_what_one_does(tmp_path):
    command = [sys.executable, "-m", "bsjax.main", "generate", "--config=configs/sd15.py:tiny"]
    command += ["--config.generator.height=32", "--config.generator.width=32", "--limit=20"]
    command += ["--config.generator.images_per_shard=8"]
    environment = os.environ | {"XLA_FLAGS": ""}
    one = [*command, f"--workdir={tmp_path / 'one'}"]
    assert subprocess.run(one, cwd=REPO, env=environment, capture_output=True).returncode == 0
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    hosts = []
    for i in range(2):
        more = {
            "BSJAX_COORDINATOR": address,
            "BSJAX_NUM_PROCESSES": "2",
            "BSJAX_PROCESS_ID": f"{i}",
        }
        hosts.append(
            subprocess.Popen([*command, f"--workdir={tmp_path / 'two'}"], cwd=REPO,
                             env=environment | more, stderr=subprocess.PIPE, text=True)
        )  # fmt: skip
    outputs = [host.communicate(timeout=240)[1] for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0], "\n".join(outputs)
    files = {path.name for path in (tmp_path / "one" / "images" / "sd15").iterdir()}
    assert files == {path.name for path in (tmp_path / "two" / "images" / "sd15").iterdir()}
    for file in files:
        contents = [(tmp_path / n / "images" / "sd15" / file).read_bytes() for n in ("one", "two")]
        assert contents[0] == contents[1], file


def test_what_is_not_finite_is_drawn_again_in_float32(tmp_path):
    captions = [f"caption {i}" for i in range(40)]
    config = stripes(captions, tmp_path / "real", "unstable:Unstable", dtype="bfloat16")
    config.generator.images_per_shard = 8
    generate(config, epath.Path(tmp_path))
    prompts = loading.family_of(config.generator.name)({}, None).prompts(captions)
    first = prompts.arrays["colours"][:, 0]
    lost = {f"{i:02d}" for i in range(40) if first[i] < 20}
    assert lost and (first < 120).sum() > len(lost)
    assert set(read(tmp_path)) == {f"{i:02d}" for i in range(40)} - lost
    content = manifest(tmp_path)
    assert content["counts"]["failed"] == len(lost)
    assert {image["key"] for image in content["bad_images"]} == lost
    assert all("not finite" in image["reason"] for image in content["bad_images"])


def test_full_disk(tmp_path, monkeypatch):
    config = stripes([f"caption {i}" for i in range(40)], tmp_path / "real")
    config.generator.images_per_shard = 8
    real_sync, calls = os.fsync, []

    def full(handle):
        calls.append(handle)
        if len(calls) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real_sync(handle)

    monkeypatch.setattr(image_shards.os, "fsync", full)
    with pytest.raises(UserError, match="no space left on the disk"):
        generate(config, epath.Path(tmp_path))
    monkeypatch.setattr(image_shards.os, "fsync", real_sync)
    generate(config, epath.Path(tmp_path))
    assert len(read(tmp_path)) == 40


def test_prompts_of_a_file(tmp_path):
    (tmp_path / "prompts.txt").write_text("a red panda\n\ntwo owls\n")
    config = stripes(None, None, samples=3)
    config.generator.prompts, config.real.path = str(tmp_path / "prompts.txt"), ""
    generate(config, epath.Path(tmp_path))
    found = read(tmp_path)
    assert sorted(found) == [f"p{line:05d}-s{i:04d}" for line in (0, 2) for i in range(3)]
    assert found["p00002-s0001"][1] == "two owls"
    assert np.abs(found["p00000-s0000"][0].astype(int) - found["p00000-s0001"][0]).max() > 5
    config.generator.prompts = str(tmp_path / "absent.txt")
    with pytest.raises(UserError, match="absent.txt does not exist"):
        generate(config, epath.Path(tmp_path / "other"))


def test_measured_as_any_other_set(tmp_path):
    config = stripes([f"caption {i}" for i in range(6)], tmp_path / "real")
    with pytest.raises(UserError, match="run `bsjax generate` to the end first"):
        measure(config, epath.Path(tmp_path))
    generate(config, epath.Path(tmp_path))
    config.sae.weights = make_sae(tmp_path)
    measure(config, epath.Path(tmp_path))
    table = pq.read_table(tmp_path / "measures" / "sd15" / "images.parquet")
    assert table["key"].to_pylist() == [f"{i:02d}" for i in range(6)]
    notes = json.loads((tmp_path / "measures" / "sd15" / "manifest.json").read_text())["notes"]
    assert any("UNTRAINED GENERATOR" in note for note in notes)


def test_prompts_ranked_by_a_concept(tmp_path):
    (tmp_path / "prompts.txt").write_text("a red panda\ntwo owls\nrain\n")
    config = stripes(None, None, samples=4)
    config.generator.prompts, config.real.path = str(tmp_path / "prompts.txt"), ""
    config.sae.weights = make_sae(tmp_path)
    generate(config, epath.Path(tmp_path))
    measure(config, epath.Path(tmp_path))
    folder = tmp_path / "measures" / "sd15"
    codes = sp.load_npz(folder / "image_codes.npz").toarray().astype(np.float64)
    concept = int(codes.var(axis=0).argmax())
    config.measure.rank_concept = concept
    measure(config, epath.Path(tmp_path))
    with (folder / f"ranking-{concept}.csv").open() as file:
        rows = list(csv.DictReader(file))
    captions = pq.read_table(folder / "images.parquet")["caption"].to_pylist()
    expected = {}
    for caption, energy in zip(captions, codes[:, concept], strict=True):
        expected.setdefault(caption, []).append(energy)
    means = sorted((-np.mean(energies), caption) for caption, energies in expected.items())
    assert means[0][0] < 0
    assert [row["caption"] for row in rows] == [caption for _, caption in means]
    for row, (mean, caption) in zip(rows, means, strict=True):
        assert int(row["images"]) == 4
        assert float(row["mean_energy"]) == pytest.approx(-mean, rel=1e-6)
        assert float(row["sd_energy"]) == pytest.approx(np.std(expected[caption], ddof=1), rel=1e-6)
        assert float(row["share_shown"]) == np.mean(np.array(expected[caption]) > 0)
    config.measure.rank_concept = 32
    with pytest.raises(UserError, match="expected 0 to 31"):
        measure(config, epath.Path(tmp_path))


def make_sae(folder):
    from bsjax.convert.rasae import save_trained

    rng = np.random.default_rng(0)
    encoder = {"kernel": rng.normal(size=(384, 32)), "bias": np.zeros(32), "scale": np.ones(32),
               "shift": np.zeros(32)}  # fmt: skip
    save_trained(folder / "sae.safetensors", encoder, rng.normal(size=(32, 384)), 1.0, "test")
    return str(folder / "sae.safetensors")


def test_text_features_are_made_once_and_outlive_a_kill(tmp_path):
    sizes = {"chunk": 4, "batch": 2}
    settings = Settings(3, 4.0, 32, 32, "bfloat16")
    opened = loading.open_generator("pixart", "pixart_1024_tiny", {"": "random:0"}, settings)
    captions = [f"caption {i % 7}" for i in range(20)]
    features = text_phase.TextFeatures(epath.Path(tmp_path), opened, captions, **sizes)
    features.make()
    paths = sorted(tmp_path.glob("*.npz"))
    assert len(paths) == 2  # 8 different ones, with the empty one
    batch = features.batch(np.array([3, 10, 19]))
    np.testing.assert_array_equal(batch["features"][0], batch["features"][1])
    tokens = opened.generator.prompts([captions[19]]).arrays
    tokens = jax.tree.map(jnp.asarray, tokens)
    expected = opened.generator.encode_text(opened.read_params(["text_encoder"]), tokens)
    n = tokens["mask"].sum()
    np.testing.assert_allclose(
        batch["features"][2, :n].astype(np.float32), np.asarray(expected[0, :n], np.float32),
        atol=0.1,
    )  # fmt: skip
    assert not batch["features"][2, n:].any()
    before = paths[0].stat().st_mtime_ns
    paths[1].unlink()
    text_phase.TextFeatures(epath.Path(tmp_path), opened, captions, **sizes).make()
    assert paths[0].stat().st_mtime_ns == before and paths[1].exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "nonsense"}, "expected one of none, stable_diffusion"),
        ({"name": "no_module:Class"}, "cannot be imported"),
        ({"weights": ""}, "generator.weights is empty"),
        ({"set": "real"}, "a folder's name other than real"),
        ({"steps": 0}, "whole number from 1 on"),
        ({"guidance": 0.5}, "a number from 1 on"),
        ({"height": 33}, "multiples of"),
        ({"variant": "sd3"}, "expected one of sd15"),
        ({"weights": "random:x"}, "random:SEED"),
        ({"weights": "/nowhere"}, "expected a hub id"),
    ],
)
def test_mistakes_are_one_line(changes, message, tmp_path):
    from bsjax.core.config import validate

    config = get_config("sd15", CAPTIONS, tmp_path / "real")
    config.generator.update(changes)
    with pytest.raises(UserError, match=message) as caught:
        validate(config)
        generate(config, epath.Path(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["sd15", "pixart"])
def test_converted_weights_draw_the_same_images(name, tmp_path, monkeypatch):
    """`convert` once; then the repository may be gone."""
    make = {"sd15": hub.stable_diffusion, "pixart": hub.pixart}[name]
    make(tmp_path / "hub")
    config = get_config(name, CAPTIONS, tmp_path / "real", weights=str(tmp_path / "hub"))
    generate(config, epath.Path(tmp_path / "plain"))
    convert(config, epath.Path(tmp_path / "cached"))
    shutil.rmtree(tmp_path / "hub")
    generate(config, epath.Path(tmp_path / "cached"))
    plain, cached = read(tmp_path / "plain", name), read(tmp_path / "cached", name)
    assert set(plain) == set(cached) and len(plain) == 7
    for key in plain:
        np.testing.assert_array_equal(plain[key][0], cached[key][0])
    config.generator.weights = "owner/another"
    with pytest.raises(UserError, match="was converted from"):
        generate(config, epath.Path(tmp_path / "cached"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sd15", "sd15_dpo", "sd21", "pixart", "kandinsky21"])
def test_whole_experiment_from_a_saved_repository(name, tmp_path):
    """`bsjax run` on :tiny, with checkpoints that torch saved in the hub's layout."""
    more = {}
    if name == "kandinsky21":
        hub.kandinsky(tmp_path / "hub", tmp_path / "prior")
        more["prior_weights"] = tmp_path / "prior"
    elif name == "pixart":
        hub.pixart(tmp_path / "hub")
    else:
        hub.stable_diffusion(tmp_path / "hub", "2.1" if name == "sd21" else "1.5")
    if name == "sd15_dpo":
        hub.stable_diffusion(tmp_path / "dpo")
        more["unet_weights"] = tmp_path / "dpo"
    command = [sys.executable, "-m", "bsjax.main", "run", f"--config=configs/{name}.py:tiny"]
    command += [f"--config.generator.{key}={path}" for key, path in more.items()]
    command += [f"--config.generator.weights={tmp_path / 'hub'}", f"--workdir={tmp_path / 'w'}"]
    done = subprocess.run(command, cwd=REPO, env=os.environ | {"XLA_FLAGS": ""}, text=True,
                          capture_output=True)  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "40 pairs" in done.stdout
    assert "UNTRAINED GENERATOR" not in done.stdout
    assert (tmp_path / "w" / "report" / "summary.html").stat().st_size > 100_000
