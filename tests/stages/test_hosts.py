"""Several hosts measure one set: the same files, whoever made the shards."""

import hashlib
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from etils import epath
from PIL import Image

from bsjax import presets
from bsjax.stages.measure import measure
from tests.stages.test_training import free_port

REPO = pathlib.Path(__file__).resolve().parents[2]
N_IMAGES, PER_SHARD = 22, 4
BAD = (3, 9)  # an image in the first half of the shards, and one in the second
NOT_COMPARED = ("config.json", "manifest.json")  # where things lie, versions


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    (folder / "images").mkdir()
    lines = ["image,caption"]
    for i in range(N_IMAGES):
        path = folder / "images" / f"{i:03d}.png"
        if i in BAD:
            path.write_bytes(b"no image")
        else:
            rng = np.random.default_rng(i)
            coarse = rng.integers(0, 256, (6, 6, 3)).astype(np.uint8)
            Image.fromarray(coarse).resize((80, 64), Image.Resampling.BICUBIC).save(path)
        lines.append(f"{i:03d}.png,picture {i}")
    (folder / "captions.csv").write_text("\n".join(lines) + "\n")
    return folder


SETTINGS = {
    "real.source": "folder", "real.limit": -1, "real.max_bad": 0.1, "real.workers": 0,
    "generator.name": "none", "encoder.batch_per_device": 1, "measure.controls": "jpeg",
    "measure.images_per_shard": PER_SHARD,
}  # fmt: skip


def config_of(images, **settings):
    config = presets.experiment()
    presets.on_scenes(config, -1)
    config.update_from_flattened_dict(SETTINGS | {"real.path": str(images)} | settings)
    return config


@pytest.fixture(scope="module")
def alone(images, tmp_path_factory):
    """Measured by one process with eight devices."""
    workdir = tmp_path_factory.mktemp("alone")
    measure(config_of(images), epath.Path(workdir))
    return workdir


def start_hosts(workdir, images, n_hosts, n_devices=1, stage="measure", **settings):
    port = free_port()
    flags = SETTINGS | {"real.path": str(images)} | settings
    command = [
        *(sys.executable, "-m", "bsjax.main", stage, "--config=configs/scenes.py:tiny"),
        *(f"--workdir={workdir}", *(f"--config.{key}={value}" for key, value in flags.items())),
    ]
    return [
        subprocess.Popen(
            command,
            cwd=REPO,
            env=os.environ
            | {
                "JAX_PLATFORMS": "cpu",
                "PYTHONPATH": str(REPO),
                "XLA_FLAGS": f"--xla_force_host_platform_device_count={n_devices}",
                "BSJAX_COORDINATOR": f"localhost:{port}",
                "BSJAX_NUM_PROCESSES": str(n_hosts),
                "BSJAX_PROCESS_ID": str(host),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for host in range(n_hosts)
    ]


def finish(hosts, status=0):
    logs = [host.communicate(timeout=500)[1] for host in hosts]
    assert [host.returncode for host in hosts] == [status] * len(hosts), "\n".join(logs)
    return logs


def content(workdir):
    files = (path for path in (workdir / "measures").rglob("*") if path.is_file())
    return {
        str(path.relative_to(workdir)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.name not in NOT_COMPARED
    }


def test_two_hosts_write_what_one_does(images, alone, tmp_path):
    logs = finish(start_hosts(tmp_path, images, 2))
    assert content(tmp_path) == content(alone)
    assert set(content(alone)) >= {"measures/control-jpeg/cooccurrence.npz"}
    # Each read its own images, and the bad ones are counted once.
    told = [re.findall(r"real: (\d{3}) cannot be used", log) for log in logs]
    assert told == [["003", "009"], []] or told == [["003"], ["009"]]
    names = {path.name for path in (tmp_path / "measures" / "real").iterdir()}
    assert ".partial" not in names
