"""How verdicts and delta look, in figures, on the summary page and in the explorer.

A verdict of `stats.verdicts.KINDS` needs a row here, and nothing else of the report.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from bsjax.stats import verdicts


class Look(NamedTuple):
    """A verdict for the eye."""

    figure: str  # colour of areas and points on white
    light: str  # colour of text on a light page
    dark: str  # on a dark one
    symbol: str  # tells it without colour
    sign: int  # of the difference that it calls: -1 less than real, 1 more, 0 none is called
    is_judged: bool  # whether there were data enough for a verdict
    meaning: str


LOOKS = {
    verdicts.SUPPRESSED: Look(
        "#3d7ea6", "#2b6f9b", "#7fbfe6", "▼", -1, True, "generated images show it far less"
    ),
    verdicts.EXAGGERATED: Look(
        "#d08a2e", "#9a5b08", "#efb25a", "▲", 1, True, "generated images show it far more"
    ),
    verdicts.NO_DIFFERENCE: Look(
        "#9aa0a6", "#5a6067", "#a9b0b8", "●", 0, True, "no difference that is large and significant"
    ),
    verdicts.NOT_ENOUGH_DATA: Look(
        "#d9dce0", "#5a6067", "#a9b0b8", "○", 0, False, "too few images show it to tell"
    ),
}
CALLED = tuple(kind for kind in verdicts.KINDS if LOOKS[kind].sign)

# Colours of delta, from 0 (suppressed) to 1 (exaggerated); the first is the paper's (METHOD 8).
PALETTES = {
    "paper": ("#65c7de", "#5776b4", "#582949", "#b16243", "#e8b548"),
    "colour-blind safe": ("#2166ac", "#67a9cf", "#bdbdbd", "#ef8a62", "#b2182b"),
}


def rule(settings: Mapping[str, Any]) -> str:
    """What a comparison's verdicts stand on, for a reader.

    Args:
      settings: the config in the comparison's manifest.
    """
    return (
        f"delta = sigmoid(contrast / T), here {settings['compare.form']} with T ="
        f" {settings['compare.temperature']}. A concept is suppressed if delta is below"
        f" {settings['compare.suppressed']}, exaggerated if above"
        f" {settings['compare.exaggerated']}, and the arms differ at a false discovery rate of"
        f" {settings['compare.fdr']} (paired t-test, Benjamini-Hochberg) over at least"
        f" {settings['compare.min_images']} pairs that show it. Energies count all tokens."
    )
