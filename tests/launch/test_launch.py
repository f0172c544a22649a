"""What every launch script holds to, and the one for the GPUs of one machine."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from bsjax.cli import launch
from tests.launch.stubs import LAUNCH, STAGE, call, ends_with, path_of, program

SCRIPTS = [*sorted(LAUNCH.glob("*.sh")), LAUNCH / "slurm.sbatch"]
FILES = sorted(path for path in LAUNCH.iterdir() if path.is_file())

# A shell cannot trap what was ignored before it began, as Ctrl-C is by what runs behind an "&".
HEEDS = """
import os, signal, sys
signal.signal(int(sys.argv[1]), signal.SIG_DFL)
os.execvp(sys.argv[2], sys.argv[2:])
"""


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_every_script_stops_at_its_first_failure(path):
    if path.name != "common.sh":  # which is read by scripts that do
        assert "\nset -euo pipefail\n" in path.read_text()


def test_no_script_holds_a_hyper_parameter():
    for path in FILES:
        for word in ("learning_rate", "tokens_per_step", "n_concepts", "train.steps"):
            assert word not in path.read_text(), path


def test_shellcheck_finds_nothing(tmp_path):
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    alone = []
    for name in launch.names():
        if name.endswith((".sh", ".sbatch")):
            (tmp_path / name).write_text(launch.text(name))
            alone.append(tmp_path / name)
    checked = subprocess.run(["shellcheck", "-x", *SCRIPTS], cwd=LAUNCH.parent, capture_output=True)
    assert checked.returncode == 0, checked.stdout.decode()
    # There the variable that named the folder of common.sh is left over.
    checked = subprocess.run(["shellcheck", "--exclude=SC2034", *alone], capture_output=True)
    assert checked.returncode == 0, checked.stdout.decode()


@pytest.mark.parametrize("script", ["tpu_pod.sh", "gpu_one_host.sh", "tpu_worker.sh"])
def test_a_script_alone_does_what_it_does_in_the_clone(script, tmp_path):
    """`bsjax launch NAME > FILE`, elsewhere: nothing of the clone is read."""
    alone = tmp_path / script
    alone.write_text(launch.text(script))
    settings = {"PATH": path_of(tmp_path / "bin"), "SOURCE": "git+https://x/y", "NAME": "n"}
    settings |= {"ZONE": "z", "PROJECT": "p", "ACCELERATOR_TYPE": "v6e-8"}
    verb = ["keep"] if script == "tpu_pod.sh" else []
    done = call(alone, "--dry-run", *verb, "--", "measure", "--workdir=gs://b/r", **settings)
    if script == "tpu_worker.sh":
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        return
    assert done.returncode == 0, done.stderr
    assert "git+https://x/y" in done.stdout and "/bsjax measure" in done.stdout.replace("\\", "")
    assert f"launch/{script}" in call(alone, "--help", **settings).stdout


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("gpu_one_host.sh", [], "expected a stage behind --, got none"),
        ("gpu_one_host.sh", ["--dry-run", "--"], "expected a stage behind --, got none"),
        ("gpu_one_host.sh", ["--", "--config=sd15"], "expected a stage behind --, got --config"),
        ("slurm.sbatch", [], "expected a stage, got none"),
        ("slurm.sbatch", ["--dry-run"], "expected a stage, got none"),
        ("slurm.sbatch", ["--config=sd15"], "expected a stage, got --config=sd15"),
        ("tpu_worker.sh", ["fly"], 'got "fly"'),
        ("mount_bucket.sh", [], "got none"),
        ("mount_bucket.sh", ["gs://b"], "without gs://, got gs://b"),
        ("mount_bucket.sh", ["b", "c"], "got b c"),
    ],
)
def test_mistakes_end_in_one_line(script, arguments, message, tmp_path):
    done = call(script, *arguments, PATH=path_of(tmp_path))
    assert done.returncode == 2
    assert message in done.stderr and done.stderr.count("\n") == 1


def place(folder):
    """A clone's scripts in a folder, with an environment whose bsjax the test writes."""
    (folder / "launch").mkdir()
    for name in ("common.sh", "gpu_one_host.sh"):
        shutil.copy(LAUNCH / name, folder / "launch")
    (folder / ".venv" / "bin").mkdir(parents=True)
    return folder / "launch" / "gpu_one_host.sh"


