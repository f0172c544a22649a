"""One run a workdir; killed runs leave neither a lock nor temporary files behind."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from bsjax.core import lock
from bsjax.core.artifacts import TEMPORARY
from bsjax.core.errors import UserError

HOLDER = """
import sys, time
from bsjax.core import lock
with lock.hold(sys.argv[1], "measure"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that works in tmp_path/w."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "w")], stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_run_is_refused_and_a_killed_one_forgotten(tmp_path, holder):
    told = f"another bsjax works here, pid {holder.pid} on .* since"
    with pytest.raises(UserError, match=told), lock.hold(tmp_path / "w", "compare"):
        pass
    with lock.hold(tmp_path / "w", "explore"), lock.hold(tmp_path / "w", "compare", False):
        pass  # one only reads, the other is another host of the same job
    (tmp_path / "w" / "measures" / "real").mkdir(parents=True)
    leftover = tmp_path / "w" / "measures" / "real" / f"{TEMPORARY}concepts-x.parquet"
    leftover.write_text("half")
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "w" / lock.FILE).exists()
    with lock.hold(tmp_path / "w", "compare"):
        assert json.loads((tmp_path / "w" / lock.FILE).read_text())["pid"] == os.getpid()
        assert not leftover.exists()
    assert [path.name for path in (tmp_path / "w").iterdir()] == ["measures"]


def test_a_process_of_the_same_number_is_another_one(tmp_path):
    with lock.hold(tmp_path, "measure"):
        owner = json.loads((tmp_path / lock.FILE).read_text())
    (tmp_path / lock.FILE).write_text(json.dumps(owner | {"started": "1"}))
    with lock.hold(tmp_path, "measure"):
        pass
    assert not (tmp_path / lock.FILE).exists()


def test_another_machine_counts_while_its_heart_beats(tmp_path):
    with lock.hold(tmp_path, "measure"):
        owner = json.loads((tmp_path / lock.FILE).read_text())
    path = tmp_path / lock.FILE
    for other in ({"host": "elsewhere"}, {"space": "a container of the same name"}):
        path.write_text(json.dumps(owner | other | {"pid": 1}))
        told = "another bsjax works here, pid 1 on"
        with pytest.raises(UserError, match=told), lock.hold(tmp_path, "measure"):
            pass
        late = time.time() - lock.LIMIT_SECONDS - 1
        os.utime(path, (late, late))
        with lock.hold(tmp_path, "measure"):
            pass
    path.write_text("no JSON")
    with pytest.raises(UserError, match="on an unknown host"), lock.hold(tmp_path, "measure"):
        pass


def test_the_heart_beats(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.05)
    with lock.hold(tmp_path, "measure"):
        os.utime(tmp_path / lock.FILE, (1, 1))
        deadline = time.monotonic() + 10
        while (tmp_path / lock.FILE).stat().st_mtime == 1:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_the_lock_goes_with_an_error_and_an_empty_workdir_with_it(tmp_path):
    with pytest.raises(KeyError), lock.hold(tmp_path / "new", "measure"):
        raise KeyError
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="cannot be written"), lock.hold(tmp_path / "file", "run"):
        pass


def test_unfinished_shards_of_a_finished_set_are_swept(tmp_path):
    for name in ("done", "going_on"):
        (tmp_path / "measures" / name / ".partial").mkdir(parents=True)
    (tmp_path / "measures" / "done" / "manifest.json").write_text("{}")
    (tmp_path / f"{TEMPORARY}run-x").mkdir()
    assert lock.sweep(tmp_path) == 2
    assert not (tmp_path / "measures" / "done" / ".partial").exists()
    assert (tmp_path / "measures" / "going_on" / ".partial").exists()
