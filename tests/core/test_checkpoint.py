"""A checkpoint that cannot be read is left alone, and all hosts go on from the same step."""

import os
import pathlib
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bsjax.core import checkpoint
from bsjax.core.checkpoint import Checkpoints
from bsjax.core.errors import UserError

HERE = jax.sharding.SingleDeviceSharding(jax.devices()[0])


def like(**sizes):
    return {
        name: jax.ShapeDtypeStruct((size,), jnp.float32, sharding=HERE)
        for name, size in sizes.items()
    }


def fill(folder, *steps, keep=3):
    checkpoints = Checkpoints(folder, keep)
    for step in steps:
        checkpoints.save(step, {"a": jnp.full(4, float(step))}, {"next_step": step})
        checkpoints.wait()
    checkpoints.close()
    return folder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def folder(tmp_path):
    return fill(tmp_path / "checkpoints", 5, 10)


def fail_times(checkpoints, times, error):
    """The next so many attempts to read fail."""
    real, calls = checkpoints._manager.restore, []

    def restore(*arguments, **named):
        calls.append(1)
        if len(calls) <= times:
            raise error
        return real(*arguments, **named)

    checkpoints._manager.restore = restore


ERRORS = [OSError(5, "I/O error"), PermissionError(13, "Permission denied"), TypeError("x")]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_that_passes_deletes_nothing(folder, error):
    checkpoints = Checkpoints(folder, 3)
    fail_times(checkpoints, 1, error)
    state, progress = checkpoints.restore(like(a=4))
    assert progress == {"next_step": 5} and (state["a"] == 5).all()
    assert checkpoints.newest() == 5
    checkpoints.close()
    assert names(folder) == ["10", "5"]
    # It is there when the error has passed.
    assert Checkpoints(folder, 3).restore(like(a=4))[1] == {"next_step": 10}


@pytest.mark.parametrize("shapes", [{"a": 4, "b": 2}, {"a": 5}, {"c": 4}])
def test_the_state_of_another_version_is_refused_and_kept(folder, shapes):
    with pytest.raises(UserError, match=r"none of the checkpoints \[10, 5\].*nothing was deleted"):
        Checkpoints(folder, 3).restore(like(**shapes))
    assert names(folder) == ["10", "5"]


def test_no_permission_at_all_says_so(folder):
    checkpoints = Checkpoints(folder, 3)
    fail_times(checkpoints, 9, PermissionError(13, "Permission denied"))
    with pytest.raises(UserError, match="Permission denied"):
        checkpoints.restore(like(a=4))
    assert names(folder) == ["10", "5"]


