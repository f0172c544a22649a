"""A run that dies, by SIGKILL or on a full disk, goes on and ends with the same numbers."""

import json
import os
import pathlib
import runpy
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp

from bsjax.convert.rasae import save_trained
from bsjax.core.errors import UserError
from bsjax.experiment import preflight
from bsjax.stages.compare import compare
from bsjax.stages.measure import measure

REPO = pathlib.Path(__file__).resolve().parents[2]
CONFIG = REPO / "configs" / "folders.py"
N_CONCEPTS = 64


@pytest.fixture(scope="module")
def sae(tmp_path_factory):
    rng = np.random.default_rng(0)
    encoder = {
        "kernel": rng.normal(size=(384, N_CONCEPTS)),
        "bias": np.zeros(N_CONCEPTS),
        "scale": np.ones(N_CONCEPTS),
        "shift": np.zeros(N_CONCEPTS),
    }
    path = tmp_path_factory.mktemp("sae") / "sae.safetensors"
    save_trained(path, encoder, rng.normal(size=(N_CONCEPTS, 384)), 1.5, "test")
    return path


@pytest.fixture(scope="module")
def config(sae):
    config = runpy.run_path(str(CONFIG))["get_config"]("tiny")
    config.sae.weights = str(sae)
    config.measure.images_per_shard = 8
    return config


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """The artifacts of a run that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("whole")
    measure(config, workdir)
    return read(workdir)


def read(workdir):
    """Every number of every artifact that `measure` writes."""
    arrays = {}
    for folder in sorted((workdir / "measures").iterdir()):
        for name in ("concepts", "images"):
            table = pq.read_table(folder / f"{name}.parquet")
            for column in table.column_names:
                arrays[f"{folder.name}/{name}/{column}"] = np.array(table[column].to_pylist())
        for name in ("image_codes", "cooccurrence"):
            arrays[f"{folder.name}/{name}"] = sp.load_npz(folder / f"{name}.npz").toarray()
        with np.load(folder / "top_images.npz") as top:
            arrays |= {f"{folder.name}/top/{name}": top[name] for name in top.files}
    return arrays


def assert_same(got, expected):
    assert set(got) == set(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(got[name], values, err_msg=name)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, -9), (signal.SIGTERM, 75)])
def test_killed_in_the_middle_of_measure(config, sae, whole, tmp_path, number, status):
    command = [sys.executable, "-m", "bsjax.main", "measure", f"--config={CONFIG}:tiny"]
    command += [f"--config.sae.weights={sae}", "--config.measure.images_per_shard=8"]
    victim = subprocess.Popen(
        [*command, f"--workdir={tmp_path}"], cwd=REPO, stderr=subprocess.PIPE, env=os.environ
    )
    partial = tmp_path / "measures" / "real" / ".partial"
    deadline = time.monotonic() + 120
    while not (partial / "shard-00001.npz").exists():
        assert victim.poll() is None, victim.stderr.read().decode()
        assert time.monotonic() < deadline, "no shard after two minutes"
        time.sleep(0.002)
    victim.send_signal(number)
    _, output = victim.communicate()
    assert victim.returncode == status
    assert b"Traceback" not in output
    assert not (tmp_path / "measures" / "real" / "manifest.json").exists()
    resumed = subprocess.run(
        [*command, f"--workdir={tmp_path}"], cwd=REPO, capture_output=True, text=True
    )
    assert resumed.returncode == 0, resumed.stderr
    assert "of 40 images were done before" in resumed.stderr
    assert not partial.exists()
    assert_same(read(tmp_path), whole)


def test_full_disk_at_every_place(config, whole, tmp_path, monkeypatch):
    """On a file system that is too small, then a little less so, until the run fits."""
    monkeypatch.setattr(preflight, "check_disk", lambda bills: None)  # else it says so at once
    disk, size = tmp_path / "disk", 16
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "none", disk])
    if mounted.returncode:
        pytest.skip("mounting a file system needs privileges")
    failures = []
    try:
        while not (disk / "measures" / "generated" / "manifest.json").exists():
            try:
                measure(config, disk)
            except UserError as error:
                assert "no space left on the disk while writing" in str(error)
                assert "\n" not in str(error)
                failures.append(str(error).split(";")[0].rsplit("/", 1)[1])
            size = int(size * 1.6)
            subprocess.run(["mount", "-o", f"remount,size={size}k", disk], check=True)
        assert_same(read(disk), whole)
        manifest = json.loads((disk / "measures" / "real" / "manifest.json").read_text())
        assert manifest["counts"]["images"] == 40
    finally:
        subprocess.run(["umount", disk], check=True)
    assert len(set(failures)) >= 3, failures


def test_a_flipped_bit_in_what_is_finished_is_told(config, tmp_path):
    measure(config, tmp_path)
    path = tmp_path / "measures" / "generated" / "images.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 4
    path.write_bytes(data)
    with pytest.raises(UserError, match=f"{path} is damaged.*run `bsjax measure --overwrite`"):
        compare(config, tmp_path)
