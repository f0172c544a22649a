"""How a run ends before its time: on all hosts, with one line and one status, within seconds.

A host that fails leaves the others waiting in a collective, until jax's coordination service finds
it missing. So a host tells what ends it by that service's key-value store, and a thread on every
host listens. SIGTERM goes the same way: a loop whose hosts must stop together agrees on a step
(`StopSignal`), anything else just ends. A host that can say nothing any more (SIGKILL, no power) is
found by the service's heartbeat, and ends the others too (`on_lost_host`).
"""

import atexit
import contextlib
import ctypes
import functools
import json
import os
import signal
import sys
import threading
import time
import types
from collections.abc import Iterator
from typing import Any, NoReturn

import jax
from absl import logging
from jax._src import distributed as jax_distributed  # No public name leads to the store.

from bsjax.core.errors import STOPPED, Preempted

END, HEARD, STOP, PLACE = "bsjax/end", "bsjax/heard", "bsjax/stop", "bsjax/place"
POLL_SECONDS = 0.5
# How long host 0, who keeps the store, waits for the others to have read it.
LAST_WORD_SECONDS = 10
KEPT = "stopped by SIGTERM; what is finished is kept"
LOST = (
    "another host is gone or cannot be reached; start the same command on all hosts again, and it"
    " goes on from what is finished"
)

_leaving = threading.Lock()  # taken once, by the thread that ends the process
_asked_to_stop = threading.Event()
_is_over = threading.Event()  # this process ends as it should: nobody listens any more


def n_hosts() -> int:
    """Processes that work together, without a question to the devices."""
    state = jax_distributed.global_state
    return state.num_processes if state.client is not None else 1


def watch() -> None:
    """Listens to the other hosts from now on; call it once they have found each other."""
    if n_hosts() > 1 and not any(thread.name == END for thread in threading.enumerate()):
        client = jax_distributed.global_state.client
        thread = threading.Thread(target=_listen, args=(client,), name=END, daemon=True)
        # What is registered last is called first: before jax ends the client and its service, in
        # which a question of the thread's would be a segmentation fault.
        atexit.register(_end_listening, thread)
        _is_over.clear()
        thread.start()


def end_all(status: int, line: str) -> NoReturn:
    """Ends this process and those of all other hosts with the same status and line.

    If another host was first, with its status and line. Does not return, nor run what is registered
    for a regular exit: that would wait for the other hosts to say goodbye.
    """
    _leaving.acquire()
    state = jax_distributed.global_state
    _write(state.client, END, json.dumps([status, line]))
    status, line = json.loads(read(state.client, END) or json.dumps([status, line]))
    _say(line)
    _write(state.client, f"{HEARD}/{state.process_id}", "1")
    if state.process_id == 0:
        deadline = time.monotonic() + LAST_WORD_SECONDS
        waiting = set(range(state.num_processes))
        while waiting and time.monotonic() < deadline:
            waiting = {host for host in waiting if not read(state.client, f"{HEARD}/{host}")}
            time.sleep(POLL_SECONDS / 2)
    os._exit(status)


def end_here(status: int, line: str) -> NoReturn:
    """Ends this process alone, whatever its other threads wait for."""
    _say(line)
    os._exit(status)


@contextlib.contextmanager
def on_lost_host() -> Iterator[None]:
    """Within it jax joins the hosts, and learns to end this one in a line when another is lost.

    It would end it by a dump and SIGABRT. What it may be given to call instead it cannot call as of
    jaxlib 0.10 (no such argument can be made for Python): then C++ gives up, and calls the same.
    """
    factory = jax_distributed._jax
    make_client = factory.get_distributed_runtime_client
    factory.get_distributed_runtime_client = functools.partial(
        make_client, missed_heartbeat_callback=_end_lost
    )
    try:
        set_terminate = ctypes.CDLL("libstdc++.so.6")._ZSt13set_terminatePFvvE
        set_terminate.argtypes, set_terminate.restype = [type(_give_up)], ctypes.c_void_p
        set_terminate(_give_up)
    except (OSError, AttributeError):
        logging.debug("another standard library of C++: a lost host will end this one by a dump")
    try:
        yield
    finally:
        factory.get_distributed_runtime_client = make_client


def _end_lost(*_: Any) -> NoReturn:
    _leaving.acquire()  # for ever, where this process ends already for another reason
    end_here(STOPPED, LOST)


