"""faults.py: stages killed at events of writing, and two runs in one workdir."""

import multiprocessing
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

import fault_readers as readers
import jax
from absl import logging
from etils import epath
from fault_table import REPO, Table, configs, digest

from bsjax import pipeline
from bsjax.core import checksums, lock
from bsjax.core.artifacts import TEMPORARY

SCRIPT = pathlib.Path(__file__).with_name("faults.py")
STAGES = ("generate", "measure", "compare", "report", "train_sae")
EVENTS = ((os, "replace"), (os, "rename"), (os, "fsync"), (os, "unlink"), (os, "rmdir"))


def fork_server() -> multiprocessing.context.ForkServerContext:
    """Children begin with everything imported, and with no device started."""
    context = multiprocessing.get_context("forkserver")
    modules = [pipeline.BY_NAME[stage].module for stage in STAGES]
    context.set_forkserver_preload(["fault_kills", *modules])
    folders = (str(REPO), str(SCRIPT.parent))
    os.environ["PYTHONPATH"] = os.pathsep.join(folders)
    return context


def victim(workdir: pathlib.Path, stage: str, n_images: int, kill_at: int) -> int:
    """Runs a stage in a child that dies at an event of writing (-1: none).

    Returns:
      Exit status: below 0 if it was killed.
    """
    log = workdir.parent / "victim.log"
    arguments = (workdir, stage, n_images, kill_at, log)
    child = fork_server().Process(target=be_victim, args=arguments)
    child.start()
    child.join()
    told = log.read_text(errors="replace")
    if "Traceback" in told:
        sys.stdout.write(told[-1500:] + "\n")
        return 70
    return child.exitcode


def be_victim(
    workdir: pathlib.Path, stage: str, n_images: int, kill_at: int, log: pathlib.Path
) -> None:
    """The child's part: counts events, and dies before or after one."""
    with log.open("wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    logging.set_verbosity(logging.FATAL)
    jax.config.update("jax_compilation_cache_dir", str(workdir.parent / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    config, training = configs(n_images, workdir)
    count = [0]

    def dying(function):
        def call(*arguments, **more):
            if str(workdir) not in str(arguments[0]) and not isinstance(arguments[0], int):
                return function(*arguments, **more)
            count[0] += 1
            mine = count[0]  # one event may hold another: Path.unlink calls os.unlink
            if mine == kill_at and kill_at % 2:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return function(*arguments, **more)
            finally:  # also where there was nothing to remove
                if mine == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)

        return call

    for owner, name in EVENTS:
        setattr(owner, name, dying(getattr(owner, name)))
    pathlib.Path.unlink = dying(pathlib.Path.unlink)
    with lock.hold(workdir, stage):
        chosen = training if stage == "train_sae" else config
        pipeline.BY_NAME[stage].load()(chosen, epath.Path(workdir))
    (workdir.parent / "events").write_text(str(count[0]))


def numbers(config, training, workdir: pathlib.Path, stage: str) -> str:
    """What a finished stage came to."""
    if stage == "report":
        folder = workdir / "report"
        names = [
            f for f in checksums.list_files(folder) if f.startswith("data/") or f[-5:] == ".json"
        ]
        return digest(*((f, (folder / f).read_bytes()) for f in names if f != "manifest.json"))
    read = {
        "generate": readers.read_images,
        "measure": readers.read_arms,
        "compare": readers.read_comparison,
    }
    if stage == "train_sae":
        return digest(
            (workdir / "sae" / "sae.safetensors").read_bytes(),
            readers.read_tokens(training, workdir),
        )
    return read[stage](config, workdir)


def leftovers(workdir: pathlib.Path) -> list[str]:
    """What a finished run must not leave: temporary files, locks, journals, partial shards."""
    signs = (
        TEMPORARY,
        "journal-",
        lock.FILE,
        lock.PARTIAL,
        "features-of-host",
        "orbax-checkpoint-tmp",
    )
    return [str(p) for p in workdir.rglob("*") if any(sign in p.name for sign in signs)]


def kills(
    stages: Sequence[str], workdir: pathlib.Path, n_images: int, n: int, table: Table
) -> None:
    """SIGKILL at `n` events of each stage, and the same command again."""
    base = workdir / "kills" / "base"
    base.mkdir(parents=True)
    for stage in STAGES[: max(map(STAGES.index, stages)) + 1]:
        config, training = configs(n_images, base)
        before = workdir / "kills" / f"before-{stage}"
        shutil.copytree(base, before)
        assert victim(base, stage, n_images, -1) == 0
        if stage not in stages:
            continue
        expected = numbers(config, training, base, stage)
        n_events = int((base.parent / "events").read_text())
        events = sorted({1 + i * (n_events - 1) // max(n - 1, 1) for i in range(n)})
        for done, event in enumerate(events):
            if not done % 10:
                sys.stderr.write(f"{stage}: killed {done} times of {len(events)}\n")
            work = workdir / "kills" / "work"
            shutil.rmtree(work, ignore_errors=True)
            shutil.copytree(before, work)
            kind = f"killed: {stage} ({n_events} events)"
            status = victim(work, stage, n_images, event)
            again = victim(work, stage, n_images, -1)
            if status >= 0 or again != 0:
                table.add(kind, "tracebacks", f"event {event}: {status}, again {again}")
                continue
            config, training = configs(n_images, work)
            checksums._known.clear()
            is_same = numbers(config, training, work, stage) == expected
            table.add(kind, "survived" if is_same else "silent", f"event {event}")
            left = leftovers(work)
            if left or not is_same:
                sys.stderr.write(f"{stage}: event {event}: same {is_same}, left {left}\n")
            table.add(kind, "leftovers", f"event {event}: {left[:3]}", len(left))


def two_runs(workdir: pathlib.Path, n_images: int, table: Table) -> None:
    """The second run in a workdir says who works there."""
    work = workdir / "two"
    program = [sys.executable, "-m", "bsjax.main"]
    rest = [f"--config={REPO / 'configs' / 'scenes.py'}:limit={n_images}", f"--workdir={work}"]
    rest += ["--config.generator.steps=2", "--config.generator.batch_per_device=4"]
    environment = os.environ | {"PYTHONPATH": str(REPO)}
    log = (workdir / "two.log").open("w")
    first = subprocess.Popen([*program, "generate", *rest], env=environment, stderr=log, stdout=log)
    while not (work / lock.FILE).exists() and first.poll() is None:
        time.sleep(0.01)
    second = subprocess.run(
        [*program, "measure", *rest], env=environment, capture_output=True, text=True
    )
    is_told = (
        second.returncode == 1 and f"another bsjax works here, pid {first.pid}" in second.stderr
    )
    table.add("second run in a workdir", "told" if is_told else "silent", second.stderr[-300:])
    table.add("first run beside it", "survived" if first.wait() == 0 else "tracebacks")
    left = leftovers(work)
    table.add("first run beside it", "leftovers", str(left[:3]), len(left))
    log.close()
