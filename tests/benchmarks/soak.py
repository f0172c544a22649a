"""A long measure by several processes, some of them killed, beside one that nothing disturbs.

    python tests/benchmarks/soak.py [--images=100000] [--processes=4] [--concepts=32000]
        [--workdir=DIR] [--plot=FILE.png]

Scenes, drawn as they are read, go through the scenes' encoder and a random SAE of so many concepts,
of which about ten fire on a token. Twice, when a third and when two thirds of the shards are there,
one process is killed by SIGKILL; all must end within a minute, and the same command goes on. What
comes out must be, file by file, what one process makes of the same images undisturbed. Memory of
each process and images done are told over time. Exit status 3 where a file differs, a process
outlives the others, or the last tenth of the images takes over 1.3 times as long as the first.

It takes 40 minutes at full length on two cores; --workdir keeps what is there, and goes on with it.
"""

import argparse
import hashlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import matplotlib
import numpy as np
import psutil

from bsjax import presets
from bsjax.convert.overcomplete_form import ENCODER
from bsjax.convert.rasae import load_rasae, save_trained
from bsjax.core.errors import GATE_FAILED, STOPPED

REPO = pathlib.Path(__file__).resolve().parents[2]
SIGMAS = 3.42  # of a normal code, which one in 3,200 exceeds
END_SECONDS = 60.0
LOOK_SECONDS = 2.0
MOST_SLOWER = 1.3
NOT_COMPARED = ("config.json", "manifest.json")  # where things lie, versions


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--concepts", type=int, default=32_000)
    parser.add_argument("--workdir", default="")
    parser.add_argument("--plot", default="")
    args = parser.parse_args()
    folder = pathlib.Path(args.workdir or tempfile.mkdtemp(prefix="soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    sae = folder / "sae.safetensors"
    if not sae.exists():
        write_sae(sae, args.concepts)
    failed = []
    runs = {}
    for name, n_processes, n_kills in (("killed", args.processes, 2), ("alone", 1, 0)):
        runs[name] = soak(folder / name, sae, args.images, n_processes, n_kills)
        failed += runs[name].faults
    ours, theirs = (content(folder / name) for name in runs)
    differ = [
        name for name in sorted(set(ours) | set(theirs)) if ours.get(name) != theirs.get(name)
    ]
    print(
        f"{len(theirs)} files of {args.images} images; other than undisturbed: {differ or 'none'}"
    )
    for name, run in runs.items():
        print(f"{name}: {run.told()}")
    first, last = runs["alone"].tenths()
    if last > MOST_SLOWER * first:
        failed.append(f"the last tenth took {last:.0f} s, the first {first:.0f} s")
    if args.plot:
        plot(runs, args.plot)
    if not args.workdir:
        shutil.rmtree(folder)
    if failed or differ:
        print("\n".join(failed))
        sys.exit(GATE_FAILED)


def write_sae(path, n_concepts):
    config = presets.experiment()
    presets.on_scenes(config, 1)
    width = load_rasae(config.sae.weights).width
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(width, n_concepts)).astype(np.float32)
    weights = (kernel, np.zeros(n_concepts), np.ones(n_concepts), np.zeros(n_concepts))
    atoms = (kernel / np.linalg.norm(kernel, axis=0)).T
    save_trained(path, dict(zip(ENCODER, weights, strict=True)), atoms, SIGMAS, "soak")


class Run:
    """What was seen of one soak."""

    def __init__(self, n_images):
        self.n_images, self.faults, self.ends = n_images, [], []
        self.seconds, self.done, self.memory = [], [], []  # memory: bytes of each process

    def told(self):
        rate = self.n_images / self.seconds[-1] if self.seconds else 0.0
        most = max((max(each, default=0) for each in self.memory), default=0)
        first, last = self.tenths()
        told = (
            f"{self.seconds[-1]:.0f} s ({rate:.0f} images/s), {most / 1e9:.2f} GB a process at most"
        )
        told += f"; first tenth {first:.0f} s, last {last:.0f} s"
        ends = ", ".join(f"{each:.0f} s" for each in self.ends)
        return told + (f"; all ended {ends} after a SIGKILL" if ends else "")

    def tenths(self):
        """Seconds that the first and the last tenth of the images took, starts left out."""
        done, at = np.array(self.done), np.array(self.seconds)
        begin = at[np.argmax(done > 0)] if (done > 0).any() else 0.0
        tenth, rest = self.n_images / 10, self.n_images * 0.9
        first = at[np.argmax(done >= tenth)] - begin
        last = at[np.argmax(done >= self.n_images)] - at[np.argmax(done >= rest)]
        return float(first), float(last)


def soak(workdir, sae, n_images, n_processes, n_kills):
    run, began = Run(n_images), time.monotonic()
    waiting = [n_images * (k + 1) // (n_kills + 1) for k in range(n_kills)]
    if (workdir / "measures" / "real" / "manifest.json").exists():
        waiting = []
    while True:
        hosts = start(workdir, sae, n_images, n_processes)
        killed = watch(run, hosts, workdir, began, waiting[:1])
        statuses = [host.wait() for host in hosts]
        if killed is None:
            if any(statuses):
                logs = [pathlib.Path(host.log).read_text()[-2000:] for host in hosts]
                run.faults.append(f"{workdir.name} ended with {statuses}: {logs}")
            return run
        waiting.pop(0)
        if any(status not in (STOPPED, -signal.SIGKILL) for status in statuses):
            run.faults.append(f"{workdir.name}: statuses {statuses} after a SIGKILL")


def watch(run, hosts, workdir, began, kill_at):
    """Looks on until all have ended; kills one when so many images are done."""
    seen = [psutil.Process(host.pid) for host in hosts]
    killed = None
    while any(host.poll() is None for host in hosts):
        time.sleep(LOOK_SECONDS)
        run.seconds.append(time.monotonic() - began)
        run.done.append(images_done(workdir, run.n_images))
        run.memory.append([rss(process) for process in seen])
        if kill_at and killed is None and run.done[-1] >= kill_at[0]:
            victim = len(run.ends) * (len(hosts) - 1) % len(hosts)  # host 0, then the last
            hosts[victim].kill()
            killed = time.monotonic()
        if killed is not None and time.monotonic() - killed > END_SECONDS:
            run.faults.append(f"{workdir.name}: a process lived {END_SECONDS:.0f} s after another")
            for host in hosts:
                host.kill()
    if killed is not None:
        run.ends.append(time.monotonic() - killed)
    return killed


def rss(process):
    try:
        return process.memory_info().rss
    except psutil.Error:
        return 0


def images_done(workdir, n_images):
    """Images in shards that are written."""
    if (workdir / "measures" / "real" / "manifest.json").exists():
        return n_images
    shards = list((workdir / "measures" / "real" / ".partial").glob("shard-*.npz"))
    per_shard = presets.experiment().measure.images_per_shard
    return min(len(shards) * per_shard, n_images)


def start(workdir, sae, n_images, n_processes):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    hosts = []
    for host in range(n_processes):
        log = f"{workdir}-{host}.log"
        with open(log, "ab") as file:
            process = subprocess.Popen(
                [
                    sys.executable, "-m", "bsjax.main", "measure", "--config=scenes",
                    f"--workdir={workdir}", f"--limit={n_images}", "--config.generator.name=none",
                    f"--config.sae.weights={sae}", f"--config.sae.threshold={SIGMAS}",
                    "--config.real.workers=0", "--config.encoder.batch_per_device=16",
                ],
                env=environment(host, n_processes, port), cwd=REPO, stdout=file, stderr=file,
            )  # fmt: skip
        process.log = log
        hosts.append(process)
    return hosts


def environment(host, n_processes, port):
    found = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(REPO)}
    if n_processes > 1:
        found |= {
            "BSJAX_COORDINATOR": f"localhost:{port}",
            "BSJAX_NUM_PROCESSES": str(n_processes),
            "BSJAX_PROCESS_ID": str(host),
        }
    return found


def content(workdir):
    found = {}
    for path in sorted((workdir / "measures").rglob("*")):
        if path.is_file() and path.name not in NOT_COMPARED:
            name = str(path.relative_to(workdir))
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def plot(runs, path):
    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 1, figsize=(7, 6), sharex=True, layout="constrained")
    for name, run in runs.items():
        axes[0].plot(np.array(run.seconds) / 60, run.done, label=name)
        most = [max(each, default=0) / 1e9 for each in run.memory]
        axes[1].plot(np.array(run.seconds) / 60, most, label=name)
    axes[0].set_ylabel("images measured")
    axes[1].set_ylabel("largest process, GB")
    axes[1].set_xlabel("minutes")
    axes[0].legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
