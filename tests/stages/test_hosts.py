"""Several hosts measure one set: the same files, whoever made the shards."""

import hashlib
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
from etils import epath
from PIL import Image

from bsjax import presets
from bsjax.stages.measure import measure
from tests.stages.test_training import free_port

REPO = pathlib.Path(__file__).resolve().parents[2]
N_IMAGES, PER_SHARD = 22, 4
BAD = (3, 9)  # an image in the first half of the shards, and one in the second
SD = "stable_diffusion"
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


# So small a set would be done before the test looks.
PROGRAM = """
import sys, time
from bsjax import main
from bsjax.results.shards import ShardStore
commit, seconds = ShardStore.commit, float(sys.argv.pop(1))
def slow(self, top):
    time.sleep(seconds)
    commit(self, top)
ShardStore.commit = slow
main.console()
"""


def start_hosts(
    workdir, images, n_hosts, n_devices=1, stage="measure", pause=0.0, flags=(), **settings
):
    port = free_port()
    chosen = SETTINGS | {"real.path": str(images)} | settings
    command = [
        *(sys.executable, "-c", PROGRAM, str(pause), stage, "--config=configs/scenes.py:tiny"),
        *(f"--workdir={workdir}", *(f"--config.{key}={value}" for key, value in chosen.items())),
        *flags,
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


def content(workdir, below="measures"):
    files = (path for path in (workdir / below).rglob("*") if path.is_file())
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


def test_the_share_of_bad_images_is_that_of_the_set(images, tmp_path):
    """Each host sees one of two, which is as many as may be."""
    hosts = start_hosts(tmp_path, images, 2, **{"real.max_bad": 1 / N_IMAGES})
    logs = finish(hosts, status=1)
    told = [[line for line in log.splitlines() if line.startswith("bsjax:")] for log in logs]
    assert told[0] == told[1] and len(told[0]) == 1, told
    assert f"2 of {N_IMAGES} images cannot be used, at most 4.55%" in told[0][0]


def kill_one(workdir, hosts, victim, n_shards):
    """SIGKILL once some shards are there; seconds until all have ended."""
    deadline = time.monotonic() + 300
    while len(list(workdir.glob("measures/real/.partial/shard-*.npz"))) < n_shards:
        assert all(host.poll() is None for host in hosts), [h.communicate() for h in hosts]
        assert time.monotonic() < deadline
        time.sleep(0.002)
    hosts[victim].send_signal(signal.SIGKILL)
    started = time.monotonic()
    logs = [host.communicate(timeout=100)[1] for host in hosts]
    seconds = time.monotonic() - started
    for host, log in enumerate(logs):
        if host != victim:
            assert hosts[host].returncode == 75, log
            told = [line for line in log.splitlines() if line.startswith("bsjax:")]
            assert len(told) == 1 and "another host is gone or cannot be reached" in told[0], log
            assert "stack trace" not in log and "Traceback" not in log
    return seconds


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 2])
def test_one_of_four_is_killed_and_others_go_on_with_what_is_there(images, alone, tmp_path, victim):
    hosts = start_hosts(tmp_path, images, 4, pause=0.5, **{"measure.images_per_shard": 1})
    assert kill_one(tmp_path, hosts, victim, n_shards=6) < 60
    partial = tmp_path / "measures" / "real" / ".partial"
    before = {path.name: path.stat().st_mtime_ns for path in partial.glob("shard-*.npz")}
    # Other hosts, another number of them, another size of shards asked for: what is begun counts.
    hosts = start_hosts(tmp_path, images, 3, **{"measure.images_per_shard": 5})
    logs = finish(hosts)
    assert any(f"{len(before)} of {N_IMAGES} images were done before" in log for log in logs)
    expected, got = content(alone), content(tmp_path)
    # Sums over tokens in another order: by shards of another size.
    for arm in ("real", "control-jpeg"):
        name = f"measures/{arm}/cooccurrence.npz"
        a, b = (sp.load_npz(folder / name) for folder in (alone, tmp_path))
        np.testing.assert_allclose(a.toarray(), b.toarray(), rtol=1e-6)
        del expected[name], got[name]
    assert got == expected


@pytest.mark.slow
def test_four_hosts_of_two_devices_write_what_one_does(images, alone, tmp_path):
    finish(start_hosts(tmp_path, images, 4, n_devices=2))
    assert content(tmp_path) == content(alone)


@pytest.mark.slow
def test_two_hosts_run_all_stages(tmp_path):
    """Drawn and measured by both; compared and reported by one, while the other waits; tested."""
    whole = {"real.source": "scenes", "real.path": "1", "real.limit": 30, "generator.name": SD,
             "measure.controls": ""}  # fmt: skip
    one, two = tmp_path / "one", tmp_path / "two"
    finish(start_hosts(one, "", 1, stage="run", **whole))
    hosts = start_hosts(two, "", 2, stage="run", **whole)
    outputs = [host.communicate(timeout=500) for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0], outputs
    assert content(two) == content(one)
    table = "comparisons/scenes/concepts.parquet"
    assert (two / table).read_bytes() == (one / table).read_bytes()
    assert ["report: " in said for said, _ in outputs] == [True, False]
    assert (two / "report" / "index.html").is_file()
    found = pq.read_table(one / table, columns=["concept", "fires_real"]).sort_by("fires_real")
    asked = (f"--concept={found['concept'][-1]}", "--samples=3", "--captions=3")
    for folder, n_hosts in ((one, 1), (two, 2)):
        finish(start_hosts(folder, "", n_hosts, stage="stress", flags=asked, **whole))
    assert content(two, "stress") == content(one, "stress") != {}
