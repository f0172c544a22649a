"""The errors that end a run with one line, and the exit statuses, which scripts rely on.

0 done; 1 a mistake told in one line; 2 a command line that makes no sense; 3 a gate that failed
(`bsjax compare --gate`, benchmarks); 75 stopped early, and the same command goes on from there; 130
interrupted.
"""

import contextlib
from collections.abc import Iterator, Mapping

from bsjax.core.foreign import printable

DONE, MISTAKE, WRONG_USAGE, GATE_FAILED, STOPPED, INTERRUPTED = 0, 1, 2, 3, 75, 130


class UserError(ValueError):
    """Something the user can mend: says what was expected, what was got and what to change.

    A terminal can show it, whatever names and captions are quoted in it.

    Args:
      message: one line. `{name}` in it stands for the argument of that name, where `fields` has it.
      *fields: names of the arguments at fault. A library's caller reads them as they are; a command
        names the flags instead (`naming`).
    """

    def __init__(self, message: object = "", *fields: str):
        self.template, self.fields = str(message), fields
        text = self.template
        for field in fields:
            text = text.replace(f"{{{field}}}", field)
        super().__init__(printable(text, keep="\n"))

    @property
    def field(self) -> str:
        """The first of the arguments at fault; "" where none is named."""
        return self.fields[0] if self.fields else ""

    def named(self, names: Mapping[str, str]) -> "UserError":
        """The same error with other names for some of its arguments.

        Args:
          names: field, or text of the message with a dash or a dot (a flag, a key of the config)
            -> what to write instead.
        """
        text = self.template
        for field in self.fields:
            text = text.replace(f"{{{field}}}", f"{{{names.get(field, field)}}}")
        texts = (name for name in names if name not in self.fields and set(name) & set("-."))
        for old in sorted(texts, key=len, reverse=True):
            text = text.replace(old, names[old])
        return type(self)(text, *(names.get(field, field) for field in self.fields))


@contextlib.contextmanager
def naming(names: Mapping[str, str]) -> Iterator[None]:
    """Within the block, errors name arguments as `names` says; see `UserError.named`."""
    try:
        yield
    except UserError as error:
        raise error.named(names).with_traceback(error.__traceback__) from error.__cause__


class UsageError(UserError):
    """The command line itself makes no sense."""


class GateFailed(UserError):
    """What was to be at least as good is worse."""


class Preempted(BaseException):
    """The machine is taken away; everything is saved and the same command goes on from there.

    Like KeyboardInterrupt no `Exception`: it may come anywhere, and code that survives what is
    wrong with an image or a file must not take it for that.
    """
