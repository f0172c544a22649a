"""What the system says becomes one line with the way out; faults of the program do not."""

import errno
import os
import subprocess
import sys

import jax
import pytest

from bsjax.core import faults

FILE = "/runs/x"


def system_error(number):
    return OSError(number, os.strerror(number), FILE)


@pytest.mark.parametrize(
    ("number", "way_out"),
    [
        (errno.ENOSPC, "free space, or choose another --workdir; what was finished before is kept"),
        (errno.EDQUOT, "quota"),
        (errno.EFBIG, "ulimit -f"),
        (errno.EROFS, "choose a --workdir on a disk that can be written"),
        (errno.EIO, "see to the disk"),
        (errno.EACCES, "change its permissions"),
        (errno.EPERM, "change its permissions"),
        (errno.EMFILE, "ulimit -n"),
        (errno.ENOENT, "it was removed"),
        (errno.ENOTDIR, "a part of this path is a file"),
        (errno.EADDRINUSE, "choose another --port"),
        (errno.ETIMEDOUT, "see to the file or the system"),
    ],
)
def test_numbers_of_the_system(number, way_out):
    line = faults.line_of(system_error(number))
    assert line.startswith(f"{FILE}: {os.strerror(number)}: ")
    assert way_out in line and "[Errno" not in line and "\n" not in line


def test_full_disk_as_libraries_tell_it():
    """tensorstore (orbax) has it as text, others as the cause of what they raise."""
    text = (
        'OUT_OF_RANGE: Error writing "a/0" in OCDBT database at local file "/runs/1.tmp/": Failed'
        ' writing: "/runs/1.tmp/d/89d8": Failed to write 363 bytes to file 4: No space left on'
        " device [os_error_code='28'] [source locations='x.cc:1']\nmore"
    )
    line = faults.line_of(ValueError(text))
    assert line.startswith("/runs/1.tmp/d/89d8: No space left on device: free space, or choose")
    try:
        try:
            raise system_error(errno.EFBIG)
        except OSError as error:
            raise RuntimeError("could not save") from error
    except RuntimeError as error:
        assert faults.line_of(error).startswith(f"{FILE}: File too large: raise the limit")


def test_a_real_limit_of_the_size_of_files():
    """Python ignores SIGXFSZ, so that writing fails with EFBIG: here, in pyarrow and in orbax."""
    program = (
        "import resource, sys, tempfile, pathlib, numpy as np, pyarrow as pa\n"
        "import pyarrow.parquet as pq\n"
        "from bsjax.core import artifacts, checkpoint, faults\n"
        "folder = pathlib.Path(tempfile.mkdtemp())\n"
        "checkpoints = checkpoint.Checkpoints(folder / 'checkpoints', 2)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "state = {'a': np.random.default_rng(0).random(10000)}\n"
        "def save():\n"
        "    checkpoints.save(1, state, {'next_step': 1}); checkpoints.wait()\n"
        "table = pa.table({'x': np.random.default_rng(0).random(10000)})\n"
        "for write in (lambda: artifacts.write_json(folder / 'a.json', list(range(10000))),\n"
        "              lambda: pq.write_table(table, folder / 'a.parquet'), save):\n"
        "    try: write()\n"
        "    except Exception as error: print(faults.line_of(error))\n"
        "print(sorted(path.name for path in folder.glob('*.json')))\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    lines = run.stdout.splitlines()
    assert run.returncode == 0, run.stderr
    assert len(lines) == 4
    assert all("raise the limit of a file's size (ulimit -f" in line for line in lines[:3])
    assert "/checkpoints/1." in lines[2] and ": File too large: raise" in lines[2]
    assert lines[3] == "[]"  # nothing half-written stays


def test_memory_of_machine_and_devices():
    assert "memory does not suffice (Unable" in faults.line_of(MemoryError("Unable to allocate"))
    told = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")
    line = faults.line_of(told)
    assert "--config.generator.batch_per_device" in line and "allocating 9 bytes)" in line
    assert faults.line_of(jax.errors.JaxRuntimeError("INTERNAL: odd")) is None


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "No such file or directory", "/psm_1234"),
        OSError(errno.ENOSYS, "Function not implemented", "/dev/shm/sem.x"),
    ],
)
def test_no_shared_memory(error):
    assert "--config.real.workers=0" in faults.line_of(error)


def test_modules_that_are_missing():
    try:
        import absent_thing  # noqa: F401
    except ImportError as error:
        line = faults.line_of(error)
    assert line.startswith("the module absent_thing is not installed: install bsjax again")
    missing = ModuleNotFoundError("No module named 'libtpu'", name="libtpu")
    assert "bsjax[tpu]" in faults.line_of(missing)
    try:
        from numpy import absent_name  # noqa: F401
    except ImportError as error:
        assert faults.line_of(error).startswith("the module numpy cannot be used (cannot import")
    try:
        from bsjax.core import absent_module  # noqa: F401
    except ImportError as error:
        assert faults.line_of(error) is None  # ours to mend


@pytest.mark.parametrize("error", [TypeError("x"), KeyError("x"), ValueError("x"), RuntimeError()])
def test_faults_of_the_program_are_none_of_these(error):
    assert faults.line_of(error) is None


def test_a_bug_while_an_error_of_a_path_is_handled_stays_a_bug():
    try:
        try:
            raise system_error(errno.ENOENT)
        except OSError as error:
            raise TypeError("wrong handling") from error
    except TypeError as error:
        assert faults.line_of(error) is None
