"""The benchmark for GPUs runs in small on a CPU, where its numbers say nothing."""

import os
import pathlib
import subprocess
import sys

import pytest

from tests import overcomplete

SCRIPT = pathlib.Path(__file__).resolve().parent / "benchmarks" / "gpu.py"


def run(*arguments):
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(SCRIPT.parents[2]),
        "PYTHONWARNINGS": "ignore",
    }
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, env=environment
    )


@pytest.mark.slow
def test_every_comparison_prints_a_row():
    overcomplete.load_or_skip()
    found = run("--tiny", "--rounds=1")
    assert found.returncode == 0, found.stderr[-2000:]
    rows = [line.split("|")[1].strip() for line in found.stdout.splitlines() if "| " in line]
    assert rows == ["what", "measure", "sd15", "sd15-8", "pixart", "train"]
    assert found.stdout.startswith("tiny, on a CPU")


@pytest.mark.slow
def test_without_a_gpu_it_says_so():
    found = run("measure")
    assert found.returncode == 2 and "torch finds no GPU" in found.stderr
