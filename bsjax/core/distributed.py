"""Several hosts as one: how they find each other, who writes, and when all have to stop."""

import glob
import importlib.util
import itertools
import json
import os
import threading
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from bsjax.core import ending, slurm
from bsjax.core.ending import StopSignal, n_hosts
from bsjax.core.errors import MISTAKE, UserError

__all__ = [
    "StopSignal",
    "agree",
    "from_all",
    "initialize",
    "is_lost_host",
    "is_writer",
    "n_hosts",
    "to_host",
    "wait_for_all",
]

# Cloud TPU, Slurm and the like: jax finds the other hosts by itself.
AUTOMATIC = "BSJAX_DISTRIBUTED"
# Anywhere: address of host 0 ("10.0.0.1:8476"), how many hosts, which one this is.
EXPLICIT = ("BSJAX_COORDINATOR", "BSJAX_NUM_PROCESSES", "BSJAX_PROCESS_ID")
# A host that says nothing for so long is dead, and the others stop.
HEARTBEAT_SECONDS = 30
# So long a host waits for the others to start.
JOIN_SECONDS = 300
# A host may read a checkpoint for long while the others wait; one that dies is found otherwise.
PATIENCE_MILLISECONDS = 3_600_000
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
    return jax.process_index() == 0


def agree(value: bool) -> bool:
    """The writing host's answer, on every host."""
    if jax.process_count() == 1:
        return value
    return bool(multihost_utils.broadcast_one_to_all(np.asarray(value)))


def from_all(value: Any) -> list[Any]:
    """What each host says, on every host: something that JSON can hold. All must say something."""
    if n_hosts() == 1:
        return [value]
    state, place = ending.jax_distributed.global_state, f"bsjax/said/{next(_times_said)}"
    state.client.key_value_set(f"{place}/{state.process_id}", json.dumps(value))
    return [
        json.loads(state.client.blocking_key_value_get(f"{place}/{host}", PATIENCE_MILLISECONDS))
        for host in range(state.num_processes)
    ]


def wait_for_all(name: str) -> None:
    """Returns when every host has come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def to_host(tree: object) -> object:
    """Whole arrays on every host, whatever lies where."""
    if jax.process_count() > 1:
        return multihost_utils.process_allgather(tree, tiled=True)
    return jax.tree.map(np.asarray, tree)
