"""One run a workdir: a lock that a killed run cannot leave behind, and the sweep of its leftovers.

The lock is a file that says who works here. It is stale if its process is gone (by number and start
time, so that another process of the same number does not count), or, for another machine, if its
heartbeat stopped.

An object store has no file that only one can make. There the lock is an object that is written,
and read again a moment later: of two runs that start within that moment the one whose object is
gone gives way, but a store that answers slowly may let both on. What is written is whole at any
time in either case, and of one config the same.
"""

import contextlib
import datetime
import fcntl
import json
import os
import pathlib
import secrets
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any

from absl import logging
from etils import epath

from bsjax.core.artifacts import MANIFEST, TEMPORARY, is_remote
from bsjax.core.errors import UserError

FILE = ".bsjax-lock"
HEARTBEAT_SECONDS = 20.0
# Another machine's lock without a heartbeat for so long is stale.
LIMIT_SECONDS = 300.0
# In an object store: key of the time of the last heartbeat, and how long who wrote looks away.
BEAT, SETTLE_SECONDS = "beat", 1.0
READ_ONLY = frozenset(("explore", "plan", "pipeline", "push"))
ARTIFACTS = ("ingested", "images", "measures", "comparisons", "models", "replications", "stress",
             "sae", "report", "weights")  # fmt: skip
PARTIAL = ".partial"  # unfinished shards of a measured set


@contextlib.contextmanager
def hold(
    workdir: str | os.PathLike,
    stage: str = "",
    is_writer: bool = True,
    heartbeat: float = HEARTBEAT_SECONDS,
) -> Iterator[None]:
    """Keeps other runs out of a workdir, and removes what killed ones left behind.

    Args:
      workdir: made if it is not there.
      stage: about to run; those that only read take no lock.
      is_writer: whether this host takes the lock for all hosts of the job.
      heartbeat: seconds after which the lock is touched again.

    Raises:
      UserError: another run works here, or nothing can be written.
    """
    if stage in READ_ONLY or not is_writer:
        yield
        return
    if is_remote(workdir):
        with _hold_object(epath.Path(workdir), heartbeat):
            yield
        return
    folder = pathlib.Path(workdir)
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        mine = _take(folder)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror}); choose another --workdir"
        ) from error
    done = threading.Event()
    beat = threading.Thread(target=_beat, args=(folder / FILE, mine, done, heartbeat), daemon=True)
    beat.start()
    try:
        sweep(folder)
        yield
    finally:
        done.set()
        beat.join()
        _release(folder, mine, is_new)


