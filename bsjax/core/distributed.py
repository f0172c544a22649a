"""Several hosts as one: how they find each other, who writes, and when all have to stop."""

import os
import signal
import types

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from bsjax.core.errors import UserError

# Cloud TPU, Slurm and the like: jax finds the other hosts by itself.
AUTOMATIC = "BSJAX_DISTRIBUTED"
# Anywhere: address of host 0 ("10.0.0.1:8476"), how many hosts, which one this is.
EXPLICIT = ("BSJAX_COORDINATOR", "BSJAX_NUM_PROCESSES", "BSJAX_PROCESS_ID")
# A host that says nothing for so long is dead, and the others stop.
HEARTBEAT_SECONDS = 30


def initialize() -> None:
    """Joins the other hosts if the environment names any; before anything else asks jax.

    Raises:
      UserError: the environment names some, but not all of what it takes.
    """
    given = {name: os.environ[name] for name in EXPLICIT if os.environ.get(name)}
    if not given and os.environ.get(AUTOMATIC, "0") == "0":
        return
    if given and len(given) < len(EXPLICIT):
        missing = ", ".join(name for name in EXPLICIT if name not in given)
        raise UserError(f"{', '.join(given)} are set, {missing} not; set all of them or none")
    arguments = {}
    if given:
        address, n_processes, process = (given[name] for name in EXPLICIT)
        arguments = {
            "coordinator_address": address,
            "num_processes": int(n_processes),
            "process_id": int(process),
        }
    try:
        jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT_SECONDS, **arguments)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"the hosts did not find each other ({str(error).splitlines()[0]}); start the same"
            f" command on every host, or unset {AUTOMATIC} and {EXPLICIT[0]}"
        ) from error


def n_hosts() -> int:
    """Processes that work together."""
    return jax.process_count()


def is_lost_host(error: Exception) -> bool:
    """Whether this error of jax means that another host is gone, rather than a fault here."""
    if not isinstance(error, jax.errors.JaxRuntimeError) or jax.process_count() == 1:
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


def wait_for_all(name: str) -> None:
    """Returns when every host has come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


class StopSignal:
    """Within it, SIGTERM does not kill: `is_set` tells every host at the same step."""

    def __enter__(self) -> "StopSignal":
        self._received = False
        # With several hosts jax's own handler listens and agrees with the others on a step.
        self._several = jax.process_count() > 1
        if not self._several:
            self._previous = signal.signal(signal.SIGTERM, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        if not self._several:
            signal.signal(signal.SIGTERM, self._previous)

    def _receive(self, number: int, frame: types.FrameType | None) -> None:
        logging.info("SIGTERM: saving, then stopping")
        self._received = True

    def is_set(self, step: int) -> bool:
        """Whether to stop before `step`; all hosts ask for the same steps."""
        if self._several:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._received


def to_host(tree: object) -> object:
    """Whole arrays on every host, whatever lies where."""
    if jax.process_count() > 1:
        return multihost_utils.process_allgather(tree, tiled=True)
    return jax.tree.map(np.asarray, tree)
