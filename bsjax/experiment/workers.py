"""How many processes decode images beside the model, and whether this machine lets them."""

import multiprocessing.shared_memory
import os
import shutil

import jax
from absl import logging

from bsjax.core.errors import UserError

SHARED_MEMORY = "/dev/shm"
BATCHES_A_WORKER = 3  # in shared memory: made, waiting, and being taken


def n_workers(configured: int, batch_bytes: int = 0) -> int:
    """Decoding processes: threads are enough beside a CPU model, an accelerator needs more.

    Args:
      configured: -1 chooses; 0 decodes in threads.
      batch_bytes: of a batch of images, of which each process holds some in shared memory.

    Raises:
      UserError: processes are asked for, and this machine has not the shared memory they need.
    """
    if configured == 0 or (configured < 0 and jax.default_backend() == "cpu"):
        return 0
    n = configured if configured > 0 else min(16, os.cpu_count() or 1)
    lack = _lack_of_shared_memory(n * BATCHES_A_WORKER * batch_bytes)
    if not lack:
        return n
    if configured > 0:
        raise UserError(
            f"workers={configured}: {lack}; set --config.real.workers=0 and"
            " --config.generated.workers=0 to decode in threads, or give this machine more (docker"
            " run --shm-size=1g)"
        )
    logging.warning("%s: images are decoded in threads, which may be slower", lack)
    return 0


def _lack_of_shared_memory(n_bytes: int) -> str:
    """What worker processes would miss; "" where nothing."""
    try:
        multiprocessing.Semaphore()
        block = multiprocessing.shared_memory.SharedMemory(create=True, size=1)
        block.close()
        block.unlink()
        free = shutil.disk_usage(SHARED_MEMORY).free if os.path.isdir(SHARED_MEMORY) else n_bytes
    except OSError as error:
        return f"worker processes need shared memory ({SHARED_MEMORY}), got: {error.strerror}"
    if free < n_bytes:
        return (
            f"worker processes need {n_bytes / 1e6:.0f} MB of shared memory, {SHARED_MEMORY} has"
            f" {free / 1e6:.0f} MB free"
        )
    return ""
