"""What ends one host ends all hosts, soon, with the same line and status."""

import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

REPO = pathlib.Path(__file__).resolve().parents[2]
# A command whose stage is what the test says. `ready` tells the test that the host came there.
HOST = """
import pathlib, sys, time
from bsjax import main, pipeline
from bsjax.core.errors import UserError
folder, body = pathlib.Path(sys.argv[1]), sys.argv[2]
def stage(config, workdir):
    import jax
    from bsjax.core import distributed
    host = jax.process_index()
    def ready():
        (folder / f"ready-{host}").touch()
    exec(body)
pipeline.Stage.load = lambda self: stage
sys.argv = ["bsjax", "train_sae", "--config=configs/rasae_imagenet.py:tiny", f"--workdir={folder}"]
main.console()
"""
# The others wait for this host in a collective.
FAIL = """
if host == {host}:
    time.sleep(1)
    {failure}
distributed.wait_for_all("x")
"""
LOOP = """
import os, signal
with distributed.StopSignal() as stop:
    for step in range(10_000):
        if stop.is_set(step):
            (folder / f"stopped-{host}").write_text(str(step))
            from bsjax.core.errors import Preempted
            raise Preempted(f"stopped before step {step}")
        if step == 3:
            ready()
        time.sleep(0.02 if host else 0.01)
        if step % 10 == 0:
            distributed.wait_for_all(f"step {step}")
"""
LATE = """
import os, signal
with distributed.StopSignal() as stop:
    stop.is_set(0)
    ready()
    time.sleep(6)
"""


ALONE = """
from bsjax.core import distributed
distributed.JOIN_SECONDS = 3
"""


def start(folder, body, n_hosts, only=None):
    with socket.socket() as server:
        server.bind(("localhost", 0))
        address = f"localhost:{server.getsockname()[1]}"
    hosts = []
    for host in range(n_hosts) if only is None else [only]:
        environment = os.environ | {
            "XLA_FLAGS": "",
            "PYTHONPATH": str(REPO),
            "BSJAX_COORDINATOR": address,
            "BSJAX_NUM_PROCESSES": str(n_hosts),
            "BSJAX_PROCESS_ID": str(host),
        }
        command = [sys.executable, "-c", HOST, str(folder), body]
        pipe = subprocess.PIPE
        hosts.append(subprocess.Popen(command, env=environment, cwd=REPO, stderr=pipe, text=True))
    return hosts


def finish(hosts):
    """Exit statuses, logs, and the lines that begin with bsjax: of each host."""
    logs = [host.communicate(timeout=120)[1] for host in hosts]
    lines = [re.findall("^bsjax: .*", log, re.MULTILINE) for log in logs]
    for log in logs:
        assert "Check failure" not in log and "Fatal" not in log, log
    return [host.returncode for host in hosts], logs, lines


def wait_until_ready(folder, n_hosts):
    deadline = time.monotonic() + 100
    while len(list(folder.glob("ready-*"))) < n_hosts:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(("n_hosts", "failing"), [(3, 0), (3, 1), (2, 1)])
def test_a_mistake_that_one_host_sees_is_told_by_all(tmp_path, n_hosts, failing):
    body = FAIL.format(host=failing, failure="raise UserError('x is 3; set x to 4')")
    statuses, logs, lines = finish(start(tmp_path, body, n_hosts))
    assert statuses == [1] * n_hosts, logs
    assert lines == [["bsjax: x is 3; set x to 4"]] * n_hosts
    assert "Traceback" not in "".join(logs)


@pytest.mark.parametrize("failing", [0, 1])
def test_a_fault_of_one_host_shows_its_traceback_there_alone(tmp_path, failing):
    body = FAIL.format(host=failing, failure="raise TypeError('no such thing')")
    statuses, logs, lines = finish(start(tmp_path, body, 2))
    assert statuses == [1, 1]
    told = f"bsjax: host {failing} failed (TypeError: no such thing); its log tells where"
    assert lines == [[told]] * 2
    assert ["Traceback" in log for log in logs] == [failing == 0, failing == 1]


def test_a_host_that_is_done_hears_what_stops_the_others(tmp_path):
    """As a generator's host whose shards are drawn, while the first writes the manifest."""
    failure = "time.sleep(3); raise UserError('the disk is full')"
    body = FAIL.format(host=0, failure=failure).replace('distributed.wait_for_all("x")', "pass")
    statuses, logs, lines = finish(start(tmp_path, body, 2))
    assert statuses == [1, 1], logs
    assert lines == [["bsjax: the disk is full"]] * 2


def test_hosts_that_are_done_end_without_a_dump(tmp_path, monkeypatch):
    """However often they ask after the others: jax ends what they ask."""
    busy = "from bsjax.core import ending\nending.POLL_SECONDS = 0.0002\n"
    monkeypatch.setattr(sys.modules[__name__], "HOST", busy + HOST)
    statuses, logs, lines = finish(start(tmp_path, "ready()", 4))
    assert statuses == [0] * 4 and lines == [[]] * 4, logs


@pytest.mark.parametrize("host", [0, 1])
def test_a_host_that_stays_alone_says_so(tmp_path, monkeypatch, host):
    monkeypatch.setattr(sys.modules[__name__], "HOST", ALONE + HOST)
    hosts = start(tmp_path, "pass", 2, only=host)
    statuses, logs, lines = finish(hosts)
    assert statuses == [1], logs
    assert "the hosts did not find each other (one is missing after 3 s)" in lines[0][0]


