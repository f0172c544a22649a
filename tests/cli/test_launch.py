"""`bsjax launch`: the scripts are had where there is no clone."""

import pytest

from bsjax.cli import launch
from bsjax.cli.commands import answer
from bsjax.core.errors import UsageError
from tests.documents import REPO

EXPECTED = {
    "cuda.Dockerfile", "gke_gpu_jobset.yaml", "gke_jobset.yaml", "gpu_one_host.sh",
    "mount_bucket.sh", "skypilot.yaml", "slurm.sbatch", "tpu.Dockerfile", "tpu_pod.sh",
    "tpu_worker.sh",
}  # fmt: skip


def test_all_are_listed_with_what_they_are():
    listed = answer(["launch"])
    assert set(launch.names()) == EXPECTED
    for name in launch.names():
        (line,) = (line for line in listed.splitlines() if line.split()[:1] == [name])
        assert len(line.split()) > 4, line


def test_a_file_is_printed_as_it_is_and_scripts_with_what_they_read():
    shared = (REPO / "launch" / "common.sh").read_text()
    for name in launch.names():
        printed, stored = answer(["launch", name]), (REPO / "launch" / name).read_text()
        if "common.sh" not in stored:
            assert printed == stored
        else:
            assert shared in printed and 'source "' not in printed
    assert answer(["launch", "tpu_pod"]) == answer(["launch", "tpu_pod.sh"])
    assert answer(["launch", "slurm"]).startswith("#!")  # which sbatch reads first


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tpu_pod.s", "did you mean tpu_pod.sh"),
        ("common.sh", "expected cuda.Dockerfile | "),
        ("__init__", "no script of that name comes with bsjax"),
        ("../README.md", "no script of that name"),
    ],
)
def test_an_unknown_name_is_one_line(name, message):
    with pytest.raises(UsageError) as caught:
        answer(["launch", name])
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_an_installed_copy_comes_first(tmp_path):
    (tmp_path / "launch").mkdir()
    assert launch.folder(tmp_path / "bsjax") == tmp_path / "launch"
    (tmp_path / "bsjax" / "launch").mkdir(parents=True)
    assert launch.folder(tmp_path / "bsjax") == tmp_path / "bsjax" / "launch"
