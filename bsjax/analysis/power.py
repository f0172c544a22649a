"""A pilot comparison -> how many captions it takes to call a change, in a table and in words."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from bsjax.core.errors import UserError
from bsjax.results.statistics import Statistics
from bsjax.stats import power, verdicts
from bsjax.stats.sums import sum_pairs

FIELDS = ("low", "high", "concepts", "prevalence", "suppressed", "exaggerated", "ready")
HEADINGS = ("shown by", "concepts", "median", "if suppressed", "if exaggerated", "enough already")
PER = 100  # images; rarer concepts are "1 in"


@dataclasses.dataclass(frozen=True, eq=False)
class Captions:
    """Captions that it takes to call a change, as a pilot tells.

    Attributes:
      name: of the pilot's generated set.
      captions: of the pilot; repeated ones count once.
      fold: the change.
      power: share of such concepts that are called.
      margin, fdr: of the verdicts.
      concepts: pyarrow.Table, one row per concept: concept, words, prevalence (share of the pilot's
        real images that show it), suppressed and exaggerated (captions needed if it changed so;
        null where no real image shows it), level (largest p that would be called then).
      bands: dicts, one for each range of prevalence: low, high, concepts, prevalence (median),
        suppressed, exaggerated (captions, of the median concept), ready (concepts for which the
        pilot has enough captions, if they are suppressed).
      unseen: concepts that no real image of the pilot shows.
      unseen_below: their prevalence is below this at 95 %.
      unseen_above: they need more captions than this if suppressed; None where nothing is seen.
    """

    name: str
    captions: int
    fold: float
    power: float
    margin: float
    fdr: float
    concepts: pa.Table
    bands: list[dict[str, Any]]
    unseen: int
    unseen_below: float
    unseen_above: float | None

    def to_json(self) -> dict[str, Any]:
        """Everything as a dict of JSON's types."""
        found = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return found | {"concepts": self.concepts.to_pylist()}

    def __str__(self) -> str:
        """The table of bands, in plain words."""
        rows = [HEADINGS]
        for band in self.bands:
            counts = (band["suppressed"], band["exaggerated"])
            rows.append(
                (
                    f"{_share(band['low'])} to {_share(band['high'])}",
                    f"{band['concepts']:,}",
                    _share(band["prevalence"]),
                    *(f"{_round(n):,}" for n in counts),
                    f"{band['ready']:,}",
                )
            )
        widths = [max(len(row[i]) for row in rows) for i in range(len(HEADINGS))]
        table = [
            "  ".join(
                [row[0].ljust(widths[0])]
                + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
            )
            for row in rows
        ]
        lines = [
            f"{self.name}: captions it takes to call a {self.fold:g}-fold change with"
            f" {self.power:.0%} power",
            f"pilot of {self.captions:,} captions; margin {self.margin:g}-fold, false discovery"
            f' rate {self.fdr:.0%}; "shown by" is of its real images',
            "",
            *table,
        ]
        if self.unseen:
            above = ""
            if self.unseen_above is not None:
                above = (
                    f" Each needs more than {_round(self.unseen_above):,} captions if suppressed;"
                    " how many, this pilot cannot tell."
                )
            lines += [
                "",
                f"no fires: {self.unseen:,} concepts show in no real image of the pilot, so in"
                f" fewer than 1 in {math.floor(1 / self.unseen_below):,} (95 %).{above}",
            ]
        return "\n".join(lines) + "\n"

    def list_concepts(self) -> str:
        """Every concept on a line: number, prevalence, captions if suppressed and exaggerated."""
        lines = ["", "concept  shown by  if suppressed  if exaggerated  words"]
        for row in self.concepts.to_pylist():
            counts = [
                "not known" if row[name] is None else f"{row[name]:,}"
                for name in ("suppressed", "exaggerated")
            ]
            shown = _share(row["prevalence"]) if row["prevalence"] else "no fires"
            lines.append(
                f"{row['concept']:>7}  {shown:>8}  {counts[0]:>13}  {counts[1]:>14}"
                f"  {row['words']}".rstrip()
            )
        return "\n".join(lines) + "\n"


def captions_needed(
    name: str,
    statistics: Statistics,
    concepts: pa.Table,
    manifest: Mapping[str, Any],
    fold: float,
    share: float,
) -> Captions:
    """What a pilot says of a comparison of more captions.

    Args:
      name: of the generated set.
      statistics: of the pilot.
      concepts: its table.
      manifest: of it.
      fold: the change that shall be called.
      share: of the concepts so changed that shall be called.

    Raises:
      UserError: a fold that no number of captions calls, or a power that cannot be.
    """
    config, counts = manifest["config"], manifest["counts"]
    margin, fdr = float(config["compare.margin"]), float(config["compare.fdr"])
    if not (math.isfinite(fold) and fold > 1):
        raise UserError(f"{{fold}}={fold:g}: expected a change above 1; set it so", "fold")
    if fold <= margin:
        raise UserError(
            f"{{fold}}={fold:g} lies within the margin: no number of captions calls a concept"
            f" suppressed or exaggerated that changed by {margin:g}-fold or less; choose a larger"
            " {fold}, or compare by a smaller compare.margin",
            "fold",
        )
    if not 0 < share < 1:
        raise UserError(f"{{power}}={share:g}: expected above 0 and below 1; set it so", "power")
    n_rows = statistics.real.shape[0]
    tested = float(config.get("compare.confirm") or 1.0)
    # Of a comparison of some of the pairs the statistics hold all.
    captions = round(n_rows * counts["clusters"] / counts["pairs"] / tested)
    verdict = np.array(concepts["verdict"].to_pylist(), object)
    n_judged = int((verdict != verdicts.NOT_ENOUGH_DATA).sum())
    called = int(np.isin(verdict, verdicts.CALLED).sum()) / max(n_judged, 1)
    pilot = power.learn(
        sum_pairs(statistics.real, statistics.generated),
        captions=captions, called=called, margin=margin, fdr=fdr, tested=tested,
    )  # fmt: skip
    need = power.captions_needed(pilot, fold, share)
    is_unseen = np.isnan(need.suppressed)
    table = {"concept": concepts["concept"], "words": statistics.words}
    table["prevalence"] = pilot.prevalence
    for column in ("suppressed", "exaggerated"):
        values = np.where(is_unseen, 0, getattr(need, column)).astype(np.int64)
        table[column] = pa.array(values, mask=is_unseen)
    table["level"] = pa.array(need.level, mask=is_unseen)
    return Captions(
        name=name,
        captions=captions,
        fold=fold,
        power=share,
        margin=margin,
        fdr=fdr,
        concepts=pa.table(table),
        bands=[{field: getattr(band, field) for field in FIELDS} for band in need.bands],
        unseen=need.unseen,
        unseen_below=need.unseen_below,
        unseen_above=None if np.isnan(need.unseen_above) else need.unseen_above,
    )


def _share(prevalence: float) -> str:
    if prevalence == 0:
        return "0"
    percent = PER * prevalence
    if percent >= 99.5:
        return "100 %"  # which two digits would not hold
    return f"{percent:.2g} %" if percent >= 1 else f"1 in {round(1 / prevalence):,}"


def _round(captions: float) -> int:
    """To two digits: more are not known."""
    digits = max(int(math.floor(math.log10(max(captions, 1)))) - 1, 0)
    return math.ceil(captions / 10**digits) * 10**digits
