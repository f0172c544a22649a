"""The one door: `bsjax STAGE --config=FILE[:ARG] --workdir=DIR [--config.a.b=c]`."""

import os
import pathlib
import sys

import ml_collections
from absl import flags, logging
from etils import epath
from ml_collections import config_flags

from bsjax import pipeline
from bsjax.core.config import flatten, validate
from bsjax.core.errors import Preempted, UserError

FLAGS = flags.FLAGS
config_flags.DEFINE_config_file("config", lock_config=True, help_string="file with the experiment")
flags.DEFINE_string("workdir", None, "folder that holds every artifact of the experiment")
flags.DEFINE_bool("overwrite", False, "make anew what another config made")
flags.DEFINE_string("topology", None, "plan: TPU topologies to compile for, with commas")
flags.DEFINE_string("stage", None, "plan: the stage to compile: train_sae, generate, measure")
flags.DEFINE_integer("mesh.data", None, "plan: this mesh shape instead of all that fit")
flags.DEFINE_integer("mesh.model", None, "plan: this mesh shape instead of all that fit")
flags.DEFINE_integer("limit", None, "only the first so many real images or their captions")
flags.DEFINE_integer("port", 0, "explore: where to serve; 0: any port that is free")
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
        raise UserError(f"stage {stage_name!r} is unknown; expected {names}; {USAGE}")
    parse_flags([argv[0], *argv[2:]], stage_name)
    if stage_name == "explore":
        serve = pipeline.EXPLORE.load()
        serve(pathlib.Path(FLAGS.workdir).expanduser(), FLAGS.port, FLAGS.host)
        return
    config = FLAGS.config
    config.overwrite = config.overwrite or FLAGS.overwrite
    apply_short_flags(config)
    validate(config, needs_images=stage_name not in ("plan", "convert"))

    from bsjax.core import distributed
    from bsjax.core.logs import log_header, quiet_libraries

    quiet_libraries()
    distributed.initialize()

    if stage_name not in ("train_sae", "generate") and distributed.n_hosts() > 1:
        raise UserError(
            f"{stage_name} runs on one host; unset BSJAX_DISTRIBUTED and start it there"
        )
    workdir = epath.Path(FLAGS.workdir).expanduser()
    log_header(flatten(config), str(workdir))
    pipeline.BY_NAME[stage_name].load()(config, workdir)


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
            raise UserError(f"--config={path}: no such file; {USAGE}")
    try:
        leftover = FLAGS(argv)[1:]
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        # What a config file says of its options is quoted at the end of what wraps it.
        lines = (str(error).strip("'\"") or repr(error)).splitlines()
        text = lines[0] if len(lines) == 1 else f"{lines[0]} {lines[-1]}"
        raise UserError(f"{text}; keys stand in bsjax/presets.py; {USAGE}") from error
    if leftover:
        raise UserError(f"unexpected {leftover[0]!r}; {USAGE}")
    if stage == "plan" and not FLAGS.workdir:
        FLAGS.workdir = "."
    for name in ("workdir",) if stage == "explore" else ("config", "workdir"):
        if not getattr(FLAGS, name):
            raise UserError(f"--{name} is missing; {USAGE}")


def console() -> None:
    """Entry point of the `bsjax` script: a user's mistake is one line and exit status 1."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    try:
        main(sys.argv)
    except UserError as error:
        if FLAGS.is_parsed() and FLAGS.debug:
            raise
        sys.stderr.write(f"bsjax: {' '.join(str(error).split())}\n")
        sys.exit(1)
    except Preempted as stopped:
        # Taken away, not failed: whoever restarts preempted jobs runs the same command again.
        sys.stderr.write(f"bsjax: {stopped}; the same command goes on from here\n")
        sys.exit(0)
    except RuntimeError as error:
        from bsjax.core import distributed

        if not distributed.is_lost_host(error) or (FLAGS.is_parsed() and FLAGS.debug):
            raise
        reason = str(error).splitlines()[0][:300]
        sys.stderr.write(
            f"bsjax: another host does not answer ({reason}); start the same command on all hosts"
            " again, and it goes on from the newest checkpoint\n"
        )
        sys.stderr.flush()
        # A regular exit would wait minutes for the lost host to say goodbye.
        os._exit(1)
    except KeyboardInterrupt:
        sys.stderr.write("bsjax: interrupted; the same command goes on from here\n")
        sys.exit(130)


if __name__ == "__main__":
    console()
