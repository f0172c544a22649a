"""overcomplete 0.3.0, where it is installed, without the parts of it that the tests do not use.

pip install --no-deps overcomplete==0.3.0 einops
"""

import importlib.util
import sys
import types

import pytest


def load() -> types.ModuleType:
    """`overcomplete.sae`.

    Raises:
      ModuleNotFoundError: it is not installed.
    """
    if "overcomplete.sae" in sys.modules:
        return sys.modules["overcomplete.sae"]
    spec = importlib.util.find_spec("overcomplete")
    if spec is None:
        raise ModuleNotFoundError(
            "overcomplete is not there: pip install --no-deps overcomplete==0.3.0 einops"
        )
    package = types.ModuleType("overcomplete")
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules["overcomplete"] = package
    unused = types.ModuleType("overcomplete.optimization")
    unused.batched_matrix_nnls = None
    sys.modules["overcomplete.optimization"] = unused
    import overcomplete.sae

    return overcomplete.sae


def load_or_skip() -> types.ModuleType:
    """As `load`; skips the test that asks for it where it is not installed."""
    try:
        return load()
    except ModuleNotFoundError as error:
        pytest.skip(str(error))
