"""measures/<set>/ranking-<concept>.csv: captions ranked by a concept, written here alone."""

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.csv as pa_csv

from bsjax.core.artifacts import atomic_path
from bsjax.core.paths import AnyPath
from bsjax.core.text import as_cells
from bsjax.results.columns import RANKING, require_columns


def write_ranking(
    folder: AnyPath, concept: int, columns: Mapping[str, Sequence[str | float]]
) -> AnyPath:
    """Writes a ranking, first row first; returns the file's path.

    Args:
      folder: of the measured set.
      concept: by which captions are ranked.
      columns: as `bsjax.results.columns.RANKING`.
    """
    path = folder / f"ranking-{concept}.csv"
    table = require_columns(pa.table(dict(columns)), RANKING)
    with atomic_path(path) as temporary:
        pa_csv.write_csv(as_cells(table), temporary)
    return path
