"""docs/launch/ followed to the letter: every block of a page, in order, in one shell.

The project's own scripts get --dry-run; programs of clouds and clusters are stubs that refuse a
command or a flag that the real ones do not have.
"""

import json
import re
import shutil
import subprocess
import sys

import pytest

from tests.documents import BLOCK, REPO
from tests.launch.stubs import LAUNCH, environment_of_python, path_of, program

PAGES = sorted((REPO / "docs" / "launch").glob("*.md"))
SCRIPT = re.compile(r"(launch/(?:tpu_pod|gpu_one_host|mount_bucket)\.sh)(?= |$)", re.M)
# Command -> how many positional arguments, and flags, as `COMMAND --help` lists them.
GCLOUD = {
    "auth login": (0, ""),
    "auth configure-docker": (1, ""),
    "config set": (2, ""),
    "services enable": (2, ""),
    "projects describe": (1, "format"),
    "artifacts repositories create": (1, "location repository-format"),
    "storage buckets create": (1, "location uniform-bucket-level-access"),
    "storage buckets add-iam-policy-binding": (1, "member role"),
    "storage rsync": (2, "recursive"),
    "storage rm": (1, "recursive"),
    "iam service-accounts create": (1, ""),
    "filestore instances create": (1, "zone tier file-share network"),
    "filestore instances describe": (1, "zone format"),
    "filestore instances delete": (1, "zone"),
    "compute machine-types list": (0, "zones filter"),
    "compute accelerator-types list": (0, "filter"),
    "compute tpus locations list": (0, ""),
    "compute tpus accelerator-types list": (0, "zone"),
    "compute tpus versions list": (0, "zone"),
    "compute tpus queued-resources list": (0, "zone"),
    "container clusters create": (
        1, "location num-nodes workload-pool addons release-channel"),
    "container clusters get-credentials": (1, "location"),
    "container clusters delete": (1, "location"),
    "container node-pools create": (
        1, "cluster location node-locations machine-type tpu-topology num-nodes workload-metadata"
        " spot accelerator"),
    "container node-pools delete": (1, "cluster location"),
}  # fmt: skip
OTHERS = {
    "kubectl apply": (0, "server-side filename dry-run"),
    "kubectl create": (2, ""),
    "kubectl get": (None, "output selector"),
    "kubectl logs": (0, "follow selector container"),
    "kubectl delete": (None, "filename"),
    "docker build": (1, "file tag"),
    "docker push": (1, ""),
    "docker run": (None, "rm gpus shm-size volume"),
    "sky jobs launch": (1, "name env"),
    "sky jobs queue": (0, ""),
    "sky jobs logs": (0, "name"),
    "sky jobs cancel": (0, "name"),
    "squeue": (0, "me"),
    "scancel": (1, "signal"),
    "nvidia-smi": (0, ""),
}
# Flags whose value is a word of its own.
APART = {"file", "tag", "gpus", "shm-size", "volume", "name", "env"}
CHECK = r"""
import json, sys
known, apart = json.loads({known!r}), set(json.loads({apart!r}))
words = [{name!r}, *sys.argv[1:]]
names = [name for name in known if words[: len(name.split())] == name.split()]
if not names:
    sys.exit("unknown: " + " ".join(words))
name = max(names, key=len)
n_positional, flags = known[name]
rest, positional = words[len(name.split()):], []
while rest:
    word = rest.pop(0)
    if word.startswith("--") and not (name == "docker run" and positional):
        flag, equals, value = word[2:].partition("=")
        if flag not in flags.split():
            sys.exit(name + " has no --" + flag)
        if equals and not value or flag in apart and not equals and not rest:
            sys.exit("no value: " + word)
        if flag in apart and not equals:
            rest.pop(0)
    else:
        positional.append(word)
if n_positional is not None and len(positional) != n_positional:
    sys.exit("expected %d words: %s" % (n_positional, " ".join(words)))
with open({calls!r}, "a") as file:
    file.write(json.dumps(words) + "\n")
if any("ipAddresses" in word for word in words):
    print("10.0.0.2")
if any("projectNumber" in word for word in words):
    print("123456")
"""
SBATCH = r"""
while [[ $1 != *.sbatch ]]; do
  [[ $1 =~ ^--(nodes|time|account|partition)=.+ ]] || { echo "sbatch $1" >&2; exit 1; }
  shift
done
script=$1; shift
exec bash "$script" --dry-run "$@"
"""
GIT = r"""
[[ $1 == clone && $# == 3 ]] || exec /usr/bin/git "$@"
cp -r clone-of-the-test "$3"
"""
BSJAX = r"""
case $1 in
  launch) exec {python} -m bsjax.main "$@" ;;
  *) printf '%s\n' "$*" >> "$FOLDER/bsjax_calls" ;; # tests/test_docs.py looks at its flags
esac
"""


