"""The artifacts of one comparison, read for a page: rankings, captions, top images."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from bsjax.core.paths import AnyPath
from bsjax.results.comparisons import Compared, read_compared
from bsjax.results.measures import Measured
from bsjax.stats import verdicts


class Comparison(NamedTuple):
    """One generated set against the real one."""

    name: str
    columns: dict[str, np.ndarray]  # of concepts.parquet, [K] each
    datapoints: list[dict[str, Any]]  # every pair, memorised first
    manifest: dict[str, Any]
    real: Measured
    generated: Measured

    @property
    def form(self) -> str:
        """Form and temperature of delta, to stand beside every delta shown."""
        settings = self.manifest["config"]
        return f"{settings['compare.form']}, T = {settings['compare.temperature']:g}"


class Ranking(NamedTuple):
    """Concepts to show under one heading."""

    title: str
    kind: str
    concepts: list[int]
    n_found: int  # concepts with the verdict; 0: the strongest others are shown instead


def read_comparisons(workdir: AnyPath, names: Iterable[str]) -> list[Comparison]:
    """Reads comparisons/<name>/ of each and the measures of all arms, the real one once.

    Raises:
      UserError: an artifact is missing, not what its stage wrote, or of other measures.
    """
    real, comparisons = None, []
    for name in names:
        compared = read_compared(workdir, name, real)
        real = compared.real
        comparisons.append(as_shown(compared))
    return comparisons


def as_shown(compared: Compared) -> Comparison:
    """A comparison as a page shows it: columns as arrays, pairs as rows."""
    table = compared.concepts
    columns = {column: np.array(table[column].to_pylist()) for column in table.column_names}
    return Comparison(
        compared.name,
        columns,
        compared.pairs.to_pylist(),
        dict(compared.manifest),
        compared.real,
        compared.generated,
    )


def rank(comparison: Comparison, n_concepts: int) -> list[Ranking]:
    """The most suppressed and the most exaggerated concepts, strongest first.

    Where no concept has the verdict, the strongest of those with enough data stand in, so that a
    reader sees what there is; the title says that none is significant.
    """
    columns = comparison.columns
    judged = columns["verdict"] != verdicts.NOT_ENOUGH_DATA
    rankings = []
    for kind, sign in ((verdicts.SUPPRESSED, 1), (verdicts.EXAGGERATED, -1)):
        found = columns["verdict"] == kind
        side = judged & (sign * (columns["delta"] - 0.5) < 0)
        n_found = int(found.sum())
        pool = np.flatnonzero(found if n_found else side)
        order = np.lexsort((-np.abs(columns["difference"][pool]), sign * columns["delta"][pool]))
        concepts = pool[order][:n_concepts].tolist()
        title = f"Most {kind}" if n_found else f"None significantly {kind}"
        if concepts and not n_found:
            title += "; the strongest shifts"
        rankings.append(Ranking(title, kind, concepts, n_found))
    return rankings
