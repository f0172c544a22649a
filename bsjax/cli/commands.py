"""What `bsjax` answers without running a stage: help, version, configs, the map, completion."""

from collections.abc import Sequence

from bsjax import __version__, pipeline
from bsjax.cli import completion, configs, help, launch, reference
from bsjax.cli.arguments import USAGE, read_config
from bsjax.cli.suggestions import did_you_mean
from bsjax.core.errors import UsageError

HELP = ("--help", "-h")
NAMES = (*pipeline.BY_NAME, *help.COMMANDS)


def answer(arguments: Sequence[str]) -> str | None:
    """The text that a command line asks for; None where it names a stage to be run.

    Args:
      arguments: without the program's name.

    Raises:
      UsageError: no such stage or command, or words too many. UserError: a config that is wrong.
    """
    name, *rest = arguments or ["help"]
    if name in HELP:
        name = "help"
    if name == "--version":
        return f"bsjax {__version__}\n"
    if name not in NAMES:
        raise UsageError(
            f"stage {name!r} is unknown{did_you_mean(name, NAMES)}; expected"
            f" {' | '.join(NAMES)}; {USAGE}"
        )
    if any(each in HELP for each in rest):
        return help.of(name)
    if name in pipeline.BY_NAME:
        return None
    return _command(name, rest)


def _command(name: str, rest: Sequence[str]) -> str:
    if len(rest) > (name != "pipeline"):
        raise UsageError(f"unexpected {rest[-1]!r}; usage: bsjax {help.COMMANDS[name][0]}")
    word = rest[0] if rest else ""
    if name == "pipeline":
        return f"{pipeline.describe()}\n"
    if name == "configs":
        word = word.removeprefix("--config=")
        return reference.keys_of(word, read_config(word)) if word else configs.listing()
    if name == "launch":
        return launch.text(word) if word else launch.listing()
    if name == "completion":
        if word not in completion.SHELLS:
            raise UsageError(
                f"completion {word!r}: expected {' or '.join(completion.SHELLS)}; usage: bsjax"
                f" {help.COMMANDS[name][0]}"
            )
        return completion.script(word)
    if word and word not in NAMES:
        raise UsageError(f"stage {word!r} is unknown{did_you_mean(word, NAMES)}; see `bsjax help`")
    return help.of(word) if word and word != "help" else help.overview()
