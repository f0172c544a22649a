"""The verbs: a module for each stage of `bsjax.pipeline`, and for what `bsjax` does beside them."""

import importlib
import importlib.abc
import importlib.machinery
import sys
from types import ModuleType
from typing import Any

# Where these were before they moved to `bsjax.experiment`: scripts of then go on to work.
MOVED = {
    f"{__name__}.{name}": f"bsjax.experiment.{name}"
    for name in (
        "curves", "encoder", "inputs", "preflight", "recipe", "stored", "tokens", "workers",
    )
}  # fmt: skip


class _Moved(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds a module under its old name when it is asked for: most of them bring jax along."""

    def find_spec(self, name: str, *_: Any) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.ModuleSpec(name, self) if name in MOVED else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        module = importlib.import_module(MOVED[spec.name])
        spec.loader_state = module.__spec__  # which the import now replaces
        return module

    def exec_module(self, module: ModuleType) -> None:
        spec = module.__spec__
        if spec is not None:
            module.__spec__ = spec.loader_state


sys.meta_path.append(_Moved())
