"""Two arms' image codes -> every number and the verdict of each concept.

Rows of the two matrices are pairs: the real image of a caption and the one generated for it.
"""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from bsjax.stats import (
    closeness,
    clusters,
    control_shifts,
    controls,
    divergences,
    rarity,
    ratios,
    significance,
    sums,
    verdicts,
)
from bsjax.stats.control_shifts import Changed, Shift
from bsjax.stats.sparse_codes import active_columns

LEAST_UNITS = 2

# Image codes [n, K] of the real and of the generated image of each pair; rows agree.
PairedCodes = tuple[sp.csr_array, sp.csr_array]


class Rules(NamedTuple):
    """What makes a difference a verdict."""

    form: str = "relative"  # relative | difference: of delta, which is for display
    temperature: float = 0.4  # of delta
    margin: float = 1.5  # fold; suppressed and exaggerated concepts changed by more
    aligned: float = 2.0  # fold; aligned concepts changed by less
    fdr: float = 0.05  # false discovery rate of each test
    confirm: float = 0.0  # share of the clusters held back to confirm what the others suggest


@dataclasses.dataclass(frozen=True, eq=False)
class Outcome:
    """What a comparison came to.

    Attributes:
      columns: [K] each; `bsjax.results.columns.COMPARED_CONCEPTS` tells what they mean.
      sums: over the clusters that the estimates rest on.
      rows: pair of each of these that was tested.
      level: largest p of the material test that is called.
      control: the arms of clusters swapped by chance.
      detectable: smallest material fold told with 80 % power, by firing images.
      shift: median log ratio of the concepts with enough data: what all of them moved by.
      rarity: how the log ratios go with frequency; None where too few concepts tell.
      shares: of each pair's concepts [n] that both images show about as much.
      closeness: mean of these over the clusters.
      shifts: what each control alone moves; none where there are no controls.
      taken: concepts called by the real images alone, but not by these and all controls.
    """

    columns: dict[str, np.ndarray]
    sums: sums.Sums
    rows: np.ndarray
    level: float
    control: controls.Control
    detectable: dict[int, float]
    shift: float
    rarity: rarity.Rarity | None
    shares: np.ndarray
    closeness: closeness.Mean
    shifts: Mapping[str, Shift] = dataclasses.field(default_factory=dict)
    taken: int = 0

    @property
    def units(self) -> int:
        """Clusters of pairs that the verdicts rest on."""
        return len(self.rows)


def compare_codes(
    real: sp.csr_array,
    generated: sp.csr_array,
    rules: Rules,
    *,
    labels: np.ndarray | None = None,
    repeats: np.ndarray | None = None,
    tokens: PairedCodes | None = None,
    seed: int = 0,
    changed: Mapping[str, Changed] = MappingProxyType({}),
) -> Outcome:
    """Compares pairs of image codes [n, K], 0 or more.

    Args:
      real: rows are images.
      generated: rows are their counterparts.
      rules: of the verdicts.
      labels: cluster [n] of each pair, numbered from 0; None: each pair is one.
      repeats: labels of pairs that repeat one another, whatever is taken as a cluster; the control
        swaps these. None: `labels`.
      tokens: tokens that fire, by image and concept [n, K], of both arms.
      seed: of the pair that is drawn from each cluster, of what is held back and of the control.
      changed: controls by name: a change is called that goes beyond each of them.

    Raises:
      ValueError: fewer than two clusters.
    """
    n = real.shape[0]
    labels = np.arange(n) if labels is None else labels
    repeats = labels if repeats is None else repeats
    n_units = int(labels.max(initial=-1)) + 1
    if n_units < LEAST_UNITS:
        raise ValueError(f"expected at least {LEAST_UNITS} clusters of pairs, got {n_units}")
    columns = _as_the_paper(real, generated, rules)
    drawn = clusters.draw(labels, seed)
    tested = (sp.csr_array(real[drawn]), sp.csr_array(generated[drawn]))
    averages = None if n_units == n else clusters.averages(labels)
    means = tested if averages is None else (averages @ real, averages @ generated)
    counted = None
    if tokens is not None:
        of_rows = tuple(arm.astype(np.float64) for arm in tokens)
        columns["fires_pairs_real"], columns["fires_pairs_generated"] = map(_totals, of_rows)
        counted = tuple(arm[drawn] if averages is None else averages @ arm for arm in of_rows)

    part, candidates = np.arange(n_units), None
    if rules.confirm and n_units >= 2 * LEAST_UNITS:
        part, explored = _hold_back(n_units, rules.confirm, seed)
        suggested = _infer(
            sums.sum_pairs(*_rows(means, explored)), _rows(tested, explored), rules,
            beside=_beside(changed, generated, drawn[explored]),
        )  # fmt: skip
        candidates = np.minimum(suggested["q_material"], suggested["q_direction"]) <= rules.fdr
    means, tested = _rows(means, part), _rows(tested, part)
    counted = None if counted is None else _rows(counted, part)
    totals = sums.sum_pairs(*means)
    beside = _beside(changed, generated, drawn[part])
    columns |= _infer(totals, tested, rules, candidates, counted, beside)
    judged: Judged = columns.pop("beside")
    columns |= _mapped_intervals(columns, rules)
    columns["verdict_paper"] = verdicts.judge_as_paper(columns["delta"])
    eligible = columns["verdict"] != verdicts.NOT_ENOUGH_DATA
    spread = np.append(columns.pop("spread")[eligible], 1.0)[: max(int(eligible.sum()), 1)]
    level = _level(columns, eligible, rules.fdr)
    columns_of_arms = map(active_columns, tested)
    control = controls.swap_control(*columns_of_arms, repeats[drawn][part], eligible, seed)
    shares = closeness.shares(real, generated, rules.aligned)
    return Outcome(
        columns=columns,
        sums=totals,
        rows=drawn[part],
        level=level,
        control=control,
        detectable=controls.detectable_fold(float(np.median(spread)), rules.margin, level),
        shift=float(np.median(columns["log_ratio"][eligible])) if eligible.any() else float("nan"),
        rarity=rarity.against_frequency(*means, seed),
        shares=shares,
        closeness=closeness.mean(shares, labels),
        shifts=_shifts(real, changed, labels, labels[drawn[part]], judged),
        taken=judged.all_taken,
    )


