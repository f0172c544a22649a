"""models/<A>/<B>/ and report/models.csv: how generated sets differ, read and written here alone.

concepts.parquet, concepts.csv   one row per concept   } columns as `bsjax.results.columns`
report/models.csv                every two sets        } lists them
"""

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from absl import logging

from bsjax.core.artifacts import atomic_path, check_files, or_none, write_manifest
from bsjax.core.errors import UserError
from bsjax.core.paths import AnyPath
from bsjax.core.text import as_cells
from bsjax.results.columns import CORRELATIONS, MOVED_CONCEPTS, make_table, require_columns
from bsjax.results.comparisons import read_stored
from bsjax.results.measures import write_table
from bsjax.results.statistics import Statistics
from bsjax.stats.models import Correlation

CONCEPTS, CELLS, MATRIX = "concepts.parquet", "concepts.csv", "models.csv"


def folder_of(workdir: AnyPath, first: str, second: str) -> AnyPath:
    """Where the comparison of a generated set with another one lies."""
    return workdir / "models" / first / second


def write_moved(
    folder: AnyPath, concepts: pa.Table, manifest: Mapping[str, Any], parents: Mapping[str, str]
) -> dict[str, Any]:
    """Writes the comparison of two generated sets and finishes its folder; its manifest."""
    table = require_columns(concepts, MOVED_CONCEPTS)
    write_table(folder / CONCEPTS, table)
    with atomic_path(folder / CELLS) as temporary:
        pa_csv.write_csv(as_cells(table), temporary)
    return write_manifest(folder, stage="compare", parents=parents, **manifest)


def read_moved(folder: AnyPath, manifest: Mapping[str, Any]) -> pa.Table:
    """The concepts of a finished comparison of two generated sets.

    Raises:
      UserError: they are not what was written.
    """
    check_files(folder, manifest, (CONCEPTS,))
    return pq.read_table(folder / CONCEPTS)


def read_all_statistics(workdir: AnyPath, names: Iterable[str]) -> dict[str, Statistics | str]:
    """Set -> what its comparison was made from; why not, where it keeps none or it is damaged."""
    found: dict[str, Statistics | str] = {}
    for name in names:
        try:
            found[name] = read_stored(workdir / "comparisons" / name)[0]
        except UserError as error:
            logging.warning("%s cannot be correlated: %s", name, error)
            found[name] = str(error).replace(f"{workdir}/", "")
    return found


def write_matrix(folder: AnyPath, matrix: Mapping[tuple[str, str], Correlation]) -> None:
    """Writes models.csv: a row for every two sets and for each with itself."""
    rows = [
        {"a": a, "b": b, **found._asdict()}
        | {f"reliability_{arm}": value for arm, value in zip("ab", found.reliability, strict=True)}
        for (a, b), found in matrix.items()
    ]
    values = {column.name: [or_none(row[column.name]) for row in rows] for column in CORRELATIONS}
    with atomic_path(folder / MATRIX) as temporary:
        pa_csv.write_csv(as_cells(make_table(CORRELATIONS, values)), temporary)
