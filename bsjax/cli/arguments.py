"""What a command line may hold: flags and the stages they belong to, and the config they name."""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import ml_collections
from absl import flags
from etils import epath
from ml_collections import config_flags

from bsjax import pipeline
from bsjax.cli import configs, mistakes
from bsjax.core.errors import UsageError
from bsjax.core.ranges import BOOLS
from bsjax.ingest import settings

FLAGS = flags.FLAGS
USAGE = "usage: bsjax STAGE --config=NAME|FILE[:ARG] --workdir=DIR [--config.KEY=VALUE ...]"
USAGE_WITHOUT_CONFIG = "usage: bsjax STAGE --workdir=DIR"
CONFIG, OVERRIDES = "--config=", ("--config.", "--noconfig.")
# What the flag of the config looks through for keys to change: absl takes sys.argv otherwise,
# where they may stand in any order.
_parsed: list[str] = []


class Flag(NamedTuple):
    """One flag and the stages that take it."""

    name: str
    define: Callable[..., Any]
    default: Any
    text: str
    stages: tuple[str, ...]


def _all_but(*names: str) -> tuple[str, ...]:
    return tuple(name for name in pipeline.BY_NAME if name not in names)


_string, _switch, _number = flags.DEFINE_string, flags.DEFINE_bool, flags.DEFINE_integer
_float = flags.DEFINE_float
HUB = ("push", "pull")
WITHOUT_CONFIG = ("explore", "power", "ingest", *HUB)
INGEST = ("ingest",)
OF_IMAGES = ("run", "generate", "train_sae", "measure", "compare", "plan", "stress")
TABLE = (
    Flag(
        "config", config_flags.DEFINE_config_file, None, "the experiment", _all_but(*WITHOUT_CONFIG)
    ),
    Flag("workdir", _string, None, "folder that holds every artifact", _all_but()),
    Flag("limit", _number, None, "only the first so many real images or captions", OF_IMAGES),
    Flag("control", _string, None, "real images changed, too: jpeg,crop,vae", ("run", "measure")),
    Flag(
        "overwrite",
        _switch,
        False,
        "make anew what another config made",
        _all_but("explore", "power", "push"),
    ),
    Flag("from_statistics", _switch, False, "by other rules, from statistics.npz", ("compare",)),
    Flag(
        "subset", _string, None, "with --from_statistics: file of keys, one per line", ("compare",)
    ),
    Flag("against", _string, None, "another generated set to compare this one with", ("compare",)),
    Flag("gate", _string, None, "as --against; exit status 3 if this one is worse", ("compare",)),
    Flag(
        "replicate", _string, None, "workdir of another SAE: do verdicts hold there?", ("compare",)
    ),
    Flag("fold", _float, None, "change that shall be called, such as 2", ("power",)),
    Flag("power", _float, 0.8, "share of such concepts to be called", ("power",)),
    Flag("concepts", _switch, False, "list every concept of the pilot, too", ("power",)),
    Flag("json", _switch, False, "print JSON instead of text", ("power",)),
    Flag("finding", _number, None, "number of the finding to ask for", ("stress",)),
    Flag("concept", _number, None, "a concept to ask for instead of a finding", ("stress",)),
    Flag("samples", _number, 8, "images of each prompt", ("stress",)),
    Flag("captions", _number, 16, "how many captions of the data set to ask by", ("stress",)),
    Flag("prompts", _string, None, "file of prompts, one per line, instead", ("stress",)),
    Flag("topology", _string, None, "TPUs and GPUs to compile for, with commas", ("plan",)),
    Flag("stage", _string, None, "what to plan: train_sae, generate or measure", ("plan",)),
    Flag("mesh.data", _number, None, "this mesh shape instead of all that fit", ("plan",)),
    Flag("mesh.model", _number, None, "this mesh shape instead of all that fit", ("plan",)),
    Flag("source", _string, None, "table of addresses: files, or a data set of the hub", INGEST),
    Flag("images", _number, 10_000, "how many to keep", INGEST),
    Flag("tries", _number, None, "rows asked for at most; 4 times the images if not set", INGEST),
    Flag("seed", _number, 0, "of the sample", INGEST),
    Flag("url_field", _string, "", "column of addresses, where it is not url", INGEST),
    Flag("caption_field", _string, "", "column of captions, where it is not caption", INGEST),
    Flag("min_side", _number, 64, "pixels of the short side at least", INGEST),
    Flag("max_megabytes", _float, 20.0, "size of a file at most", INGEST),
    Flag("duplicate_bits", _number, 4, "of 64 by which two hashes of one image differ", INGEST),
    Flag("timeout", _float, 10.0, "seconds without a byte", INGEST),
    Flag("retries", _number, 2, "more tries where a server is busy or silent", INGEST),
    Flag("per_host", _number, 8, "connections to one server at most", INGEST),
    Flag("connections", _number, 256, "connections at most", INGEST),
    Flag("downloader", _string, "aiohttp", "aiohttp, or img2dataset", INGEST),
    Flag("allow_private", _switch, False, "ask private networks, too", INGEST),
    Flag("repo", _string, None, "repository of the hub, owner/name", HUB),
    Flag("parts", _string, None, "sae,statistics,report and others, with commas", HUB),
    Flag("revision", _string, None, "branch; to pull also a tag or commit", HUB),
    Flag("private", _switch, False, "make a private repository", ("push",)),
    Flag("dry_run", _switch, False, "only tell what would be sent", ("push",)),
    Flag("host", _string, "127.0.0.1", "address to listen at", ("explore",)),
    Flag("port", _number, 0, "where to serve; 0: any free port", ("explore",)),
    Flag("quiet", _switch, False, "log warnings and errors alone", _all_but("explore")),
    Flag("verbose", _switch, False, "log the whole config, too; -v for short", _all_but()),
    Flag("debug", _switch, False, "show the traceback of an error", _all_but()),
)
BY_NAME = {flag.name: flag for flag in TABLE}
# Flags without which a stage without config makes no sense, and how they are typed.
NEEDED = {"push": ("repo",), "pull": ("repo",), "ingest": ("source",)}
TYPED = {"repo": "--repo=OWNER/NAME", "source": "--source=TABLE"}
BOUNDS = {"port": (0, 65535), **settings.BOUNDS}


