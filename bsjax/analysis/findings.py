"""A comparison's called concepts -> findings, what was drawn instead, and whether it was asked."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from bsjax.results.columns import FINDINGS, SUBSTITUTIONS, make_table
from bsjax.stats import asked, comparison, findings, substitutions, verdicts

SHOWN_INSTEAD = 3


def look_further(
    codes: comparison.PairedCodes,
    outcome: comparison.Outcome,
    rules: comparison.Rules,
    captions: Sequence[str] | None,
    words: Sequence[str],
    seed: int,
    is_paired: bool = True,
) -> tuple[dict[str, np.ndarray], pa.Table, pa.Table]:
    """What the called concepts mean together.

    Args:
      codes: of all pairs.
      outcome: of their comparison.
      rules: of it.
      captions: of all pairs; None where there are none.
      words: of the concepts.
      seed: of the halves that teach and judge words.
      is_paired: whether pairs are of one caption, so that one concept may stand for another.

    Returns:
      Columns asked_* [K]; the tables of findings and of substitutions.
    """
    columns = outcome.columns
    tested = tuple(arm[outcome.rows] for arm in codes)
    concepts = np.flatnonzero(np.isin(columns["verdict"], verdicts.CALLED))
    signs = np.sign(columns["log_ratio"][concepts]).astype(np.int64)
    replaced: Sequence[substitutions.Substitution] = []
    if is_paired:
        replaced = substitutions.find_substitutions(*tested, concepts, signs, rules.fdr)
    called = findings.Called(
        concepts, *(columns[name][concepts] for name in ("verdict", "log_ratio", "se"))
    )
    groups = findings.find(*tested, called, rules.margin, outcome.level)
    n_concepts = codes[0].shape[1]
    extra = {"asked_n": np.zeros(n_concepts, np.int64)}
    extra |= {f"asked_{name}": np.full(n_concepts, np.nan) for name in ("log_ratio", "low", "high")}
    if captions is not None and concepts.size:
        told = [captions[row] for row in outcome.rows]
        for name, values in (
            asked.ratios_where_asked(*tested, told, concepts, seed)._asdict().items()
        ):
            extra[f"asked_{name}"][concepts] = values
    return extra, _finding_table(groups, replaced, words, extra), _substitution_table(replaced)


def _substitution_table(found: Sequence[substitutions.Substitution]) -> pa.Table:
    rows = [each._asdict() for each in found]
    return make_table(SUBSTITUTIONS, {c.name: [row[c.name] for row in rows] for c in SUBSTITUTIONS})


def _finding_table(
    found: Sequence[findings.Finding],
    replaced: Sequence[substitutions.Substitution],
    words: Sequence[str],
    extra: dict[str, np.ndarray],
) -> pa.Table:
    instead: dict[int, list[int]] = {}
    for each in replaced:
        instead.setdefault(each.concept, []).append(each.instead)
    leads = [each.concepts[0] for each in found]
    columns = {
        "finding": range(1, len(found) + 1),
        "concepts": [list(each.concepts) for each in found],
        "words": [next((words[k] for k in each.concepts if words[k]), "") for each in found],
        "verdict": [each.verdict for each in found],
        **{name: [getattr(each, name) for each in found] for name in ("log_ratio", "low", "high")},
        "instead": [instead.get(lead, [])[:SHOWN_INSTEAD] for lead in leads],
        **{name: values[leads] for name, values in extra.items()},
    }
    return make_table(FINDINGS, columns)
