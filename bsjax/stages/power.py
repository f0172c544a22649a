"""power: a pilot comparison -> the captions that it takes to call a change.

Reads comparisons/<set>/ of a workdir; prints a table and writes nothing.
"""

import json
import sys

from etils import epath

from bsjax.analysis.power import Captions, captions_needed
from bsjax.core.artifacts import list_finished
from bsjax.core.errors import UserError, naming
from bsjax.core.paths import AnyPath
from bsjax.results.comparisons import read_concepts, read_stored


def power(
    workdir: AnyPath,
    fold: float,
    share: float = 0.8,
    list_concepts: bool = False,
    as_json: bool = False,
) -> None:
    """Prints the captions needed, for each set that the workdir compares.

    Args:
      workdir: of the pilot.
      fold: the change that shall be called.
      share: of the concepts so changed that shall be called.
      list_concepts: print each concept, too.
      as_json: print JSON, with each concept, instead of text.

    Raises:
      UserError: no comparison there, or a fold or power that cannot be.
    """
    with naming({"fold": "--fold", "power": "--power"}):
        found = [read_pilot(workdir, name, fold, share) for name in list_pilots(workdir)]
    if as_json:
        told = json.dumps({each.name: each.to_json() for each in found}, indent=1) + "\n"
    else:
        parts = [f"{each}{each.list_concepts() if list_concepts else ''}" for each in found]
        told = "\n".join(parts)
    sys.stdout.write(told)
    sys.stdout.flush()


def list_pilots(workdir: AnyPath) -> list[str]:
    """Names of the sets that a workdir compares.

    Raises:
      UserError: there is none.
    """
    folder = epath.Path(workdir) / "comparisons"
    sets = list_finished(folder)
    if not sets:
        raise UserError(f"{folder} holds no finished comparison; run `bsjax compare` first")
    return sets


def read_pilot(workdir: AnyPath, name: str, fold: float, share: float) -> Captions:
    """What one comparison says; as `captions_needed` raises, or as it cannot be read."""
    folder = epath.Path(workdir) / "comparisons" / name
    statistics, _, manifest = read_stored(folder)
    concepts, _ = read_concepts(folder)
    return captions_needed(name, statistics, concepts, manifest, fold, share)
