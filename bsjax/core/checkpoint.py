"""Training checkpoints by orbax: state, place in the data and config, written beside the training.

Where training starts, in this order:
  1. the newest whole checkpoint in the own workdir,
  2. `init_from`, an SAE made elsewhere (its parameters; step and optimizer start anew),
  3. scratch.
"""

import functools
import itertools
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging
from etils import epath

from bsjax.core import checksums, distributed
from bsjax.core.artifacts import is_remote, read_json, write_json
from bsjax.core.errors import UserError

STATE, PROGRESS = "state", "progress"
TIMES = "_CHECKPOINT_METADATA"  # written once more when the checkpoint gets its name
WRITING = ".orbax-checkpoint-tmp"  # in the name of a checkpoint that is not whole yet
PROOFS = "proofs"  # ends the name of the folder of checksums beside that of checkpoints
PROVED = "proved"  # key beside a checkpoint's progress: its checksums were written


class Checkpoints:
    """The checkpoints of one training; all hosts call every method together.

    One that cannot be read now may be readable tomorrow (a file system that is away, permissions,
    the version that wrote it): it stays where it is and does not count as one of those to keep. If
    its step is reached again it is set aside under another name.

    The folder beside, `<name>-proofs`, holds the checksums of each one's files, written before it
    counts as whole; one that does not match them is as one that cannot be read, and so is one that
    says it has checksums, where these are gone. One from before there were checksums is taken with
    a warning. Object stores keep checksums of their own.
    """

    def __init__(self, folder: str | os.PathLike, keep: int, is_read_only: bool = False):
        """Opens a folder.

        Args:
          folder: made when the first checkpoint is written.
          keep: newest checkpoints that stay.
          is_read_only: nothing is written, and what is half-written stays.
        """
        self.folder = folder
        self._keep, self._unreadable = keep, set()
        path = folder if is_remote(folder) else os.path.abspath(folder)
        open_folder = functools.partial(ocp.CheckpointManager, path, item_names=(STATE, PROGRESS))
        self._writer = open_folder(
            options=ocp.CheckpointManagerOptions(
                preservation_policy=None if is_read_only else self,
                cleanup_tmp_directories=not is_read_only,
                read_only=is_read_only,
                async_options=None
                if is_read_only
                else ocp.AsyncOptions(post_finalization_callback=self._prove),
            )
        )
        self._manager = self._writer
        if distributed.n_hosts() > 1:
            # Each host reads on its own: the one that fails would leave the others at a barrier.
            host = jax.process_index()
            alone = ocp.options.MultiprocessingOptions(
                primary_host=host, active_processes={host}, barrier_sync_key_prefix=f"host_{host}"
            )
            self._manager = open_folder(
                options=ocp.CheckpointManagerOptions(
                    read_only=True, create=False, multiprocessing_options=alone
                )
            )

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Orbax asks by this which checkpoints stay when a new one is written; oldest first."""
        del context
        good = [info.step for info in checkpoints if info.step not in self._unreadable]
        kept = {*good[-self._keep :], *self._unreadable}
        return [info.step in kept for info in checkpoints]

    def save(self, step: int, state: Any, progress: Mapping[str, Any]) -> None:
        """Starts writing; training goes on meanwhile. A step that is there already stays."""
        if step in self._writer.all_steps():
            if step not in self._unreadable:
                return
            self._set_aside(step)
        told = dict(progress) if is_remote(self.folder) else {**progress, PROVED: True}
        arguments = ocp.args.Composite(
            **{STATE: ocp.args.StandardSave(state), PROGRESS: ocp.args.JsonSave(told)}
        )
        # By force: an unreadable one may be newer than this.
        self._writer.save(step, args=arguments, force=True)

    def restore(self, like: Any) -> tuple[Any, dict[str, Any]] | None:
        """The newest checkpoint that all hosts can read, or None if there is none at all.

        Args:
          like: the state's shapes with their shardings, which need not be those it was saved with;
            None: whole arrays on this host, in plain dicts.

        Raises:
          UserError: there are checkpoints, and none can be read.
        """
        # What one host lists another may not see yet: the first decides.
        steps = distributed.from_all(sorted(self._manager.all_steps(), reverse=True))[0]
        arguments = ocp.args.Composite(
            **{STATE: ocp.args.StandardRestore(like), PROGRESS: ocp.args.JsonRestore()}
        )
        reason = ""
        for step in steps:
            restored, reason = self._read(step, arguments)
            # Of several hosts one may fail: then none goes on from this step.
            reasons = distributed.from_all(reason)
            reason = next(filter(None, reasons), "")
            if not reason:
                return restored[STATE], restored[PROGRESS]
            logging.warning("checkpoint %d cannot be read, taking an older one: %s", step, reason)
            self._unreadable.add(step)
        if steps:
            raise UserError(
                f"none of the checkpoints {steps} in {self.folder} can be read ({reason}); nothing"
                " was deleted: see to it that they can be, or move the folder or choose another"
                " --workdir to start anew"
            )
        return None

    def _read(self, step: int, arguments: Any) -> tuple[Any, str]:
        """The checkpoint, or why this host cannot read it."""
        if jax.process_index() == 0:
            fault = self._fault(step)
            if fault:
                return None, fault
        try:
            found = self._manager.restore(step, args=arguments)
        except Exception as error:  # Many types, by what is damaged; each means: not to be had.
            lines = str(error).splitlines()
            return None, ": ".join([type(error).__name__, *(line[:300] for line in lines[:1])])
        is_proved = found[PROGRESS].pop(PROVED, False)
        proof = self._proof(step)
        if jax.process_index() or is_remote(self.folder) or proof.exists():
            return found, ""
        if is_proved:
            return None, f"its checksums, {proof}, are missing; put them there"
        logging.warning(
            "checkpoint %d is from before there were checksums: it is taken as it is", step
        )
        return found, ""

    def _proof(self, step: int | str) -> pathlib.Path:
        folder = pathlib.Path(self._writer.directory)
        return folder.with_name(f"{folder.name}-{PROOFS}") / f"{step}.json"

    def _prove(self) -> None:
        """Orbax calls this when a checkpoint's files are written and only its name is missing."""
        folder = pathlib.Path(self._writer.directory)
        if is_remote(self.folder) or jax.process_index():
            return
        steps = {path.name.partition(".")[0]: path for path in folder.iterdir()}
        for step, path in steps.items():
            if WRITING in path.name:
                names = checksums.list_files(path, but=(TIMES,))
                proofs = checksums.prove_files(path, names)
                write_json(self._proof(step), checksums.seal({"files": proofs}))
        for path in self._proof(0).parent.iterdir():
            if path.suffix == ".json" and path.stem not in steps:
                path.unlink(missing_ok=True)  # of a checkpoint that is gone

    def _fault(self, step: int) -> str:
        """What is wrong with a checkpoint's files; empty if nothing is, or nothing is known."""
        path = self._proof(step)
        if is_remote(self.folder) or not path.exists():
            return ""
        try:
            proof = read_json(path)
            if not checksums.is_sealed(proof):
                return f"{path} is damaged"
            checksums.check_files(
                pathlib.Path(self._writer.directory) / str(step),
                {name: checksums.Proof(*known)._asdict() for name, known in proof["files"].items()},
                None,
                "it is not used",
            )
        except (OSError, UserError) as error:
            return " ".join(str(error).split())
        return ""

    def _set_aside(self, step: int) -> None:
        """Makes room for a step whose checkpoint cannot be read."""
        self._writer.wait_until_finished()
        if jax.process_index() == 0:
            folder = epath.Path(self._writer.directory)
            names = (f"{step}.unreadable-{i}" for i in itertools.count())
            target = next(folder / name for name in names if not (folder / name).exists())
            (folder / str(step)).rename(target)
            logging.warning("checkpoint %d could not be read and is now %s", step, target)
        distributed.wait_for_all(f"set_aside_{step}")
        self._unreadable.discard(step)
        self._writer.reload()

    def newest(self) -> int | None:
        """Step of the newest checkpoint that is not known to be unreadable."""
        return max(set(self._writer.all_steps()) - self._unreadable, default=None)

    def wait(self) -> None:
        """Returns when everything is on disk."""
        self._writer.wait_until_finished()

    def close(self) -> None:
        """Waits and lets go of the folder."""
        self._writer.wait_until_finished()
        self._writer.close()
        if self._manager is not self._writer:
            self._manager.close()
