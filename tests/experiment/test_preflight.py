"""What would stop a run later stops it before its first stage works."""

import errno
import json
import multiprocessing.shared_memory
import os
import pathlib
import shutil
from collections import namedtuple

import jax
import numpy as np
import pytest
from absl import logging as absl_logging
from PIL import Image
from safetensors.numpy import save_file

from bsjax import presets
from bsjax.convert.rasae import load_rasae, save_trained
from bsjax.core.artifacts import write_manifest
from bsjax.core.errors import UserError
from bsjax.experiment import inputs, preflight, workers
from bsjax.models.dinov2 import VARIANTS
from bsjax.report.exchange import FIELDS
from bsjax.stages import run

ENCODER = VARIANTS["vits14_reg"]


@pytest.fixture
def config(tmp_path):
    """Four pairs of images with captions, an untrained encoder, a training that would fit."""
    cfg = presets.experiment()
    for section in ("real", "generated"):
        cfg[section].path = str(tmp_path / section)
        draw(tmp_path / section, "abcd")
    (tmp_path / "real" / "captions.csv").write_text(
        "image,caption\n" + "".join(f"{key}.png,a drawing of {key}\n" for key in "abcd")
    )
    cfg.encoder = presets.dinov2("vits14_reg", "random:0")
    cfg.train.n_concepts = cfg.train.n_candidates = 64
    return cfg


def draw(folder, keys):
    folder.mkdir(parents=True, exist_ok=True)
    for key in keys:
        Image.new("RGB", (8, 8)).save(folder / f"{key}.png")


def sae(path, width, n_concepts):
    rng = np.random.default_rng(0)
    encoder = {
        "kernel": rng.normal(size=(width, n_concepts)),
        **{name: rng.normal(size=n_concepts) for name in ("bias", "scale", "shift")},
    }
    save_trained(path, encoder, rng.normal(size=(n_concepts, width)), 0.8, "test")
    return str(path)


def results(n_concepts):
    content = {name: [0] * n_concepts for name in FIELDS}
    content |= {name: [[]] * n_concepts for name in ("connections_idx", "connections_val")}
    return json.dumps(content)


@pytest.fixture
def nothing_works(monkeypatch):
    """No stage may begin."""

    def fail(self):
        raise AssertionError(f"{self.name} was started")

    monkeypatch.setattr(run.pipeline.Stage, "load", fail)


def refused(config, workdir):
    with pytest.raises(UserError) as found:
        run.run(config, workdir)
    return str(found.value)


def test_a_sound_config_passes(config, tmp_path):
    preflight.check_run(config, tmp_path / "runs")
    assert list((tmp_path / "runs").iterdir()) == []  # nothing stays


@pytest.mark.usefixtures("nothing_works")
@pytest.mark.parametrize(
    ("key", "value", "parts"),
    [
        ("real.path", "absent", ("real images: ", "--config.real.path")),
        ("generated.path", "absent", ("generated images: ", "--config.generated.path")),
        ("encoder.weights", "absent.pth", ("absent.pth does not exist", "--config.encoder.wei")),
        ("sae.weights", "absent.pth", ("--config.sae.weights=absent.pth does not exist",)),
        ("measure.rank_concept", 64, ("rank_concept=64: expected 0 to 63",)),
        ("train.compare_with", "absent.pth", ("--config.train.compare_with=absent.pth does not",)),
        ("train.init_from", "absent.pth", ("--config.train.init_from=absent.pth does not",)),
        ("train.n_candidates", 8 * 262, ("only 2088 tokens of 8 images", "n_candidates")),
        ("train.n_candidates", 65, ("train.n_candidates=65 is not divisible by mesh.data=8",)),
        ("mesh.data", 3, ("expects 3 devices, got 8",)),
    ],
)
def test_mistakes_stop_before_any_stage(config, tmp_path, key, value, parts):
    config.update_from_flattened_dict({key: value})
    line = refused(config, tmp_path / "runs")
    assert all(part in line for part in parts), line


