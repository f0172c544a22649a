"""The figures of a comparison, each saved as PNG, SVG and PDF."""

import math
import pathlib

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

from bsjax.report import style as styles
from bsjax.report.layout import BY_DICTIONARY
from bsjax.report.looks import LOOKS, PALETTES, SCHEMES
from bsjax.report.said import percent
from bsjax.report.style import Drawing, draw, shortened
from bsjax.report.tables import Comparison, Ranking, rank
from bsjax.stats import divergences, verdicts

COLOURS = styles.colours("light")
PALETTE = LinearSegmentedColormap.from_list("delta", PALETTES["paper"])
RANKED = 10  # concepts of each kind
FINDINGS = 24  # shown at most
LABELLED = 8  # findings named on the map
# Figures of one comparison and what they show; without findings there is none of these.
CAPTIONS = {
    "findings": "What the generated images show too rarely (left) or too often (right): how many"
    " times, with the 95 % interval, those first whose change is the largest beyond doubt.",
    "ranking": "The strongest concepts of both kinds, by caption words and id: how many times less"
    " or more generated images show them than real ones. Bars are 95 % intervals; hollow points"
    " are not established.",
    "map": "The dictionary: concepts that lie near one another fire on similar image parts."
    " Triangles changed, filled ones beyond the margin; small dots were seen too rarely to judge.",
    "energies": "How much of each concept real and generated images show: energy is the sum of its"
    " codes over an image, averaged over images. On the line both show it alike.",
    "rarity": "A rare concept strays far by chance alone: where nothing differs, one in twenty"
    " concepts lies above the line. Distance without significance is no verdict.",
    "histogram": "How far each concept is drawn too rarely or too often. Coloured: by more than"
    " the margin, at the false discovery rate. Dotted: the paper's thresholds.",
}
UNDER = {"loc": "upper center", "ncols": 3, "columnspacing": 0.9, "handletextpad": 0.2,
         "fontsize": 7.5}  # fmt: skip


def caption(name: str, places_are: str = BY_DICTIONARY) -> str:
    """What a figure of `CAPTIONS` shows; `places_are`: what places on the map are, in words."""
    if name == "map" and places_are != BY_DICTIONARY:
        return f"The concepts; {places_are}."
    return CAPTIONS[name]


def draw_all(
    comparison: Comparison,
    rankings: list[Ranking],
    places: np.ndarray,
    folder: pathlib.Path,
    style: str = "light",
    places_are: str = BY_DICTIONARY,
) -> dict[str, pathlib.Path]:
    """Draws every figure of `CAPTIONS` into `folder`; returns the SVG of each by name.

    Args:
      comparison: the set against the real images.
      rankings: of its concepts.
      places: [K, 2] of the concepts on the map.
      folder: of the figures.
      style: "light" or "dark"; pages show the other one as well.
      places_are: what the places are, in words.
    """
    told = comparison.told[:FINDINGS]
    title = "Map of the dictionary" if places_are == BY_DICTIONARY else "Map of the concepts"
    drawings: dict[str, tuple[Drawing, tuple[float, float]]] = {
        "findings": (
            lambda axes, style: _findings(axes, comparison, style),
            (7.2, 1.25 + 0.36 * len(told)),
        ),
        "ranking": (lambda axes, style: _ranking(axes, comparison, rankings, style=style),
                    DRAWINGS["ranking"]),
        "map": (lambda axes, style: _map(axes, comparison, places, style, title), (5.2, 5.0)),
        "energies": (lambda axes, style: _energies(axes, comparison, style), DRAWINGS["energies"]),
        "rarity": (lambda axes, style: _rarity(axes, comparison, style), DRAWINGS["rarity"]),
        "histogram": (
            lambda axes, style: _histogram(axes, comparison, style), DRAWINGS["histogram"]
        ),
    }  # fmt: skip
    return {
        name: draw(folder, f"{comparison.name}_{name}", size, drawing, style)
        for name, (drawing, size) in drawings.items()
        if name in drawn_of(comparison)
    }


def drawn_of(comparison: Comparison) -> list[str]:
    """Figures of `CAPTIONS` that a comparison has: without findings none of these."""
    return [name for name in CAPTIONS if comparison.told or name != "findings"]


# Those that `draw_on` draws: kind -> size in inches.
DRAWINGS = {
    "ranking": (5.2, 4.8),
    "histogram": (5.2, 3.6),
    "rarity": (5.2, 4.4),
    "energies": (5.2, 5.2),
}


