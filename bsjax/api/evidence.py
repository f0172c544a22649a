"""How far verdicts carry: under another SAE, and with more captions."""

import dataclasses
import os
import pathlib
from typing import Any

from bsjax.analysis import power as planning
from bsjax.analysis import replication as analysis
from bsjax.analysis.power import Captions
from bsjax.analysis.replication import Judged
from bsjax.api.arguments import naming_arguments
from bsjax.api.comparison import Comparison
from bsjax.api.workdir import Results
from bsjax.core.artifacts import REAL
from bsjax.core.errors import UserError
from bsjax.results.replications import Replication
from bsjax.stages.power import list_pilots
from bsjax.stages.replicate import check_images, read_side


def captions_needed(pilot: Any, fold: float, *, power: float = 0.8, name: str = "") -> Captions:
    """How many captions it takes to call a change of a known fold: `bsjax power`.

    Args:
      pilot: a comparison, or the workdir of one.
      fold: change of a concept's energy that shall be called suppressed or exaggerated.
      power: share of the concepts so changed that shall be called.
      name: of the generated set, where the workdir compares several.

    Returns:
      `bands` by prevalence, `concepts` (a pyarrow.Table), and the table in words (`print`).

    Raises:
      UserError: a fold within the margin, no such power, or no comparison.
    """
    judged = _judged(pilot, name, "pilot")
    parts = judged.statistics, judged.concepts, judged.manifest
    return planning.captions_needed(judged.name, *parts, float(fold), float(power))


def replicate(here: Any, there: Any, *, name: str = "") -> Replication:
    """Do verdicts hold under another SAE? `bsjax compare --replicate`, without writing.

    Args:
      here: a comparison whose verdicts are in question, or the workdir of one.
      there: the comparison of the same images under another SAE, or its workdir.
      name: of the generated set, where a workdir compares several.

    Returns:
      `concepts`, a pyarrow.Table, and `manifest` with the share that replicates; `str` of it is one
      line.

    Raises:
      UserError: other pairs or rules, the same comparison, or none.
    """
    sides = [_judged(source, name, what) for source, what in ((here, "here"), (there, "there"))]
    is_one = here is there
    if not any(isinstance(source, Comparison) for source in (here, there)):
        folders = [pathlib.Path(side.name) for side in sides]
        is_one = folders[0] == folders[1]
        for arm in {REAL, *(folder.name for folder in folders)}:
            check_images(arm, arm, *(folder.parents[1] for folder in folders))
    if is_one:
        raise UserError(
            "{here} and {there} are one comparison; give {there} of another SAE", "here", "there"
        )
    if sides[0].name == sides[1].name:
        sides = [
            dataclasses.replace(side, name=f"{side.name} ({what})")
            for side, what in zip(sides, ("here", "there"), strict=True)
        ]
    return analysis.replicate(*sides)


def _judged(source: Any, name: str, what: str) -> Judged:
    """A comparison with its statistics, wherever it is."""
    if isinstance(source, Comparison):
        if source.statistics is None:
            raise UserError(
                f"{{{what}}} was read from a workdir and holds no codes; give the workdir instead",
                what,
            )
        return Judged(source.name, source.statistics, source.concepts, source.manifest)
    if isinstance(source, Results):
        source = source.workdir
    if not isinstance(source, str | os.PathLike):
        raise UserError(
            f"{{{what}}} is a {type(source).__name__}; give a comparison or a workdir", what
        )
    workdir = pathlib.Path(source).expanduser().resolve()
    with naming_arguments():
        sets = list_pilots(workdir)
    if not name and len(sets) == 1:
        name = sets[0]
    if name not in sets:
        raise UserError(
            f"{workdir} holds no comparison {{name}}={name!r}; set it to one of {', '.join(sets)}",
            "name",
        )
    return read_side(workdir / "comparisons" / name)
