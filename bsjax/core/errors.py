"""The errors that end a run with one line, and the exit statuses, which scripts rely on.

0 done; 1 a mistake told in one line; 2 a command line that makes no sense; 3 a gate that failed
(benchmarks); 75 stopped early, and the same command goes on from there; 130 interrupted.
"""

from bsjax.core.foreign import printable

DONE, MISTAKE, WRONG_USAGE, GATE_FAILED, STOPPED, INTERRUPTED = 0, 1, 2, 3, 75, 130


class UserError(ValueError):
    """Something the user can mend: says what was expected, what was got and what to change.

    A terminal can show it, whatever names and captions are quoted in it.
    """

    def __init__(self, message: object = ""):
        super().__init__(printable(message, keep="\n"))


class UsageError(UserError):
    """The command line itself makes no sense."""


class Preempted(BaseException):
    """The machine is taken away; everything is saved and the same command goes on from there.

    Like KeyboardInterrupt no `Exception`: it may come anywhere, and code that survives what is
    wrong with an image or a file must not take it for that.
    """
