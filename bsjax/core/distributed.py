"""Several hosts as one: how they find each other, who writes, and when all have to stop."""

import contextlib
import glob
import importlib.util
import itertools
import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from bsjax.core import ending, slurm
from bsjax.core.artifacts import (
    MANIFEST,
    begin_stage,
    differing_keys,
    hash_json,
    is_remote,
    read_manifest,
    require_manifest,
)
from bsjax.core.ending import StopSignal, n_hosts
from bsjax.core.errors import MISTAKE, UserError
from bsjax.core.paths import AnyPath

__all__ = [
    "StopSignal",
    "agree",
    "begin_together",
    "from_all",
    "from_writer",
    "initialize",
    "is_lost_host",
    "is_writer",
    "my_part",
    "my_turns",
    "n_hosts",
    "read_written",
    "require_same",
    "to_host",
    "wait_for_all",
    "wait_until_seen",
]

# Cloud TPU, Slurm and the like: jax finds the other hosts by itself.
AUTOMATIC = "BSJAX_DISTRIBUTED"
# Anywhere: address of host 0 ("10.0.0.1:8476"), how many hosts, which one this is.
EXPLICIT = ("BSJAX_COORDINATOR", "BSJAX_NUM_PROCESSES", "BSJAX_PROCESS_ID")
# A host that says nothing for so long is dead, and the others stop.
HEARTBEAT_SECONDS = 30
# So long a host waits for the others to start.
JOIN_SECONDS = 300
# A host may work alone for long while the others wait; one that dies is found otherwise.
PATIENCE_SECONDS = 7 * 24 * 3600
# How often a waiting host looks: at first, and later.
POLL_SECONDS = (0.005, 0.25)
# So long a network file system may remember that a file was not there.
SEEN_SECONDS = 180
WRITTEN = "written"  # where hosts meet when one has finished a folder
# What the system shows of TPUs and GPUs.
ACCELERATORS = ("/dev/accel*", "/dev/vfio/[0-9]*", "/dev/nvidia*", "/dev/kfd", "/dev/dxg")
PLUGINS = ("libtpu", "jax_cuda12_plugin", "jax_cuda13_plugin")
_times_said = itertools.count()


def initialize() -> None:
    """Joins the other hosts if the environment names any; before anything else asks jax.

    Raises:
      UserError: the environment names some, but not all of what it takes, or a platform that this
        machine has not.
    """
    given = {name: os.environ[name] for name in EXPLICIT if os.environ.get(name)}
    if given or os.environ.get(AUTOMATIC, "0") != "0":
        _join(given)
    skip_absent_tpu()
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        platforms = jax.config.jax_platforms or ""
        reason = (str(error).splitlines() or [f"jax finds no device of {platforms}"])[0]
        raise UserError(
            f"JAX_PLATFORMS={platforms}: expected a platform of this machine, got none ({reason});"
            " unset JAX_PLATFORMS, set JAX_PLATFORMS=cpu, or install jax for that platform (pip"
            ' install "bsjax[cuda12]" or "bsjax[tpu]")'
        ) from error


def skip_absent_tpu() -> None:
    """Keeps plug-ins out that are installed to plan for TPUs and GPUs, without an accelerator here.

    They would look for one and write of their failure to stderr, past every log.
    """
    is_asked = bool(jax.config.jax_platforms)
    is_installed = any(map(importlib.util.find_spec, PLUGINS))
    if is_asked or not is_installed or any(map(glob.glob, ACCELERATORS)):
        return
    jax.config.update("jax_platforms", "cpu")


def _join(given: dict[str, str]) -> None:
    if given and len(given) < len(EXPLICIT):
        missing = ", ".join(name for name in EXPLICIT if name not in given)
        raise UserError(f"{', '.join(given)} are set, {missing} not; set all of them or none")
    arguments = {}
    if given:
        address, n_processes, process = (given[name] for name in EXPLICIT)
        for name, number in zip(EXPLICIT[1:], (n_processes, process), strict=True):
            if not number.isdecimal():
                raise UserError(f"{name}={number}: expected a whole number, 0 or more; set {name}")
        arguments = {
            "coordinator_address": address,
            "num_processes": int(n_processes),
            "process_id": int(process),
            # All is said: what jax would find out besides is at most wrong (one GPU of eight).
            "cluster_detection_method": "deactivate",
        }
    gpus = slurm.gpus_of_this_task()
    # Its handler of SIGTERM would take the place of ours, and be heard only in a training's loop.
    jax.config.update("jax_enable_preemption_service", False)
    told = "the hosts did not find each other ({}); start the same command on every host, or unset "
    told += f"{AUTOMATIC} and {EXPLICIT[0]}"
    # Where one is missing to the end, jax kills the process with a dump: this comes before.
    reason = f"one is missing after {JOIN_SECONDS} s"
    patience = threading.Timer(JOIN_SECONDS, ending.end_here, (MISTAKE, told.format(reason)))
    patience.daemon = True
    patience.start()
    try:
        with ending.on_lost_host():
            jax.distributed.initialize(
                initialization_timeout=JOIN_SECONDS + 60,
                heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
                **arguments,
            )
    except (RuntimeError, ValueError) as error:
        raise UserError(told.format(str(error).splitlines()[0])) from error
    finally:
        patience.cancel()
    if gpus is not None:
        # In place of what jax chose; it asks when it looks for devices, which comes later.
        for platform in ("cuda", "rocm"):
            jax.config.update(f"jax_{platform}_visible_devices", gpus)
    ending.watch()