@pytest.fixture
def followed(tmp_path, request):
    """(page) -> what its commands printed, in a folder that looks like a clone."""

    def follow(page):
        tools = tmp_path / "tools"
        path = path_of(tools)
        gcloud = {f"gcloud {name}": known for name, known in GCLOUD.items()}
        known = gcloud | OTHERS
        for name in {command.split()[0] for command in known}:
            text = CHECK.format(
                known=json.dumps({k: v for k, v in known.items() if k.split()[0] == name}),
                apart=json.dumps(sorted(APART)), name=name, calls=str(tmp_path / "calls"),
            )  # fmt: skip
            program(tools / name, text, shell=f"{sys.executable} -IS")
        program(tools / "sbatch", SBATCH)
        program(tools / "git", GIT)
        program(tools / "tail", '[[ -n $1 ]] && echo "tail $*"')
        program(tools / "bsjax", BSJAX.format(python=sys.executable))
        for name in ("pip", "python3"):
            program(tools / name, f'echo {name} "$@" >> {tmp_path}/installed')
        clone = tmp_path / "work" / "clone-of-the-test"
        clone.mkdir(parents=True)
        for folder in (clone, clone.parent):
            shutil.copytree(LAUNCH, folder / "launch", ignore=shutil.ignore_patterns("__pycache__"))
            (folder / "pyproject.toml").write_text("")
            (folder / ".venv" / "bin").mkdir(parents=True)
            program(folder / ".venv" / "bin" / "python", f'echo pip "$@" >> {tmp_path}/installed')
        blocks = [text for language, text in BLOCK.findall(page.read_text()) if not language]
        commands = SCRIPT.sub(r"\1 --dry-run", "".join(blocks))
        commands = f"set -euo pipefail\n{commands}"
        environment = environment_of_python() | {"PATH": path, "FOLDER": str(tmp_path)}
        return subprocess.run(
            ["bash", "-c", commands], env=environment, capture_output=True, text=True,
            cwd=tmp_path / "work", timeout=120,
        )  # fmt: skip

    return follow


PRINTED = {
    "tpu_pod.md": [
        "gcsfuse --implicit-dirs -o ro my-bucket /mnt/my-bucket",
        "queued-resources create rasae --node-id=rasae --accelerator-type=v5litepod-16",
        "--service-account=bsjax@my-project.iam.gserviceaccount.com",
        "sudo mount -t nfs 10.0.0.2:/tokens",
        "--config.real.path=/mnt/my-bucket/images/",
        "tail -n 50 -F bsjax.log".replace(" ", "\\ "),
        "queued-resources delete rasae --force",
    ],
    "gpu_host.md": ["\\[cuda12\\]", "bsjax train_sae --config=rasae_imagenet --workdir=runs/rasae"],
    "slurm.md": ["srun --kill-on-bad-exit=0", ".venv/bin/bsjax train_sae", "tail -n 50 bsjax-1234"],
    "gke.md": [],
    "colab.md": [],
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_can_be_followed(page, followed, tmp_path):
    done = followed(page)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr}"
    printed = done.stdout
    for text in PRINTED[page.name]:
        assert text in printed, f"{text}\n{printed}"
    if page.name == "gke.md":
        yaml = pytest.importorskip("yaml")
        written = (tmp_path / "work" / "job.yaml").read_text()
        job = yaml.safe_load(written)
        (replicated,) = job["spec"]["replicatedJobs"]
        (container,) = replicated["template"]["spec"]["template"]["spec"]["containers"]
        assert container["image"] == "us-west4-docker.pkg.dev/my-project/bsjax/bsjax:cuda"
        assert "--workdir=gs://my-bucket/rasae" in container["args"]
        calls = [json.loads(line) for line in (tmp_path / "calls").read_text().splitlines()]
        pushed = [call[2] for call in calls if call[:2] == ["docker", "push"]]
        assert container["image"] in pushed
        bound = next(call for call in calls if "add-iam-policy-binding" in call)
        assert any("projects/123456/" in word and "sa/bsjax" in word for word in bound)
        left = re.findall(r"\b(?:REGION|PROJECT|REPOSITORY|BUCKET)\b", json.dumps(job))
        assert left == []


TOLD = {
    "tpu_pod.md": "roles/storage.objectUser roles/tpu.admin Quota bsjax&plan 513&GB Python&3.11",
    "gpu_host.md": "roles/storage.objectUser quota costs 513&GB Python&3.11",
    "slurm.md": "quota bsjax&plan 513&GB scontrol&requeue",
    "gke.md": "roles/storage.objectUser Quota bsjax&plan 513&GB docker&build not&root",
    "colab.md": "roles/storage.objectUser quota bsjax&plan 513&GB Python&3.11",
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_page_says_what_one_needs_to_know(page):
    text = " ".join(page.read_text().split())
    for words in [*TOLD[page.name].split(), "Nothing&of&this&ran&on", "Watch", "elete", "goes&on"]:
        assert words.replace("&", " ") in text, words
    assert f"launch/{page.name}" in (REPO / "mkdocs.yml").read_text()


def test_the_stubs_refuse_what_the_real_programs_do_not_know(followed, tmp_path):
    for line, message in (
        ("gcloud compute tpus locations lst", "unknown: gcloud compute tpus locations lst"),
        ("gcloud compute tpus versions list --zones=z", "has no --zones"),
        ("docker build --file x --tag y", "expected 1 words"),
        ("ssh somewhere", "ssh somewhere was called"),
    ):
        page = tmp_path / "page.md"
        page.write_text(f"```\n{line}\n```\n")
        shutil.rmtree(tmp_path / "work", ignore_errors=True)
        done = followed(page)
        assert done.returncode != 0 and message in done.stderr


def test_every_file_that_starts_bsjax_is_told_of():
    from bsjax.cli import launch

    told = "".join(page.read_text() for page in PAGES)
    for name in launch.names():
        assert name in told or name == "tpu_worker.sh"
