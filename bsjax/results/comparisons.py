"""comparisons/<set>/: how a generated set differs from the real one, read and written here alone.

concepts.parquet, concepts.csv    one row per concept    } columns as `bsjax.results.columns`
datapoints.parquet                one row per pair       } lists them
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from bsjax.core.artifacts import REAL, atomic_path, check_files, require_manifest, write_manifest
from bsjax.core.errors import UserError
from bsjax.core.paths import AnyPath
from bsjax.core.text import as_cells
from bsjax.results.columns import COMPARED_CONCEPTS, DATAPOINTS, require_columns
from bsjax.results.measures import (
    COOCCURRENCE,
    IMAGE_CODES,
    IMAGE_TABLE,
    TOP_IMAGES,
    Measured,
    read_measured,
    write_table,
)

CONCEPTS, CELLS, PAIRS = "concepts.parquet", "concepts.csv", "datapoints.parquet"
# What is shown of a set; all are held to their manifest before any is.
SHOWN = (IMAGE_TABLE, TOP_IMAGES, IMAGE_CODES, COOCCURRENCE)


@dataclasses.dataclass(frozen=True, eq=False)
class Compared:
    """A generated set against the real one.

    Attributes:
      name: of the generated set.
      concepts: one row per concept, columns `bsjax.results.columns.COMPARED_CONCEPTS`.
      pairs: one row per pair, most alike first, columns `bsjax.results.columns.DATAPOINTS`.
      manifest: config, parents, counts, notes, control, unpaired.
      real: the measured real images; None where codes alone were compared.
      generated: the measured generated images.
    """

    name: str
    concepts: pa.Table
    pairs: pa.Table
    manifest: Mapping[str, Any]
    real: Measured | None = None
    generated: Measured | None = None


def read_compared(workdir: AnyPath, name: str, real: Measured | None = None) -> Compared:
    """Reads comparisons/<name>/ and the measures of both sets.

    Args:
      workdir: of a run.
      name: of the generated set.
      real: the real set, where it was read before.

    Raises:
      UserError: an artifact is missing, not what its stage wrote, or of other measures.
    """
    folder = workdir / "comparisons" / name
    manifest = require_manifest(folder, "compare")
    check_files(folder, manifest, (CONCEPTS, PAIRS))
    concepts, pairs = pq.read_table(folder / CONCEPTS), pq.read_table(folder / PAIRS)
    real = real or read_measured(workdir / "measures" / REAL, names=SHOWN)
    generated = read_measured(workdir / "measures" / name, names=SHOWN)
    for arm, measured in ((REAL, real), (name, generated)):
        made_of = manifest["parents"].get(f"measures/{arm}")
        if made_of not in (None, measured.manifest["config_hash"]):
            raise UserError(
                f"{folder} compares another measures/{arm} than the one that is there; run"
                " `bsjax compare --overwrite`"
            )
    return Compared(name, concepts, pairs, manifest, real, generated)


def read_concepts(folder: AnyPath) -> tuple[pa.Table, dict[str, Any]]:
    """The concepts of a finished comparison, and its manifest.

    Raises:
      UserError: it is not finished, or not what `compare` wrote.
    """
    manifest = require_manifest(folder, "compare")
    check_files(folder, manifest, [CONCEPTS])
    return pq.read_table(folder / CONCEPTS), manifest


def write_compared(folder: AnyPath, compared: Compared) -> None:
    """Writes a comparison and finishes its folder."""
    table = require_columns(compared.concepts, COMPARED_CONCEPTS)
    write_table(folder / CONCEPTS, table)
    with atomic_path(folder / CELLS) as temporary:
        pa_csv.write_csv(as_cells(table), temporary)
    write_table(folder / PAIRS, require_columns(compared.pairs, DATAPOINTS))
    write_manifest(folder, stage="compare", **compared.manifest)
