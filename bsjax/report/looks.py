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
    sign: int  # of the change that it calls: -1 less than real, 1 more, 0 none is called
    is_judged: bool = True  # whether there were data enough for a verdict


LOOKS = {
    verdicts.SUPPRESSED: Look("#3d7ea6", "#1f5f8b", "#7fbfe6", "▼", -1),
    verdicts.EXAGGERATED: Look("#d08a2e", "#8a4f00", "#efb25a", "▲", 1),
    verdicts.LESS: Look("#9dc1d6", "#44708c", "#9cc3dc", "▽", -1),
    verdicts.MORE: Look("#e6c594", "#7d6234", "#dcc093", "△", 1),
    verdicts.ALIGNED: Look("#5f9e6e", "#2f7040", "#8fce9d", "●", 0),
    verdicts.UNDECIDED: Look("#9aa0a6", "#5a6067", "#a9b0b8", "?", 0),
    verdicts.NOT_ENOUGH_DATA: Look("#d9dce0", "#666c73", "#959ca4", "○", 0, is_judged=False),
}
# Colours of delta, from 0 (suppressed) to 1 (exaggerated); the first is the paper's (METHOD 8).
PALETTES = {
    "paper": ("#65c7de", "#5776b4", "#582949", "#b16243", "#e8b548"),
    "colour-blind safe": ("#2166ac", "#67a9cf", "#bdbdbd", "#ef8a62", "#b2182b"),
}
# Colours of generated / real on the map, from less to more, of 3:1 or more against either page; of
# blue and orange, which people who confuse red and green tell apart.
RATIO = {
    "light": ("#08415f", "#1f6fa3", "#7f868e", "#b06a14", "#6b3300"),
    "dark": ("#b5e0fb", "#5fb0e0", "#7d848c", "#dd9a3c", "#ffe0ad"),
}


# What counts as one, by compare.clusters.
UNITS = {
    "auto": "Pairs of one caption or of one real image count once.",
    "caption": "Pairs of one caption count once.",
    "image": "Pairs of one real image count once.",
    "none": "Every pair counts.",
}


def meanings(settings: Mapping[str, Any]) -> dict[str, str]:
    """What each verdict says in a comparison of these settings; of others' results nothing."""
    if "compare.margin" not in settings:
        return dict.fromkeys(verdicts.KINDS, "what was tested is not known here")
    return verdicts.explain(settings)


def rule(settings: Mapping[str, Any]) -> str:
    """What a comparison's verdicts stand on, for a reader.

    Args:
      settings: the config in the comparison's manifest.
    """
    said = []
    if "compare.margin" in settings:
        said += [
            f"Each test holds a false discovery rate of {settings['compare.fdr']:g} over the"
            " concepts with enough data.",
            UNITS.get(settings.get("compare.clusters", ""), ""),
        ]
        if settings.get("compare.confirm"):
            said.append(
                f"Concepts were chosen on the others and tested on {settings['compare.confirm']:g}"
                " of the captions, which were held back."
            )
    said += [
        "Lists sort by the end of the 95 % interval that is nearer to no change.",
        f"delta = sigmoid(contrast / T), here {settings['compare.form']} with T ="
        f" {settings['compare.temperature']:g}, is the paper's number, for display.",
        "Energies count all tokens.",
    ]
    return " ".join(filter(None, said))


def css_name(kind: str) -> str:
    """A verdict as a class of a style sheet."""
    return kind.replace(" ", "-")
