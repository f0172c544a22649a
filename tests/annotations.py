"""How annotations are read when tests check them: as type checkers read them."""

import inspect

from beartype import BeartypeConf, beartype

# PEP 484: an int is a float, too.
checked = beartype(conf=BeartypeConf(is_pep484_tower=True))


def unchecked(function):
    """As a user without a type checker calls it, who is to be told of a mistake in words."""
    return inspect.unwrap(function)