def damage_state(folder):
    for path in (folder / "10" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def damage_progress(folder):
    for path in (folder / "10" / "progress").rglob("*"):
        if path.is_file():
            path.write_bytes(b"{")


def lose_all(folder):
    for path in [*(folder / "10").rglob("*")]:
        if path.is_file():
            path.unlink()


@pytest.mark.parametrize("damage", [damage_state, damage_progress, lose_all])
def test_training_on_beside_a_damaged_one(folder, damage):
    damage(folder)
    (folder / "12.orbax-checkpoint-tmp").mkdir()
    kept = {path: path.read_bytes() for path in (folder / "10").rglob("*") if path.is_file()}
    checkpoints = Checkpoints(folder, 2)
    assert checkpoints.restore(like(a=4))[1] == {"next_step": 5}
    for step in (6, 7, 8):
        checkpoints.save(step, {"a": jnp.full(4, float(step))}, {"next_step": step})
        checkpoints.wait()
    # The two newest that can be read, and the damaged one, which does not count.
    assert [name for name in names(folder) if name.isdigit()] == ["10", "7", "8"]
    assert all(path.read_bytes() == content for path, content in kept.items())
    assert checkpoints.newest() == 8
    checkpoints.save(10, {"a": jnp.full(4, 10.0)}, {"next_step": 10})
    checkpoints.close()
    aside = folder / "10.unreadable-0"
    for path, content in kept.items():
        assert (aside / path.relative_to(folder / "10")).read_bytes() == content
    assert [name for name in names(folder) if name.isdigit()] == ["10", "8"]
    assert Checkpoints(folder, 2).restore(like(a=4))[1] == {"next_step": 10}


def test_one_whose_checksums_are_gone_is_not_trusted(folder):
    proofs = folder.with_name("checkpoints-proofs")
    assert names(proofs) == ["10.json", "5.json"]
    (proofs / "10.json").unlink()
    assert Checkpoints(folder, 3).restore(like(a=4))[1] == {"next_step": 5}
    (proofs / "5.json").unlink()
    with pytest.raises(UserError, match="its checksums, .*/5.json, are missing; put them there"):
        Checkpoints(folder, 3).restore(like(a=4))
    assert names(folder) == ["10", "5"]


def test_one_from_before_there_were_checksums_is_taken_with_a_warning(
    tmp_path, monkeypatch, caplog
):
    with monkeypatch.context() as before:
        before.setattr(checkpoint, "is_remote", lambda path: True)  # where none are written
        folder = fill(tmp_path / "checkpoints", 5)
    assert names(tmp_path) == ["checkpoints"]
    assert Checkpoints(folder, 3).restore(like(a=4))[1] == {"next_step": 5}
    assert "checkpoint 5 is from before there were checksums" in caplog.text


def test_a_whole_one_is_never_written_over(folder):
    checkpoints = Checkpoints(folder, 3)
    checkpoints.restore(like(a=4))
    checkpoints.save(10, {"a": jnp.full(4, jnp.nan)}, {"next_step": 10})
    checkpoints.close()
    assert (Checkpoints(folder, 3).restore(like(a=4))[0]["a"] == 10).all()


def test_as_many_as_asked_for_are_kept(tmp_path):
    assert names(fill(tmp_path / "one", 1, 2, 3, keep=1)) == ["3"]
    assert names(fill(tmp_path / "three", 1, 2, 3, 4, 5, keep=3)) == ["3", "4", "5"]


# Run by each of two hosts: number, port, folder, which host cannot read the newest.
HOST = """
import os, pathlib, sys
host, port, folder, blind = int(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3]), sys.argv[4]
import jax, jax.numpy as jnp, numpy as np
jax.distributed.initialize(f"localhost:{port}", 2, host)
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from bsjax.core import distributed
from bsjax.core import checkpoint
from bsjax.core.checkpoint import Checkpoints
over = NamedSharding(Mesh(np.array(jax.devices()), ("d",)), P("d"))
def of(value):
    whole = np.full(4, value, np.float32)
    return jax.make_array_from_callback((4,), over, lambda at: whole[at])
checkpoints = Checkpoints(folder, 3)
for step in (5, 10):
    checkpoints.save(step, {"a": of(float(step))}, {"next_step": step})
    checkpoints.wait()
checkpoints.close()
checkpoints = Checkpoints(folder, 3)
if str(host) == blind:
    real = checkpoints._manager.restore
    def restore(step, **named):
        if step == 10:
            raise PermissionError(13, "Permission denied")
        return real(step, **named)
    checkpoints._manager.restore = restore
if blind == "proof" and host == 0:
    (folder.with_name("checkpoints-proofs") / "10.json").unlink()
like = {"a": jax.ShapeDtypeStruct((4,), jnp.float32, sharding=over)}
state, progress = checkpoints.restore(like)
here = [float(shard.data[0]) for shard in state["a"].addressable_shards]
checkpoints.save(10, {"a": of(11.0)}, {"next_step": 11})
checkpoints.close()
again = Checkpoints(folder, 3).restore(like)[1]
print(progress["next_step"], here, again["next_step"], sorted(os.listdir(folder)))
distributed.wait_for_all("end")
"""


@pytest.mark.parametrize(
    ("blind", "expected"),
    [
        ("0", "5 [5.0, 5.0] 11 ['10', '10.unreadable-0', '5']"),
        ("1", "5 [5.0, 5.0] 11 ['10', '10.unreadable-0', '5']"),
        ("proof", "5 [5.0, 5.0] 11 ['10', '10.unreadable-0', '5']"),
        ("none", "10 [10.0, 10.0] 10 ['10', '5']"),
    ],
)
def test_what_one_host_cannot_read_no_host_goes_on_from(tmp_path, blind, expected):
    with socket.socket() as server:
        server.bind(("localhost", 0))
        port = str(server.getsockname()[1])
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    repo = pathlib.Path(__file__).resolve().parents[2]
    hosts = [
        subprocess.Popen(
            [sys.executable, "-c", HOST, str(host), port, str(tmp_path / "checkpoints"), blind],
            env=environment, cwd=repo, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for host in range(2)
    ]  # fmt: skip
    found = [host.communicate(timeout=200) for host in hosts]
    assert [output.splitlines()[-1] for output, _ in found] == [expected] * 2, found
    assert [host.returncode for host in hosts] == [0, 0]


def test_the_same_numbers_come_back(tmp_path):
    values = np.random.default_rng(0).normal(size=4).astype(np.float32)
    checkpoints = Checkpoints(tmp_path / "c", 1)
    assert checkpoints.restore(like(a=4)) is None
    checkpoints.save(1, {"a": jnp.asarray(values)}, {"next_step": 1})
    checkpoints.close()
    np.testing.assert_array_equal(Checkpoints(tmp_path / "c", 1).restore(None)[0]["a"], values)
