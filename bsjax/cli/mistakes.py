"""What is wrong with a command line or a config file, in one line: expected, got, did you mean."""

import os
import re
import traceback
from collections.abc import Collection, Sequence

import ml_collections
from absl import flags

from bsjax import presets
from bsjax.cli.suggestions import SUGGESTED, did_you_mean
from bsjax.core.config import flatten
from bsjax.core.errors import UsageError, UserError
from bsjax.core.faults import causes
from bsjax.core.ranges import GONE, expected_of, told_gone

CONFIG, OVERRIDE = "--config=", "--config."
LONGEST = 200  # characters of what a config file's error says
# How ml_collections says that there is no such key.
NO_KEY = re.compile(r"""["']*(?:Key )?["'](\w+)["']""")


def explain(
    error: Exception, argv: Sequence[str], values: flags.FlagValues, own: Collection[str] = ()
) -> UserError:
    """The error for the user in what parsing the flags raised.

    A fault within a config file is a mistake (`UserError`); one of the flags is wrong usage.

    Args:
      error: what was raised.
      argv: the arguments.
      values: the flags, parsed as far as it went.
      own: names of the flags to suggest.
    """
    told = [each for each in causes(error) if isinstance(each, UserError)]
    if told:
        return UsageError(str(told[-1]))  # what wraps it quotes it with a traceback
    place = fault_in_config(error, argv)
    if place:
        return UserError(place)
    keys = _config_keys(values)
    for argument in argv[1:]:
        name, has_value, value = argument.partition("=")
        if not name.startswith(OVERRIDE):
            continue
        key = name.removeprefix(OVERRIDE)
        sections = {each.rpartition(".")[0] for each in keys} - {""}
        if key in sections:
            below = ", ".join(f"{OVERRIDE}{each}" for each in keys if each.startswith(f"{key}."))
            return UsageError(f"{name} is a section; expected one of its keys: {below}")
        if key in GONE:
            return UsageError(f"{name}: {told_gone(key)}")
        if key not in keys:
            return UsageError(
                f"{name}: there is no such key{did_you_mean(key, keys, OVERRIDE)}; all stand in"
                " what `bsjax configs NAME` prints"
            )
        if argument in str(error) and has_value:
            return UsageError(f"{name}={value}: expected {expected_of(key)}; set {name}")
    if isinstance(error, flags.UnrecognizedFlagError):
        names = [*own, *(f"config.{key}" for key in keys)]
        suggestion = did_you_mean(error.flagname, names, "--")
        return UsageError(f"--{error.flagname}: there is no such flag{suggestion}")
    if isinstance(error, flags.IllegalFlagValueError):
        for argument in argv[1:]:
            name, _, value = argument.lstrip("-").partition("=")
            if name in values and f"--{name}={value}" in str(error):
                expected = values[name].parser.syntactic_help or "another value"
                return UsageError(f"--{name}={value}: expected {expected}; set --{name}")
    text = " ".join(str(error).replace("\\n", " ").split())
    return UsageError(text or type(error).__name__)


def fault_in_config(error: BaseException, argv: Sequence[str]) -> str:
    """Where a config file goes wrong, and how; "" where none does."""
    paths = [each.removeprefix(CONFIG) for each in argv if each.startswith(CONFIG)]
    files = {os.path.realpath(path.partition(":")[0]) for path in paths}
    for each in causes(error):
        if isinstance(each, SyntaxError):
            line, file = each.lineno, each.filename
        else:
            frames = [
                frame
                for frame in traceback.extract_tb(each.__traceback__)
                if os.path.realpath(frame.filename) in files
            ]
            if not frames:
                continue
            line, file = frames[-1].lineno, frames[-1].filename
        text = each.msg if isinstance(each, SyntaxError) else str(each)
        text = " ".join(text.split())[:LONGEST]
        missed = NO_KEY.match(text)
        gone = [key for key in GONE if missed and key.endswith(f".{missed[1]}")]
        if gone:
            return f"{file}, line {line}: {gone[0]}: {told_gone(gone[0])}; mend the config file"
        return f"{file}, line {line}: {type(each).__name__}: {text}; mend the config file"
    for path in paths:
        if "get_config" in str(error) and isinstance(error, AttributeError):
            return (
                f"{path.partition(':')[0]} defines no get_config; expected a config file with"
                ' def get_config(arg=""), as those in configs/ are'
            )
    return ""


def check_config(config: object, argv: Sequence[str]) -> None:
    """Refuses what is no experiment, before anything takes it for one.

    Raises:
      UserError: get_config gave nothing or something else, or cannot read a file; keys lack, or
        are of before.
    """
    name = next(each for each in argv if each.startswith(CONFIG)).removeprefix(CONFIG)
    file = name.partition(":")[0]
    try:
        keys = set(flatten(config)) if isinstance(config, ml_collections.ConfigDict) else None
        if keys is None:
            config.seed  # noqa: B018  Where reading a file failed, asking for a key says so.
    except OSError as error:
        where = fault_in_config(error, argv) or f"{file}: {error}; mend the config file"
        raise UserError(where) from error
    except AttributeError:
        pass
    if keys is None:
        raise UserError(
            f"{file}: get_config gives {type(config).__name__}, expected an experiment; begin with"
            " cfg = presets.experiment() and end with return cfg"
        )
    gone = [key for key in GONE if key in keys]
    if gone:
        raise UserError(f"{file}: {gone[0]}: {told_gone(gone[0])}; remove it from the config file")
    missing = sorted(set(flatten(presets.experiment())) - keys)
    if missing:
        raise UserError(
            f"{file}: the config lacks {', '.join(missing[:SUGGESTED])}"
            f"{f' and {len(missing) - SUGGESTED} more' if len(missing) > SUGGESTED else ''}; begin"
            " with cfg = presets.experiment()"
        )


def _config_keys(values: flags.FlagValues) -> list[str]:
    """Keys of the config that was named; where it could not be read, of any experiment."""
    config = values["config"].value if "config" in values else None
    return list(flatten(presets.experiment() if config is None else config))
