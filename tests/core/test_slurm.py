"""Which GPUs a task of Slurm takes."""

import pytest

from bsjax.core import slurm
from bsjax.core.errors import UserError

EIGHT = ",".join(map(str, range(8)))


def task(local=0, node=0, tasks="1(x2)", seen=EIGHT, on_node="8", **more):
    return {
        "SLURM_PROCID": "1",
        "SLURM_LOCALID": str(local),
        "SLURM_NODEID": str(node),
        "SLURM_STEP_TASKS_PER_NODE": tasks,
        "CUDA_VISIBLE_DEVICES": seen,
        "SLURM_GPUS_ON_NODE": on_node,
    } | more


@pytest.mark.parametrize(
    ("environment", "gpus"),
    [
        ({}, None),  # no Slurm
        ({"CUDA_VISIBLE_DEVICES": EIGHT, "SLURM_JOB_ID": "1"}, None),  # no task of it
        (task(), "all"),
        (task(seen=""), "all"),
        (task(seen="", on_node=""), "all"),
        (task(seen="2,3", on_node="2"), "all"),  # part of a node: numbers are those that it sees
        (task(local=0, tasks="8"), "0"),
        (task(local=7, tasks="8"), "7"),
        (task(local=1, tasks="2(x3)"), "4,5,6,7"),
        (task(local=3, tasks="4", seen="", on_node="8"), "6,7"),
        # Slurm has bound each task to its own, which are number 0 there.
        (task(local=7, tasks="8", seen="0"), "all"),
        (task(local=7, tasks="8", seen="3", on_node="8"), "all"),
        (task(local=1, node=2, tasks="4(x2),2"), "4,5,6,7"),
        (task(local=1, tasks="2", seen="", on_node=""), None),  # nobody tells how many there are
        (task(JAX_LOCAL_DEVICE_IDS="3"), None),
        (task(local=1, tasks="2", seen="", ROCR_VISIBLE_DEVICES="0,1,2,3", on_node=""), "2,3"),
    ],
)
def test_the_tasks_of_a_node_divide_the_gpus_that_they_see(environment, gpus):
    assert slurm.gpus_of_this_task(environment) == gpus


def test_each_gpu_is_taken_once():
    for tasks in (1, 2, 4, 8):
        taken = [slurm.gpus_of_this_task(task(i, tasks=str(tasks))) for i in range(tasks)]
        numbers = [n for each in taken for n in (EIGHT if each == "all" else each).split(",")]
        assert numbers == EIGHT.split(",")


def test_gpus_that_cannot_be_divided_are_a_mistake():
    with pytest.raises(UserError, match=r"^3 tasks on a node with 8 GPUs: .*tasks per node so$"):
        slurm.gpus_of_this_task(task(tasks="3"))


@pytest.mark.parametrize(
    ("environment", "tasks"),
    [
        ({"SLURM_STEP_TASKS_PER_NODE": "2(x3),1", "SLURM_NODEID": "2"}, 2),
        ({"SLURM_STEP_TASKS_PER_NODE": "2(x3),1", "SLURM_NODEID": "3"}, 1),
        ({"SLURM_TASKS_PER_NODE": "4"}, 4),
        ({"SLURM_NTASKS": "16", "SLURM_STEP_NUM_NODES": "2"}, 8),
        ({"SLURM_NTASKS": "16", "SLURM_NNODES": "4"}, 4),
        ({"SLURM_NTASKS": "4"}, 1),
        ({}, 1),
    ],
)
def test_tasks_on_this_node(environment, tasks):
    assert slurm.tasks_on_this_node(environment) == tasks