def draw_on(axes: Axes | None, comparison: Comparison, kind: str) -> Axes:
    """Draws one figure of `DRAWINGS` on axes, or on those of a new figure; returns them."""
    drawings = {"histogram": _histogram, "rarity": _rarity, "energies": _energies}
    with matplotlib.rc_context(styles.rc("light")):
        if axes is None:
            from matplotlib import pyplot  # chooses how figures are shown

            _, axes = pyplot.subplots(figsize=DRAWINGS[kind], layout="constrained")
        if kind == "ranking":
            _ranking(axes, comparison, rank(comparison, RANKED))
        else:
            drawings[kind](axes, comparison)
        is_interactive = matplotlib.is_interactive()
    # The backend of a notebook, loaded with the first figure, turns that on; leaving the block
    # turns it off, and no later figure would be shown.
    matplotlib.interactive(is_interactive)
    return axes


def _findings(axes: Axes, comparison: Comparison, style: str = "light") -> None:
    """Findings in words, each with its fold and interval, and in how many images it is."""
    told, columns = comparison.told, comparison.columns
    shown = told[:FINDINGS]
    reach = styles.fold_reach(np.array([end for each in shown for end in each.interval]))
    words = []
    for place, each in enumerate(shown):
        _interval(axes, place, each.interval, each.verdict, reach, style)
        lead = each.concepts[0]
        real, generated = (percent(columns[f"prevalence_{a}"][lead]) for a in ("real", "generated"))
        words.append(shortened(each.words, 30))
        axes.annotate(
            f"{each.change.removesuffix('.')}: {real} → {generated}",
            (1.02, place),
            va="center",
            fontsize=8,
            xycoords=("axes fraction", "data"),
        )
    axes.set_yticks(range(len(shown)), words, fontsize=9)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    _folds(axes, comparison, reach, style)
    head = "Findings" if len(shown) == len(told) else f"The first {len(shown)} findings"
    head += f": what {shortened(comparison.name, 30)} draws too little or too much"
    axes.set_title(head, pad=20)
    axes.annotate(
        "share of real → of generated images that show it",
        (1.02, 1),
        (0, 4),
        va="bottom",
        fontsize=7,
        color=SCHEMES[style].soft,
        xycoords="axes fraction",
        textcoords="offset points",
    )


def _interval(
    axes: Axes,
    place: float,
    interval: tuple[float, float, float],
    kind: str,
    reach: float,
    style: str,
    is_established: bool = True,
) -> None:
    """A ratio with its 95 % interval; an end beyond the figure's edge is an arrow."""
    colour = styles.colours(style)[kind]
    low, point, high = np.exp(np.clip(interval, -math.log(reach), math.log(reach)))
    axes.plot([low, high], [place, place], color=colour, linewidth=2, solid_capstyle="butt")
    for end, raw, arrow in ((low, interval[0], "<"), (high, interval[2], ">")):
        if abs(raw) > math.log(reach):
            axes.plot(end, place, arrow, color=colour, ms=5, clip_on=False)
    face = colour if is_established else SCHEMES[style].paper
    axes.plot(point, place, styles.marker(kind), color=colour, markerfacecolor=face, ms=6)


def _folds(axes: Axes, comparison: Comparison, reach: float, style: str) -> None:
    """A horizontal axis of generated against real, with the margin."""
    look = SCHEMES[style]
    axes.axvline(1, color=look.soft, linewidth=0.8, zorder=0)
    margin = comparison.manifest["config"].get("compare.margin")
    for bound in (margin, 1 / margin) if margin else ():
        axes.axvline(bound, color=look.soft, linewidth=0.8, linestyle=":", zorder=0)
    styles.fold_axis(axes.xaxis, reach)
    dotted = f"\ndotted: the margin, {margin:g}×" if margin else ""
    axes.set_xlabel(f"shown by generated images, compared with real ones{dotted}")


def _ranking(
    axes: Axes,
    comparison: Comparison,
    rankings: list[Ranking],
    n: int = 10,
    style: str = "light",
) -> None:
    """The strongest concepts with the 95 % interval of their ratio; hollow: not established."""
    columns = comparison.columns
    places, labels = [], []
    shown = [concept for ranking in rankings for concept in ranking.concepts[:n]]
    ends = [columns[name][shown] for name in ("low", "log_ratio", "high")]
    reach = styles.fold_reach(np.concatenate(ends))
    for i, ranking in enumerate(rankings):
        for concept in ranking.concepts[:n]:
            place = len(places) + 0.6 * i
            interval = tuple(float(columns[name][concept]) for name in ("low", "log_ratio", "high"))
            established = bool(ranking.n_found)
            _interval(axes, place, interval, ranking.kind, reach, style, established)
            places.append(place)
            labels.append(f"{shortened(str(columns['words'][concept]), 27)}  {concept}")
    axes.set_yticks(places, labels)
    axes.set_ylim(max(places, default=0) + 0.8, -0.8)
    _folds(axes, comparison, reach, style)
    axes.set_title("Strongest concepts")