@pytest.mark.usefixtures("nothing_works")
@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("report/names.csv", "concept,words,name\nx,w,n\n", "line 2: expected columns"),
        ("report/names.csv", "concept,words,name\n1,w,n\n1,w,m\n", "named in line 2 as well"),
        ("imported/x.json", "{", "cannot be read as an enriched JSON"),
        ("imported/x.json", results(65), "has 65 concepts, the SAE here 64"),
    ],
)
def test_what_the_report_reads_is_looked_at_first(config, tmp_path, name, text, said):
    path = tmp_path / "runs" / name
    path.parent.mkdir(parents=True)
    path.write_text(text)
    line = refused(config, tmp_path / "runs")
    assert line.startswith(str(path)) and said in line


def test_names_and_results_that_fit_pass(config, tmp_path, caplog):
    workdir = tmp_path / "runs"
    for folder in ("report", "imported"):
        (workdir / folder).mkdir(parents=True)
    (workdir / "imported" / "x.json").write_text(results(32))
    config.sae.weights = sae(tmp_path / "sae.safetensors", 384, 32)
    mine = load_rasae(config.sae.weights).digest
    names = workdir / "report" / "names.csv"
    for owner in (mine, "other"):
        names.write_text(f"concept,sae,words,name\n31,{owner},w,n\n")
        preflight.check_run(config, workdir)
        assert ("names the concepts of another SAE" in caplog.text) == (owner == "other")
    # Those put aside earlier would come back.
    (workdir / "report" / f"names-{mine}.csv").write_text("concept,words,name\nx,w,n\n")
    assert f"names-{mine}.csv, line 2" in refused(config, workdir)
    (workdir / "report" / f"names-{mine}.csv").unlink()
    caplog.clear()
    names.write_text("concept,words,name\n32,w,n\n")  # beyond the last concept
    preflight.check_run(config, workdir)
    assert "names the concepts of another SAE" in caplog.text


def test_as_many_candidates_as_tokens_will_do(config, tmp_path):
    config.train.n_candidates = 8 * 261
    preflight.check_run(config, tmp_path / "runs")


@pytest.mark.usefixtures("nothing_works")
def test_weights_are_judged_by_their_headers(config, tmp_path):
    config.sae.weights = sae(tmp_path / "sae.safetensors", 16, 32)
    line = refused(config, tmp_path / "runs")
    assert "is an SAE of features of width 16, expected 384 of vits14_reg" in line
    config.sae.weights = sae(tmp_path / "sae.safetensors", 384, 32)
    config.measure.rank_concept = 32
    assert "expected 0 to 31" in refused(config, tmp_path / "runs")
    config.measure.rank_concept, config.sae.weights = -1, ""
    config.train.compare_with = sae(tmp_path / "other.safetensors", 384, 65)
    assert "has width and concepts (384, 65), expected (384, 64)" in refused(
        config, tmp_path / "runs"
    )
    config.train.compare_with = ""
    tensors = {"cls_token": np.zeros((1, 1, 384), np.float32)}
    save_file(tensors, tmp_path / "cut.safetensors")
    config.encoder.weights = str(tmp_path / "cut.safetensors")
    assert "cut.safetensors holds another model (width 384, depth 0" in refused(
        config, tmp_path / "runs"
    )


@pytest.mark.usefixtures("nothing_works")
def test_captions_are_asked_for_before_the_generator(config, tmp_path, monkeypatch):
    def fail(*_):
        raise AssertionError("the generator was opened")

    monkeypatch.setattr(inputs, "open_generator", fail)
    config.generator = presets.stable_diffusion("x", "sd15", "owner/name")
    (tmp_path / "real" / "captions.csv").unlink()
    line = refused(config, tmp_path / "runs")
    assert "real has not one caption to draw an image for" in line and "--config.real.path" in line


def numbered(n):
    return [f"{i:03d}" for i in range(n)]


