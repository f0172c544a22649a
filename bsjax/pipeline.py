"""The map of the system: which stage reads and writes what, and which settings it obeys.

`python -m bsjax.pipeline` (or `bsjax pipeline`) prints it. `bsjax run` walks it from top to bottom;
`bsjax STAGE` runs one row.
"""

import importlib
import pathlib
import sys
from collections.abc import Callable
from typing import NamedTuple

import ml_collections

StageFunction = Callable[[ml_collections.ConfigDict, pathlib.Path], None]


class Stage(NamedTuple):
    """One verb. `config_keys` name the settings that decide its result."""

    name: str
    reads: str
    writes: str
    config_keys: tuple[str, ...]
    module: str

    def load(self) -> StageFunction:
        """Imports the stage's module and returns its function, named as the stage."""
        return getattr(importlib.import_module(self.module), self.name)


STAGES = (
    Stage(
        name="generate",
        reads="captions of the real images, generator",
        writes="images/<set>/",
        config_keys=("seed", "generator"),
        module="bsjax.stages.generate",
    ),
    Stage(
        name="train_sae",
        reads="images of both arms",
        writes="sae/",
        config_keys=("seed", "encoder", "train"),
        module="bsjax.stages.train_sae",
    ),
    Stage(
        name="measure",
        reads="images of both arms, encoder, sae",
        writes="measures/<set>/",
        config_keys=("encoder", "sae.threshold", "measure.top_images"),
        module="bsjax.stages.measure",
    ),
    Stage(
        name="compare",
        reads="measures/real/, measures/<set>/",
        writes="comparisons/<set>/",
        config_keys=("seed", "compare"),
        module="bsjax.stages.compare",
    ),
    Stage(
        name="report",
        reads="measures/, comparisons/",
        writes="report/",
        config_keys=(),
        module="bsjax.stages.report",
    ),
)
RUN = Stage("run", "captioned images", "all of the above", (), "bsjax.stages.run")
PLAN = Stage("plan", "the config alone", "plan.json", (), "bsjax.stages.plan")
CONVERT = Stage(
    "convert",
    "generator, sae/",
    "weights/<set>/, sae/overcomplete.safetensors",
    (),
    "bsjax.stages.convert",
)
EXPLORE = Stage("explore", "report/", "nothing: serves it", (), "bsjax.stages.explore")
BY_NAME = {stage.name: stage for stage in (*STAGES, RUN, PLAN, CONVERT, EXPLORE)}

FLOW = " -> ".join(
    (
        "captions",
        "images",
        "encoder tokens",
        "SAE codes",
        "concept statistics",
        "divergences",
        "report",
    )
)


def describe() -> str:
    """The table as text."""
    rows = [("stage", "reads", "writes", "config")]
    rows += [(s.name, s.reads, s.writes, " ".join(s.config_keys)) for s in BY_NAME.values()]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
    lines.insert(1, "  ".join("-" * w for w in widths))
    return "\n".join([FLOW, "", *(line.rstrip() for line in lines)])


if __name__ == "__main__":
    sys.stdout.write(describe() + "\n")