def _map(axes: Axes, comparison: Comparison, places: np.ndarray, style: str, title: str) -> None:
    """The map by verdict; what changed lies on top, findings by name."""
    columns = comparison.columns
    _by_verdict(axes, columns, places[:, 0], places[:, 1], style)
    axes.set(xticks=[], yticks=[], title=title)
    axes.margins(0.06)
    axes.spines[:].set_visible(False)
    _legend_below(axes, -0.01)
    named = [(each.concepts[0], each.words) for each in comparison.told[:LABELLED]]
    styles.label_points(
        axes,
        [(*places[concept].tolist(), shortened(words, 24)) for concept, words in named],
        style,
    )


def _rarity(axes: Axes, comparison: Comparison, style: str = "light") -> None:
    """How far delta lies from equality against how often the concept fires on real images."""
    columns, look = comparison.columns, SCHEMES[style]
    fires = columns["fires_real"] + 1
    _by_verdict(axes, columns, fires, np.abs(columns["delta"] - 0.5), style)
    line = chance_line(comparison)
    if line is not None:
        axes.plot(*line, color=look.ink, linewidth=1.2, label="95 % where nothing differs")
    styles.amount_axis(axes.xaxis)
    axes.set(
        ylim=(-0.01, 0.51),
        title="Rare concepts diverge by chance too",
        xlabel="patches of real images on which it fires, plus 1 (each step: 10× as many)",
        ylabel=f"distance of delta from 0.5  ({comparison.form})",
    )
    axes.set_yticks([0, 0.1, 0.2, 0.3, 0.4, 0.5])
    axes.set_yticklabels(["as real  0", "0.1", "0.2", "0.3", "0.4", "in one\nalone  0.5"])
    _legend_below(axes)


def chance_line(comparison: Comparison, n_bins: int = 12) -> tuple[np.ndarray, np.ndarray] | None:
    """How far from 0.5 delta strays by chance, by how often a concept fires.

    Where the arms do not differ, the log ratio lies within 1.96 standard errors of 0 in 95 of 100
    cases, and relative within their tanh(1.96 se / 2); the line is that at the median of concepts
    that fire about as often.

    Returns:
      fires and distances, or None where no standard errors are known.
    """
    columns, settings = comparison.columns, comparison.manifest["config"]
    total = columns["energy_real"] + columns["energy_generated"]
    alive = total > 0
    alive &= np.isfinite(columns["se"])
    if not alive.any():
        return None
    fires, reach = columns["fires_real"][alive] + 1.0, np.tanh(0.98 * columns["se"][alive])
    if settings["compare.form"] == "difference":
        reach = reach * total[alive]
    groups = np.array_split(np.argsort(fires, kind="stable"), min(n_bins, fires.size))
    middle = np.array([np.median(reach[group]) for group in groups])
    x = np.array([np.median(fires[group]) for group in groups])
    return x, divergences.delta(middle, settings["compare.temperature"]) - 0.5


