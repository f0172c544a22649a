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
    pod = spec["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["command"] == ["bsjax"]