def _hold_back(n_units: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Units that confirm, about that share of all, and the others."""
    order = np.random.default_rng(seed).permutation(n_units)
    n_held = min(max(round(share * n_units), LEAST_UNITS), n_units - LEAST_UNITS)
    return np.sort(order[:n_held]), np.sort(order[n_held:])


class Judged(NamedTuple):
    """What controls say of the tests: by control, and how many calls all of them took away."""

    tests: dict[str, control_shifts.Against]
    taken: dict[str, int]
    all_taken: int


def _shifts(
    real: sp.csr_array,
    changed: Mapping[str, Changed],
    labels: np.ndarray,
    units: np.ndarray,
    judged: Judged,
) -> dict[str, Shift]:
    """What each control alone moves, over the clusters that the comparison rests on."""
    return {
        name: Shift(
            control_shifts.estimate(real, each, labels, units),
            judged.tests[name],
            int(each.is_known.sum()),
            judged.taken[name],
        )
        for name, each in changed.items()
    }


def _beside(
    changed: Mapping[str, Changed], generated: sp.csr_array, drawn: np.ndarray
) -> dict[str, PairedCodes]:
    """Changed and generated images [n, K] of the drawn pairs, where there are both."""
    found = {}
    for name, each in changed.items():
        rows = drawn[each.is_known[drawn]]
        found[name] = (sp.csr_array(each.codes[rows]), sp.csr_array(generated[rows]))
    return found


def _as_the_paper(
    real: sp.csr_array, generated: sp.csr_array, rules: Rules
) -> dict[str, np.ndarray]:
    """Energies over all pairs and the paper's contrasts of them, as the reference has them."""
    n = real.shape[0]
    energies = [_totals(arm) / n for arm in (real, generated)]
    prevalences = [_totals(arm > 0) / n for arm in (real, generated)]
    temperatures = divergences.REFERENCE_TEMPERATURE | {rules.form: rules.temperature}
    columns = {
        "energy_real": energies[0],
        "energy_generated": energies[1],
        "difference": divergences.difference(*energies),
        "relative": divergences.relative(*energies),
        "prevalence_real": prevalences[0],
        "prevalence_generated": prevalences[1],
    }
    for form in divergences.FORMS:
        columns[f"delta_{form}"] = divergences.delta(columns[form], temperatures[form])
    columns["delta"] = columns[f"delta_{rules.form}"]
    return columns


def _infer(
    totals: sums.Sums,
    tested: PairedCodes,
    rules: Rules,
    candidates: np.ndarray | None = None,
    tokens: PairedCodes | None = None,
    beside: Mapping[str, PairedCodes] = MappingProxyType({}),
) -> dict[str, Any]:
    """Estimates from the means of the clusters, tests on one pair of each, verdicts.

    Args:
      totals: over the means of the clusters.
      tested: one pair [clusters, K] of each.
      rules: of the verdicts.
      candidates: concepts [K] that alone may be called changed; None: any.
      tokens: means of the clusters [clusters, K], of tokens that fire.
      beside: changed and generated image of one pair of each cluster, by control.
    """
    found = ratios.log_ratios(totals)
    parts = ratios.factors(
        totals, found.log_ratio, None if tokens is None else tuple(map(_totals, tokens))
    )
    left, right = (active_columns(arm) for arm in tested)
    n_firing = np.diff(left.indptr) + np.diff(right.indptr)
    eligible = n_firing >= verdicts.least_images(rules.margin)
    may_differ = eligible if candidates is None else eligible & candidates
    alone = control_shifts.Against(
        significance.material(left, right, rules.margin), significance.direction(left, right)
    )
    p_aligned = significance.aligned(found.log_ratio, found.se, rules.aligned)
    q_aligned = significance.q_values(p_aligned, eligible)

    def judge(*tests: control_shifts.Against) -> tuple[np.ndarray, ...]:
        """p, q and verdicts by several tests, all of which a change must pass."""
        p = [np.maximum.reduce(parts) for parts in zip(*tests, strict=True)]
        q = [significance.q_values(each, may_differ) for each in p]
        told = verdicts.Tests(found.log_ratio, *q, q_aligned)
        return *p, *q, verdicts.judge(told, eligible, rules.fdr)

    sides = control_shifts.side(left, right)
    controlled = {
        name: control_shifts.against(tuple(map(active_columns, arms)), sides, rules.margin)
        for name, arms in beside.items()
    }
    p_material, p_direction, q_material, q_direction, verdict = judge(alone, *controlled.values())
    was_called = np.isin(judge(alone)[-1] if beside else verdict, verdicts.CALLED)

    def count_taken(verdict: np.ndarray) -> int:
        return int((was_called & ~np.isin(verdict, verdicts.CALLED)).sum())

    return {
        "beside": Judged(
            controlled,
            {name: count_taken(judge(alone, each)[-1]) for name, each in controlled.items()},
            count_taken(verdict),
        ),
        "n_real": totals.n_real,
        "n_generated": totals.n_generated,
        "n_both": totals.n_both,
        **found._asdict(),
        "prevalence_ratio": parts.prevalence,
        "prevalence_low": parts.prevalence_low,
        "prevalence_high": parts.prevalence_high,
        "p_prevalence": ratios.mcnemar(totals),
        "amount_ratio": parts.amount,
        "area_ratio": parts.area,
        "p_direction": p_direction,
        "q_direction": q_direction,
        "p_material": p_material,
        "q_material": q_material,
        "q_aligned": q_aligned,
        "verdict": verdict,
        "shrunk": ratios.shrink(found.log_ratio, found.se),
        "spread": ratios.spread(totals),
    }


def _mapped_intervals(columns: dict[str, np.ndarray], rules: Rules) -> dict[str, np.ndarray]:
    """95 % intervals of relative, and of delta by its form, mapped from those of the log ratio."""
    low, high = np.tanh(columns["low"] / 2), np.tanh(columns["high"] / 2)
    mapped = {"relative_low": low, "relative_high": high}
    if rules.form == "difference":
        total = columns["energy_real"] + columns["energy_generated"]
        low, high = low * total, high * total
    for name, bound in (("delta_low", low), ("delta_high", high)):
        mapped[name] = divergences.delta(bound, rules.temperature)
    return mapped


def _level(columns: dict[str, np.ndarray], eligible: np.ndarray, fdr: float) -> float:
    """p below which one more concept would be called material (Benjamini-Hochberg)."""
    n_called = int((columns["q_material"] <= fdr).sum())
    return min(fdr * (n_called + 1) / max(int(eligible.sum()), 1), fdr)


def _rows(arms: PairedCodes, rows: np.ndarray) -> PairedCodes:
    if rows.size == arms[0].shape[0]:
        return arms
    return arms[0][rows], arms[1][rows]


def _totals(codes: sp.csr_array) -> np.ndarray:
    """Sums [K] over the rows, in float64."""
    values = codes.data.astype(np.float64)
    return np.bincount(codes.indices, values, minlength=codes.shape[1]).astype(np.float64)
