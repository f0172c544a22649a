"""The map of the system: which stage reads and writes what, and which settings it obeys.

`python -m bsjax.pipeline` (or `bsjax pipeline`) prints it. `bsjax run` walks it from top to bottom;
`bsjax STAGE` runs one row.
"""

import importlib
import sys
from collections.abc import Callable
from typing import NamedTuple

import ml_collections

from bsjax.core.paths import AnyPath

StageFunction = Callable[[ml_collections.ConfigDict, AnyPath], None]


class Stage(NamedTuple):
    """One verb.

    `config_keys` name the settings that decide its result, `sections` the parts of a config that it
    reads at all: those alone are validated.
    """

    name: str
    reads: str
    writes: str
    config_keys: tuple[str, ...]
    module: str
    does: str = ""  # for the help
    sections: tuple[str, ...] = ()
    needs_images: bool = False  # whether it reads images, so that paths must be set
    reads_stored: bool = False  # whether the workdir says its config where none is given
    is_shared: bool = False  # whether several hosts work on it; else one does, and others wait

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
        does="draws an image for each caption",
        sections=("mesh", "real", "generator"),
        needs_images=True,
        is_shared=True,
    ),
    Stage(
        name="train_sae",
        reads="images of both arms",
        writes="sae/",
        config_keys=("seed", "encoder", "train"),
        module="bsjax.stages.train_sae",
        does="trains an RA-SAE on tokens of the images",
        sections=("mesh", "real", "generated", "generator", "encoder", "sae", "train"),
        needs_images=True,
        is_shared=True,
    ),
    Stage(
        name="measure",
        reads="images of both arms, encoder, sae",
        writes="measures/<set>/",
        config_keys=("encoder", "sae.threshold", "measure.top_images"),
        module="bsjax.stages.measure",
        does="encodes images and sums up what each concept shows",
        sections=("mesh", "real", "generated", "generator", "encoder", "sae", "train", "measure"),
        needs_images=True,
        is_shared=True,
    ),
    Stage(
        name="compare",
        reads="measures/real/, measures/<set>/",
        writes="comparisons/<set>/, models/<A>/<B>/, replications/<set>/",
        config_keys=("seed", "compare"),
        module="bsjax.stages.compare",
        does="divergences, their uncertainty and verdicts",
        sections=("real", "generated", "generator", "compare"),
        reads_stored=True,
    ),
    Stage(
        name="report",
        reads="measures/, comparisons/",
        writes="report/",
        config_keys=(),
        module="bsjax.stages.report",
        does="the explorer, figures and tables of all comparisons",
        sections=("sae", "report"),
        reads_stored=True,
    ),
)
RUN = Stage(
    "run",
    "captioned images",
    "all of the above",
    (),
    "bsjax.stages.run",
    does="all of these in order; what is finished is not repeated",
    sections=tuple(dict.fromkeys(section for stage in STAGES for section in stage.sections)),
    needs_images=True,
    is_shared=True,
)
PLAN = Stage(
    "plan",
    "the config alone",
    "plan.json",
    (),
    "bsjax.stages.plan",
    does="what a stage costs on TPUs that are not there",
    sections=("mesh", "real", "generator", "encoder", "train", "measure", "plan"),
)
CONVERT = Stage(
    "convert",
    "generator, sae/",
    "weights/<set>/, sae/overcomplete.safetensors",
    (),
    "bsjax.stages.convert",
    does="converts a generator's weights once; exports a trained SAE",
    sections=("generator",),
)
POWER = Stage(
    "power",
    "comparisons/<set>/ of a pilot",
    "nothing: prints a table",
    (),
    "bsjax.stages.power",
    does="how many captions it takes to call a change, from a pilot comparison",
)
STRESS = Stage(
    "stress",
    "comparisons/<set>/, captions, generator, encoder, sae",
    "stress/<set>/<finding>/",
    ("seed", "generator", "encoder", "sae.threshold"),
    "bsjax.stages.stress",
    does="asks for a finding again and again: how often is it drawn?",
    sections=("mesh", "real", "generated", "generator", "encoder", "sae", "train", "measure"),
    needs_images=True,
    is_shared=True,
)
EXPLORE = Stage(
    "explore",
    "report/",
    "nothing: serves it",
    (),
    "bsjax.stages.explore",
    does="serves the report to a browser",
)
INGEST = Stage(
    "ingest",
    "a table of addresses and captions",
    "ingested/",
    (),
    "bsjax.stages.ingest",
    does="fetches a random sample of captioned images that a table lists",
)
PUSH = Stage(
    "push",
    "sae/, comparisons/, models/, replications/, report/",
    "a repository of the Hugging Face hub",
    (),
    "bsjax.stages.push",
    does="sends results to the Hugging Face hub, with a model card",
)
PULL = Stage(
    "pull",
    "a repository of the Hugging Face hub",
    "what `push` sent",
    (),
    "bsjax.stages.pull",
    does="fetches pushed results into a workdir",
)
BY_NAME = {
    stage.name: stage
    for stage in (*STAGES, RUN, PLAN, CONVERT, POWER, STRESS, EXPLORE, INGEST, PUSH, PULL)
}

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
