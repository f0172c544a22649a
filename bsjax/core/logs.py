"""What a run says while it works: a header of facts, then progress with rate and time to go."""

import contextlib
import logging as std_logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
from absl import logging
from tqdm import tqdm

from bsjax.core.artifacts import package_versions
from bsjax.core.foreign import printable

# What libraries say of themselves and no reader of a log can use.
NOISE = (
    "Unable to initialize backend",  # jax, of each platform that the machine has not
    "libtpu",
    "Flax classes are deprecated",  # diffusers, at each call of a module
)
# Of diffusers, whose records never reach absl's handler.
FLAX_LOGGERS = (
    "models.vae_flax",
    "models.modeling_flax_utils",
    "models.attention_flax",
    "models.embeddings_flax",
    "models.resnet_flax",
    "models.unets.unet_2d_blocks_flax",
    "models.unets.unet_2d_condition_flax",
    "schedulers.scheduling_utils_flax",
)
SILENCE = 20.0  # seconds after which a line tells what goes on


def quiet_libraries() -> None:
    """Keeps out of the log what orbax writes about each checkpoint, other noise, and what steers a
    terminal."""
    handler = logging.get_absl_handler()
    if is_worth_reading not in handler.filters:
        handler.addFilter(is_worth_reading)
        handler.addFilter(_make_printable)
        handler.addFilter(_note_that_something_was_said)
    for name in FLAX_LOGGERS:
        std_logging.getLogger(f"diffusers.{name}").addFilter(is_worth_reading)
    # Of each font that a PDF holds, table by table and glyph by glyph.
    std_logging.getLogger("fontTools").setLevel(std_logging.WARNING)
    if not sys.stderr.isatty():
        # Bars of downloads, which fill a file.
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def _make_printable(record: std_logging.LogRecord) -> bool:
    try:
        record.msg, record.args = printable(record.getMessage(), keep="\n\t"), ()
    except (TypeError, ValueError):  # a library's faulty line; logging says so itself
        return True
    return True


def is_worth_reading(record: std_logging.LogRecord) -> bool:
    """Whether a record tells the reader of a run's log anything."""
    if record.levelno >= std_logging.ERROR:
        # Orbax writes a traceback of what it then raises, once for each of its threads.
        return "orbax" not in record.pathname or not record.exc_info
    return "orbax" not in record.pathname and not any(
        noise in record.getMessage() for noise in NOISE
    )


def _note_that_something_was_said(record: std_logging.LogRecord) -> bool:
    del record
    PULSE.said()
    return True


class Pulse:
    """Says what goes on where nothing was said for long.

    Args:
      clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock, self._said = clock, clock()
        self._steps: list[tuple[Callable[[], str], float]] = []  # innermost last

    def said(self) -> None:
        """Something reached the reader just now."""
        self._said = self._clock()

    def check(self, silence: float = SILENCE) -> None:
        """Writes a line if nothing was said for `silence` seconds."""
        steps = self._steps[-1:]
        if not steps or self._clock() - self._said < silence:
            return
        (describe, began), now = steps[0], self._clock()
        self.said()
        logging.info("still at it: %s, %s so far", describe(), duration(now - began))

    @contextlib.contextmanager
    def step(self, describe: Callable[[], str]) -> Iterator[None]:
        """What goes on until the block ends."""
        entry = (describe, self._clock())
        self._steps.append(entry)
        try:
            yield
        finally:
            self._steps.remove(entry)


PULSE = Pulse()


@contextlib.contextmanager
def step(description: str) -> Iterator[None]:
    """Names a step that may take long, now and while it goes on."""
    logging.info("%s", description)
    with PULSE.step(lambda: description):
        yield


@contextlib.contextmanager
def watch_silence(description: str, silence: float = SILENCE) -> Iterator[None]:
    """While the block runs a thread sees to it that the log is not silent for `silence` seconds."""
    ended = threading.Event()

    def watch():
        while not ended.wait(1.0):
            PULSE.check(silence)

    PULSE.said()
    with PULSE.step(lambda: description):
        thread = threading.Thread(target=watch, name="bsjax/pulse", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def duration(seconds: float) -> str:
    """Seconds for a reader: 40 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def log_header(config: Mapping[str, Any], workdir: str) -> None:
    """First lines of a run: versions, devices, config and where it writes."""
    versions = " ".join(f"{name} {version}" for name, version in package_versions().items())
    logging.info("%s", versions)
    logging.info("%d %s device(s)", jax.device_count(), jax.default_backend())
    logging.info("workdir %s", workdir)
    for key, value in config.items():
        logging.vlog(1, "config %s = %r", key, value)


