"""slurm.sbatch under stubs of Slurm that act as it does: what the program then sees."""

import json
import socket
import subprocess
import sys

import pytest

from tests.launch.stubs import LAUNCH, STAGE, call, environment_of_python, path_of, program

# Runs the script on the first of its nodes, with what #SBATCH and the command line ask for.
SBATCH = r"""
script="" nodes=1 tasks=1 gpus=0
for each in "$@"; do if [[ -f $each ]]; then script=$each; fi; done
while read -r _ option; do set -- "$option" "$@"; done < <(grep '^#SBATCH' "$script")
while [[ $1 != "$script" ]]; do
  case $1 in
    --nodes=*) nodes=${1#*=} ;;
    --ntasks-per-node=*) tasks=${1#*=} ;;
    --gpus-per-node=*) gpus=${1#*=} ;;
  esac
  shift
done
shift
export SLURM_JOB_ID=$JOB SLURM_NNODES=$nodes SLURM_NTASKS=$((nodes * tasks))
export SLURM_NTASKS_PER_NODE=$tasks SLURM_GPUS_ON_NODE=$gpus
cp "$script" "$FOLDER/spooled" # as Slurm does: the script lies alone
exec bash "$FOLDER/spooled" "$@"
"""
# Every task as a process here, with what Slurm sets for it; returns the highest status, as srun.
SRUN = r"""
echo "$@" > "$FOLDER/srun_arguments"
while [[ $1 == -* ]]; do shift; done
per_node=$SLURM_NTASKS_PER_NODE
visible=$(seq -s, 0 $((SLURM_GPUS_ON_NODE - 1)))
pids=()
for ((task = 0; task < SLURM_NTASKS; task++)); do
  SLURM_PROCID=$task SLURM_LOCALID=$((task % per_node)) SLURM_NODEID=$((task / per_node)) \
    SLURM_STEP_NODELIST="localhost,localhost" SLURM_STEP_NUM_NODES=$SLURM_NNODES \
    SLURM_STEP_TASKS_PER_NODE="${per_node}(x${SLURM_NNODES})" CUDA_VISIBLE_DEVICES=$visible \
    "$@" & pids+=($!)
done
highest=0
for pid in "${pids[@]}"; do
  status=0; wait "$pid" || status=$?
  if [[ $status -gt $highest ]]; then highest=$status; fi
done
exit "$highest"
"""
SEEN = """
import json, os, sys
from bsjax.core import distributed
distributed.initialize()
import jax
from jax._src import xla_bridge
with open(f"{os.environ['FOLDER']}/seen-{jax.process_index()}.json", "w") as file:
    json.dump({
        "gpus": xla_bridge._options_from_jax_configs("cuda").get("visible_devices", "all"),
        "local": jax.local_device_count(), "all": jax.device_count(),
        "processes": jax.process_count(), "arguments": sys.argv[1:],
    }, file)
distributed.wait_for_all("seen")
"""


@pytest.fixture
def cluster(tmp_path):
    """Environment of a login node; programs of the cluster write into the test's folder."""
    program(tmp_path / "sbatch", SBATCH)
    program(tmp_path / "srun", SRUN)
    program(tmp_path / "scontrol", f'echo "$@" > {tmp_path}/asked')
    # jax derives the coordinator's port from the job's number.
    for job in range(7000, 7400):
        with socket.socket() as server:
            try:
                server.bind(("localhost", job % 2**12 + 65535 - 2**12 + 1))
            except OSError:
                continue
            break
    path = {"PATH": path_of(tmp_path), "FOLDER": str(tmp_path), "JOB": str(job)}
    return environment_of_python() | path


def submit(environment, *arguments):
    command = ["sbatch", *arguments]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, cwd=LAUNCH.parent, timeout=300
    )


@pytest.mark.parametrize(
    ("options", "gpus"),
    [
        # One task drives all eight of its node.
        (["--nodes=2"], ["all", "all"]),
        # More than one: they divide them.
        (["--nodes=1", "--ntasks-per-node=2"], [[0, 1, 2, 3], [4, 5, 6, 7]]),
    ],
)
def test_no_gpu_of_a_node_stays_idle(options, gpus, cluster, tmp_path):
    (tmp_path / "seen.py").write_text(SEEN)
    program(tmp_path / "bsjax", f'exec {sys.executable} {tmp_path}/seen.py "$@"')
    # As many CPU devices as the node has GPUs, for jax to count.
    environment = cluster | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    done = submit(environment, *options, str(LAUNCH / "slurm.sbatch"), *STAGE)
    assert done.returncode == 0, done.stderr[-3000:]
    seen = [json.loads((tmp_path / f"seen-{task}.json").read_text()) for task in range(2)]
    assert [each["gpus"] for each in seen] == gpus
    for each in seen:
        assert (each["local"], each["all"], each["processes"]) == (8, 16, 2)
        assert each["arguments"] == STAGE
    assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize(
    ("statuses", "status", "asked"),
    [
        ((0, 0), 0, False),
        ((1, 1), 1, False),
        ((2, 2), 2, False),
        ((3, 3), 3, False),
        ((75, 75), 75, True),
        ((137, 75), 137, False),
    ],
)
def test_a_job_that_stopped_early_is_requeued_and_no_other(
    statuses, status, asked, cluster, tmp_path
):
    chosen = f"statuses=({' '.join(map(str, statuses))})"
    program(tmp_path / "bsjax", f'{chosen}; exit "${{statuses[SLURM_PROCID]}}"')
    done = submit(cluster, "--nodes=2", str(LAUNCH / "slurm.sbatch"), *STAGE)
    assert done.returncode == status
    assert (tmp_path / "asked").exists() == asked
    if asked:
        assert (tmp_path / "asked").read_text() == f"requeue {cluster['JOB']}\n"
    # A task that ends first must not have the others killed: 137 would hide its 75.
    assert "--kill-on-bad-exit=0 --wait=90 " in (tmp_path / "srun_arguments").read_text()


def test_a_job_that_slurm_requeued_itself_is_told(cluster, tmp_path):
    program(tmp_path / "bsjax", "exit 75")
    program(tmp_path / "scontrol", "exit 1")
    done = submit(cluster, "--nodes=1", str(LAUNCH / "slurm.sbatch"), *STAGE)
    assert done.returncode == 75
    assert done.stderr == f"slurm.sbatch: job {cluster['JOB']} was not requeued; submit it again\n"


@pytest.mark.parametrize(
    ("cpus", "option"),
    [({}, "--cpu-bind=none"), ({"SLURM_CPUS_PER_TASK": "12"}, "--cpus-per-task=12")],
)
def test_a_task_gets_more_than_one_core(cpus, option, tmp_path):
    done = call("slurm.sbatch", "--dry-run", *STAGE, PATH=path_of(tmp_path), **cpus)
    line = f"srun() {{ printf '%s\\n' \"$@\"; }}; {done.stdout}"
    shown = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    options = ["--kill-on-bad-exit=0", "--wait=90", option]
    assert shown.stdout.splitlines() == [*options, "bsjax", *STAGE]


def test_what_the_script_asks_slurm_for():
    lines = (LAUNCH / "slurm.sbatch").read_text().splitlines()
    asked = [line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH")]
    # Slurm reads no further than the first command.
    assert lines.index("#SBATCH --requeue") < lines.index("set -euo pipefail")
    for option in ("--ntasks-per-node=1", "--gpus-per-node=8", "--requeue"):
        assert option in asked
    assert "--signal=SIGTERM@120" in asked  # to the tasks: B: would signal the script alone
