"""Measured controls -> their codes pair by pair, what they moved, what a manifest says of it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from bsjax.core.errors import UserError
from bsjax.results.columns import CONTROL_SHIFTS, make_table
from bsjax.results.measures import Measured
from bsjax.stats import control_shifts
from bsjax.stats.comparison import Outcome
from bsjax.stats.control_shifts import Changed

MOST_MISSING = 0.05  # share of the pairs that may lack a changed image
SHOWN = 3  # keys that a message names


def pair_controls(
    controls: Mapping[str, Measured], keys: Sequence[str]
) -> tuple[dict[str, Changed], list[str]]:
    """The changed image's codes of each pair, by control, and notes about those that lack one.

    Args:
      controls: measured, by kind; the keys are those of the real images.
      keys: of the pairs.

    Raises:
      UserError: more than 5 % of the pairs lack one.
    """
    changed, notes = {}, []
    for kind, measured in controls.items():
        rows = np.array([measured.place.get(key, -1) for key in keys], np.int64)
        is_known = rows >= 0
        mend = (
            f"remove measures/{measured.name} and run `bsjax measure --control={kind}` over the"
            " same real images"
        )
        notes += _lacking(kind, keys, is_known, mend)
        # A row of zeros at the end stands for what is not there.
        empty = sp.csr_array((1, measured.codes.shape[1]), dtype=measured.codes.dtype)
        codes = sp.csr_array(sp.vstack([measured.codes, empty], format="csr"))
        changed[kind] = Changed(sp.csr_array(codes[rows % codes.shape[0]]), is_known)
    return changed, notes


def take_pairs(
    changed: Mapping[str, Changed], rows: np.ndarray, keys: Sequence[str]
) -> dict[str, Changed]:
    """Controls of some of the pairs.

    Args:
      changed: codes of all pairs, by control.
      rows: of the pairs.
      keys: of these.

    Raises:
      UserError: more than 5 % of these lack a changed image.
    """
    taken = {kind: each.take(rows) for kind, each in changed.items()}
    for kind, each in taken.items():
        _lacking(kind, keys, each.is_known, "name others in {subset}")
    return taken


def _lacking(kind: str, keys: Sequence[str], is_known: np.ndarray, mend: str) -> list[str]:
    """A note about the pairs that lack a changed image; none where all have one."""
    lacking = [key for key, known in zip(keys, is_known, strict=True) if not known]
    if not lacking:
        return []
    shown = ", ".join(map(repr, lacking[:SHOWN])) + (", ..." if lacking[SHOWN:] else "")
    fault = f"control {kind}: {len(lacking)} of {len(keys)} pairs lack an image ({shown})"
    if len(lacking) > MOST_MISSING * len(keys):
        raise UserError(f"{fault}, at most {MOST_MISSING:.0%} may; {mend}", "subset")
    return [f"{fault}; it is judged over the others"]


def columns_of(outcome: Outcome) -> dict[str, np.ndarray]:
    """Columns `bsjax.results.columns.CONTROLLED`, of the table of concepts; none if no control."""
    if not outcome.shifts:
        return {}
    log_ratio, names = control_shifts.largest(outcome.columns["log_ratio"], outcome.shifts)
    return {"control_log_ratio": log_ratio, "control": names}


def table_of(outcome: Outcome) -> pa.Table | None:
    """One row per concept and control; None where there are no controls."""
    if not outcome.shifts:
        return None
    parts: dict[str, list[Any]] = {column.name: [] for column in CONTROL_SHIFTS}
    for kind, shift in outcome.shifts.items():
        n_concepts = len(shift.ratios.log_ratio)
        values = {"concept": np.arange(n_concepts), "control": [kind] * n_concepts}
        for name, array in {**values, **shift.ratios._asdict(), **shift.tests._asdict()}.items():
            parts[name].append(array)
    return make_table(CONTROL_SHIFTS, {name: np.concatenate(each) for name, each in parts.items()})


def tell(outcome: Outcome) -> dict[str, Any]:
    """What a manifest says of the controls; nothing where there are none."""
    if not outcome.shifts:
        return {}
    told: dict[str, Any] = {}
    for kind, shift in outcome.shifts.items():
        known = shift.ratios.log_ratio[np.isfinite(shift.ratios.log_ratio)]
        told[kind] = {
            "pairs": shift.pairs,
            "median_log_ratio": float(np.median(known)) if known.size else None,
            "verdicts_taken": shift.taken,
        }
    return {"controls": told, "verdicts_taken": outcome.taken}
