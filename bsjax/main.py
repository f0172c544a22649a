"""The one door: `bsjax STAGE --config=FILE[:ARG] --workdir=DIR [--config.KEY=VALUE]`."""

import os
import pathlib
import signal
import sys
import traceback

import ml_collections
from absl import flags, logging
from etils import epath
from ml_collections import config_flags

from bsjax import command_line, pipeline
from bsjax.command_line import did_you_mean
from bsjax.core import faults
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
from bsjax.core.ranges import RANGES

FLAGS = flags.FLAGS


def define_flags(values: flags.FlagValues) -> None:
    """Defines what a command line may hold."""
    config_flags.DEFINE_config_file(
        "config", lock_config=True, help_string="file with the experiment", flag_values=values
    )
    for define, name, default, text in (
        (flags.DEFINE_string, "workdir", None, "folder that holds every artifact"),
        (flags.DEFINE_bool, "overwrite", False, "make anew what another config made"),
        (flags.DEFINE_string, "topology", None, "plan: TPU topologies to compile for, with commas"),
        (flags.DEFINE_string, "stage", None, "plan: the stage: train_sae, generate, measure"),
        (flags.DEFINE_integer, "mesh.data", None, "plan: this mesh shape instead of all that fit"),
        (flags.DEFINE_integer, "mesh.model", None, "plan: this mesh shape instead of all that fit"),
        (flags.DEFINE_integer, "limit", None, "only the first so many real images or captions"),
        (flags.DEFINE_string, "host", "127.0.0.1", "explore: address to listen at"),
        (flags.DEFINE_bool, "debug", False, "show the traceback of an error"),
    ):
        define(name, default, text, flag_values=values)
    flags.DEFINE_integer(
        "port", 0, "explore: where to serve; 0: any free port", 0, 65535, flag_values=values
    )


define_flags(FLAGS)
DEBUG = ("--debug", "--debug=true", "--debug=1")
HELP = ("help", "--help", "-h")
USAGE = "usage: bsjax STAGE --config=FILE[:ARG] --workdir=DIR [--config.KEY=VALUE ...]"


def main(argv: list[str]) -> None:
    """Runs one command line; raises UserError for everything that its user can mend."""
    names = (*pipeline.BY_NAME, "pipeline")
    stage_name = argv[1] if len(argv) > 1 else ""
    if stage_name in ("pipeline", *HELP):
        usage = "" if stage_name == "pipeline" else f"{USAGE}\n\n"
        sys.stdout.write(f"{usage}{pipeline.describe()}\n")
        return
    if stage_name not in pipeline.BY_NAME:
        raise UsageError(
            f"stage {stage_name!r} is unknown{did_you_mean(stage_name, names)}; expected"
            f" {' | '.join(names)}; {USAGE}"
        )
    parse_flags([argv[0], *argv[2:]], stage_name)
    if stage_name == "explore":
        serve = pipeline.EXPLORE.load()
        serve(pathlib.Path(FLAGS.workdir).expanduser(), FLAGS.port, FLAGS.host)
        return
    config = FLAGS.config
    config.overwrite = config.overwrite or FLAGS.overwrite
    apply_short_flags(config)
    from bsjax.core.logs import log_header, quiet_libraries, watch_silence

    quiet_libraries()  # sets what libraries read as they are imported
    validate(config, needs_images=stage_name not in ("plan", "convert"))

    from bsjax.core import distributed, ending, lock, rng

    signal.signal(signal.SIGTERM, ending.on_sigterm)
    rng.require_plain_settings()
    distributed.initialize()

    if stage_name not in ("train_sae", "generate") and distributed.n_hosts() > 1:
        raise UserError(
            f"{stage_name} runs on one host; unset BSJAX_DISTRIBUTED and start it there"
        )
    workdir = epath.Path(FLAGS.workdir).expanduser()
    log_header(flatten(config), str(workdir))
    held = lock.hold(workdir, stage_name, distributed.is_writer())
    with held, watch_silence(stage_name):
        pipeline.BY_NAME[stage_name].load()(config, workdir)
    # A host that is done first stays to hear what may still stop the others.
    distributed.wait_for_all("end")


def apply_short_flags(config: ml_collections.ConfigDict) -> None:
    """Short flags stand for keys of the config."""
    if FLAGS.limit is not None:
        if not RANGES["real.limit"].holds(FLAGS.limit):
            raise UserError(f"--limit={FLAGS.limit}: expected {RANGES['real.limit']}; set --limit")
        config.real.limit = FLAGS.limit
    config.plan.topology = FLAGS.topology or config.plan.topology
    config.plan.stage = FLAGS.stage or config.plan.stage
    data, model = FLAGS["mesh.data"].value, FLAGS["mesh.model"].value
    if data is not None or model is not None:
        config.plan.fixed_mesh = True
        config.mesh.data = -1 if data is None else data
        config.mesh.model = -1 if model is None else model


def parse_flags(argv: list[str], stage: str, values: flags.FlagValues = FLAGS) -> None:
    """Parses flags; an unknown key, a wrong value or a missing file becomes one line."""
    for argument in argv:
        path = argument.removeprefix("--config=").partition(":")[0]
        if path != argument.partition(":")[0] and not pathlib.Path(path).is_file():
            others = map(str, pathlib.Path(path).parent.glob("*.py"))
            raise UsageError(f"--config={path}: no such file{did_you_mean(path, others)}; {USAGE}")
    try:
        leftover = values(argv)[1:]
    except Exception as error:  # A config file is a program: it may raise anything.
        raise command_line.explain(error, argv, values) from error
    if leftover:
        raise UsageError(f"unexpected {leftover[0]!r}; {USAGE}")
    if stage == "plan" and not values.workdir:
        values.workdir = "."
    for name in ("workdir",) if stage == "explore" else ("config", "workdir"):
        is_given = values[name].present if name == "config" else getattr(values, name)
        if not is_given:
            raise UsageError(f"--{name} is missing; {USAGE}")
    if stage != "explore":
        command_line.check_config(values.config, argv)


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
        # The flags may not be parsed yet.
        if found is None or any(argument in DEBUG for argument in sys.argv[1:]):
            traceback.print_exc()
        ending = sys.modules.get("bsjax.core.ending")  # absent: nobody has joined other hosts yet
        if ending is not None and ending.n_hosts() > 1:
            ending.end_all(*(found or (MISTAKE, fault_of_this_host(error))))
        status, line = found or (MISTAKE, fault_of_the_program(error))
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
    line = faults.line_of(error)
    return None if line is None else (MISTAKE, f"{line} (--debug shows where)")


def fault_of_the_program(error: BaseException) -> str:
    """The last line of what its user cannot mend; the traceback stands above it."""
    reason = (str(error).strip().splitlines() or [""])[0][:300]
    return (
        f"this is a fault of bsjax ({type(error).__name__}: {reason}); please report it with this"
        " traceback"
    )


def fault_of_this_host(error: BaseException) -> str:
    """What the other hosts say of a fault whose traceback stands in this host's log."""
    import jax

    reason = (str(error).splitlines() or [""])[0][:300]
    return (
        f"host {jax.process_index()} failed ({type(error).__name__}: {reason}); its log tells where"
    )


if __name__ == "__main__":
    console()