@contextlib.contextmanager
def _hold_object(folder: epath.Path, heartbeat: float) -> Iterator[None]:
    """The lock of a workdir in an object store, whose objects tell no time of change: it says it.

    Raises:
      UserError: another run works here.
    """
    path, mine = folder / FILE, _owner()

    def beat() -> None:
        path.write_text(json.dumps({**mine, BEAT: time.time()}), encoding="utf-8")

    def is_mine() -> bool:
        return _read_object(path).get("token") == mine["token"]

    _refuse(folder, path, _read_object(path))
    beat()
    time.sleep(SETTLE_SECONDS)
    if not is_mine():
        _refuse(folder, path, _read_object(path))
    done = threading.Event()

    def keep_beating() -> None:
        while not done.wait(heartbeat):
            # Whoever took it over took it from a run that said nothing for long: let both be.
            with contextlib.suppress(OSError):
                if is_mine():
                    beat()

    thread = threading.Thread(target=keep_beating, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        with contextlib.suppress(OSError):
            if is_mine():
                path.unlink()


def _read_object(path: epath.Path) -> dict[str, Any]:
    """Whose the lock is; nothing where there is none, or none that can be understood."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _refuse(folder: epath.Path, path: epath.Path, owner: dict[str, Any]) -> None:
    if not owner or not isinstance(owner.get(BEAT), int | float):
        return
    if _is_stale(owner, time.time() - owner[BEAT]):
        logging.info("the lock of pid %s on %s is stale", owner.get("pid"), owner.get("host"))
        return
    raise UserError(
        f"another bsjax works here, pid {owner.get('pid')} on {owner.get('host')}, since"
        f" {owner.get('since')}: wait for it, or choose another --workdir than {folder} (if it is"
        f" gone for certain, delete {path})"
    )


def sweep(workdir: str | os.PathLike) -> int:
    """Removes temporary files of killed runs from a workdir's artifacts; returns how many."""
    folder = pathlib.Path(workdir)
    found = [path for path in _children(folder) if path.name.startswith(TEMPORARY)]
    for root in (folder / name for name in ARTIFACTS):
        for place, folders, files in os.walk(root):
            here = pathlib.Path(place)
            found += [here / name for name in (*folders, *files) if name.startswith(TEMPORARY)]
            folders[:] = [name for name in folders if not name.startswith(TEMPORARY)]
    for measured in _children(folder / "measures"):
        if (measured / MANIFEST).is_file() and (measured / PARTIAL).is_dir():
            found.append(measured / PARTIAL)  # killed between the last file and the end
    for path in found:
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    if found:
        logging.info("%s: %d temporary files of killed runs removed", folder, len(found))
    return len(found)


def drop_stale(folder: pathlib.Path) -> None:
    """Removes the lock of a run that was killed when its work here was done; any other stays.

    For folders that are finished, which nobody takes a lock on any more.
    """
    path = folder / FILE
    try:
        owner, age = (
            json.loads(path.read_text(encoding="utf-8")),
            time.time() - path.stat().st_mtime,
        )
    except (OSError, ValueError):
        return
    with contextlib.suppress(OSError, KeyError, TypeError, AttributeError):
        if _is_stale(owner, age):
            path.unlink(missing_ok=True)


def _children(folder: pathlib.Path) -> list[pathlib.Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _owner() -> dict[str, Any]:
    """What a lock says of this process."""
    return {
        "pid": os.getpid(),
        "started": _start_of(os.getpid()),
        "host": socket.gethostname(),
        "space": _process_space(),
        "since": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "token": secrets.token_hex(8),
    }


def _take(folder: pathlib.Path) -> str:
    """Writes the lock; returns its text."""
    mine = json.dumps(_owner())
    path = folder / FILE
    guard = os.open(folder, os.O_RDONLY)
    try:
        # Two that start at once look and write one after the other. Where a file system has no
        # such locks they are told apart by the link alone.
        with contextlib.suppress(OSError):
            fcntl.flock(guard, fcntl.LOCK_EX)
        if path.exists():
            _refuse_or_take_over(folder, path)
        new = folder / f"{TEMPORARY}lock-{os.getpid()}"
        new.write_text(mine, encoding="utf-8")
        try:
            os.link(new, path)  # fails where another was faster
        except FileExistsError:
            _refuse_or_take_over(folder, path)
            os.link(new, path)
        finally:
            new.unlink()
    finally:
        os.close(guard)
    return mine


def _refuse_or_take_over(folder: pathlib.Path, path: pathlib.Path) -> None:
    """Removes a stale lock.

    Raises:
      UserError: it is no stale one.
    """
    try:
        age = time.time() - path.stat().st_mtime
        owner = json.loads(path.read_text(encoding="utf-8"))
        host, pid, since = (owner[name] for name in ("host", "pid", "since"))
    except FileNotFoundError:
        return  # just released
    except (ValueError, KeyError, TypeError):
        owner, host, pid, since = {}, "an unknown host", 0, "an unknown time"
    if not _is_stale(owner, age):
        raise UserError(
            f"another bsjax works here, pid {pid} on {host}, since {since}: wait for it, or choose"
            f" another --workdir than {folder} (if it is gone for certain, delete {path})"
        )
    logging.info("the lock of pid %s on %s is stale, its run was killed", pid, host)
    path.unlink(missing_ok=True)


def _is_stale(owner: dict[str, Any], age: float) -> bool:
    here = (socket.gethostname(), _process_space())
    if (owner.get("host"), owner.get("space")) == here:
        started = _start_of(owner["pid"])
        return not started or started != owner.get("started")
    return age > LIMIT_SECONDS


def _start_of(pid: int) -> str:
    """When a process started, as the system has it; empty if there is none of this number."""
    try:
        # Behind the name, which may hold anything: state, ..., start time as the 20th.
        fields = (
            pathlib.Path(f"/proc/{pid}/stat")
            .read_text(encoding="utf-8", errors="replace")
            .rpartition(")")[2]
            .split()
        )
        return "" if fields[0] in "ZX" else fields[19]
    except FileNotFoundError:
        if pathlib.Path("/proc/self/stat").exists():
            return ""
    except (OSError, IndexError):
        return ""
    asked = ["ps", "-o", "lstart=", "-p", str(pid)]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()


def _process_space() -> str:
    """Tells apart machines, and containers, of one host name: numbers of processes mean nothing."""
    parts = []
    with contextlib.suppress(OSError):
        parts.append(
            pathlib.Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        )
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _beat(path: pathlib.Path, mine: str, done: threading.Event, heartbeat: float) -> None:
    while not done.wait(heartbeat):
        with contextlib.suppress(OSError):
            if path.read_text(encoding="utf-8") == mine:
                os.utime(path)


def _release(folder: pathlib.Path, mine: str, is_new: bool) -> None:
    path = folder / FILE
    with contextlib.suppress(OSError):
        if path.read_text(encoding="utf-8") == mine:
            path.unlink()
        if is_new:
            folder.rmdir()  # if nothing was written
