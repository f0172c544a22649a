"""The command line: the map, and one line for every mistake."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

from bsjax import main, pipeline
from bsjax.core import ending, errors

REPO = pathlib.Path(__file__).resolve().parents[1]


def bsjax(*arguments, **environment):
    command = [sys.executable, "-m", "bsjax.main", *arguments]
    environment = os.environ | environment
    return subprocess.run(command, capture_output=True, text=True, cwd=REPO, env=environment)


def assert_one_line(run, status, expected):
    assert run.returncode == status
    assert expected in run.stderr
    assert "Traceback" not in run.stderr
    assert run.stderr.count("\n") == 1


def test_the_map_names_every_stage_and_each_can_be_loaded():
    printed = bsjax("pipeline")
    assert printed.returncode == 0
    for stage in pipeline.STAGES:
        assert stage.name in printed.stdout
        assert callable(stage.load())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "stage '' is unknown"),
        (("paint",), "stage 'paint' is unknown"),
        (("run", "--wrong=1"), "wrong"),
        (("run",), "--config is missing"),
        (("run", "--config=configs/folders.py"), "--workdir is missing"),
        (("run", "--config=configs/folders.py:huge", "--workdir=x"), "'huge' is unknown"),
        (("run", "--config=configs/none.py", "--workdir=x"), "none.py"),
        (("run", "--config=configs/folders.py", "--config.real.pat=x", "--workdir=x"), "pat"),
    ],
)
def test_wrong_usage_ends_in_one_line_and_2(arguments, expected):
    assert_one_line(bsjax(*arguments), 2, expected)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--config=configs/folders.py",), "real.path is empty"),
        (
            ("--config=configs/folders.py:tiny", "--config.encoder.crop=100"),
            "encoder.crop=100: expected a multiple of 14",
        ),
    ],
)
def test_mistakes_end_in_one_line_and_1(arguments, expected, tmp_path):
    assert_one_line(bsjax("run", *arguments, f"--workdir={tmp_path}"), 1, expected)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("JAX_PLATFORMS", "cuda"),
        ("JAX_PLATFORMS", "nonsense"),
        ("JAX_ENABLE_X64", "1"),
        ("JAX_DISABLE_JIT", "1"),
        ("JAX_DEFAULT_MATMUL_PRECISION", "bfloat16"),
        ("JAX_NUMPY_DTYPE_PROMOTION", "strict"),
        ("JAX_DEBUG_NANS", "1"),
        ("JAX_RANDOM_SEED_OFFSET", "1"),
        ("BSJAX_COORDINATOR", "localhost:1"),
    ],
)
def test_an_environment_that_cannot_work_ends_in_one_line(name, value, tmp_path):
    """A platform that the machine has not, settings that change numbers, hosts half described."""
    command = ("train_sae", "--config=configs/rasae_imagenet.py:tiny", f"--workdir={tmp_path}")
    run = bsjax(*command, **{name: value})
    lines = [line for line in run.stderr.splitlines() if line.startswith("bsjax:")]
    assert run.returncode == 1
    assert "Traceback" not in run.stderr
    assert len(lines) == 1 and name in lines[0] and run.stderr.endswith(lines[0] + "\n")


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (errors.UserError("x is 3;\n set x"), 1, "bsjax: x is 3; set x\n"),
        (errors.UsageError("no stage"), 2, "bsjax: no stage\n"),
        (errors.Preempted("stopped"), 75, "bsjax: stopped; the same command goes on from here\n"),
        (KeyboardInterrupt(), 130, "bsjax: interrupted; the same command goes on from here\n"),
    ],
)
def test_exit_statuses_are_a_contract(monkeypatch, capsys, error, status, line):
    def fail(argv):
        raise error

    monkeypatch.setattr(main, "main", fail)
    monkeypatch.setattr(main.logging, "use_absl_handler", lambda: None)
    monkeypatch.setattr(main.logging, "set_verbosity", lambda level: None)
    with pytest.raises(SystemExit) as ended:
        main.console()
    assert ended.value.code == status
    assert capsys.readouterr().err == line


def test_sigterm_outside_of_a_loop_stops_at_once():
    with pytest.raises(errors.Preempted, match="what is finished is kept"):
        ending.on_sigterm(signal.SIGTERM, None)
    # What survives a damaged image must not survive this.
    assert not issubclass(errors.Preempted, Exception)