# Kept as long as the process: C++ calls it.
_give_up = ctypes.CFUNCTYPE(None)(_end_lost)


def on_sigterm(number: int, frame: types.FrameType | None) -> None:
    """Handler of SIGTERM outside of a `StopSignal`.

    Raises:
      Preempted: at once on one host; several are ended by their watching threads.
    """
    if n_hosts() == 1:
        # A second one, to the group and from who started us, would break off what the first ends.
        # No SIG_IGN, which programs that are started from here would inherit.
        signal.signal(signal.SIGTERM, _is_ending)
        raise Preempted(KEPT)
    _asked_to_stop.set()


def _is_ending(number: int, frame: types.FrameType | None) -> None:
    """Handler of SIGTERM once it was heard."""


class StopSignal:
    """Within it, SIGTERM does not kill: `is_set` tells every host at the same step."""

    _is_within = False
    _lock = threading.Lock()
    _last = -1  # the last step that this process went into
    _stop_at: int | None = None  # what several hosts agreed on

    def __enter__(self) -> "StopSignal":
        self._several = n_hosts() > 1
        self._is_main = threading.current_thread() is threading.main_thread()
        if not self._several:
            _asked_to_stop.clear()
        if self._is_main:
            self._previous = signal.signal(signal.SIGTERM, self._receive)
        watch()
        with StopSignal._lock:
            StopSignal._is_within, StopSignal._last = True, -1
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with StopSignal._lock:
            StopSignal._is_within = False
        if self._is_main:
            signal.signal(signal.SIGTERM, self._previous)
        # It came too late for a step to stop before.
        came = StopSignal._stop_at is not None if self._several else _asked_to_stop.is_set()
        if kind is None and came:
            raise Preempted("stopped after the last step, which is saved")

    def _receive(self, number: int, frame: types.FrameType | None) -> None:
        logging.info("SIGTERM: saving, then stopping")
        _asked_to_stop.set()

    def is_set(self, step: int) -> bool:
        """Whether to stop before `step`; all hosts ask for the same steps, in order."""
        if not self._several:
            return _asked_to_stop.is_set()
        with StopSignal._lock:
            if StopSignal._stop_at is not None and step >= StopSignal._stop_at:
                return True
            StopSignal._last = step
            return False


def _end_listening(thread: threading.Thread) -> None:
    _is_over.set()
    thread.join(LAST_WORD_SECONDS)


def _listen(client: Any) -> None:
    """The watching thread."""
    while not _is_over.wait(POLL_SECONDS):
        said = read(client, END)
        if said is not None:
            end_all(*json.loads(said))
        if _asked_to_stop.is_set():
            _write(client, STOP, "1")
        if StopSignal._stop_at is None and read(client, STOP):
            _agree_where_to_stop(client)


def _agree_where_to_stop(client: Any) -> None:
    """Behind the last step that any host went into; at once if no host is within a loop.

    A thread's work, since a host's loop may wait for a step of which another has to do its part.
    """
    state = jax_distributed.global_state
    with StopSignal._lock:
        place = json.dumps([StopSignal._is_within, StopSignal._last])
        _write(client, f"{PLACE}/{state.process_id}", place)
        try:
            milliseconds = LAST_WORD_SECONDS * 1000
            places = [
                json.loads(client.blocking_key_value_get(f"{PLACE}/{host}", milliseconds))
                for host in range(state.num_processes)
            ]
        except jax.errors.JaxRuntimeError:
            return  # A host is gone, which jax tells.
        if any(is_inside for is_inside, _ in places):
            StopSignal._stop_at = max(last for _, last in places) + 1
            return
    end_all(STOPPED, f"{KEPT}; the same command goes on from here")


def _say(line: str) -> None:
    sys.stderr.write(f"bsjax: {line}\n")
    sys.stderr.flush()


def read(client: Any, key: str) -> str | None:
    try:
        return client.key_value_try_get(key)
    except jax.errors.JaxRuntimeError:
        return None  # Not there, or the store is gone.


def _write(client: Any, key: str, value: str) -> None:
    """Writes a key that is not there; of several writers the first wins."""
    try:
        client.key_value_set(key, value)
    except jax.errors.JaxRuntimeError:
        return  # There already, or the store is gone.