def define_flags(values: flags.FlagValues) -> None:
    """Defines what a command line may hold."""
    for flag in TABLE:
        if flag.name == "config":
            flag.define(
                flag.name,
                lock_config=True,
                help_string=flag.text,
                flag_values=values,
                sys_argv=_parsed,
            )
        else:
            bounds = BOUNDS.get(flag.name, ())
            flag.define(flag.name, flag.default, flag.text, *bounds, flag_values=values)


define_flags(FLAGS)


def of_stage(stage: str) -> list[Flag]:
    """The flags that a stage takes."""
    return [flag for flag in TABLE if stage in flag.stages]


def parse_flags(argv: Sequence[str], stage: str, values: flags.FlagValues = FLAGS) -> None:
    """Parses flags, in any order; an unknown key, a wrong value or a missing file becomes one line.

    Args:
      argv: the program's name, then flags.
      stage: that they are for.
      values: where they are defined.

    Raises:
      UsageError: the command line makes no sense. UserError: the config file does not.
    """
    found = tidy(argv[1:])
    is_stored = _is_stored(found, stage)
    # Keys of a stored config are changed once it is read: see `experiments`.
    taken = [argv[0], *(each for each in found if not (is_stored and each.startswith(OVERRIDES)))]
    has_config = any(each.startswith(CONFIG) for each in taken)
    if not has_config and any(each.startswith(OVERRIDES) for each in taken):
        _check_stage(found, stage)
        raise UsageError(f"--config is missing; {USAGE}")
    _parsed[:] = taken
    try:
        leftover = values(taken)[1:]
    except Exception as error:  # A config file is a program: it may raise anything.
        own = [flag.name for flag in of_stage(stage)]
        raise mistakes.explain(error, taken, values, own) from error
    _check_stage(found, stage)
    for flag in of_stage(stage):
        value = getattr(values, flag.name, None)
        if isinstance(value, float) and not math.isfinite(value):  # bounds let NaN pass
            raise UsageError(f"--{flag.name}={value}: expected a finite number; set --{flag.name}")
    if leftover:
        raise UsageError(f"unexpected {leftover[0]!r}; {USAGE}")
    if stage == "plan" and not values.workdir:
        values.workdir = "."
    required = ("workdir",) if is_stored or stage in WITHOUT_CONFIG else ("config", "workdir")
    required = (*NEEDED.get(stage, ()), *required)
    if stage == "power" and values.fold is None:
        raise UsageError("--fold is missing; set --fold=2, or another change to be called")
    if stage == "stress" and (values.finding is None) == (values.concept is None):
        raise UsageError("stress asks for one thing; set --finding=N or --concept=K")
    for name in required:
        is_given = values[name].present if name == "config" else getattr(values, name)
        if not is_given:
            usage = USAGE_WITHOUT_CONFIG if stage in WITHOUT_CONFIG else USAGE
            usage += "".join(f" {TYPED[each]}" for each in NEEDED.get(stage, ()))
            raise UsageError(f"--{name} is missing; {usage.replace('STAGE', stage)}")
    if values["config"].present:
        mistakes.check_config(values.config, taken)


