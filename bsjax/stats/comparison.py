"""Two arms' image codes -> every number and the verdict of each concept.

Rows of the two matrices are pairs: the real image of a caption and the one generated for it.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from bsjax.stats import (
    clusters,
    controls,
    divergences,
    rarity,
    ratios,
    significance,
    sums,
    verdicts,
)

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
    """

    columns: dict[str, np.ndarray]
    sums: sums.Sums
    rows: np.ndarray
    level: float
    control: controls.Control
    detectable: dict[int, float]
    shift: float
    rarity: rarity.Rarity | None

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
        order = np.random.default_rng(seed).permutation(n_units)
        n_held = min(max(round(rules.confirm * n_units), LEAST_UNITS), n_units - LEAST_UNITS)
        part, explored = np.sort(order[:n_held]), np.sort(order[n_held:])
        suggested = _infer(sums.sum_pairs(*_rows(means, explored)), _rows(tested, explored), rules)
        candidates = np.minimum(suggested["q_material"], suggested["q_direction"]) <= rules.fdr
    means, tested = _rows(means, part), _rows(tested, part)
    counted = None if counted is None else _rows(counted, part)
    totals = sums.sum_pairs(*means)
    columns |= _infer(totals, tested, rules, candidates, counted)
    columns |= _mapped_intervals(columns, rules)
    columns["verdict_paper"] = verdicts.judge_as_paper(columns["delta"])
    eligible = columns["verdict"] != verdicts.NOT_ENOUGH_DATA
    spread = np.append(columns.pop("spread")[eligible], 1.0)[: max(int(eligible.sum()), 1)]
    level = _level(columns, eligible, rules.fdr)
    control = controls.swap_control(*map(_active, tested), repeats[drawn][part], eligible, seed)
    return Outcome(
        columns=columns,
        sums=totals,
        rows=drawn[part],
        level=level,
        control=control,
        detectable=controls.detectable_fold(float(np.median(spread)), rules.margin, level),
        shift=float(np.median(columns["log_ratio"][eligible])) if eligible.any() else float("nan"),
        rarity=rarity.against_frequency(*means, seed),
    )


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
) -> dict[str, np.ndarray]:
    """Estimates from the means of the clusters, tests on one pair of each, verdicts.

    Args:
      totals: over the means of the clusters.
      tested: one pair [clusters, K] of each.
      rules: of the verdicts.
      candidates: concepts [K] that alone may be called changed; None: any.
      tokens: means of the clusters [clusters, K], of tokens that fire.
    """
    found = ratios.log_ratios(totals)
    parts = ratios.factors(
        totals, found.log_ratio, None if tokens is None else tuple(map(_totals, tokens))
    )
    left, right = (_active(arm) for arm in tested)
    n_firing = np.diff(left.indptr) + np.diff(right.indptr)
    eligible = n_firing >= verdicts.least_images(rules.margin)
    may_differ = eligible if candidates is None else eligible & candidates
    p_material = significance.material(left, right, rules.margin)
    p_direction = significance.direction(left, right)
    p_aligned = significance.aligned(found.log_ratio, found.se, rules.aligned)
    q_material = significance.q_values(p_material, may_differ)
    q_direction = significance.q_values(p_direction, may_differ)
    q_aligned = significance.q_values(p_aligned, eligible)
    tests = verdicts.Tests(found.log_ratio, q_material, q_direction, q_aligned)
    return {
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
        "verdict": verdicts.judge(tests, eligible, rules.fdr),
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


def _active(codes: sp.csr_array) -> sp.csc_array:
    """In float64, by concept, without stored zeros."""
    columns = sp.csc_array(codes.astype(np.float64))
    columns.eliminate_zeros()
    return columns


def _totals(codes: sp.csr_array) -> np.ndarray:
    """Sums [K] over the rows, in float64."""
    values = codes.data.astype(np.float64)
    return np.bincount(codes.indices, values, minlength=codes.shape[1]).astype(np.float64)
