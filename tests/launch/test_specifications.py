"""JobSets, Dockerfiles and the file for SkyPilot, read as those who take them read them."""

import re
import shlex
import socket
import subprocess
import sys

import pytest

from tests.launch.stubs import LAUNCH, call, environment_of_python, path_of, program

JOBSETS = ["gke_jobset.yaml", "gke_gpu_jobset.yaml"]
DOCKERFILES = ["tpu.Dockerfile", "cuda.Dockerfile"]


def load(name):
    yaml = pytest.importorskip("yaml")
    return yaml.safe_load((LAUNCH / name).read_text())


def job_of(name):
    (replicated,) = load(name)["spec"]["replicatedJobs"]
    assert replicated["replicas"] == 1
    return replicated["template"]["spec"]


@pytest.mark.parametrize("name", JOBSETS)
def test_pods_start_again_but_not_after_a_mistake(name):
    """Of the Job: any exit of a pod fails it, 1 to 3 by the policy. Of the JobSet: what failed by
    the policy ends it, and everything else (75, a signal, a lost node) starts all pods again."""
    document = load(name)
    assert document["apiVersion"] == "jobset.x-k8s.io/v1alpha2" and document["kind"] == "JobSet"
    policy = document["spec"]["failurePolicy"]
    (rule,) = policy["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])
    assert policy["maxRestarts"] >= 100
    job = job_of(name)
    (rule,) = job["podFailurePolicy"]["rules"]
    codes = rule["onExitCodes"]
    assert (rule["action"], codes["operator"]) == ("FailJob", "In")
    assert codes["values"] == [1, 2, 3]
    pod = job["template"]["spec"]
    assert codes["containerName"] == pod["containers"][0]["name"]
    # A Job must not start a single pod again: all wait for each other.
    assert job["backoffLimit"] == 0 and pod["restartPolicy"] == "Never"
    assert pod["terminationGracePeriodSeconds"] >= 60


@pytest.mark.parametrize("name", JOBSETS)
def test_pods_have_an_account_the_bucket_and_all_chips_of_their_node(name):
    job = job_of(name)
    template = job["template"]
    pod = template["spec"]
    (container,) = pod["containers"]
    assert pod["serviceAccountName"] == "bsjax"
    assert container["command"] == ["bsjax"]
    assert any(word.startswith("--workdir=gs://") for word in container["args"])
    assert template["metadata"]["annotations"] == {"gke-gcsfuse/volumes": "true"}
    volumes = {each["name"] for each in pod["volumes"]}
    assert {each["name"] for each in container["volumeMounts"]} == volumes
    assert job["parallelism"] == job["completions"] and job["completionMode"] == "Indexed"
    environment = {each["name"]: each.get("value") for each in container["env"]}
    limits, selector = container["resources"]["limits"], pod["nodeSelector"]
    if name == "gke_jobset.yaml":
        chips = 1
        for side in selector["cloud.google.com/gke-tpu-topology"].split("x"):
            chips *= int(side)
        assert chips == job["parallelism"] * int(limits["google.com/tpu"])
        assert environment == {"BSJAX_DISTRIBUTED": "1"}
    else:
        assert limits == {"nvidia.com/gpu": "8"}
        assert environment["BSJAX_NUM_PROCESSES"] == str(job["parallelism"])
        # <jobset>-<job>-<index of the job>-<index of the pod>.<jobset>
        document = load(name)
        jobset, replicated = document["metadata"]["name"], document["spec"]["replicatedJobs"][0]
        host = f"{jobset}-{replicated['name']}-0-0.{jobset}"
        assert environment["BSJAX_COORDINATOR"] == f"{host}:8476"
        (number,) = (e for e in container["env"] if e["name"] == "BSJAX_PROCESS_ID")
        path = number["valueFrom"]["fieldRef"]["fieldPath"]
        assert path == "metadata.annotations['batch.kubernetes.io/job-completion-index']"


def test_a_pod_asks_the_cluster_nothing_that_the_file_tells():
    """jax would ask the cluster's API, with a package that is not there, for what is said."""
    names = [each["name"] for each in pod_environment("gke_gpu_jobset.yaml")]
    with socket.socket() as server:
        server.bind(("localhost", 0))
        address = f"localhost:{server.getsockname()[1]}"
    said = dict(zip(names, (address, "1", "0"), strict=True))
    program = "from bsjax.core import distributed as d; d.initialize(); print(d.n_hosts())"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment_of_python() | said | {"KUBERNETES_SERVICE_HOST": "10.0.0.1"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout == "1\n" and "ubernetes" not in done.stderr, done.stderr


def pod_environment(name):
    (container,) = job_of(name)["template"]["spec"]["containers"]
    return container["env"]


def instructions(name):
    """(WORD, the rest) of each instruction, lines that go on joined."""
    text = re.sub(r"^\s*#.*\n", "", (LAUNCH / name).read_text(), flags=re.M)
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip():
            word, _, rest = line.partition(" ")
            yield word, rest


@pytest.mark.parametrize(("name", "extra", "devices"), [
    ("tpu.Dockerfile", "tpu", "tpu,cpu"), ("cuda.Dockerfile", "cuda12", "cuda,cpu"),
])  # fmt: skip
def test_images_are_pinned_and_run_as_no_root(name, extra, devices):
    found = list(instructions(name))
    assert {word for word, _ in found} <= {
        "FROM", "ENV", "RUN", "COPY", "WORKDIR", "USER", "ENTRYPOINT",
    }  # fmt: skip
    (base,) = (rest for word, rest in found if word == "FROM")
    image, _, tag = base.partition(":")
    version = re.match(r"(\d+)\.(\d+)\.(\d+)-", tag)  # down to the patch
    assert image == "python" and version, base
    assert (3, 11) <= tuple(map(int, version.groups()[:2])) <= (3, 13)
    words = [word for word, _ in found]
    assert words.index("USER") > max(i for i, word in enumerate(words) if word == "RUN")
    (user,) = (rest for word, rest in found if word == "USER")
    assert user.isdecimal() and int(user) >= 1000  # by number, as runAsNonRoot asks
    assert words[-1] == "ENTRYPOINT" and found[-1][1] == '["bsjax"]'  # which hears SIGTERM
    text = (LAUNCH / name).read_text()
    assert not re.search(r"secret|token|password|credential|_key|\.json", text, re.I)
    # Nothing is copied but what is installed: no .git, no runs, no environment.
    copied = [rest.split()[:-1] for word, rest in found if word == "COPY"]
    assert sorted(sum(copied, [])) == [
        "LICENSE", "README.md", "bsjax", "configs", "launch", "pyproject.toml",
    ]  # fmt: skip
    for source in sum(copied, []):
        assert (LAUNCH.parent / source).exists()
    installed = [rest for word, rest in found if word == "RUN" and "pip install" in rest]
    assert [shlex.split(each)[2:] for each in installed] == [[f".[{extra}]", "gcsfs"]]
    environment = dict(
        each.split("=", 1) for word, rest in found if word == "ENV" for each in shlex.split(rest)
    )
    assert environment["JAX_PLATFORMS"] == devices
    assert f"docker build --file launch/{name}" in text


# docs.skypilot.co/en/latest/reference/yaml-spec.html, those that we use.
SKY = {"name", "resources", "num_nodes", "workdir", "file_mounts", "envs", "setup", "run"}
RESOURCES = {"accelerators", "use_spot", "disk_size", "job_recovery"}
RECOVERY = {"strategy", "max_restarts_on_errors", "recover_on_exit_codes"}


def test_skypilot_knows_the_keys_and_goes_on_after_75_alone():
    document = load("skypilot.yaml")
    assert set(document) == SKY
    resources = document["resources"]
    assert set(resources) == RESOURCES and resources["accelerators"] == "H100:8"
    recovery = resources["job_recovery"]
    assert set(recovery) == RECOVERY
    assert recovery["recover_on_exit_codes"] == [75] and recovery["max_restarts_on_errors"] == 0
    assert recovery["strategy"] in ("FAILOVER", "EAGER_NEXT_REGION")
    assert document["envs"]["WORKDIR"].startswith("gs://")
    assert set(document["file_mounts"]["/images"]) == {"source", "mode"}


@pytest.mark.parametrize("n_nodes", [1, 2])
def test_what_bsjax_sees_on_skypilot(n_nodes, tmp_path):
    document = load("skypilot.yaml")
    tools = tmp_path / "bsjax-venv" / "bin"
    tools.mkdir(parents=True)
    program(tools / "bsjax", 'printf "%s\\n" "$@"; env | grep BSJAX_; exit 75')
    program(tools / "python", "exit 0")
    program(tmp_path / "python3", f'echo "$@" >> {tmp_path}/installed')
    environment = document["envs"] | {
        "PATH": path_of(tmp_path), "HOME": str(tmp_path), "SKYPILOT_NUM_NODES": str(n_nodes),
        "SKYPILOT_NODE_RANK": str(n_nodes - 1), "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2",
    }  # fmt: skip
    done = subprocess.run(["bash", "-c", document["setup"]], env=environment)
    assert done.returncode == 0
    assert ".[cuda12] gcsfs" in (tmp_path / "installed").read_text()
    done = subprocess.run(
        ["bash", "-c", document["run"]], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 75, done.stderr
    seen = done.stdout.splitlines()
    assert seen[0] == "train_sae" and "--config.real.path=/images/*.arrayrecord" in seen
    hosts = {line for line in seen if line.startswith("BSJAX_")}
    assert hosts == (set() if n_nodes == 1 else {
        "BSJAX_COORDINATOR=10.0.0.1:8476", "BSJAX_NUM_PROCESSES=2", "BSJAX_PROCESS_ID=1",
    })  # fmt: skip


def test_the_arguments_of_every_specification_are_some_that_bsjax_takes():
    from bsjax.cli import arguments
    from bsjax.core.ranges import KEYS

    known = {f"--{flag.name}" for flag in arguments.of_stage("train_sae")}
    known |= {f"--config.{key}" for key in KEYS}
    texts = [
        " ".join(job_of(name)["template"]["spec"]["containers"][0]["args"]) for name in JOBSETS
    ]
    texts.append(load("skypilot.yaml")["run"])
    for text in texts:
        words = re.findall(r"--[a-z_.]+(?==)", text)
        assert len(words) >= 5 and set(words) <= known


def test_a_bucket_is_mounted_for_reading(tmp_path):
    program(tmp_path / "sudo", f'echo sudo "$@" >> {tmp_path}/calls')
    program(tmp_path / "gcsfuse", f'echo gcsfuse "$@" >> {tmp_path}/calls')
    done = call("mount_bucket.sh", "my-bucket", PATH=path_of(tmp_path))
    assert done.returncode == 0, done.stderr
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[0] == "sudo mkdir -p /mnt/my-bucket"
    assert calls[-1] == "gcsfuse --implicit-dirs -o ro my-bucket /mnt/my-bucket"