@pytest.mark.parametrize(
    ("n_real", "n_generated", "flag"),
    [
        (20, 18, None),  # 2 of 20 is a tenth
        (20, 17, "--config.real.max_unpaired"),
        (18, 20, None),
        (17, 20, "--config.generated.max_unpaired"),
        (2, 2, None),
    ],
)
def test_share_without_a_partner(config, n_real, n_generated, flag):
    keys = numbered(n_real), numbered(n_generated)
    if flag is None:
        preflight.check_pairing(config, *keys)
        return
    with pytest.raises(UserError) as found:
        preflight.check_pairing(config, *keys)
    arms = ("real", "generated") if "real" in flag else ("generated", "real")
    assert f"3 of 20 {arms[0]} images have no {arms[1]} image ('017', '018', '019')" in str(
        found.value
    )
    assert flag in str(found.value) and "at most 10.00% may" in str(found.value)
    config.update_from_flattened_dict({flag.removeprefix("--config."): 0.15})
    preflight.check_pairing(config, *keys)


def test_both_sides_are_told_and_long_lists_are_cut(config):
    real, generated = [f"r{key}" for key in numbered(9)], [f"g{key}" for key in numbered(7)]
    with pytest.raises(UserError) as found:
        preflight.check_pairing(config, [*real, "x", "y"], [*generated, "x", "y"])
    line = str(found.value)
    assert "9 of 11 real images have no generated image" in line and "'r004' and 4 more)" in line
    assert "7 of 9 generated images have no real image" in line and "'g004' and 2 more)" in line
    assert "real.max_unpaired and --config.generated.max_unpaired" in line


def test_images_beyond_the_other_sets_limit_do_not_count(config):
    config.real.limit = 5
    preflight.check_pairing(config, numbered(5), numbered(20))
    config.real.limit = 6  # not what made it short
    with pytest.raises(UserError, match=r"15 of 20 generated images"):
        preflight.check_pairing(config, numbered(5), numbered(20))


def test_one_pair_is_not_enough(config):
    with pytest.raises(UserError, match="only 1 pair"):
        preflight.check_pairing(config, ["a"], ["a"])
    with pytest.raises(UserError, match="no image name in common"):
        preflight.check_pairing(config, ["a"], ["b"])


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_workdir_that_cannot_be_written(tmp_path, monkeypatch, number):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(preflight.tempfile, "NamedTemporaryFile", fail)
    with pytest.raises(UserError, match=rf"^--workdir=.*cannot be written \({os.strerror(number)}"):
        preflight.check_workdir(tmp_path)


def test_a_workdir_below_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        preflight.check_workdir(tmp_path / "file" / "runs")
    preflight.check_workdir("gs://bucket/runs")  # not asked


Usage = namedtuple("Usage", "total used free")


def test_room_on_disk(tmp_path, monkeypatch, caplog):
    bills = [preflight.Bill("sae", str(tmp_path / "sae"), 2e9, 5e9),
             preflight.Bill("measures/real", str(tmp_path / "absent" / "x"), 1e9, 1e9)]  # fmt: skip

    def with_free(free):
        caplog.clear()
        monkeypatch.setattr(preflight.shutil, "disk_usage", lambda path: Usage(0, 0, int(free)))
        absl_logging.get_absl_logger().propagate = True
        preflight.check_disk(bills)
        return [record.getMessage() for record in caplog.records]

    assert with_free(6e9) == []
    (warning,) = with_free(6e9 - 1)
    assert "may be too little: at least 3.00 GB" in warning and "at most 6.00 GB" in warning
    assert len(with_free(3e9)) == 1
    with pytest.raises(UserError, match=r"3\.00 GB free, expected at least 3\.00 GB \(sae 2\.00"):
        with_free(3e9 - 1)


