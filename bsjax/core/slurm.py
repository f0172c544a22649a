"""Which GPUs of its node a process takes that Slurm started."""

import os
import re
from collections.abc import Mapping

from bsjax.core.errors import UserError

# What Slurm shows a task of the GPUs: those of NVIDIA, those of AMD.
SHOWN = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
REPEATED = re.compile(r"(?P<tasks>\d+)(?:\(x(?P<nodes>\d+)\))?")
ALL = "all"


def gpus_of_this_task(environment: Mapping[str, str] = os.environ) -> str | None:
    """GPUs for this process, as `jax_cuda_visible_devices` takes them; None outside of Slurm.

    jax itself takes one GPU for each task, that of the task's number on its node: of a node with
    eight GPUs and one task seven stay idle, and a task that Slurm shows its own GPU alone looks for
    others. Here the tasks of a node divide the GPUs that they see.

    Args:
      environment: what Slurm sets for a task; `JAX_LOCAL_DEVICE_IDS` in it has the last word.

    Returns:
      "all", or numbers among the GPUs that the process sees, like "4,5,6,7".

    Raises:
      UserError: the tasks of the node do not divide its GPUs.
    """
    if "SLURM_PROCID" not in environment or environment.get("JAX_LOCAL_DEVICE_IDS"):
        return None
    tasks, local = tasks_on_this_node(environment), int(environment.get("SLURM_LOCALID", "0"))
    seen = next((environment[name] for name in SHOWN if environment.get(name)), "")
    n_seen = len(seen.split(",")) if seen else int(environment.get("SLURM_GPUS_ON_NODE") or 0)
    on_node = int(environment.get("SLURM_GPUS_ON_NODE") or n_seen)
    # Fewer than the job has on this node: Slurm has given each task its own.
    if tasks == 1 or n_seen < on_node:
        return ALL
    if n_seen == 0:
        return None  # Nobody tells how many there are: jax takes one for each task.
    if n_seen % tasks:
        raise UserError(
            f"{tasks} tasks on a node with {n_seen} GPUs: expected one task, or a number that"
            " divides the GPUs; set Slurm's number of tasks per node so"
        )
    share = n_seen // tasks
    return ",".join(str(gpu) for gpu in range(local * share, (local + 1) * share))


def tasks_on_this_node(environment: Mapping[str, str]) -> int:
    """Processes of this step on this node, from lists as Slurm writes them: "2(x3),1"."""
    listed = environment.get("SLURM_STEP_TASKS_PER_NODE") or environment.get("SLURM_TASKS_PER_NODE")
    if listed:
        counts = [
            int(found["tasks"])
            for found in map(REPEATED.fullmatch, listed.split(","))
            if found
            for _ in range(int(found["nodes"] or 1))
        ]
        node = int(environment.get("SLURM_NODEID", "0"))
        if node < len(counts):
            return counts[node]
    tasks = int(environment.get("SLURM_NTASKS") or 1)
    nodes = int(environment.get("SLURM_STEP_NUM_NODES") or environment.get("SLURM_NNODES") or tasks)
    return -(-tasks // nodes)
