"""How annotations are read when tests check them."""

import inspect

import numpy as np
from beartype import BeartypeConf, FrozenDict, beartype

# Numpy's numbers count as Python's, which they can stand for everywhere; an int is a float, too, as
# PEP 484 has it.
WHOLE = int | np.integer
checked = beartype(
    conf=BeartypeConf(hint_overrides=FrozenDict({int: WHOLE, float: WHOLE | float | np.floating}))
)


def unchecked(function):
    """As a user without a type checker calls it, who is to be told of a mistake in words."""
    return inspect.unwrap(function)
