"""The one error type that a user's mistake raises: printed as one line, never as a traceback."""


class UserError(ValueError):
    """Something the user can mend: says what was expected, what was got and what to change."""


class Preempted(Exception):
    """The machine is taken away; everything is saved and the same command goes on from there."""
