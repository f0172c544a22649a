"""Training curves: a line of JSON a look, and the same for TensorBoard.

Each line carries a checksum; one that is damaged is left out when a training goes on.
"""

import json
from collections.abc import Mapping

from absl import logging
from tensorboardX import SummaryWriter

from bsjax.core import checksums
from bsjax.core.artifacts import atomic_path
from bsjax.core.paths import AnyPath

FILE = "curves.jsonl"


class Curves:
    """Appends metrics; a resumed training drops the lines that it makes again."""

    def __init__(self, folder: AnyPath, is_writer: bool):
        """Opens nothing yet; only the writing host ever does."""
        self._path, self._folder, self._is_writer = folder / FILE, folder, is_writer
        self._lines: list[str] = []
        self._board: SummaryWriter | None = None

    def begin(self, first_step: int) -> None:
        """Keeps what was written up to `first_step`."""
        if not self._is_writer:
            return
        if self._path.exists():
            lines = self._path.read_bytes().decode(errors="replace").splitlines()
            whole = [line for line in lines if _step(line) < float("inf")]
            if len(whole) < len(lines):
                logging.warning(
                    "%s: %d of %d lines are damaged and left out", self._path,
                    len(lines) - len(whole), len(lines),
                )  # fmt: skip
            self._lines = [line for line in whole if _step(line) <= first_step]
        self._write()
        board = self._folder / "tensorboard"
        self._board = SummaryWriter(str(board), purge_step=first_step + 1)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """One look after `step` steps."""
        if not self._is_writer:
            return
        self._lines.append(json.dumps(checksums.seal({"step": step, **values})))
        self._write()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def _write(self) -> None:
        # Whole each time: object stores cannot append, and a file of looks stays small.
        text = "".join(f"{line}\n" for line in self._lines)
        with atomic_path(self._path) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def close(self) -> None:
        """Flushes TensorBoard's file."""
        if self._board is not None:
            self._board.close()


def _step(line: str) -> float:
    """The step of a line; that of a torn or damaged one is beyond every step."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return float("inf")
    return content["step"] if checksums.is_sealed(content) else float("inf")