@pytest.mark.parametrize("told", [0, 1])
def test_sigterm_outside_of_a_loop_ends_all_with_75(tmp_path, told):
    hosts = start(tmp_path, "ready(); time.sleep(60)", 2)
    wait_until_ready(tmp_path, 2)
    started = time.monotonic()
    hosts[told].send_signal(signal.SIGTERM)
    statuses, logs, lines = finish(hosts)
    assert time.monotonic() - started < 20
    assert statuses == [75, 75], logs
    expected = (
        "bsjax: stopped by SIGTERM; what is finished is kept; the same command goes on from here"
    )
    assert lines == [[expected]] * 2


@pytest.mark.parametrize("told", [0, 1])
def test_sigterm_in_a_loop_stops_all_before_the_same_step(tmp_path, told):
    hosts = start(tmp_path, LOOP, 2)
    wait_until_ready(tmp_path, 2)
    hosts[told].send_signal(signal.SIGTERM)
    statuses, logs, lines = finish(hosts)
    assert statuses == [75, 75], logs
    steps = {(tmp_path / f"stopped-{host}").read_text() for host in range(2)}
    assert len(steps) == 1 and int(steps.pop()) > 3
    assert lines[0] == lines[1] and len(lines[0]) == 1


def test_sigterm_behind_the_last_step_still_counts(tmp_path):
    hosts = start(tmp_path, LATE, 2)
    wait_until_ready(tmp_path, 2)
    hosts[1].send_signal(signal.SIGTERM)
    statuses, logs, lines = finish(hosts)
    assert statuses == [75, 75], logs
    assert "stopped after the last step" in lines[0][0]


# jax finds the first host missing by its connection, others by their heartbeat.
@pytest.mark.parametrize(
    ("killed", "seconds"), [(0, 15), pytest.param(2, 60, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("waits", ["distributed.wait_for_all('x')", "time.sleep(100)"])
def test_a_killed_host_ends_the_others_by_one_line(tmp_path, killed, seconds, waits):
    hosts = start(tmp_path, f"ready(); {waits} if host != {killed} else time.sleep(100)", 3)
    wait_until_ready(tmp_path, 3)
    hosts[killed].kill()
    started = time.monotonic()
    statuses, logs, lines = finish(hosts)
    assert time.monotonic() - started < seconds
    assert [status for i, status in enumerate(statuses) if i != killed] == [75, 75], logs
    told = [line for i, line in enumerate(lines) if i != killed]
    assert told[0] == told[1] and len(told[0]) == 1, logs
    assert "another host is gone or cannot be reached; start the same command" in told[0][0]
    assert "terminate called" not in "".join(logs)


def test_hosts_of_other_commands_are_told_apart(tmp_path):
    body = "distributed.require_same({'encoder.crop': 64, 'images': host})"
    statuses, logs, lines = finish(start(tmp_path, body, 3))
    assert statuses == [1] * 3, logs
    assert lines[0] == lines[1] == lines[2]
    assert "host 1 has another images than host 0" in lines[0][0]


def test_hosts_that_wait_at_different_places_do_not_wait_for_ever(tmp_path):
    statuses, logs, lines = finish(start(tmp_path, "distributed.wait_for_all(f'place {host}')", 2))
    assert statuses == [1, 1], logs
    assert "the hosts wait at different places: ['place 0', 'place 1']" in lines[0][0]


SHARES = """
assert distributed.from_writer(f"said by {host}") == "said by 0"
assert distributed.from_all(host) == [0, 1, 2]
assert distributed.agree(host == 0) and not distributed.agree(host != 0)
items = list(range(7))
parts = distributed.from_all(list(distributed.my_part(items)))
assert sum(parts, []) == items and [len(part) for part in parts] == [2, 2, 3], parts
turns = distributed.from_all(list(distributed.my_turns(7)))
assert turns == [[0, 3, 6], [1, 4], [2, 5]], turns
manifest = folder / "x" / "manifest.json"
done = distributed.begin_together(folder / "x", config={"a": 1}, parents={}, overwrite=False)
assert done is None and (host or (folder / "x" / "config.json").exists())
if host:
    found = distributed.read_written(folder / "x", "y")
else:
    from bsjax.core.artifacts import write_manifest
    time.sleep(1)
    found = write_manifest(folder / "x", stage="y", config={"a": 1}, parents={}, counts={})
    distributed.wait_for_all(distributed.WRITTEN)
again = distributed.begin_together(folder / "x", config={"a": 1}, parents={}, overwrite=False)
assert again == found, (again, found)
ready()
"""


def test_what_hosts_say_and_share(tmp_path):
    statuses, logs, _ = finish(start(tmp_path, SHARES, 3))
    assert statuses == [0] * 3, "\n".join(logs)


TWICE = """
import os, signal, subprocess, sys, time
from bsjax.core import ending
from bsjax.core.errors import Preempted
signal.signal(signal.SIGTERM, ending.on_sigterm)
try:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(10)
except Preempted:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.2)
    child = [sys.executable, "-c", "import os; os.kill(os.getpid(), 15)"]
    assert subprocess.run(child).returncode == -15
    sys.exit(75)
"""


def test_a_second_sigterm_does_not_break_off_the_end():
    """One comes to all processes of a job, another from the script that started this one."""
    environment = os.environ | {"PYTHONPATH": str(REPO)}
    done = subprocess.run([sys.executable, "-c", TWICE], env=environment, capture_output=True)
    assert done.returncode == 75, done.stderr.decode()
