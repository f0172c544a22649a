"""The one palette: how arms, verdicts and delta look in figures, the summary and the explorer.

A verdict of `stats.verdicts.KINDS` needs a row here, and nothing else of the report.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from bsjax.stats import verdicts


class Look(NamedTuple):
    """A verdict for the eye."""

    light: str  # colour of its text and marks on a light page
    dark: str  # on a dark one
    symbol: str  # tells it without colour
    sign: int  # of the change that it calls: -1 less than real, 1 more, 0 none is called
    is_judged: bool = True  # whether there were data enough for a verdict


LOOKS = {
    verdicts.SUPPRESSED: Look("#1f5f8b", "#7fbfe6", "▼", -1),
    verdicts.EXAGGERATED: Look("#8a4f00", "#efb25a", "▲", 1),
    verdicts.LESS: Look("#44708c", "#9cc3dc", "▽", -1),
    verdicts.MORE: Look("#7d6234", "#dcc093", "△", 1),
    verdicts.ALIGNED: Look("#2f7040", "#8fce9d", "●", 0),
    verdicts.UNDECIDED: Look("#5a6067", "#a9b0b8", "?", 0),
    verdicts.NOT_ENOUGH_DATA: Look("#666c73", "#959ca4", "○", 0, is_judged=False),
}


class Scheme(NamedTuple):
    """What a page or a figure has beside verdicts; the tokens of explorer.css bear these names."""

    ink: str
    soft: str  # what is said beside
    paper: str
    card: str  # areas on it
    line: str
    accent: str
    real: str  # of real images, grey
    generated: str  # of generated ones, magenta


SCHEMES = {
    "light": Scheme(
        "#202124", "#5a6067", "#ffffff", "#f5f6f8", "#dfe3e8", "#1a5f8a", "#3c4043", "#c2417c"
    ),
    "dark": Scheme(
        "#e8eaed", "#a9b0b8", "#15171a", "#1f2226", "#363b42", "#8ecbf0", "#d5d9de", "#e060a0"
    ),
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
