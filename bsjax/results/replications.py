"""replications/<set>/<other>/: one comparison's verdicts beside those of another SAE.

concepts.parquet    one row per concept, columns `bsjax.results.columns.REPLICATED`

<other> is the name of the other workdir. Reports do not read it.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bsjax.core.artifacts import check_files, require_manifest, write_manifest
from bsjax.core.paths import AnyPath
from bsjax.results.columns import REPLICATED, require_columns
from bsjax.results.measures import write_table

CONCEPTS = "concepts.parquet"
STAGE = "compare"


@dataclasses.dataclass(frozen=True, eq=False)
class Replication:
    """How verdicts hold under another SAE.

    Attributes:
      concepts: one row per concept, columns `bsjax.results.columns.REPLICATED`.
      manifest: config, parents, counts, notes; same_verdict and same_direction: of the suppressed
        and exaggerated concepts that both SAEs judge how many agree, their share with interval,
        and what chance would give.
    """

    concepts: pa.Table
    manifest: Mapping[str, Any]

    def __str__(self) -> str:
        """In one line."""
        counts, same = self.manifest["counts"], self.manifest["same_verdict"]
        text = f"{counts['unmatched']} of {counts['called']} suppressed or exaggerated concepts"
        text += f" have no counterpart ({counts['shown_by_too_few']} show in too few real images to"
        text += f" be matched), {counts['not_judged_there']} one with too few images; of"
        if not same["of"]:
            return f"{text} the others there is none"
        way = self.manifest["same_direction"]
        return (
            f"{text} {same['of']} that both SAEs judge {same['share']:.0%} have the same verdict"
            f" [{same['low']:.0%}, {same['high']:.0%}] (by chance {same['chance']:.0%}),"
            f" {way['share']:.0%} the same direction (by chance {way['chance']:.0%})"
        )


def write_replication(folder: AnyPath, made: Replication) -> None:
    """Writes it and finishes its folder."""
    write_table(folder / CONCEPTS, require_columns(made.concepts, REPLICATED))
    write_manifest(folder, stage=STAGE, **made.manifest)


def read_replication(folder: AnyPath) -> Replication:
    """Reads a finished one.

    Raises:
      UserError: it is not finished, or not what was written.
    """
    manifest = require_manifest(folder, STAGE)
    check_files(folder, manifest, (CONCEPTS,))
    return Replication(pq.read_table(folder / CONCEPTS), manifest)
