"""What a run says while it works: a header of facts, then progress with rate and time to go."""

import logging as std_logging
import sys
import time
from collections.abc import Mapping
from typing import Any

import jax
from absl import logging
from tqdm import tqdm

from bsjax.core.artifacts import package_versions
from bsjax.core.foreign import printable


def quiet_libraries() -> None:
    """Keeps out of the log what orbax writes about each checkpoint, and what steers a terminal."""

    def is_worth_reading(record: std_logging.LogRecord) -> bool:
        return record.levelno >= std_logging.ERROR or "orbax" not in record.pathname

    def make_printable(record: std_logging.LogRecord) -> bool:
        try:
            record.msg, record.args = printable(record.getMessage(), keep="\n\t"), ()
        except (TypeError, ValueError):  # a library's faulty line; logging says so itself
            return True
        return True

    logging.get_absl_handler().addFilter(is_worth_reading)
    logging.get_absl_handler().addFilter(make_printable)


def log_header(config: Mapping[str, Any], workdir: str) -> None:
    """First lines of a run: versions, devices, config and where it writes."""
    versions = " ".join(f"{name} {version}" for name, version in package_versions().items())
    logging.info("%s", versions)
    logging.info("%d %s device(s)", jax.device_count(), jax.default_backend())
    logging.info("workdir %s", workdir)
    for key, value in config.items():
        logging.vlog(1, "config %s = %r", key, value)


def progress(description: str, total: int, initial: int = 0, unit: str = "image") -> tqdm:
    """A bar with rate and ETA on a terminal; a line every 20 s in a log file; host 0 only."""
    is_terminal = sys.stderr.isatty()
    return tqdm(
        desc=description,
        total=total,
        initial=initial,
        unit=unit,
        file=sys.stderr,
        disable=jax.process_index() != 0,
        mininterval=0.2 if is_terminal else 20.0,
        dynamic_ncols=is_terminal,
        smoothing=0.1,
    )


class PhaseTimer:
    """Seconds spent by phase of a loop, to tell what a run waits for."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def add(self, phase: str, started: float) -> float:
        """Books the time since `started` (from `time.perf_counter`) and returns the time now."""
        now = time.perf_counter()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - started
        return now