def _energies(axes: Axes, comparison: Comparison, style: str = "light") -> None:
    """Energy in both arms, concept by concept; those that one arm never shows at the edge."""
    columns, look = comparison.columns, SCHEMES[style]
    real, generated = columns["energy_real"], columns["energy_generated"]
    fires = (real > 0) | (generated > 0)
    positive = np.concatenate([real[real > 0], generated[generated > 0], [1.0]])
    never, top = positive.min() / 3, positive.max() * 1.8
    part = {name: columns[name][fires] for name in ("verdict", "fires_real")}
    x, y = (np.maximum(values[fires], never) for values in (real, generated))
    _by_verdict(axes, part, x, y, style)
    axes.plot([never, top], [never, top], color=look.soft, linewidth=0.8, zorder=0)
    for axis, arm in ((axes.xaxis, "real"), (axes.yaxis, "generated")):
        styles.amount_axis(axis)
        axis.label.set(color=getattr(look, arm), fontweight="bold")
    axes.axvline(never * 1.5, color=look.line, linewidth=0.8, zorder=0)
    axes.axhline(never * 1.5, color=look.line, linewidth=0.8, zorder=0)
    axes.set(
        xlabel="energy in real images (each step: 10× as much)",
        ylabel="energy in generated images (each step: 10× as much)",
        title="How much real and generated images show",
        xlim=(never / 1.5, top),
        ylim=(never / 1.5, top),
        aspect="equal",
    )
    told = {"fontsize": 8, "color": look.soft, "xycoords": "axes fraction"}
    axes.annotate("drawn too much", (0.1, 0.97), va="top", **told)
    axes.annotate("drawn too little", (0.98, 0.13), ha="right", **told)
    if (y <= never).any():
        axes.annotate("in no generated image", (0.98, 0.012), ha="right", va="bottom", **told)
    if (x <= never).any():
        axes.annotate("in no real image", (0.012, 0.5), rotation=90, va="center", **told)
    _legend_below(axes, -0.13)


def _histogram(axes: Axes, comparison: Comparison, style: str = "light") -> None:
    """Delta of all concepts that fire in either arm, with the thresholds and the median."""
    columns, look, colour = comparison.columns, SCHEMES[style], styles.colours(style)
    alive = columns["energy_real"] + columns["energy_generated"] > 0
    judged = alive & (columns["verdict"] != verdicts.NOT_ENOUGH_DATA)
    bins = np.linspace(0, 1, 51)
    n_rare = int(alive.sum() - judged.sum())
    n_rest = int((judged & ~np.isin(columns["verdict"], verdicts.CALLED)).sum())
    axes.hist(columns["delta"][alive], bins, color=look.line, label=f"not enough data ({n_rare})")
    axes.hist(
        columns["delta"][judged],
        bins,
        color=look.soft,
        alpha=0.6,
        label=f"judged, not called ({n_rest})",
    )
    for kind in verdicts.CALLED:
        chosen = columns["delta"][columns["verdict"] == kind]
        axes.hist(chosen, bins, color=colour[kind], label=f"{kind} ({chosen.size})")
    for bound in (verdicts.PAPER_SUPPRESSED, verdicts.PAPER_EXAGGERATED):
        axes.axvline(bound, color=look.ink, linewidth=0.8, linestyle=":")
    if alive.any():
        median = float(np.median(columns["delta"][alive]))
        axes.axvline(median, color=look.ink, linewidth=1)
        axes.annotate(
            f"median {median:.2f}",
            (median, 0.98),
            (4, 0),
            va="top",
            fontsize=8,
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
        )
    axes.margins(y=0.25)  # room for the median's label
    axes.set(
        xlim=(0, 1),
        ylabel="concepts (each step: 10× as many)",
        title="Drawn less, the same or more: every concept",
        xlabel=f"delta ({comparison.form})",
    )
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0: in real\nimages alone", "0.25", "0.5: the\nsame",
                                              "0.75", "1: in generated\nalone"])  # fmt: skip
    styles.amount_axis(axes.yaxis)
    axes.legend(**UNDER | {"ncols": 2}, bbox_to_anchor=(0.5, -0.3))


def _legend_below(axes: Axes, below: float = -0.16) -> None:
    """Where it hides no point."""
    axes.legend(**UNDER, bbox_to_anchor=(0.5, below), markerscale=1.3)


def _by_verdict(
    axes: Axes, columns: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray, style: str
) -> None:
    """One point per concept, by verdict; called ones lie on top, unjudged ones are small.

    The points become a picture inside vector files, which many thousands would make too large.
    """
    colour, crowd = styles.colours(style), 1 if len(x) < styles.MANY else 0.45
    for kind in reversed(verdicts.KINDS):
        chosen, look = columns["verdict"] == kind, LOOKS[kind]
        is_called, changed = kind in verdicts.CALLED, bool(look.sign)
        axes.scatter(
            x[chosen], y[chosen],
            s=34 if is_called else crowd * (16 if changed else 9 if look.is_judged else 5),
            marker=styles.marker(kind),
            facecolors="none" if changed and not is_called else colour[kind],
            edgecolors=SCHEMES[style].paper if is_called else colour[kind],
            linewidths=0.5 if is_called else 0.7 if changed else 0,
            alpha=1 if is_called else crowd * (0.8 if look.is_judged else 0.4),
            label=f"{kind} ({int(chosen.sum())})",
            rasterized=True,
        )  # fmt: skip
