"""The artifacts of one comparison, read for a page: rankings, captions, top images."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from bsjax.core.paths import AnyPath
from bsjax.report.said import Told, tell
from bsjax.results.comparisons import Compared, read_compared
from bsjax.results.measures import Measured
from bsjax.stats import verdicts


class Comparison(NamedTuple):
    """One generated set against the real one."""

    name: str
    columns: dict[str, np.ndarray]  # of concepts.parquet, [K] each
    datapoints: list[dict[str, Any]]  # every pair, most unusually alike first
    manifest: dict[str, Any]
    real: Measured
    generated: Measured
    duplicates: Sequence[dict[str, Any]] = ()  # near ones among the real images
    findings: Sequence[dict[str, Any]] = ()  # rows of findings.parquet
    substitutions: Sequence[dict[str, Any]] = ()  # rows of substitutions.parquet

    @property
    def has_patches(self) -> bool:
        """Whether patch tokens say how alike pairs are; else their codes alone do."""
        return bool(self.datapoints) and self.datapoints[0].get("patch_similarity") is not None

    @property
    def is_paired(self) -> bool:
        """Whether a generated image has a real counterpart."""
        return self.manifest.get("pairing", {}).get("by") != "lot"

    @property
    def told(self) -> list[Told]:
        """The findings in words, those first whose change is the largest beyond doubt."""
        settings, lost = self.manifest["config"], self.manifest.get("attrition")
        return tell(self.findings, self.substitutions, self.columns, settings, lost)

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
    columns["near"] = _near(columns)
    return Comparison(
        compared.name,
        columns,
        compared.pairs.to_pylist(),
        dict(compared.manifest),
        compared.real,
        compared.generated,
        [] if compared.duplicates is None else compared.duplicates.to_pylist(),
        compared.findings.to_pylist(),
        compared.substitutions.to_pylist(),
    )


def _near(columns: dict[str, np.ndarray]) -> np.ndarray:
    """The end of each interval that is nearer to no change [K]; 0 where no change is inside."""
    near = verdicts.near_end(columns["log_ratio"], columns["low"], columns["high"])
    return np.where(near * columns["log_ratio"] < 0, 0.0, near)


class Pair(NamedTuple):
    """One image that shows a concept most, and its counterpart."""

    slot: int  # among the concept's top images
    row: int  # of the image
    other: int  # row of its counterpart; -1: images of this comparison have none


def top_pairs(comparison: Comparison, concept: int, verdict: str, n: int) -> list[Pair]:
    """Pairs whose image shows a concept most, strongest first, one of each caption.

    Of a suppressed concept these are real images and what was generated for their captions; of an
    exaggerated one generated images and the real ones of their captions.
    """
    names, arm = ("row_real", "row_generated"), comparison.real
    if verdict == verdicts.EXAGGERATED:
        names, arm = names[::-1], comparison.generated
    captions = comparison.real.captions
    found, seen = [], set()
    rows = arm.top_rows[concept].tolist()
    if not comparison.is_paired:
        return [Pair(slot, row, -1) for slot, row in enumerate(rows) if row >= 0][:n]
    pairs = {pair[names[0]]: pair for pair in comparison.datapoints if pair[names[0]] in set(rows)}
    for slot, row in enumerate(rows):
        if row not in pairs:
            continue
        caption = captions[pairs[row]["row_real"]] or pairs[row]["key"]
        if caption not in seen and len(found) < n:
            seen.add(caption)
            found.append(Pair(slot, row, pairs[row][names[1]]))
    return found


def rank(comparison: Comparison, n_concepts: int) -> list[Ranking]:
    """The most suppressed and the most exaggerated concepts, by the near end of the interval.

    Where no concept has the verdict, the strongest of those with enough data that are not aligned
    stand in, so that a reader sees what there is; the title says that none is established.
    """
    columns = comparison.columns
    may_stand_in = ~np.isin(columns["verdict"], (verdicts.ALIGNED, verdicts.NOT_ENOUGH_DATA))
    rankings = []
    for kind, sign in ((verdicts.SUPPRESSED, 1), (verdicts.EXAGGERATED, -1)):
        found = columns["verdict"] == kind
        side = may_stand_in & (sign * columns["log_ratio"] < 0)
        n_found = int(found.sum())
        pool = np.flatnonzero(found if n_found else side)
        order = np.lexsort((-np.abs(columns["difference"][pool]), sign * columns["near"][pool]))
        concepts = pool[order][:n_concepts].tolist()
        title = f"Most {kind}" if n_found else f"None established as {kind}"
        if concepts and not n_found:
            title += "; the strongest shifts"
        rankings.append(Ranking(title, kind, concepts, n_found))
    return rankings