def progress(description: str, total: int, initial: int = 0, unit: str = "image") -> "Bar | Lines":
    """A bar with rate and time to go on a terminal; a line every 20 s in a log; host 0 only."""
    if sys.stderr.isatty() and jax.process_index() == 0:
        return Bar(description, total, initial, unit)
    return Lines(description, total, initial, unit)


class Lines:
    """Progress as lines of a log: the first 20 s after the start, the last at the end.

    Args:
      description: what goes on.
      total: how many there are.
      initial: how many were done before.
      unit: of what.
      clock: seconds that only grow.
    """

    def __init__(
        self,
        description: str,
        total: int,
        initial: int = 0,
        unit: str = "image",
        clock: Callable[[], float] = time.monotonic,
    ):
        self.description, self.total, self.n, self.unit = description, total, initial, unit
        self._clock, self._initial, self._notes = clock, initial, ""
        self._began = self._last = clock()
        self._n_last = initial

    def __enter__(self) -> "Lines":
        self._step = PULSE.step(self.describe)
        self._step.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._step.__exit__(kind, *rest)
        if kind is None and self.n > self._initial:
            self._write(f"in {duration(self._clock() - self._began)}")

    def describe(self) -> str:
        """What goes on, and how far it is."""
        where = f"{self.description}, {self.n} of {self.total} {self.unit}s"
        if self.n == self._initial:
            return f"{where} (the first step is compiled and its data read)"
        return where

    def set_postfix(self, values: Mapping[str, Any] | None = None, **more: Any) -> None:
        """Numbers that stand behind the next line."""
        self._notes = "".join(f", {k} {v}" for k, v in {**(values or {}), **more}.items())

    def update(self, n: int) -> None:
        """Counts `n` more; writes if 20 s are over."""
        self.n += n
        now = self._clock()
        if now - self._last >= SILENCE:
            rate = (self.n - self._n_last) / (now - self._last)
            left = duration((self.total - self.n) / rate) if rate > 0 else "an unknown time"
            self._write(f"{rate:.3g} {self.unit}s/s, {left} to go")
            self._last, self._n_last = now, self.n

    def _write(self, text: str) -> None:
        if jax.process_index() == 0:
            logging.info("%s: %d of %d %ss, %s%s", self.description, self.n, self.total, self.unit,
                         text, self._notes)  # fmt: skip


class Bar(tqdm):
    """The same on a terminal."""

    def __init__(self, description: str, total: int, initial: int, unit: str):
        super().__init__(
            desc=description, total=total, initial=initial, unit=unit, file=sys.stderr,
            mininterval=0.2, dynamic_ncols=True, smoothing=0.1,
        )  # fmt: skip

    def update(self, n: float | None = 1) -> bool | None:
        """Counts `n` more."""
        PULSE.said()
        return super().update(n)


class PhaseTimer:
    """Seconds spent by phase of a loop, to tell what a run waits for."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def add(self, phase: str, started: float) -> float:
        """Books the time since `started` (from `time.perf_counter`) and returns the time now."""
        now = time.perf_counter()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - started
        return now

    def summary(self) -> str:
        """Where the time went: phases with a tenth of it; empty where there was little."""
        total = sum(self.seconds.values())
        if total < SILENCE:
            return ""
        phases = sorted(self.seconds.items(), key=lambda item: -item[1])
        return ", ".join(
            f"{duration(seconds)} {phase}" for phase, seconds in phases if seconds >= 0.1 * total
        )
