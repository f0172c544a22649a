"""What the manifest of a comparison says: counts, control, closeness, how images were paired."""

from collections.abc import Mapping, Sequence
from typing import Any

from bsjax.analysis import controls as beside
from bsjax.core.artifacts import as_json, or_none
from bsjax.data.pairing import CAPTIONS, LOT, NAMES, Pairing
from bsjax.stats import comparison, verdicts

MOST_UNPAIRED = 1000  # keys that a manifest lists
CONTROL_FAILS = "the control fails"


def tell(
    settings: Mapping[str, Any],
    outcome: comparison.Outcome,
    n_pairs: int,
    unpaired: Mapping[str, Sequence[str]],
    parents: Mapping[str, str],
) -> dict[str, Any]:
    """What a manifest says of a comparison.

    Args:
      settings: of the method.
      outcome: of the statistics.
      n_pairs: that were compared.
      unpaired: keys of either set without a partner.
      parents: hashes of what it was made from.
    """
    (n_real, n_generated) = (len(keys) for keys in unpaired.values())
    return {
        "config": dict(settings),
        "parents": dict(parents),
        "counts": {
            "pairs": n_pairs,
            "clusters": outcome.units,
            "unpaired_real": n_real,
            "unpaired_generated": n_generated,
            **verdicts.count(outcome.columns["verdict"]),
        },
        "control": tell_control(outcome),
        "closeness": as_json(outcome.closeness._asdict()),
        "detectable_fold": as_json({str(n): fold for n, fold in outcome.detectable.items()}),
        "global_shift": or_none(outcome.shift),
        "rarity": outcome.rarity and outcome.rarity._asdict(),
        **beside.tell(outcome),
        "unpaired": {arm: list(keys[:MOST_UNPAIRED]) for arm, keys in unpaired.items()},
    }


def warnings(outcome: comparison.Outcome) -> list[str]:
    """What makes verdicts doubtful."""
    if outcome.control.is_sound:
        return []
    return [
        f"{CONTROL_FAILS}: {outcome.control.share:.1%} of the concepts pass at 5 % where the arms"
        " were swapped by chance (more than 5 %: images are repeated or pairs are not"
        " exchangeable); do not rely on these verdicts, and set compare.clusters=auto if it is not"
    ]


def tell_control(outcome: comparison.Outcome) -> dict[str, Any]:
    """What a manifest says of the control."""
    return as_json(outcome.control._asdict()) | {"is_sound": outcome.control.is_sound}


def tell_pairing(pairing: Pairing) -> dict[str, Any]:
    """How images were paired; nothing where each has its counterpart's name."""
    if pairing.by == NAMES and not pairing.has_samples:
        return {}
    return {"pairing": {"by": pairing.by, "real_images": len(set(pairing.rows_real.tolist()))}}


def notes_on_pairing(pairing: Pairing, n_generated: int) -> list[str]:
    """What a reader must know of the pairs beside every number.

    Args:
      pairing: of the two sets.
      n_generated: images of the generated set.
    """
    n_real = len(set(pairing.rows_real.tolist()))
    if pairing.by == LOT:
        return [
            "UNPAIRED: real and generated images are of different captions, so a change may come"
            f" from what the captions ask for as well as from the model. {n_real} real images and"
            f" {len(set(pairing.rows_generated.tolist()))} of {n_generated} generated ones were"
            " paired by lot; tests hold for independent images, no image is a counterpart of"
            " another, and what was drawn instead of what is not told"
        ]
    if pairing.by == CAPTIONS:
        return [
            f"paired by caption, for no name is common to both sets: {n_real} real images have the"
            " caption of a generated one"
        ]
    return []
