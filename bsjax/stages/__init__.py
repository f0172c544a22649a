"""The verbs: a module for each stage of `bsjax.pipeline`, and for what `bsjax` does beside them."""

import sys

from bsjax.experiment import curves, encoder, inputs, preflight, recipe, stored, tokens, workers

# Where these were before they moved to `bsjax.experiment`: scripts of then go on to work.
for _module in (curves, encoder, inputs, preflight, recipe, stored, tokens, workers):
    sys.modules[f"{__name__}.{_module.__name__.rpartition('.')[2]}"] = _module