def test_bills_are_those_of_what_is_missing(config, tmp_path):
    workdir = tmp_path / "runs"
    config.generator = presets.stable_diffusion("x", "sd15", "owner/name")
    (bill,) = preflight.bills_of_images(config, workdir, 10)
    raw = 10 * 512 * 512 * 3
    assert (bill.least, bill.most) == (pytest.approx(0.1 * raw), pytest.approx(1.05 * raw))
    # A file that is there already, then a finished folder.
    folder = workdir / "images" / "x"
    folder.mkdir(parents=True)
    (folder / "shard").write_bytes(bytes(1000))
    (rest,) = preflight.bills_of_images(config, workdir, 10)
    assert rest.least == pytest.approx(bill.least - 1000)
    write_manifest(folder, stage="generate", config={}, parents={}, counts={})
    assert preflight.bills_of_images(config, workdir, 10) == []
    config.overwrite = True
    assert len(preflight.bills_of_images(config, workdir, 10)) == 1


def test_the_bill_of_training_is_checkpoints_of_three_times_the_parameters(config, tmp_path):
    train = config.train
    train.keep_checkpoints, train.checkpoint_every, train.steps = 3, 100, 1000
    (bill,) = preflight.bills_of_training(config, tmp_path, 8, ENCODER)
    # Encoder, W over candidates, Lam and the multiplier; Adam has two moments of each.
    n_parameters = 384 * 64 + 3 * 64 + 64 * 64 + 64 * 384
    state = 4 * 3 * n_parameters
    assert bill.least == pytest.approx(0.8 * 3 * state, rel=0.01)
    assert bill.most == pytest.approx(4 * state, rel=0.01)
    train.steps = 150  # two are written
    (bill,) = preflight.bills_of_training(config, tmp_path, 8, ENCODER)
    assert bill.most == pytest.approx(3 * state, rel=0.01)
    train.supply, train.token_store = "store", str(tmp_path / "store")
    store = preflight.bills_of_training(config, tmp_path, 8, ENCODER)[1]
    assert store.least == store.most == 8 * 261 * 384 * 2


def test_the_bill_of_measures_counts_codes_and_sketches(config, tmp_path):
    bills = preflight.bills_of_measures(config, tmp_path, {"real": 8, "one": 4}, ENCODER)
    assert [bill.what for bill in bills] == ["measures/real", "measures/one"]
    sketch = 2 * (16 * 16 * 96 + 4 * 97)  # in a shard and in the artifact
    assert bills[0].least == pytest.approx(0.5 * 8 * 261 * 5 * 8 + 8 * sketch)
    assert bills[1].most == pytest.approx(10 * 4 * 261 * 5 * 8 + 4 * sketch)


def test_worker_processes_need_shared_memory(monkeypatch, caplog):
    assert workers.n_workers(0) == 0
    assert workers.n_workers(2, 1000) == 2
    monkeypatch.setattr(workers.shutil, "disk_usage", lambda path: Usage(0, 0, 2 * 3 * 1000))
    assert workers.n_workers(2, 1000) == 2
    with pytest.raises(UserError, match=r"workers=2: .*has 0 MB free; set --config\.real\.workers"):
        workers.n_workers(2, 1001)

    def fail(**_):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "/psm_1")

    monkeypatch.setattr(multiprocessing.shared_memory, "SharedMemory", fail)
    with pytest.raises(UserError, match=r"shared memory \(/dev/shm\), got: No such file"):
        workers.n_workers(2)
    # Chosen by the program: threads do as well.
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    absl_logging.get_absl_logger().propagate = True
    assert workers.n_workers(-1) == 0
    assert "decoded in threads" in caplog.text


def test_every_mistake_with_images_names_the_arm(config, tmp_path):
    for section in ("real", "generated"):
        shutil.rmtree(tmp_path / section)
        pathlib.Path(tmp_path / section).mkdir()
        with pytest.raises(UserError, match=rf"^{section} images: .*holds no image"):
            inputs.load_set(config, section)
        config[section].source = "parquet"
        with pytest.raises(UserError) as found:
            inputs.load_set(config, section)
        assert str(found.value).startswith(f"{section} images: ")
        assert f"--config.{section}.path" in str(found.value)
