"""A log holds what its reader can use, and is never silent for long."""

import logging as std_logging
import sys

import pytest
from absl import logging

from bsjax.core import distributed, logs


@pytest.fixture
def lines(monkeypatch):
    """What is logged."""
    found = []
    monkeypatch.setattr(logs.logging, "info", lambda text, *values: found.append(text % values))
    return found


class Clock:
    """Seconds that a test moves."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def record(text, level=std_logging.INFO, path="x.py"):
    return std_logging.LogRecord("x", level, path, 1, text, None, None)


@pytest.mark.parametrize(
    ("text", "path", "is_kept"),
    [
        ("Unable to initialize backend 'tpu': no device", "jax/xla_bridge.py", False),
        ("A Google TPU may be present, but libtpu is not installed", "x.py", False),
        ("Flax classes are deprecated and will be removed", "diffusers/vae_flax.py", False),
        ("saving", "/lib/orbax/checkpoint.py", False),
        ("200 images", "bsjax/stages/measure.py", True),
    ],
)
def test_noise_of_libraries(text, path, is_kept):
    assert logs.is_worth_reading(record(text, path=path)) is is_kept
    # Errors are kept, but for tracebacks of what is raised as well.
    error = record(text, std_logging.ERROR, path)
    assert logs.is_worth_reading(error)
    error.exc_info = (ValueError, ValueError("x"), None)
    assert logs.is_worth_reading(error) is ("orbax" not in path)


def test_quiet_libraries_adds_each_filter_once(monkeypatch):
    handler = logging.get_absl_handler()
    before = list(handler.filters)
    monkeypatch.delenv("HF_HUB_DISABLE_PROGRESS_BARS", raising=False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    try:
        logs.quiet_libraries()
        logs.quiet_libraries()
        assert handler.filters.count(logs.is_worth_reading) == 1
        assert logs.os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] == "1"
        vae = std_logging.getLogger("diffusers.models.vae_flax")
        assert not vae.filter(record("Flax classes are deprecated", std_logging.WARNING))
        assert vae.filter(record("other", std_logging.WARNING))
        # What subsets fonts for a PDF speaks of each table.
        assert not std_logging.getLogger("fontTools.subset").isEnabledFor(std_logging.INFO)
    finally:
        handler.filters[:] = before
        for name in logs.FLAX_LOGGERS:
            std_logging.getLogger(f"diffusers.{name}").removeFilter(logs.is_worth_reading)
        std_logging.getLogger("fontTools").setLevel(std_logging.NOTSET)


def test_every_logger_that_is_quietened_is_a_module_of_diffusers():
    import importlib.util

    for name in logs.FLAX_LOGGERS:
        assert importlib.util.find_spec(f"diffusers.{name}") is not None, name


def test_silence_is_broken_after_20_seconds_and_not_before(clock, lines):
    pulse = logs.Pulse(clock)
    with pulse.step(lambda: "stage report"), pulse.step(lambda: "UMAP of 32000 concepts"):
        clock.now += 19.9
        pulse.check()
        assert lines == []
        clock.now += 0.2
        pulse.check()
        assert lines == ["still at it: UMAP of 32000 concepts, 20 s so far"]
        clock.now += 19
        pulse.check()  # the line was something said
        assert len(lines) == 1
        clock.now += 1
        pulse.said()
        pulse.check()
        assert len(lines) == 1
        clock.now += 60
        pulse.check()
        assert lines[1] == "still at it: UMAP of 32000 concepts, 1 min 40 s so far"
    clock.now += 100
    pulse.check()
    assert len(lines) == 2  # nothing goes on


def test_the_outer_step_goes_on_when_the_inner_one_ends(clock, lines):
    pulse = logs.Pulse(clock)
    with pulse.step(lambda: "outer"):
        with pulse.step(lambda: "inner"):
            pass
        clock.now += 21
        pulse.check()
    assert lines == ["still at it: outer, 21 s so far"]


def test_a_thread_watches(lines):
    with logs.watch_silence("measure", silence=0.0):
        logs.threading.Event().wait(1.5)
    assert "still at it: measure, 1 s so far" in lines
    assert not [t for t in logs.threading.enumerate() if t.name == "bsjax/pulse"]


def test_a_step_is_named_when_it_begins(lines):
    with logs.step("k-means"):
        assert lines == ["k-means"]
        assert logs.PULSE._steps[-1][0]() == "k-means"
    assert logs.PULSE._steps == []


def test_progress_in_a_log_is_a_line_every_20_seconds(clock, lines):
    with logs.Lines("measure real", 1000, 200, clock=clock) as bar:
        clock.now += 19
        bar.update(100)
        assert lines == []
        clock.now += 1
        bar.update(100)
        assert lines == ["measure real: 400 of 1000 images, 10 images/s, 1 min 0 s to go"]
        clock.now += 10
        bar.update(300)
        bar.set_postfix(loss="0.5")
        clock.now += 10
        bar.update(100)
        assert lines[1] == "measure real: 800 of 1000 images, 20 images/s, 10 s to go, loss 0.5"
        clock.now += 5
        bar.update(200)
    assert lines[2:] == ["measure real: 1000 of 1000 images, in 45 s, loss 0.5"]


def test_progress_without_a_step_yet_says_that_it_is_compiled(clock, lines):
    with logs.Lines("train_sae", 10, unit="step", clock=clock) as bar:
        assert "0 of 10 steps (the first step is compiled" in bar.describe()
        bar.update(1)
        assert bar.describe() == "train_sae, 1 of 10 steps"


def test_what_fails_has_no_last_line(clock, lines):
    with pytest.raises(KeyError), logs.Lines("x", 10, clock=clock) as bar:
        bar.update(1)
        raise KeyError
    assert lines == []


def test_a_bar_is_for_terminals_alone(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    assert isinstance(logs.progress("x", 3), logs.Lines)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    bar = logs.progress("x", 3)
    assert isinstance(bar, logs.Bar) and bar.total == 3
    bar.close()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (3599, "59 min 59 s"), (7500, "2 h 5 min")],
)
def test_durations(seconds, text):
    assert logs.duration(seconds) == text


def test_phases_are_told_where_they_matter():
    timer = logs.PhaseTimer()
    timer.seconds = {"waiting for images": 19.0, "writing": 0.9}
    assert timer.summary() == ""
    timer.seconds = {"writing": 2.0, "waiting for images": 90.0, "statistics": 12.0}
    assert timer.summary() == "1 min 30 s waiting for images, 12 s statistics"


@pytest.mark.parametrize(
    ("platforms", "has_libtpu", "found", "expected"),
    [
        (None, True, [], "cpu"),
        (None, True, ["/dev/accel0"], None),
        (None, False, [], None),
        ("tpu", True, [], "tpu"),
    ],
)
def test_libtpu_is_left_alone_where_there_is_nothing_for_it(
    monkeypatch, platforms, has_libtpu, found, expected
):
    """It writes to stderr past every log."""
    before = distributed.jax.config.jax_platforms
    monkeypatch.setattr(distributed.glob, "glob", lambda pattern: found)
    monkeypatch.setattr(distributed.importlib.util, "find_spec", lambda name: has_libtpu or None)
    try:
        distributed.jax.config.update("jax_platforms", platforms)
        distributed.skip_absent_tpu()
        assert distributed.jax.config.jax_platforms == expected
    finally:
        distributed.jax.config.update("jax_platforms", before)
