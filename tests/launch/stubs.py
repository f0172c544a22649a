"""Programs of a cloud or a cluster that are none: they record, or act on folders of a test."""

import os
import pathlib
import subprocess

REPO = pathlib.Path(__file__).resolve().parents[2]
LAUNCH = REPO / "launch"
# Never the real ones, which may be installed here: what a test does not replace fails.
FORBIDDEN = (
    "gcloud", "kubectl", "docker", "sky", "sbatch", "srun", "scontrol", "squeue", "scancel",
    "sudo", "ssh", "scp", "curl", "nvidia-smi", "gcsfuse", "helm",
)  # fmt: skip
STAGE = ["train_sae", "--config=configs/rasae_imagenet.py", "--workdir=gs://b/r", "--x=a b"]


def program(path: pathlib.Path, text: str, shell: str = "/bin/bash") -> None:
    """Writes an executable."""
    path.write_text(f"#!{shell}\n{text}\n")
    path.chmod(0o755)


def path_of(folder: pathlib.Path) -> str:
    """PATH on which programs of `folder` come first, and forbidden ones fail."""
    guards = folder / "guards"
    guards.mkdir(parents=True, exist_ok=True)
    for name in FORBIDDEN:
        program(guards / name, f'echo "{name} $* was called" >&2; exit 97')
    return f"{folder}:{guards}:/usr/bin:/bin"


def call(script, *arguments, cwd=None, **environment) -> subprocess.CompletedProcess:
    """A script's output; it sees nothing of the environment but this."""
    command = ["bash", str(LAUNCH / script), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=cwd, timeout=120
    )


def ends_with(folder, statuses) -> str:
    """A program that ends with these statuses, one after the other, and counts its starts."""
    text = f"n=$(cat {folder}/n 2>/dev/null || echo 0); echo $((n + 1)) > {folder}/n"
    return f'{text}\nstatuses=({statuses}); exit "${{statuses[n]}}"'


def environment_of_python() -> dict[str, str]:
    """What a process needs that imports this tree, on plain CPU devices."""
    kept = {name: os.environ[name] for name in ("HOME", "LANG") if name in os.environ}
    return kept | {"PYTHONPATH": str(REPO), "JAX_PLATFORMS": "cpu"}
