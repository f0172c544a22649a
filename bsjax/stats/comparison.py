"""Two arms' image codes -> every number and the verdict of each concept.

Rows of the two matrices are pairs: the real image of a caption and the one generated for it.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jaxtyping import Array, Float

from bsjax.stats import divergences, uncertainty, verdicts

# Largest dense block of image codes [pairs, concepts] held at a time, in values.
BLOCK_VALUES = 1 << 24


class Rules(NamedTuple):
    """What makes a difference a verdict."""

    form: str = "relative"  # relative | difference
    temperature: float = 0.4
    suppressed: float = 0.1  # delta below
    exaggerated: float = 0.9  # delta above
    fdr: float = 0.05  # false discovery rate
    min_images: int = 10  # pairs that show a concept before it is judged


def compare_codes(
    real: sp.csr_array,
    generated: sp.csr_array,
    rules: Rules,
    weights: Float[Array, "R n"] | None = None,
) -> dict[str, np.ndarray]:
    """Compares n >= 2 pairs of image codes [n, K].

    Args:
      real: rows are images.
      generated: rows are their counterparts.
      rules: of the verdicts.
      weights: of bootstrap resamples, for the interval of the relative form; None: delta method.

    Returns:
      Columns [K]: energy_real, energy_generated, difference, relative, delta of both forms and the
      one that `rules.form` names, standard errors, 95 % intervals, prevalences, p, q, verdict.
    """
    n = real.shape[0]
    columns = _paired_columns(real.tocsc(), generated.tocsc(), weights)
    energy_real, energy_generated = columns["energy_real"], columns["energy_generated"]
    temperatures = divergences.REFERENCE_TEMPERATURE | {rules.form: rules.temperature}
    columns["difference"] = divergences.difference(energy_real, energy_generated)
    columns["relative"] = divergences.relative(energy_real, energy_generated)
    for each in divergences.FORMS:
        columns[f"delta_{each}"] = divergences.delta(columns[each], temperatures[each])
    columns["delta"] = columns[f"delta_{rules.form}"]

    half_width = uncertainty.t_quantile(n) * columns["standard_error"]
    columns["interval_low"] = columns["difference"] - half_width
    columns["interval_high"] = columns["difference"] + half_width
    _add_relative_interval(columns, n)
    bounds = {
        "relative": (columns["relative_low"], columns["relative_high"]),
        "difference": (columns["interval_low"], columns["interval_high"]),
    }[rules.form]
    columns["delta_low"], columns["delta_high"] = (
        divergences.delta(bound, rules.temperature) for bound in bounds
    )

    eligible = columns.pop("present_either") >= rules.min_images
    columns["p"] = uncertainty.p_values(columns["difference"], columns["standard_error"], n)
    columns["q"] = uncertainty.q_values(columns["p"], eligible)
    columns["verdict"] = verdicts.judge(
        columns["delta"],
        columns["q"],
        eligible,
        suppressed=rules.suppressed,
        exaggerated=rules.exaggerated,
        fdr=rules.fdr,
    )
    return columns


def _paired_columns(
    left: sp.csc_array, right: sp.csc_array, weights: Float[Array, "R n"] | None
) -> dict[str, np.ndarray]:
    """Energies, standard errors and prevalences over the pairs, a block of concepts at a time."""
    n, n_concepts = left.shape
    width = min(max(BLOCK_VALUES // n, 32), n_concepts)
    parts: list[dict[str, np.ndarray]] = []
    for start in range(0, n_concepts, width):
        stop = min(start + width, n_concepts)
        block = []
        for arm in (left, right):
            dense = np.zeros((n, width), np.float32)
            dense[:, : stop - start] = arm[:, start:stop].toarray()
            block.append(jnp.asarray(dense))
        moments = uncertainty.paired_moments(*block)
        part = {
            "standard_error": np.asarray(moments.se_difference, np.float64),
            "relative_standard_error": np.asarray(moments.se_relative, np.float64),
            "prevalence_real": np.asarray(moments.present_real) / n,
            "prevalence_generated": np.asarray(moments.present_generated) / n,
            "present_either": np.asarray(moments.present_either),
        }
        if weights is not None:
            means = uncertainty.resample(*block, weights)
            ratios = divergences.relative(*(np.asarray(mean, np.float64) for mean in means))
            part["relative_low"], part["relative_high"] = np.quantile(
                ratios, (0.025, 0.975), axis=0
            )
        parts.append({name: values[: stop - start] for name, values in part.items()})
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    # Energies are summed in float64.
    columns["energy_real"] = np.asarray(left.astype(np.float64).sum(axis=0)) / n
    columns["energy_generated"] = np.asarray(right.astype(np.float64).sum(axis=0)) / n
    return columns


def _add_relative_interval(columns: dict[str, np.ndarray], n: int) -> None:
    """95 % interval of relative: bootstrap if there is one, else by its standard error.

    Where an arm never shows the concept both are blind to what it might still show; the rule of
    three then bounds that arm's energy.
    """
    if "relative_low" not in columns:
        half_width = uncertainty.t_quantile(n) * columns["relative_standard_error"]
        columns["relative_low"] = columns["relative"] - half_width
        columns["relative_high"] = columns["relative"] + half_width
    for absent, other, bound, pick in (
        ("generated", "real", "relative_high", np.maximum),
        ("real", "generated", "relative_low", np.minimum),
    ):
        nowhere = (columns[f"energy_{absent}"] == 0) & (columns[f"energy_{other}"] > 0)
        limit = uncertainty.absent_arm_bound(
            columns[f"energy_{other}"], columns[f"prevalence_{other}"], n
        )
        energies = {f"energy_{absent}": limit, f"energy_{other}": columns[f"energy_{other}"]}
        value = divergences.relative(energies["energy_real"], energies["energy_generated"])
        columns[bound] = np.where(nowhere, pick(columns[bound], value), columns[bound])
    for bound in ("relative_low", "relative_high"):
        columns[bound] = np.clip(columns[bound], -1.0, 1.0)
