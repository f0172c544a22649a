"""How annotations are read when tests check them."""

import inspect
import pathlib

import numpy as np
from beartype import BeartypeConf, FrozenDict, beartype
from etils import epath

# Numpy's numbers count as Python's, which they can stand for everywhere; an int is a float, too, as
# PEP 484 has it. A path may be one in an object store.
WHOLE = int | np.integer
OVERRIDES = {
    int: WHOLE,
    float: WHOLE | float | np.floating,
    pathlib.Path: pathlib.Path | epath.Path,
}
checked = beartype(conf=BeartypeConf(hint_overrides=FrozenDict(OVERRIDES)))


def unchecked(function):
    """As a user without a type checker calls it, who is to be told of a mistake in words."""
    return inspect.unwrap(function)
