"""The command line: the map, and one line for every mistake."""

import pathlib
import subprocess
import sys

import pytest

from bsjax import pipeline

REPO = pathlib.Path(__file__).resolve().parents[1]


def bsjax(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "bsjax.main", *arguments], capture_output=True, text=True, cwd=REPO
    )


def test_the_map_names_every_stage_and_each_can_be_loaded():
    printed = bsjax("pipeline")
    assert printed.returncode == 0
    for stage in pipeline.STAGES:
        assert stage.name in printed.stdout
        assert callable(stage.load())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("paint",), "stage 'paint' is unknown"),
        (("run",), "--config is missing"),
        (("run", "--config=configs/folders.py"), "--workdir is missing"),
        (("run", "--config=configs/folders.py", "--workdir=x"), "real.path is empty"),
        (("run", "--config=configs/folders.py:huge", "--workdir=x"), "'huge' is unknown"),
        (("run", "--config=configs/none.py", "--workdir=x"), "none.py"),
        (("run", "--config=configs/folders.py", "--config.real.pat=x", "--workdir=x"), "pat"),
        (
            ("run", "--config=configs/folders.py:tiny", "--config.encoder.crop=100", "--workdir=x"),
            "encoder.crop=100: expected a multiple of 14",
        ),
    ],
)
def test_mistakes_end_in_one_line(arguments, expected):
    run = bsjax(*arguments)
    assert run.returncode == 1
    assert expected in run.stderr
    assert "Traceback" not in run.stderr
    assert run.stderr.count("\n") == 1