@pytest.mark.parametrize(
    ("statuses", "status", "starts"),
    [
        ("0", 0, 1),
        ("75 75 75 75 75 0", 0, 6),  # stopped early: as often as it takes
        ("1 0", 1, 1),
        ("2 0", 2, 1),
        ("3 0", 3, 1),
        ("130 0", 130, 1),
        ("137 75 137 75 0", 0, 5),
        ("137 75 137 137 0", 137, 4),  # killed more often than RESTARTS
    ],
)
def test_what_is_started_again(tmp_path, statuses, status, starts):
    script = place(tmp_path)
    program(tmp_path / ".venv" / "bin" / "bsjax", ends_with(tmp_path, statuses))
    settings = {"PATH": path_of(tmp_path / "bin"), "RESTARTS": "2", "RESTART_SECONDS": "0"}
    done = call(script, "--", *STAGE, **settings)
    assert (done.returncode, (tmp_path / "n").read_text().strip()) == (status, str(starts))


PYTHON = """
echo "$@" >> {folder}/asked
case "$1 $2" in
  "-c "*) [[ -e {folder}/cuda ]] ;;
  "-m pip") if [[ $* == *bsjax* || $* == *cuda12* ]]; then touch {folder}/cuda; fi ;;
esac
"""


@pytest.mark.parametrize("has_cuda", [False, True])
def test_the_cuda_build_is_installed_where_one_for_cpus_stands(tmp_path, has_cuda):
    script = place(tmp_path)
    tools = tmp_path / ".venv" / "bin"
    shown = f'printf "%s\\n" "$JAX_PLATFORMS" "$@" > {tmp_path}/arguments'
    program(tools / "bsjax", f"[[ -e {tmp_path}/cuda ]] || exit 9\n{shown}")
    program(tools / "python", PYTHON.format(folder=tmp_path))
    if has_cuda:
        (tmp_path / "cuda").touch()
    done = call(script, "--", *STAGE, PATH=path_of(tmp_path / "bin"))
    assert done.returncode == 0, done.stderr
    asked = (tmp_path / "asked").read_text()
    assert "find_spec('jax_cuda12_plugin')" in asked
    assert (f"-m pip install --quiet -e {tmp_path}[cuda12]" in asked) is not has_cuda
    # A machine whose GPU does not work must not fall back to its CPU.
    assert (tmp_path / "arguments").read_text().splitlines() == ["cuda,cpu", *STAGE]


def test_a_python_that_is_too_old_is_not_taken(tmp_path):
    script = place(tmp_path)
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("python3.13", "python3.12", "python3.11", "python3"):
        program(tools / name, "exit 1")
    done = call(script, "--", *STAGE, PATH=path_of(tools))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "expected Python 3.11 or newer, got none" in done.stderr


@pytest.mark.parametrize(
    ("number", "to_all", "status"),
    [(signal.SIGTERM, False, 75), (signal.SIGTERM, True, 75), (signal.SIGINT, True, 130)],
)
def test_a_script_that_is_told_to_stop_stops_bsjax_and_starts_it_no_more(
    tmp_path, number, to_all, status
):
    """As systemd, a container's end and Ctrl-C do; bsjax saves before it ends."""
    script = place(tmp_path)
    work = f"""
    echo start >> {tmp_path}/starts
    trap 'sleep 0.2; echo saved > {tmp_path}/saved; exit 75' TERM
    trap 'sleep 0.2; echo saved > {tmp_path}/saved; exit 130' INT
    while true; do sleep 0.05; done"""
    program(tmp_path / ".venv" / "bin" / "bsjax", work)
    environment = {"PATH": path_of(tmp_path / "bin")}
    command = [sys.executable, "-c", HEEDS, str(int(number)), "bash", str(script), "--", *STAGE]
    started = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "starts").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.2)  # its traps stand
        (os.killpg if to_all else os.kill)(started.pid, number)
        assert started.wait(timeout=60) == status
    finally:  # whatever was not told to stop
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
    assert (tmp_path / "saved").exists()
    assert (tmp_path / "starts").read_text() == "start\n"


def test_the_arguments_arrive_as_they_are(tmp_path):
    """Pasted, the printed command gives the program the very arguments that were named."""
    path = path_of(tmp_path)
    done = call("gpu_one_host.sh", "--dry-run", "--", *STAGE, PATH=path)
    last = done.stdout.splitlines()[-1]
    assert last.split()[0].endswith("/.venv/bin/bsjax") and "cuda12" in done.stdout
    line = f"f() {{ printf '%s\\n' \"$@\"; }}; f {last}"
    shown = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    assert shown.stdout.splitlines()[1:] == STAGE
