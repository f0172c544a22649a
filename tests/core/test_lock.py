"""One run a workdir; killed runs leave neither a lock nor temporary files behind."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from bsjax.core import lock
from bsjax.core.artifacts import TEMPORARY
from bsjax.core.errors import UserError
from tests.object_store import as_gs

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


def test_the_lock_of_a_run_that_was_killed_at_its_end_goes(tmp_path, holder):
    folder = tmp_path / "w"
    lock.drop_stale(folder)
    assert (folder / lock.FILE).exists()  # someone works here
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    lock.drop_stale(folder)
    assert not (folder / lock.FILE).exists()
    lock.drop_stale(folder)  # there is none
    for text in ("no JSON", "[]", '{"host": 1}'):
        (folder / lock.FILE).write_text(text)
        lock.drop_stale(folder)
        assert (folder / lock.FILE).exists()


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


def test_the_heart_beats(tmp_path):
    with lock.hold(tmp_path, "measure", heartbeat=0.05):
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


def test_a_lock_outlives_many_missed_heartbeats():
    assert 10 * lock.HEARTBEAT_SECONDS <= lock.LIMIT_SECONDS <= 600


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="there is no /proc")
def test_a_process_is_told_by_its_start_and_a_dead_one_that_nobody_buried_is_gone():
    mine = lock._start_of(os.getpid())
    assert int(mine) > 0  # ticks since the machine started
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        assert int(lock._start_of(child.pid)) > int(mine)
        child.kill()
        deadline = time.monotonic() + 10
        while lock._start_of(child.pid):  # a zombie until it is waited for
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        child.kill()
        child.wait()


@pytest.mark.parametrize("stage", ["explore", "plan", "pipeline"])
def test_who_only_reads_takes_no_lock(tmp_path, stage):
    with lock.hold(tmp_path, "measure"), lock.hold(tmp_path, stage):
        pass
    with lock.hold(tmp_path / "new", stage):
        assert not (tmp_path / "new").exists()


def test_the_lock_of_another_is_neither_removed_nor_kept_alive(tmp_path):
    path = tmp_path / lock.FILE
    with lock.hold(tmp_path, "measure", heartbeat=0.02):
        path.write_text("another's")
        os.utime(path, (1, 1))
        time.sleep(0.3)
        assert path.stat().st_mtime == 1
    assert path.read_text() == "another's"


def test_a_lock_that_was_just_released_is_none(tmp_path):
    lock._refuse_or_take_over(tmp_path, tmp_path / lock.FILE)


def test_one_that_was_faster_is_asked_whether_it_lives(tmp_path, monkeypatch):
    with lock.hold(tmp_path, "measure"):
        owner = json.loads((tmp_path / lock.FILE).read_text())
    link = os.link
    for started, is_dead in (("1", True), (owner["started"], False)):

        def faster(source, target, started=started):
            monkeypatch.setattr(lock.os, "link", link)
            target.write_text(json.dumps(owner | {"started": started}))
            raise FileExistsError(17, "File exists")

        monkeypatch.setattr(lock.os, "link", faster)
        if is_dead:
            with lock.hold(tmp_path, "measure"):
                pass
        else:
            told = "another bsjax works here"
            with pytest.raises(UserError, match=told), lock.hold(tmp_path, "measure"):
                pass
    assert [path.name for path in tmp_path.iterdir()] == [lock.FILE]


def test_every_artifact_is_swept(tmp_path):
    places = ("images", "measures", "comparisons", "models", "replications", "stress", "sae")
    places += ("report", "weights")
    for place in places:
        inner = tmp_path / place / "x" / f"{TEMPORARY}folder" / f"{TEMPORARY}file"
        inner.parent.mkdir(parents=True)
        inner.write_text("half")
    (tmp_path / "mine" / f"{TEMPORARY}x").mkdir(parents=True)  # no artifact: a person's own
    assert lock.sweep(tmp_path) == len(places)  # a folder with all in it counts once
    assert [*tmp_path.rglob(f"{TEMPORARY}*")] == [tmp_path / "mine" / f"{TEMPORARY}x"]


def test_an_object_store_takes_one_run_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "SETTLE_SECONDS", 0.05)
    with as_gs(tmp_path):
        with lock.hold("gs://b/run", "measure", heartbeat=0.05):
            first = json.loads((tmp_path / "b" / "run" / lock.FILE).read_text())
            told = r"another bsjax works here, pid .* delete gs://b"
            with pytest.raises(UserError, match=told), lock.hold("gs://b/run", "measure"):
                pass
            time.sleep(0.3)
            again = json.loads((tmp_path / "b" / "run" / lock.FILE).read_text())
            assert again["beat"] > first["beat"] and again["token"] == first["token"]
            with lock.hold("gs://b/run", "explore"):  # only reads
                pass
        assert not (tmp_path / "b" / "run" / lock.FILE).exists()


@pytest.mark.parametrize(("age", "is_free"), [(lock.LIMIT_SECONDS - 60, False), (400, True)])
def test_an_object_of_another_machine_that_stopped_beating_is_stale(
    tmp_path, monkeypatch, age, is_free
):
    monkeypatch.setattr(lock, "SETTLE_SECONDS", 0.05)
    place = tmp_path / "b" / "run" / lock.FILE
    place.parent.mkdir(parents=True)
    owner = {"pid": 1, "host": "elsewhere", "space": "", "since": "then", "token": "x"}
    place.write_text(json.dumps(owner | {lock.BEAT: time.time() - age}))
    with as_gs(tmp_path):
        if is_free:
            with lock.hold("gs://b/run", "measure"):
                assert json.loads(place.read_text())["pid"] == os.getpid()
        else:
            told = "pid 1 on elsewhere, since then"
            with pytest.raises(UserError, match=told), lock.hold("gs://b/run", "measure"):
                pass


def test_of_two_that_wrote_at_once_one_gives_way(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "SETTLE_SECONDS", 0.4)
    other = {"pid": 1, "host": "elsewhere", "space": "", "since": "then", "token": "x"}

    def write_after():
        time.sleep(0.15)
        (tmp_path / "b" / lock.FILE).write_text(json.dumps(other | {lock.BEAT: time.time()}))

    with as_gs(tmp_path):
        thread = threading.Thread(target=write_after)
        thread.start()
        with pytest.raises(UserError, match="pid 1 on elsewhere"), lock.hold("gs://b", "measure"):
            pass
        thread.join()
