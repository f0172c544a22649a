"""comparisons/<set>/: how a generated set differs from the real one, read and written here alone.

concepts.parquet, concepts.csv    one row per concept    } columns as `bsjax.results.columns`
findings.parquet                  one row per finding  } lists them
substitutions.parquet             what was drawn instead }
datapoints.parquet                one row per pair     }
statistics.npz                    what it can be made from again, `bsjax.results.statistics`
controls.parquet                  what each control alone moves; where controls were measured
attrition.parquet                 captions of which an image is missing; where any is
duplicates.parquet                near duplicates among the real images, most alike first; not where
                                  patch tokens were not kept
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from bsjax.core.artifacts import REAL, atomic_path, check_files, require_manifest, write_manifest
from bsjax.core.errors import UserError
from bsjax.core.paths import AnyPath
from bsjax.core.text import as_cells
from bsjax.results import columns
from bsjax.results.columns import COMPARED_CONCEPTS, DATAPOINTS, DUPLICATES, require_columns
from bsjax.results.measures import (
    COOCCURRENCE,
    IMAGE_CODES,
    IMAGE_TABLE,
    TOP_IMAGES,
    Measured,
    read_measured,
    write_table,
)
from bsjax.results.statistics import Statistics, read_statistics, write_statistics

CONCEPTS, CELLS, PAIRS = "concepts.parquet", "concepts.csv", "datapoints.parquet"
FINDINGS, REPLACED, STATISTICS = "findings.parquet", "substitutions.parquet", "statistics.npz"
MORE = (FINDINGS, REPLACED, PAIRS)
SHOWN_COLUMNS = 3  # that a message names
KEPT = f".{PAIRS}"
TWINS, CONTROLS, LOST = "duplicates.parquet", "controls.parquet", "attrition.parquet"
# What is shown of a set; all are held to their manifest before any is.
SHOWN = (IMAGE_TABLE, TOP_IMAGES, IMAGE_CODES, COOCCURRENCE)


@dataclasses.dataclass(frozen=True, eq=False)
class Compared:
    """A generated set against the real one.

    Attributes:
      name: of the generated set.
      concepts: one row per concept, columns `bsjax.results.columns.COMPARED_CONCEPTS`.
      findings: what the called concepts tell of, columns `bsjax.results.columns.FINDINGS`.
      substitutions: what was drawn instead, columns `bsjax.results.columns.SUBSTITUTIONS`.
      pairs: one row per pair, most unusually alike first, columns
        `bsjax.results.columns.DATAPOINTS`.
      manifest: config, parents, counts, notes, control, unpaired.
      real: the measured real images; None where codes alone were compared.
      generated: the measured generated images.
      statistics: what it was made from; None where it was read from disk.
      duplicates: near duplicates among the real images of the pairs, columns
        `bsjax.results.columns.DUPLICATES`; None where patch tokens were not kept.
      controls: what each control alone moves, columns `bsjax.results.columns.CONTROL_SHIFTS`; None
        where none was measured.
      attrition: captions of which an image is missing, columns `bsjax.results.columns.ATTRITION`;
        None where none is, or that is not known.
    """

    name: str
    concepts: pa.Table
    findings: pa.Table
    substitutions: pa.Table
    pairs: pa.Table
    manifest: Mapping[str, Any]
    real: Measured | None = None
    generated: Measured | None = None
    statistics: Statistics | None = None
    duplicates: pa.Table | None = None
    controls: pa.Table | None = None
    attrition: pa.Table | None = None


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
    check_files(folder, manifest, [CONCEPTS])
    concepts = _read_concepts(folder)
    check_files(folder, manifest, MORE)
    *more, pairs = (pq.read_table(folder / name) for name in MORE)
    twins, controls, lost = (
        _read_optional(folder, manifest, optional) for optional in (TWINS, CONTROLS, LOST)
    )
    real = real or read_measured(workdir / "measures" / REAL, names=SHOWN)
    generated = read_measured(workdir / "measures" / name, names=SHOWN)
    for arm, measured in ((REAL, real), (name, generated)):
        made_of = manifest["parents"].get(f"measures/{arm}")
        if made_of not in (None, measured.manifest["config_hash"]):
            raise UserError(
                f"{folder} compares another measures/{arm} than the one that is there; run"
                " `bsjax compare --overwrite`"
            )
    return Compared(
        name, concepts, *more, pairs, manifest, real, generated,
        duplicates=twins, controls=controls, attrition=lost,
    )  # fmt: skip


def _read_optional(folder: AnyPath, manifest: Mapping[str, Any], name: str) -> pa.Table | None:
    """A table that not every comparison has."""
    if name not in manifest["files"]:
        return None
    check_files(folder, manifest, (name,))
    return pq.read_table(folder / name)


def read_concepts(folder: AnyPath) -> tuple[pa.Table, dict[str, Any]]:
    """The concepts of a finished comparison, and its manifest.

    Raises:
      UserError: it is not finished, or not what `compare` wrote.
    """
    manifest = require_manifest(folder, "compare")
    check_files(folder, manifest, [CONCEPTS])
    return _read_concepts(folder), manifest


def read_findings(folder: AnyPath) -> tuple[pa.Table, pa.Table]:
    """Findings and substitutions of a finished comparison.

    Raises:
      UserError: it is not finished, or not what `compare` wrote.
    """
    manifest = require_manifest(folder, "compare")
    check_files(folder, manifest, (FINDINGS, REPLACED))
    return pq.read_table(folder / FINDINGS), pq.read_table(folder / REPLACED)


def _read_concepts(folder: AnyPath) -> pa.Table:
    """The table of concepts, if it has the columns of this version."""
    table = pq.read_table(folder / CONCEPTS)
    missing = [c.name for c in COMPARED_CONCEPTS if c.name not in table.column_names]
    if missing:
        raise UserError(
            f"{folder / CONCEPTS} lacks {', '.join(missing[:SHOWN_COLUMNS])}"
            f"{', ...' if missing[SHOWN_COLUMNS:] else ''}: another version of bsjax compared; run"
            " `bsjax compare --overwrite`"
        )
    return table


def read_stored(folder: AnyPath) -> tuple[Statistics, pa.Table, dict[str, Any]]:
    """What a finished comparison was made from, its pairs and its manifest.

    Raises:
      UserError: it is not finished, it keeps no statistics, or they are not what `compare` wrote.
    """
    manifest = require_manifest(folder, "compare")
    if STATISTICS not in manifest["files"]:
        raise UserError(
            f"{folder} keeps no {STATISTICS}: it was made before that was; run `bsjax compare"
            " --config.overwrite` once, from the measures"
        )
    check_files(folder, manifest, (STATISTICS, PAIRS))
    return read_statistics(folder / STATISTICS), pq.read_table(folder / PAIRS), manifest


def restore_pairs(folder: AnyPath) -> None:
    """Puts the pairs back as the manifest knows them, where `keeping_pairs` was killed.

    Raises:
      UserError: the comparison is not finished.
    """
    if not (folder / KEPT).exists():
        return
    try:
        check_files(folder, require_manifest(folder, "compare"), (PAIRS,))
    except UserError:
        (folder / KEPT).replace(folder / PAIRS)
    else:
        (folder / KEPT).unlink()


@contextlib.contextmanager
def keeping_pairs(folder: AnyPath) -> Iterator[None]:
    """While a comparison is written anew from its own pairs, these stay as they were."""
    with atomic_path(folder / KEPT) as temporary:
        temporary.write_bytes((folder / PAIRS).read_bytes())
    yield
    (folder / KEPT).unlink()


def write_compared(folder: AnyPath, compared: Compared) -> None:
    """Writes a comparison and finishes its folder."""
    controlled = () if compared.controls is None else columns.CONTROLLED
    table = require_columns(compared.concepts, (*COMPARED_CONCEPTS, *controlled))
    write_table(folder / CONCEPTS, table)
    with atomic_path(folder / CELLS) as temporary:
        pa_csv.write_csv(as_cells(table), temporary)
    write_table(folder / FINDINGS, require_columns(compared.findings, columns.FINDINGS))
    replaced = require_columns(compared.substitutions, columns.SUBSTITUTIONS)
    write_table(folder / REPLACED, replaced)
    write_table(folder / PAIRS, require_columns(compared.pairs, DATAPOINTS))
    if compared.statistics is not None:
        write_statistics(folder / STATISTICS, compared.statistics)
    if compared.duplicates is not None:
        write_table(folder / TWINS, require_columns(compared.duplicates, DUPLICATES))
    if compared.controls is not None:
        write_table(folder / CONTROLS, require_columns(compared.controls, columns.CONTROL_SHIFTS))
    if compared.attrition is not None:
        write_table(folder / LOST, require_columns(compared.attrition, columns.ATTRITION))
    write_manifest(folder, stage="compare", **compared.manifest)
