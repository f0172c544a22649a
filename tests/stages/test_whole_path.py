"""The whole path equals a plain torch loop written out here; a killed run goes on."""

import json
import logging
import pathlib
import shutil

import jax
import ml_collections
import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
import torch
from PIL import Image

import bsjax
from bsjax import presets
from bsjax.convert import rasae
from bsjax.convert.rasae import load_rasae, save_trained
from bsjax.core import mesh
from bsjax.core.errors import UserError
from bsjax.experiment import inputs
from bsjax.models import dinov2
from bsjax.results import shards
from bsjax.stages.compare import compare, correlate
from bsjax.stages.measure import measure
from bsjax.stages.report import report
from tests.models.test_dinov2 import make_torch

EMOJI = pathlib.Path(bsjax.__file__).parent / "assets" / "emoji"
N_IMAGES, N_CONCEPTS, RESIZE, CROP = 40, 96, 64, 56
CONFIG = dinov2.DinoV2Config(32, 2, 4, n_registers=4, pretrain_grid=5)
MEAN, STD = (torch.tensor(v)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Weights, an SAE and what a torch loop computes with them."""
    folder = tmp_path_factory.mktemp("world")
    oracle = make_torch(CONFIG)
    oracle.save_pretrained(folder / "dinov2")
    torch.manual_seed(3)
    linear, norm = torch.nn.Linear(32, N_CONCEPTS), torch.nn.LayerNorm(N_CONCEPTS)
    encoder = {
        "kernel": linear.weight.T,
        "bias": linear.bias,
        "scale": norm.weight,
        "shift": norm.bias,
    }
    encoder = {name: np.ascontiguousarray(v.detach().numpy()) for name, v in encoder.items()}
    dictionary = np.random.default_rng(0).normal(size=(N_CONCEPTS, 32)).astype(np.float32)
    save_trained(folder / "sae.safetensors", encoder, dictionary, 0.829, "test")
    codes = []
    names = sorted((EMOJI / "real" / "images").glob("*.png"))[:N_IMAGES]
    for name in names:
        image = Image.open(name).convert("RGB").resize((RESIZE, RESIZE), Image.BICUBIC)
        edge = (RESIZE - CROP) // 2
        image = image.crop((edge, edge, edge + CROP, edge + CROP))
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
        with torch.no_grad():
            tokens = oracle(((pixels - MEAN) / STD)[None]).last_hidden_state[0]
            pre = torch.relu(norm(linear(tokens)))
        codes.append(torch.where(pre >= 0.829, pre, 0.0).double().numpy())
    return folder, np.stack(codes)  # [n, T, K]


@pytest.fixture
def config(world, monkeypatch):
    folder, _ = world
    monkeypatch.setitem(dinov2.VARIANTS, "vits14_reg", CONFIG)
    config = presets.experiment()
    config.real.path, config.generated.path = str(EMOJI / "real"), str(EMOJI / "generated")
    config.real.limit = config.generated.limit = N_IMAGES
    config.encoder = presets.dinov2("vits14_reg", str(folder / "dinov2"))
    config.encoder.resize, config.encoder.crop = RESIZE, CROP
    config.encoder.batch_per_device = 1
    config.sae.weights = str(folder / "sae.safetensors")
    config.measure.images_per_shard = 8
    return config


def read(workdir):
    folder = workdir / "measures" / "real"
    table = pq.read_table(folder / "concepts.parquet")
    return {
        **{name: table[name].to_numpy() for name in table.column_names},
        "pairs": sp.load_npz(folder / "cooccurrence.npz").toarray(),
        "image_codes": sp.load_npz(folder / "image_codes.npz").toarray(),
        **dict(np.load(folder / "top_images.npz")),
    }


def one_device(monkeypatch):
    build = mesh.make_mesh
    monkeypatch.setattr(
        "bsjax.stages.measure.make_mesh", lambda *_: build(devices=jax.devices()[:1])
    )


@pytest.mark.parametrize("n_devices", [1, 8])
def test_statistics_equal_a_plain_torch_loop(world, config, tmp_path, monkeypatch, n_devices):
    if n_devices == 1:
        one_device(monkeypatch)
        config.encoder.batch_per_device = 6  # does not divide 40: the last batch is padded
        monkeypatch.setattr("bsjax.stages.measure.FIRST_KEPT", 2)  # too few: computed again
    measure(config, tmp_path)
    got, (_, codes) = read(tmp_path), world
    per_image = codes.sum(axis=1)
    flat = codes.reshape(-1, N_CONCEPTS)

    def close(name, expected):
        np.testing.assert_allclose(got[name], expected, rtol=1e-3, atol=1e-3 * expected.max())

    close("energy", per_image.mean(axis=0))
    close("energy_sd", per_image.std(axis=0, ddof=1))
    close("image_codes", per_image)
    close("pairs", flat.T @ flat)
    # A code within rounding of the threshold may fall on either side.
    np.testing.assert_allclose(got["fires"], (flat > 0).sum(axis=0), atol=2)
    close("prevalence", (per_image > 0).mean(axis=0))
    patches = codes[:, 5:]
    best = patches.mean(axis=1).argmax(axis=0)
    firing = patches.mean(axis=1).max(axis=0) > 0
    np.testing.assert_array_equal(got["images"][firing, 0], best[firing])
    expected_map = patches[best, :, np.arange(N_CONCEPTS)].reshape(N_CONCEPTS, 4, 4)
    np.testing.assert_allclose(got["maps"][firing, 0], expected_map[firing], rtol=1e-2, atol=1e-2)


def test_interrupted_measure_goes_on_with_the_same_numbers(config, tmp_path, monkeypatch):
    measure(config, tmp_path / "whole")
    commit, n_commits = shards.ShardStore.commit, []

    def dying_commit(self, top):
        if len(n_commits) == 2:
            raise KeyboardInterrupt
        n_commits.append(1)
        commit(self, top)

    with monkeypatch.context() as patch:
        patch.setattr(shards.ShardStore, "commit", dying_commit)
        with pytest.raises(KeyboardInterrupt):
            measure(config, tmp_path / "killed")
    measure(config, tmp_path / "killed")
    for name, expected in read(tmp_path / "whole").items():
        np.testing.assert_array_equal(read(tmp_path / "killed")[name], expected)
    assert not (tmp_path / "killed" / "measures" / "real" / ".partial").exists()


def test_compare_and_report(config, tmp_path):
    config.compare.clusters = "none"  # an untrained network takes some of the emoji for one
    measure(config, tmp_path)
    compare(config, tmp_path)
    table = pq.read_table(tmp_path / "comparisons" / "generated" / "concepts.parquet")
    row = {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}
    codes = [
        sp.load_npz(tmp_path / "measures" / arm / "image_codes.npz").toarray().astype(np.float64)
        for arm in ("real", "generated")
    ]
    gap = codes[1] - codes[0]
    np.testing.assert_allclose(row["difference"], gap.mean(axis=0), rtol=1e-5, atol=1e-6)
    shown = [(arm > 0).sum(axis=0) for arm in codes]
    np.testing.assert_array_equal(row["n_real"], shown[0])
    np.testing.assert_array_equal(row["n_generated"], shown[1])
    sums = [arm.sum(axis=0) for arm in codes]
    half = np.divide(sum(sums), 2 * sum(shown), out=np.full(N_CONCEPTS, np.nan),
                     where=sum(shown) > 0)  # fmt: skip
    ratio = np.log((sums[1] + half) / (sums[0] + half))
    np.testing.assert_allclose(row["log_ratio"], ratio, rtol=1e-4, atol=1e-5)
    tokens = [
        sp.load_npz(tmp_path / "measures" / arm / "image_tokens.npz").sum(axis=0)
        for arm in ("real", "generated")
    ]
    for arm, counted in zip(("real", "generated"), tokens, strict=True):
        np.testing.assert_array_equal(row[f"fires_{arm}"], np.asarray(counted).ravel())
        np.testing.assert_array_equal(row[f"fires_pairs_{arm}"], row[f"fires_{arm}"])
    product = row["prevalence_ratio"] * row["area_ratio"] * row["amount_ratio"]
    np.testing.assert_allclose(np.log(product), row["log_ratio"], rtol=1e-9, atol=1e-12)
    assert np.isfinite(row["area_ratio"]).sum() == (sum(shown) > 0).sum()
    np.testing.assert_array_equal(row["verdict"] == "not enough data", sum(shown) < 11)
    total = codes[0].mean(0) + codes[1].mean(0)
    relative = np.divide(gap.mean(0), total, out=np.zeros_like(total), where=total > 0)
    np.testing.assert_allclose(row["relative"], relative, atol=1e-6)
    np.testing.assert_allclose(row["delta"], 1 / (1 + np.exp(-relative / 0.4)), atol=1e-6)
    np.testing.assert_allclose(
        row["delta_difference"], 1 / (1 + np.exp(-gap.mean(0) / 0.8)), atol=1e-6
    )
    folder = tmp_path / "comparisons" / "generated"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["counts"]["clusters"] == manifest["counts"]["pairs"] == N_IMAGES
    control = manifest["control"]
    assert control["is_sound"] and control["draws"] == 20
    assert control["eligible"] == (row["verdict"] != "not enough data").sum()
    assert control["called"] <= 0.05 * control["eligible"]
    assert correlate(folder, folder) == pytest.approx(1)
    report(config, tmp_path)
    for name in ("summary.html", "index.html"):
        page = (tmp_path / "report" / name).read_text()
        assert "http" not in page.replace("http-equiv", "")
    assert (tmp_path / "report" / "figures" / "generated_histogram.png").stat().st_size > 1000


def test_a_copy_stands_on_top(config, tmp_path):
    copy = tmp_path / "generated"
    shutil.copytree(EMOJI / "generated", copy)
    names = sorted((EMOJI / "real" / "images").glob("*.png"))[:N_IMAGES]
    shutil.copy(names[7], copy / "images" / names[7].name)
    config.generated.path = str(copy)
    measure(config, tmp_path)
    compare(config, tmp_path)
    first = pq.read_table(tmp_path / "comparisons" / "generated" / "datapoints.parquet").slice(0, 1)
    assert first.to_pylist()[0]["key"] == names[7].stem
    assert first["cosine"][0].as_py() == pytest.approx(1)


def test_finished_is_not_repeated_and_a_changed_config_is_refused(config, tmp_path):
    measure(config, tmp_path)
    manifest = tmp_path / "measures" / "real" / "manifest.json"
    written = manifest.stat().st_mtime_ns
    measure(config, tmp_path)
    assert manifest.stat().st_mtime_ns == written
    changed = ml_collections.ConfigDict(config)
    changed.encoder.resize = 70
    with pytest.raises(UserError, match="encoder.resize was 64 and is now 70"):
        measure(changed, tmp_path)
    changed.overwrite = True
    measure(changed, tmp_path)
    assert json.loads(manifest.read_text())["config"]["encoder.resize"] == 70


def broken_set(tmp_path, n_bad):
    folder = tmp_path / "set"
    shutil.copytree(EMOJI / "real", folder)
    for name in sorted((folder / "images").glob("*.png"))[:n_bad]:
        name.write_bytes(name.read_bytes()[:60])
    return folder


def test_bad_images_are_counted_or_stop_the_run(config, tmp_path):
    config.real.path = str(broken_set(tmp_path, 2))
    with pytest.raises(UserError, match="of 40 images cannot be used") as error:
        measure(config, tmp_path / "a")
    assert "\n" not in str(error.value)
    config.real.max_bad = 0.1
    measure(config, tmp_path / "b")
    manifest = json.loads((tmp_path / "b" / "measures" / "real" / "manifest.json").read_text())
    assert manifest["counts"]["bad"] == 2
    assert manifest["counts"]["images"] == N_IMAGES - 2
    assert len(manifest["bad_images"]) == 2
    compare(config, tmp_path / "b")
    counts = json.loads((tmp_path / "b" / "comparisons/generated/manifest.json").read_text())
    assert counts["counts"]["unpaired_generated"] == 2


def test_sae_of_another_width_is_refused(config, tmp_path):
    encoder = {"kernel": np.zeros((9, 4)), "bias": np.zeros(4), "scale": np.ones(4)}
    encoder["shift"] = np.zeros(4)
    save_trained(tmp_path / "sae.safetensors", encoder, np.zeros((4, 9)), 1.0, "test")
    config.sae.weights = str(tmp_path / "sae.safetensors")
    with pytest.raises(UserError, match="width 9, expected 32"):
        measure(config, tmp_path)


def test_full_disk_is_one_line_and_loses_nothing(config, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", full)
        with pytest.raises(UserError, match="no space left on the disk"):
            measure(config, tmp_path)
    measure(config, tmp_path)
    assert read(tmp_path)["energy"].max() > 0


def test_a_measure_in_which_nothing_fires_says_so(config, tmp_path, caplog):
    config.real.limit = 4
    config.sae.threshold = 50.0
    with caplog.at_level(logging.WARNING):
        measure(config, tmp_path / "silent")
    notes = [line for line in caplog.messages if line.startswith("NOTHING FIRES")]
    assert len(notes) == 2  # of either arm
    assert "96 concepts are dead on the 4 images of real" in notes[0]
    assert "threshold (50). Look at --config.sae.threshold" in notes[0]
    manifest = json.loads((tmp_path / "silent/measures/real/manifest.json").read_text())
    assert notes[0] in manifest["notes"]
    caplog.clear()
    config.sae.threshold = 0.829
    measure(config, tmp_path / "loud")
    assert not [line for line in caplog.messages if line.startswith("NOTHING FIRES")]


def test_the_threshold_of_the_checkpoint_comes_before_the_published_one(
    world, config, tmp_path, caplog
):
    """The config's own before both; and where the published one is taken, that is told."""
    weights = load_rasae(config.sae.weights)
    encoder = inputs.load_encoder(config)
    assert inputs.load_sae(config, tmp_path, encoder)[1] == 0.829
    for stored, set_to, expected in ((0.5, None, 0.5), (0.5, 0.25, 0.25), (None, None, 0.829)):
        path = tmp_path / f"{stored}.safetensors"
        sae = weights._replace(threshold=stored)
        rasae._save(path, sae, {"source": "test"})
        config.sae.weights, config.sae.threshold = str(path), set_to
        caplog.clear()
        assert inputs.load_sae(config, tmp_path, encoder)[1] == expected
        assert ("stores no running_threshold" in caplog.text) == (stored is None)
