"""What the explorer says of findings, and of the concepts that were called."""

from types import MappingProxyType
from typing import Any

import numpy as np

from bsjax.report import said
from bsjax.report.explorer.encode import pack
from bsjax.report.explorer.stress import Stress
from bsjax.report.tables import Comparison, top_pairs
from bsjax.stats import verdicts

N_PAIRS = 6  # shown of a finding


def findings_payload(
    comparison: Comparison, stress: Stress = MappingProxyType({})
) -> dict[str, Any]:
    """Findings of a set in words, strongest first, which images show each, and tests of it."""
    told = comparison.told
    counts = comparison.manifest["counts"]
    return {
        "headline": said.headline(counts, len(told)),
        "basis": said.basis(comparison.manifest),
        "nothing": [] if told else said.nothing_called(comparison.manifest),
        "findings": [
            each._asdict()
            | {
                "interval": [end if np.isfinite(end) else None for end in each.interval],
                "stress": list(stress.get(each.finding, ())),
                "instead": [one._asdict() for one in each.instead],
                "slots": [
                    pair.slot
                    for pair in top_pairs(comparison, each.concepts[0], each.verdict, N_PAIRS)
                ],
            }
            for each in told
        ],
    }


def called_payload(comparison: Comparison) -> dict[str, Any]:
    """What a panel says of the concepts that were called: in words, asked, drawn instead."""
    columns, settings = comparison.columns, comparison.manifest["config"]
    concepts = np.flatnonzero(np.isin(columns["verdict"], verdicts.CALLED))
    rows = [{name: values[k] for name, values in columns.items()} for k in concepts.tolist()]
    replaced = comparison.substitutions
    return {
        "concepts": pack(concepts, "int32"),
        "change": [said.change(row) for row in rows],
        "shown": [said.shown(columns, k) for k in concepts.tolist()],
        "sure": [said.sure(row) for row in rows],
        "asked": [said.asked(row, settings) for row in rows],
        "substitutions": {
            name: pack(np.array([row[name] for row in replaced]), dtype)
            for name, dtype in (
                ("concept", "int32"), ("instead", "int32"), ("n", "int32"), ("lift", "float32"),
                ("q", "float32"),
            )
        },
    }  # fmt: skip
