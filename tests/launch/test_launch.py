"""The launch scripts print what they would run, and hold no hyper-parameter."""

import pathlib
import shutil
import subprocess

import pytest

LAUNCH = pathlib.Path(__file__).resolve().parents[2] / "launch"
SCRIPTS = [*sorted(LAUNCH.glob("*.sh")), LAUNCH / "slurm.sbatch"]
STAGE = ["train_sae", "--config=configs/rasae_imagenet.py", "--workdir=gs://b/r", "--x=a b"]
SETTINGS = {
    "NAME": "n",
    "ZONE": "z",
    "PROJECT": "p",
    "ACCELERATOR_TYPE": "v5litepod-8",
    "PATH": "/usr/bin:/bin",
}


def call(script, *arguments, **environment):
    command = ["bash", str(LAUNCH / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ("create", ["tpu-vm create n --accelerator-type=v5litepod-8", "--spot", "--zone=z"]),
        ("install", ["archive --format=tar.gz", "tpu-vm scp", "--worker=all", "./bsjax[tpu]"]),
        ("run", ["tpu-vm ssh n --worker=all", "BSJAX_DISTRIBUTED=1", "train_sae", "gs://b/r"]),
        ("resume", ["tpu-vm delete n", "tpu-vm create n", "tpu-vm scp", "train_sae"]),
        ("delete", ["tpu-vm delete n --quiet --zone=z --project=p"]),
    ],
)
def test_tpu_pod(action, expected):
    done = call("tpu_pod.sh", "--dry-run", action, "--", *STAGE, **SETTINGS)
    assert done.returncode == 0, done.stderr
    place = 0
    for text in expected:
        found = done.stdout.find(text, place)
        assert found >= 0, (text, done.stdout)


def test_the_arguments_arrive_as_they_are():
    """Pasted, the printed command gives the program the very arguments that were named."""
    done = call("slurm.sbatch", "--dry-run", *STAGE, PATH="/usr/bin:/bin")
    shown = subprocess.run(
        ["bash", "-c", f"srun() {{ printf '%s\\n' \"$@\"; }}; {done.stdout}"],
        capture_output=True,
        text=True,
    )
    assert shown.stdout.splitlines() == ["--kill-on-bad-exit=1", "bsjax", *STAGE]
    done = call("gpu_one_host.sh", "--dry-run", "--", *STAGE, PATH="/usr/bin:/bin")
    assert done.stdout.splitlines()[-1].endswith("--workdir=gs://b/r --x=a\\ b ")
    assert "cuda12" in done.stdout


@pytest.mark.parametrize(
    ("script", "arguments", "environment", "message"),
    [
        ("tpu_pod.sh", ["create"], {}, "expected a value in NAME, got none"),
        ("tpu_pod.sh", ["fly"], SETTINGS, 'got "fly"'),
        ("tpu_pod.sh", ["--dry-run", "run"], SETTINGS, "expected a stage behind --"),
        ("gpu_one_host.sh", [], {}, "expected a stage behind --"),
        ("slurm.sbatch", [], {}, "expected a stage, got none"),
    ],
)
def test_mistakes_end_in_one_line(script, arguments, environment, message):
    done = call(script, *arguments, **({"PATH": "/usr/bin:/bin"} | environment))
    assert done.returncode == 2
    assert message in done.stderr and done.stderr.count("\n") == 1


def program(path, text):
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)


def ends_with(folder, statuses):
    """A program that ends with these statuses, one after the other, and counts its starts."""
    text = f"n=$(cat {folder}/n 2>/dev/null || echo 0); echo $((n + 1)) > {folder}/n"
    return f'{text}\nstatuses=({statuses}); exit "${{statuses[n]}}"'


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
    for name in ("common.sh", "gpu_one_host.sh"):
        (tmp_path / "launch").mkdir(exist_ok=True)
        shutil.copy(LAUNCH / name, tmp_path / "launch")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    program(tmp_path / ".venv" / "bin" / "bsjax", ends_with(tmp_path, statuses))
    settings = {"PATH": "/usr/bin:/bin", "RESTARTS": "2", "RESTART_SECONDS": "0"}
    done = call(tmp_path / "launch" / "gpu_one_host.sh", "--", *STAGE, **settings)
    assert (done.returncode, (tmp_path / "n").read_text().strip()) == (status, str(starts))


def test_the_command_of_a_tpu_worker_starts_again(tmp_path):
    program(tmp_path / "gcloud", f'for last in "$@"; do if [[ $last == --command=* ]]; then'
            f' printf "%s" "${{last#--command=}}" > {tmp_path}/command; fi; done')  # fmt: skip
    settings = SETTINGS | {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    assert call("tpu_pod.sh", "run", "--", *STAGE, **settings).returncode == 0
    (tmp_path / "bsjax").mkdir()
    (tmp_path / "bsjax" / "launch").symlink_to(LAUNCH)
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    shown = f'printf "%s\\n" "$@" > {tmp_path}/arguments'
    program(tmp_path / "venv" / "bin" / "bsjax", f"{shown}\n{ends_with(tmp_path, '75 75 0')}")
    command = (tmp_path / "command").read_text() + " wait"
    subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True, timeout=60)
    assert (tmp_path / "n").read_text().strip() == "3"
    assert (tmp_path / "arguments").read_text().splitlines() == STAGE


@pytest.mark.parametrize(("status", "asked"), [(0, False), (1, False), (75, True), (137, False)])
def test_a_preempted_job_of_slurm_is_requeued(tmp_path, status, asked):
    program(tmp_path / "srun", f"exit {status}")
    program(tmp_path / "scontrol", f'echo "$@" > {tmp_path}/asked')
    path = f"{tmp_path}:/usr/bin:/bin"
    done = call("slurm.sbatch", *STAGE, PATH=path, SLURM_JOB_ID="7")
    assert done.returncode == status
    assert (tmp_path / "asked").exists() == asked
    if asked:
        assert (tmp_path / "asked").read_text() == "requeue 7\n"


def test_help_and_style():
    for script in ("tpu_pod.sh", "gpu_one_host.sh"):
        assert f"launch/{script}" in call(script, "--help", PATH="/usr/bin:/bin").stdout
    for path in (*SCRIPTS, LAUNCH / "gke_jobset.yaml"):
        for word in ("learning_rate", "tokens_per_step", "n_concepts", "--config.train"):
            assert word not in path.read_text(), path
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    checked = subprocess.run(["shellcheck", "-x", *SCRIPTS], cwd=LAUNCH.parent, capture_output=True)
    assert checked.returncode == 0, checked.stdout.decode()


def test_the_jobset_is_yaml():
    yaml = pytest.importorskip("yaml")
    spec = yaml.safe_load((LAUNCH / "gke_jobset.yaml").read_text())["spec"]
    job = spec["replicatedJobs"][0]["template"]["spec"]
    (rule,) = job["podFailurePolicy"]["rules"]
    assert (rule["action"], rule["onExitCodes"]["values"]) == ("FailJob", [1, 2])
    (rule,) = spec["failurePolicy"]["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])
    pod = spec["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["command"] == ["bsjax"]
