"""What the system says while a run works, in one line with the way out.

Libraries wrap what the system told them (orbax and tensorstore as text, pyarrow as an OSError of
its own), so that an error is looked at together with those it came from.
"""

import errno
import os
import re
from collections.abc import Iterator

KEPT = "what was finished before is kept: run the same command again"
# Faults of the disk, of whatever file: errno -> what to do.
DISK = {
    errno.ENOSPC: f"free space, or choose another --workdir; {KEPT}",
    errno.EDQUOT: f"free space of your quota, or choose another --workdir; {KEPT}",
    errno.EFBIG: f"raise the limit of a file's size (ulimit -f unlimited); {KEPT}",
    errno.EROFS: "choose a --workdir on a disk that can be written",
    errno.EIO: f"see to the disk; {KEPT}",
    errno.ESTALE: f"see to the network file system; {KEPT}",
}
OTHERS = {
    errno.EACCES: "change its permissions, or choose another path",
    errno.EPERM: "change its permissions, or choose another path",
    errno.EMFILE: f"raise the number of open files (ulimit -n 4096); {KEPT}",
    errno.ENFILE: f"close programs that hold files open; {KEPT}",
    errno.ENOMEM: f"close other programs, or use a machine with more memory; {KEPT}",
    errno.ENOENT: "it was removed, or a folder above it was: put it back, or choose another path",
    errno.ENOTDIR: "a part of this path is a file: choose another path",
    errno.EISDIR: "this is a folder: choose another path",
    errno.ENAMETOOLONG: "choose a shorter path",
    errno.EADDRINUSE: "choose another --port",
    errno.EADDRNOTAVAIL: "choose another --host: an address of this machine",
}
# Libraries of C++ tell these as text.
TOLD = {os.strerror(number): number for number in DISK}
SHARED_MEMORY = re.compile(r"/dev/shm|/psm_|/sem\.|SemLock")
WORKERS = (
    "worker processes need shared memory (/dev/shm), which this machine has not or too little of;"
    " set --config.real.workers=0 (and --config.generated.workers=0) to decode in threads"
)
# Modules that not every installation has -> what brings them.
EXTRAS = {
    "libtpu": "install bsjax[tpu], or bsjax[plan] to plan for TPUs elsewhere: pip install '.[tpu]'"
    " in the clone",
    "IPython": "pip install ipython",
    "aiohttp": "install bsjax[ingest]: pip install '.[ingest]' in the clone",
    "imagehash": "install bsjax[ingest]: pip install '.[ingest]' in the clone",
}
LONGEST = 300  # characters of what a library says


def line_of(error: BaseException) -> str | None:
    """What an error of system or installation means; None where it is a fault of the program."""
    if isinstance(error, MemoryError):
        return (
            f"this machine's memory does not suffice ({_first_line(error)}); close other programs,"
            f" lower --config.train.max_tokens or the batch sizes; {KEPT}"
        )
    for each in causes(error):
        number = _told(each)
        if number in DISK:
            return f"{_first_line(each)}: {DISK[number]}"
    if isinstance(error, BrokenPipeError):
        return "nobody reads the output any more"
    if isinstance(error, OSError):
        if SHARED_MEMORY.search(f"{error} {error.filename or ''}"):
            return f"{_first_line(error)}: {WORKERS}"
        way_out = OTHERS.get(error.errno, f"see to the file or the system; {KEPT}")
        return f"{_first_line(error)}: {way_out}"
    if isinstance(error, ImportError):
        return _missing_module(error)
    if type(error).__name__ in ("JaxRuntimeError", "XlaRuntimeError"):
        text = str(error)
        if "RESOURCE_EXHAUSTED" in text or "out of memory" in text.lower():
            return (
                f"the devices' memory does not suffice ({_first_line(error)}); lower"
                " --config.generator.batch_per_device (generate),"
                " --config.encoder.batch_per_device (measure) or --config.train.tokens_per_step"
                f" (train_sae), or use more devices; {KEPT}"
            )
    return None


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that it came from."""
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _told(error: BaseException) -> int | None:
    """The system's number of an error."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    text = str(error)
    return next((number for told, number in TOLD.items() if told in text), None)


def _missing_module(error: ImportError) -> str | None:
    name = (error.name or "").partition(".")[0]
    if not name or name == "bsjax":
        return None
    way_out = EXTRAS.get(name, "install bsjax again with all that it needs")
    if isinstance(error, ModuleNotFoundError):
        return f"the module {name} is not installed: {way_out}"
    return f"the module {name} cannot be used ({_first_line(error)}): {way_out}"


def _first_line(error: BaseException) -> str:
    """What an error says, without the system's number and with the file."""
    if isinstance(error, OSError) and error.strerror:
        files = [str(name) for name in (error.filename, error.filename2) if name is not None]
        text = f"{' -> '.join(files)}: {error.strerror}" if files else str(error.strerror)
    else:
        text = str(error)
        number = _told(error)
        if number is not None:
            # tensorstore tells a chain of files, the last of which is the one.
            files = re.findall(r'"(/[^"]+)"', text)[-1:]
            text = ": ".join([*files, os.strerror(number)])
    lines = text.strip().splitlines() or [type(error).__name__]
    return lines[0][:LONGEST].rstrip(".;: ")
