"""The one door: `bsjax STAGE --config=NAME|FILE[:ARG] --workdir=DIR [--config.KEY=VALUE]`."""

import os
import pathlib
import signal
import sys
import traceback
from contextlib import nullcontext
from typing import Any

import ml_collections
from absl import logging
from etils import epath

from bsjax import pipeline
from bsjax.cli.arguments import (
    FLAGS,
    define_flags,
    experiments,
    parse_flags,
)
from bsjax.cli.commands import answer
from bsjax.core import faults
from bsjax.core.config import flatten, validate
from bsjax.core.errors import (
    GATE_FAILED,
    INTERRUPTED,
    MISTAKE,
    STOPPED,
    WRONG_USAGE,
    GateFailed,
    Preempted,
    UsageError,
    UserError,
)
from bsjax.core.ranges import RANGES

__all__ = ["FLAGS", "console", "define_flags", "explain", "main", "parse_flags"]
COPIED = ("compare", "report")  # stages that read and write files of this machine alone
DEBUG = ("--debug", "--debug=true", "--debug=1")


def main(argv: list[str]) -> None:
    """Runs one command line; raises UserError for everything that its user can mend."""
    text = answer(argv[1:])
    if text is not None:
        sys.stdout.write(text)
        sys.stdout.flush()  # here, where it can be told that nobody reads
        return
    stage = pipeline.BY_NAME[argv[1]]
    arguments = [argv[0], *argv[2:]]
    parse_flags(arguments, stage.name)
    set_loudness()
    if stage is pipeline.POWER:
        folder = pathlib.Path(FLAGS.workdir).expanduser()
        stage.load()(folder, FLAGS.fold, FLAGS.power, FLAGS.concepts, FLAGS.json)
        return
    if stage is pipeline.EXPLORE:
        stage.load()(FLAGS.workdir, FLAGS.port, FLAGS.host)
        return
    if stage in (pipeline.PUSH, pipeline.PULL):
        share(stage)
        return
    if stage is pipeline.INGEST:
        fetch_images(stage)
        return
    from bsjax.core.logs import log_header, quiet_libraries, watch_silence

    quiet_libraries()  # sets what libraries read as they are imported
    configs = experiments(arguments, stage.name)
    for config in configs:
        config.overwrite = config.overwrite or FLAGS.overwrite
        apply_short_flags(config)
        validate(config, stage.needs_images, stage.sections)

    from bsjax.core import distributed, ending, lock, mirror, rng

    signal.signal(signal.SIGTERM, ending.on_sigterm)
    rng.require_plain_settings()
    distributed.initialize()

    workdir = epath.Path(FLAGS.workdir).expanduser()
    log_header(flatten(configs[0]), str(workdir))
    held = lock.hold(workdir, stage.name, distributed.is_writer())
    failed, is_copied = [], stage.name in COPIED
    if not stage.is_shared and not distributed.is_writer():
        logging.info("%s is the work of host 0: waiting for it", stage.name)
        configs = []
    with held, watch_silence(stage.name):
        for config in configs:
            try:
                with mirror.mirrored(workdir) if is_copied else nullcontext(workdir) as place:
                    stage.load()(config, place, **_choices(stage.name))
            except GateFailed as error:  # all sets are looked at before the run fails
                failed.append(str(error))
    if failed:
        raise GateFailed("; ".join(failed))
    # A host that is done first stays to hear what may still stop the others.
    distributed.wait_for_all("end")


def fetch_images(stage: pipeline.Stage) -> None:
    """ingest, which no config decides."""
    from bsjax.core import ending, lock
    from bsjax.ingest.settings import Settings

    signal.signal(signal.SIGTERM, ending.on_sigterm)
    workdir = epath.Path(FLAGS.workdir).expanduser()
    settings = Settings(**{name: FLAGS[name].value for name in Settings._fields})
    with lock.hold(workdir, stage.name):
        stage.load()(workdir, settings, FLAGS.overwrite)


def share(stage: pipeline.Stage) -> None:
    """push or pull, which no config decides."""
    from bsjax.core import lock

    workdir = epath.Path(FLAGS.workdir).expanduser()
    parts = None if FLAGS.parts is None else [part for part in FLAGS.parts.split(",") if part]
    choices = {"parts": parts, "revision": FLAGS.revision}
    if stage is pipeline.PUSH:
        choices |= {"private": FLAGS.private, "dry_run": FLAGS.dry_run}
    else:
        choices["overwrite"] = FLAGS.overwrite
    with lock.hold(workdir, stage.name):
        stage.load()(workdir, FLAGS.repo, **choices)


def set_loudness() -> None:
    """--quiet and --verbose, for what is imported from here on."""
    if FLAGS.quiet and FLAGS.verbose:
        raise UsageError("--quiet and --verbose exclude each other; leave one out")
    if FLAGS.quiet:
        logging.set_verbosity(logging.WARNING)
        os.environ["TQDM_DISABLE"] = os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    elif FLAGS.verbose:
        logging.set_verbosity(logging.DEBUG)


def _choices(stage: str) -> dict[str, Any]:
    """What a stage is told beside its config."""
    if stage == "stress":
        names = ("finding", "concept", "samples", "captions", "prompts")
        return {name: FLAGS[name].value for name in names}
    if stage != "compare":
        return {}
    if FLAGS.subset is not None and not FLAGS.from_statistics:
        raise UsageError("--subset goes with --from_statistics; give both")
    if FLAGS.against is not None and FLAGS.gate is not None:
        raise UsageError("--against and --gate exclude each other; leave one out")
    other = FLAGS.against if FLAGS.gate is None else FLAGS.gate
    if other is not None and FLAGS.subset is not None:
        raise UsageError("--against and --gate take all pairs; leave out --subset")
    if FLAGS.replicate is not None and (FLAGS.from_statistics or other is not None):
        raise UsageError("--replicate goes alone; leave out --from_statistics, --against, --gate")
    return {
        "from_statistics": FLAGS.from_statistics,
        "subset": FLAGS.subset,
        "replicate": FLAGS.replicate,
        "against": other,
        "is_gate": FLAGS.gate is not None,
    }


def apply_short_flags(config: ml_collections.ConfigDict) -> None:
    """Short flags stand for keys of the config."""
    if FLAGS.limit is not None:
        if not RANGES["real.limit"].holds(FLAGS.limit):
            raise UserError(f"--limit={FLAGS.limit}: expected {RANGES['real.limit']}; set --limit")
        config.real.limit = FLAGS.limit
    if FLAGS.control is not None:
        config.measure.controls = FLAGS.control
    config.plan.topology = FLAGS.topology or config.plan.topology
    config.plan.stage = FLAGS.stage or config.plan.stage
    data, model = FLAGS["mesh.data"].value, FLAGS["mesh.model"].value
    if data is not None or model is not None:
        config.plan.fixed_mesh = True
        config.mesh.data = -1 if data is None else data
        config.mesh.model = -1 if model is None else model


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
        statuses = ((UsageError, WRONG_USAGE), (GateFailed, GATE_FAILED), (UserError, MISTAKE))
        status = next(status for kind, status in statuses if isinstance(error, kind))
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
            " and it goes on from what is finished"
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
