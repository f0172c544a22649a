"""Training checkpoints by orbax: state, place in the data and config, written beside the training.

Where training starts, in this order:
  1. the newest whole checkpoint in the own workdir,
  2. `init_from`, an SAE made elsewhere (its parameters; step and optimizer start anew),
  3. scratch.
"""

import os
from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging

from bsjax.core.artifacts import is_remote
from bsjax.core.errors import UserError

STATE, PROGRESS = "state", "progress"


class Checkpoints:
    """The checkpoints of one training; all hosts call every method together."""

    def __init__(self, folder: str | os.PathLike, keep: int, is_read_only: bool = False):
        """Opens a folder.

        Args:
          folder: made when the first checkpoint is written.
          keep: newest checkpoints that stay.
          is_read_only: nothing is written, and what is half-written stays.
        """
        self.folder = folder
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, cleanup_tmp_directories=not is_read_only, read_only=is_read_only
        )
        path = folder if is_remote(folder) else os.path.abspath(folder)
        self._manager = ocp.CheckpointManager(path, options=options, item_names=(STATE, PROGRESS))

    def save(self, step: int, state: Any, progress: Mapping[str, Any]) -> None:
        """Starts writing; training goes on meanwhile. A step that is there already stays."""
        if step in self._manager.all_steps():
            return
        arguments = ocp.args.Composite(
            **{STATE: ocp.args.StandardSave(state), PROGRESS: ocp.args.JsonSave(dict(progress))}
        )
        self._manager.save(step, args=arguments)

    def restore(self, like: Any) -> tuple[Any, dict[str, Any]] | None:
        """The newest checkpoint that can be read, or None if there is none at all.

        Args:
          like: the state's shapes with their shardings, which need not be those it was saved with;
            None: whole arrays on this host, in plain dicts.

        Raises:
          UserError: there are checkpoints, and all are damaged.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        arguments = ocp.args.Composite(
            **{STATE: ocp.args.StandardRestore(like), PROGRESS: ocp.args.JsonRestore()}
        )
        for step in steps:
            try:
                restored = self._manager.restore(step, args=arguments)
            except (ValueError, OSError, KeyError) as error:
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                logging.warning(
                    "checkpoint %d cannot be read, taking an older one: %s", step, reason
                )
                if jax.process_index() == 0:
                    self._manager.delete(step)
                continue
            return restored[STATE], restored[PROGRESS]
        if steps:
            raise UserError(
                f"none of the checkpoints {steps} in {self.folder} can be read; delete the folder"
                " or --overwrite to start anew"
            )
        return None

    def newest(self) -> int | None:
        """Step of the newest checkpoint."""
        return self._manager.latest_step()

    def wait(self) -> None:
        """Returns when everything is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits and lets go of the folder."""
        self._manager.wait_until_finished()
        self._manager.close()
