"""The one door: `bsjax STAGE --config=FILE[:ARG] --workdir=DIR [--config.a.b=c]`."""

import os
import pathlib
import signal
import sys
import traceback

import ml_collections
from absl import flags, logging
from etils import epath
from ml_collections import config_flags

from bsjax import pipeline
from bsjax.core.config import flatten, validate
from bsjax.core.errors import (
    INTERRUPTED,
    MISTAKE,
    STOPPED,
    WRONG_USAGE,
    Preempted,
    UsageError,
    UserError,
)

FLAGS = flags.FLAGS
config_flags.DEFINE_config_file("config", lock_config=True, help_string="file with the experiment")
flags.DEFINE_string("workdir", None, "folder that holds every artifact of the experiment")
flags.DEFINE_bool("overwrite", False, "make anew what another config made")
flags.DEFINE_string("topology", None, "plan: TPU topologies to compile for, with commas")
flags.DEFINE_string("stage", None, "plan: the stage to compile: train_sae, generate, measure")
flags.DEFINE_integer("mesh.data", None, "plan: this mesh shape instead of all that fit")
flags.DEFINE_integer("mesh.model", None, "plan: this mesh shape instead of all that fit")
flags.DEFINE_integer("limit", None, "only the first so many real images or their captions")
flags.DEFINE_integer("port", 0, "explore: where to serve; 0: any free port", 0, 65535)
flags.DEFINE_string("host", "127.0.0.1", "explore: address to listen at")
flags.DEFINE_bool("debug", False, "show the traceback of an error")

USAGE = "usage: bsjax STAGE --config=FILE[:ARG] --workdir=DIR [--config.KEY=VALUE ...]"


def main(argv: list[str]) -> None:
    """Runs one command line; raises UserError for everything that its user can mend."""
    names = " | ".join((*pipeline.BY_NAME, "pipeline"))
    stage_name = argv[1] if len(argv) > 1 else ""
    if stage_name == "pipeline":
        sys.stdout.write(pipeline.describe() + "\n")
        return
    if stage_name not in pipeline.BY_NAME:
        raise UsageError(f"stage {stage_name!r} is unknown; expected {names}; {USAGE}")
    parse_flags([argv[0], *argv[2:]], stage_name)
    if stage_name == "explore":
        serve = pipeline.EXPLORE.load()
        serve(pathlib.Path(FLAGS.workdir).expanduser(), FLAGS.port, FLAGS.host)
        return
    config = FLAGS.config
    config.overwrite = config.overwrite or FLAGS.overwrite
    apply_short_flags(config)
    validate(config, needs_images=stage_name not in ("plan", "convert"))

    from bsjax.core import distributed, ending, lock, rng
    from bsjax.core.logs import log_header, quiet_libraries

    quiet_libraries()
    signal.signal(signal.SIGTERM, ending.on_sigterm)
    rng.require_plain_settings()
    distributed.initialize()

    if stage_name not in ("train_sae", "generate") and distributed.n_hosts() > 1:
        raise UserError(
            f"{stage_name} runs on one host; unset BSJAX_DISTRIBUTED and start it there"
        )
    workdir = epath.Path(FLAGS.workdir).expanduser()
    log_header(flatten(config), str(workdir))
    with lock.hold(workdir, stage_name, distributed.is_writer()):
        pipeline.BY_NAME[stage_name].load()(config, workdir)
    # A host that is done first stays to hear what may still stop the others.
    distributed.wait_for_all("end")


def apply_short_flags(config: ml_collections.ConfigDict) -> None:
    """Short flags stand for keys of the config."""
    if FLAGS.limit is not None:
        config.real.limit = FLAGS.limit
    config.plan.topology = FLAGS.topology or config.plan.topology
    config.plan.stage = FLAGS.stage or config.plan.stage
    data, model = FLAGS["mesh.data"].value, FLAGS["mesh.model"].value
    if data is not None or model is not None:
        config.plan.fixed_mesh = True
        config.mesh.data = -1 if data is None else data
        config.mesh.model = -1 if model is None else model


def parse_flags(argv: list[str], stage: str) -> None:
    """Parses flags; an unknown key, a wrong value or a missing file becomes one line."""
    for argument in argv:
        path = argument.removeprefix("--config=").partition(":")[0]
        if path != argument.partition(":")[0] and not pathlib.Path(path).is_file():
            raise UsageError(f"--config={path}: no such file; {USAGE}")
    try:
        leftover = FLAGS(argv)[1:]
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        # What a config file says of its options is quoted at the end of what wraps it.
        lines = (str(error).strip("'\"") or repr(error)).splitlines()
        text = lines[0] if len(lines) == 1 else f"{lines[0]} {lines[-1]}"
        raise UsageError(f"{text}; keys stand in bsjax/presets.py; {USAGE}") from error
    if leftover:
        raise UsageError(f"unexpected {leftover[0]!r}; {USAGE}")
    if stage == "plan" and not FLAGS.workdir:
        FLAGS.workdir = "."
    for name in ("workdir",) if stage == "explore" else ("config", "workdir"):
        if not getattr(FLAGS, name):
            raise UsageError(f"--{name} is missing; {USAGE}")


def console() -> None:
    """Entry point of the `bsjax` script: what a user can mend is one line.

    Exit statuses are those of `core.errors`; several hosts end with the same.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    try:
        main(sys.argv)
    except SystemExit:
        raise
    except BaseException as error:
        found = explain(error)
        is_shown = found is None or (FLAGS.is_parsed() and FLAGS.debug)
        ending = sys.modules.get("bsjax.core.ending")  # absent: nobody has joined other hosts yet
        if ending is not None and ending.n_hosts() > 1:
            if is_shown:
                traceback.print_exc()
            ending.end_all(*(found or (MISTAKE, fault_of_this_host(error))))
        if is_shown:
            raise
        status, line = found
        sys.stderr.write(f"bsjax: {line}\n")
        sys.exit(status)


def explain(error: BaseException) -> tuple[int, str] | None:
    """Exit status and line of what ended a run; None for a fault of the program."""
    if isinstance(error, UserError):
        status = WRONG_USAGE if isinstance(error, UsageError) else MISTAKE
        return status, " ".join(str(error).split())
    if isinstance(error, Preempted):
        # Taken away, not failed: who restarts jobs runs the same command again.
        return STOPPED, f"{error}; the same command goes on from here"
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, "interrupted; the same command goes on from here"
    distributed = sys.modules.get("bsjax.core.distributed")
    if distributed is not None and distributed.is_lost_host(error):
        reason = str(error).splitlines()[0][:300]
        return STOPPED, (
            f"another host does not answer ({reason}); start the same command on all hosts again,"
            " and it goes on from the newest checkpoint"
        )
    return None


def fault_of_this_host(error: BaseException) -> str:
    """What the other hosts say of a fault whose traceback stands in this host's log."""
    import jax

    reason = (str(error).splitlines() or [""])[0][:300]
    return (
        f"host {jax.process_index()} failed ({type(error).__name__}: {reason}); its log tells where"
    )


if __name__ == "__main__":
    console()
