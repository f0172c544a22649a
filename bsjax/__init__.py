"""bsjax: conceptual blindspots of text-to-image models, in JAX."""

from typing import Any

__version__ = "0.1.0"


def show(workdir: Any, height: int = 860) -> Any:
    """Shows a workdir's explorer in a notebook; see `bsjax.stages.explore.show`."""
    from bsjax.stages.explore import show as show_explorer

    return show_explorer(workdir, height)