def is_lost_host(error: Exception) -> bool:
    """Whether this error of jax means that another host is gone, rather than a fault here."""
    if not isinstance(error, jax.errors.JaxRuntimeError) or n_hosts() == 1:
        return False
    text = str(error).lower()
    signs = ("gloo", "connection", "unavailable", "heartbeat", "deadline", "aborted", "cancelled")
    return any(sign in text for sign in signs)


def is_writer() -> bool:
    """Whether this host writes the files that all share."""
    return n_hosts() == 1 or jax.process_index() == 0


def agree(value: bool) -> bool:
    """The writing host's answer, on every host."""
    return bool(from_writer(value))


def from_writer(value: Any) -> Any:
    """What the writing host says, on every host: something that JSON can hold."""
    return from_all(value if is_writer() else None)[0]


def from_all(value: Any) -> list[Any]:
    """What each host says, on every host: something that JSON can hold. All must say something."""
    if n_hosts() == 1:
        return [value]
    return _exchange("from_all", value)


def my_part(items: Sequence[Any]) -> Sequence[Any]:
    """This host's part of what all hosts divide among them: consecutive items."""
    host = jax.process_index() if n_hosts() > 1 else 0
    first, stop = (len(items) * each // n_hosts() for each in (host, host + 1))
    return items[first:stop]


def my_turns(n: int) -> range:
    """This host's part of n things: of n_hosts hosts each takes every n_hosts-th."""
    return range(jax.process_index() if n_hosts() > 1 else 0, n, n_hosts())


def wait_for_all(name: str) -> None:
    """Returns when every host has come here, however long that takes (hours, while one compares).

    Not a collective of the devices: it would hold them, and could not be interrupted.

    Raises:
      RuntimeError: another host waits somewhere else, which is a fault of the program.
    """
    if n_hosts() > 1:
        _exchange(name, None)


def begin_together(
    folder: AnyPath,
    *,
    config: Mapping[str, Any],
    parents: Mapping[str, str],
    overwrite: bool,
    stage: str = "",
) -> dict[str, Any] | None:
    """`artifacts.begin_stage` by the writing host, and its answer on every host.

    Raises:
      UserError: as there; the hosts were started with different configs, or see different files.
    """
    require_same({**config, **parents})
    done = None
    if is_writer():
        done = begin_stage(folder, config=config, parents=parents, overwrite=overwrite, stage=stage)
    if not agree(done is not None) or is_writer():
        return done
    wait_until_seen(folder / MANIFEST)
    return read_manifest(folder, stage)


def require_same(values: Mapping[str, Any]) -> None:
    """Sees to it that all hosts found the same; they would part ways later, or wait for ever.

    Args:
      values: by what they are, for the message; something that JSON can hold.

    Raises:
      UserError: they did not.
    """
    found = from_all({name: hash_json(value) for name, value in values.items()})
    for host, each in enumerate(found):
        names = differing_keys(found[0], each)
        if names:
            raise UserError(
                f"host {host} has another {' and '.join(names)} than host 0: start the same command"
                " on all hosts, and give them the same files (data and weights below paths that all"
                " of them see)"
            )


def read_written(folder: AnyPath, stage: str) -> dict[str, Any]:
    """The manifest of a stage that the writing host finishes, for the others, who wait here.

    That host calls `wait_for_all(WRITTEN)` when it is done.
    """
    wait_for_all(WRITTEN)
    wait_until_seen(folder / MANIFEST)
    return require_manifest(folder, stage)


def wait_until_seen(path: AnyPath) -> None:
    """Returns when this host sees a file that another wrote; NFS remembers what was not there.

    Raises:
      UserError: it does not appear.
    """
    deadline = time.monotonic() + SEEN_SECONDS
    while not path.exists():
        if time.monotonic() > deadline:
            raise UserError(
                f"host {jax.process_index()} does not see {path}, which host 0 wrote: choose a"
                " --workdir that all hosts share (one file system mounted on each, or gs://)"
            )
        time.sleep(POLL_SECONDS[1])
        if not is_remote(path):
            with contextlib.suppress(OSError):
                os.listdir(path.parent)  # asks the server


def _exchange(name: str, value: Any) -> list[Any]:
    """Values of all hosts by way of host 0, so that each asks for one key alone.

    Looks again and again rather than wait within C++, where no signal would be heard.
    """
    state, place = ending.jax_distributed.global_state, f"bsjax/said/{next(_times_said)}"
    state.client.key_value_set(f"{place}/{state.process_id}", json.dumps([name, value]))
    if state.process_id == 0:
        said = [json.loads(_await(f"{place}/{host}", name)) for host in range(state.num_processes)]
        state.client.key_value_set(f"{place}/all", json.dumps(said))
    said = json.loads(_await(f"{place}/all", name))
    names = sorted({each for each, _ in said})
    if len(names) > 1:
        raise RuntimeError(f"the hosts wait at different places: {names}")
    return [each for _, each in said]


def _await(key: str, name: str) -> str:
    client, pause = ending.jax_distributed.global_state.client, POLL_SECONDS[0]
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (said := ending.read(client, key)) is None:
        if time.monotonic() > deadline:
            raise UserError(
                f"a host did not come to {name} within {PATIENCE_SECONDS / 3600:g} hours; look at"
                " the hosts' logs, and start the same command on all of them again"
            )
        time.sleep(pause)
        pause = min(2 * pause, POLL_SECONDS[1])
    return said


def to_host(tree: object) -> object:
    """Whole arrays on every host, whatever lies where."""
    if jax.process_count() > 1:
        return multihost_utils.process_allgather(tree, tiled=True)
    return jax.tree.map(np.asarray, tree)