def tidy(arguments: Sequence[str]) -> list[str]:
    """Arguments as absl takes them: --NAME=VALUE in one piece, and what the config is before keys
    that change it; what is no flag comes last.

    Raises:
      UsageError: a flag lacks its value, the config is named twice or is not there.
    """
    try:
        left = FLAGS.read_flags_from_files(list(arguments), force_gnu=False)
    except flags.Error as error:
        raise UsageError(f"the file of flags cannot be read: {error}; mend --flagfile") from error
    found: list[str] = []
    while left:
        argument = left.pop(0)
        if argument == "-v":  # absl's own -v wants a number
            argument = "--verbose"
        if not argument.startswith("-") or argument == "--":
            found += [argument] if argument != "--" else []
            continue
        name, has_value, value = argument.lstrip("-").partition("=")
        if name.replace("-", "_") in FLAGS:  # --from-statistics is --from_statistics
            name = name.replace("-", "_")
        argument = f"--{name}{has_value}{value}"
        if not has_value and _takes_value(name):
            if not left or left[0].startswith("--"):
                raise UsageError(f"--{name} has no value; set --{name}=VALUE")
            argument += f"={left.pop(0)}"
        if argument.startswith(CONFIG):
            argument = CONFIG + configs.resolve(argument.removeprefix(CONFIG))
        found.append(argument)
    if sum(each.startswith(CONFIG) for each in found) > 1:
        raise UsageError("--config is given twice, expected one experiment; leave one out")
    return sorted(found, key=_rank)


def _takes_value(name: str) -> bool:
    if name.startswith("config."):
        return name.removeprefix("config.") not in BOOLS
    return name in FLAGS and not FLAGS[name].boolean


def _rank(argument: str) -> int:
    if argument.startswith(CONFIG):
        return 0
    return 2 if argument.startswith(OVERRIDES) else 1 if argument.startswith("-") else 3


def _is_stored(found: Sequence[str], stage: str) -> bool:
    is_given = any(each.startswith(CONFIG) for each in found)
    return pipeline.BY_NAME[stage].reads_stored and not is_given


def _check_stage(found: Sequence[str], stage: str) -> None:
    """Refuses flags of other stages."""
    for argument in found:
        name = argument.removeprefix("--").partition("=")[0]
        name = "config" if argument.startswith(OVERRIDES) else name
        flag = BY_NAME.get(name) or BY_NAME.get(name.removeprefix("no"))
        if argument.startswith("--") and flag and stage not in flag.stages:
            raise UsageError(
                f"--{name} belongs to {', '.join(flag.stages)}, not to {stage}; leave it out"
            )


def experiments(
    argv: Sequence[str], stage: str, values: flags.FlagValues = FLAGS
) -> list[ml_collections.ConfigDict]:
    """The config that parsed flags name; where none is needed, those that the workdir tells.

    Args:
      argv: as `parse_flags` got it.
      stage: that it is for.
      values: parsed.

    Raises:
      UserError: the workdir does not tell, or an argument changes no key of a config.
    """
    found = tidy(argv[1:])
    if not _is_stored(found, stage):
        return [values.config]
    from bsjax.experiment.stored import read_experiments

    changes = [each for each in found if each.startswith(OVERRIDES)]
    workdir = epath.Path(values.workdir).expanduser()
    other = values.against if values.gate is None else values.gate
    return [_change(config, changes) for config in read_experiments(workdir, stage, other)]


def _change(config: ml_collections.ConfigDict, changes: Sequence[str]) -> ml_collections.ConfigDict:
    """A config with the keys changed that arguments name."""
    argv, own = ["bsjax", *changes], flags.FlagValues()
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=own, sys_argv=argv)
        own(argv)
    except Exception as error:
        raise mistakes.explain(error, argv, own) from error
    return own.config


def read_config(value: str) -> ml_collections.ConfigDict:
    """The config that `--config=VALUE` names.

    Raises:
      UserError: there is none, or it goes wrong.
    """
    argv, own = ["bsjax", CONFIG + configs.resolve(value)], flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=own, sys_argv=argv)
    try:
        with warnings.catch_warnings():
            # Of ml_collections, about how it imports a file; a caller of ours cannot mend it.
            warnings.filterwarnings("ignore", "the load_module", DeprecationWarning)
            own(argv)
    except Exception as error:  # A config file is a program: it may raise anything.
        raise mistakes.explain(error, argv, own) from error
    mistakes.check_config(own.config, argv)
    return own.config
