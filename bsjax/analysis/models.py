"""Two generated sets over the same captions: how alike their changes are, which is nearer to real.

Both were compared with the same real images; everything is made from the statistics of these
comparisons, without images.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from bsjax.analysis.comparison import Method
from bsjax.analysis.told import tell_control
from bsjax.analysis.units import Units, find_units
from bsjax.core.artifacts import as_json, or_none
from bsjax.core.errors import UserError
from bsjax.results.columns import MOVED_CONCEPTS, make_table
from bsjax.results.statistics import Statistics
from bsjax.stats import closeness, clusters, comparison, models, moves, verdicts

# Of the comparison of the two models with one another.
OF_CHANGE = (
    "log_ratio", "se", "low", "high", "p_direction", "q_direction", "p_material", "q_material",
    "q_aligned", "verdict",
)  # fmt: skip
# Of each model against the real images.
OF_MODEL = ("log_ratio", "low", "high", "q_material", "verdict")


class Common(NamedTuple):
    """The pairs that two sets have, real image by real image."""

    keys: tuple[str, ...]
    captions: list[str] | None
    real: sp.csr_array  # [n, K]
    first: sp.csr_array
    second: sp.csr_array
    twins: np.ndarray | None
    n_first_alone: int
    n_second_alone: int
    links: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Moved:
    """One generated set against another.

    Attributes:
      concepts: one row per concept, columns `bsjax.results.columns.MOVED_CONCEPTS`.
      manifest: config, counts, closeness, control, notes.
    """

    concepts: pa.Table
    manifest: Mapping[str, Any]


def find_common(first: Statistics, second: Statistics) -> Common:
    """What two sets have in common.

    Raises:
      UserError: fewer than two pairs, other numbers of concepts, or other real images.
    """
    n_concepts = first.real.shape[1], second.real.shape[1]
    if n_concepts[0] != n_concepts[1]:
        raise UserError(
            f"comparisons under different SAEs, of {n_concepts[0]} and {n_concepts[1]} concepts;"
            " measure and compare both sets under one"
        )
    place = {key: row for row, key in enumerate(second.keys)}
    rows = [(row, place[key]) for row, key in enumerate(first.keys) if key in place]
    if len(rows) < comparison.LEAST_UNITS:
        raise UserError(
            f"{len(rows)} pairs in common, of {len(first.keys)} and {len(second.keys)}; expected at"
            f" least {comparison.LEAST_UNITS}: draw both sets from the same captions"
        )
    left, right = np.array(rows, np.int64).T
    if (first.real[left] != second.real[right]).nnz:
        raise UserError(
            "the comparisons are of other real images: those of one name differ; measure the real"
            " images once and compare both sets with them"
        )
    captions = first.captions
    return Common(
        keys=tuple(first.keys[row] for row in left),
        captions=None if captions is None else [captions[row] for row in left],
        real=first.real[left],
        first=first.generated[left],
        second=second.generated[right],
        twins=clusters.within(first.twins, left),
        n_first_alone=len(first.keys) - len(rows),
        n_second_alone=len(second.keys) - len(rows),
        links=clusters.within(first.links, left),
    )


def correlate_all(
    found: Mapping[str, Statistics | str], seed: int = 0
) -> dict[tuple[str, str], models.Correlation]:
    """Correlation of every two sets, and of each with itself: r 1 with its reliability.

    Args:
      found: set -> statistics of its comparison, or why there are none.
      seed: of the halves.
    """
    units: dict[tuple[str, ...], np.ndarray] = {}
    matrix = {}
    for left, right in itertools.combinations_with_replacement(found, 2):
        faults = [each for each in (found[left], found[right]) if isinstance(each, str)]
        if faults:
            matrix[left, right] = models.unknown(faults[0])
            continue
        try:
            common = find_common(found[left], found[right])
            if common.keys not in units:
                units[common.keys] = _units(common).labels
        except UserError as error:
            matrix[left, right] = models.unknown(str(error))
            continue
        told = models.correlate(
            common.real, common.first, common.second, labels=units[common.keys], seed=seed
        )
        if left == right and not told.reason:  # up to rounding it is
            told = told._replace(r=1.0, low=1.0, high=1.0)
        matrix[left, right] = told
    return matrix


def compare_models(
    first: Statistics, second: Statistics, names: Sequence[str], method: Method
) -> Moved:
    """The second set against the first, and both against the real images they share.

    Args:
      first: of the set that the other is held against.
      second: of the other.
      names: of both.
      method: of all three comparisons, which are made anew over the pairs in common.

    Raises:
      UserError: they have hardly a pair in common.
    """
    common = find_common(first, second)
    units = _units(common, method.clusters)
    arms = {"change": (common.first, common.second), "a": (common.real, common.first),
            "b": (common.real, common.second)}  # fmt: skip
    outcomes = {
        name: comparison.compare_codes(
            *codes, method.rules, labels=units.labels, repeats=units.repeats, seed=method.seed
        )
        for name, codes in arms.items()
    }
    tested = [
        moves.Tested(*(outcome.columns[field] for field in moves.Tested._fields))
        for outcome in outcomes.values()
    ]
    judged = moves.judge(*tested, method.rules.fdr)
    change = outcomes["change"].columns
    columns: dict[str, Any] = {
        "concept": np.arange(common.real.shape[1], dtype=np.int32),
        "words": first.words,
        **{name: change[name] for name in OF_CHANGE},
        **judged._asdict(),
    }
    for arm in ("a", "b"):
        columns |= {f"{name}_{arm}": outcomes[arm].columns[name] for name in OF_MODEL}
    paired = closeness.mean(outcomes["b"].shares - outcomes["a"].shares, units.labels)
    near = (outcomes["a"].closeness, outcomes["b"].closeness, paired)
    control = outcomes["change"].control
    notes = [] if control.is_sound else [FAILS.format(control.share)]
    return Moved(
        make_table(MOVED_CONCEPTS, columns),
        {
            "config": method.settings,
            "sets": dict(zip(("a", "b"), names, strict=True)),
            "counts": {
                "pairs": len(common.keys),
                "clusters": outcomes["change"].units,
                "unpaired_a": common.n_first_alone,
                "unpaired_b": common.n_second_alone,
                **{word: int((judged.moved == word).sum()) for word in moves.MOVES},
                **verdicts.count(change["verdict"]),
            },
            "closeness": {
                what: as_json(each._asdict())
                for what, each in zip(("a", "b", "difference"), near, strict=True)
            },
            "control": tell_control(outcomes["change"]),
            "global_shift": or_none(outcomes["change"].shift),
            "notes": notes,
        },
    )


FAILS = (
    "the control fails: {:.1%} of the concepts pass at 5 % where the two models' images were"
    " swapped by chance (more than 5 %: images are repeated); do not rely on these verdicts"
)


def _units(common: Common, mode: str = "auto") -> Units:
    return find_units(mode, common.real, common.captions, common.twins, links=common.links)
