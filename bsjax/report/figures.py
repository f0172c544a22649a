"""The figures of a comparison, each saved as PNG and SVG."""

import pathlib
from collections.abc import Callable

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, ScalarFormatter

from bsjax.core.artifacts import atomic_path
from bsjax.report.looks import LOOKS, PALETTES
from bsjax.report.tables import Comparison, Ranking, rank
from bsjax.stats import divergences, verdicts

GREY, INK = "#9aa0a6", "#202124"
COLOURS = {kind: LOOKS[kind].figure for kind in verdicts.KINDS}
PALETTE = LinearSegmentedColormap.from_list("delta", PALETTES["paper"])
STYLE = {
    "font.size": 10,
    "font.family": "DejaVu Sans",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#5f6368",
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "figure.dpi": 160,
    "svg.hashsalt": "bsjax",
}


RANKED = 10  # concepts of each kind
RATIOS_SHOWN = (0.01, 100.0)
# Figures of one comparison and what they show.
CAPTIONS = {
    "histogram": "How far each concept is drawn too rarely or too often. Coloured: by more than"
    " the margin, at the false discovery rate. Dotted: the paper's thresholds.",
    "ranking": "The strongest concepts of both kinds by caption words and id; bars are 95 %"
    " intervals. Hollow points are not established.",
    "map": "The dictionary (UMAP of its atoms), coloured by delta.",
    "rarity": "A rare concept strays far from 0.5 by chance alone: where nothing differs, one in"
    " twenty concepts lies above the line. Distance without significance is no verdict.",
    "energies": "Energy is the sum of a concept's codes over an image's tokens, averaged over"
    " images. On the line both arms show it alike.",
}


def draw_all(
    comparison: Comparison, rankings: list[Ranking], places: np.ndarray, folder: pathlib.Path
) -> dict[str, pathlib.Path]:
    """Draws every figure of `CAPTIONS` into `folder`; returns the SVG of each by name."""
    drawings: dict[str, tuple[Callable[[Axes], None], tuple[float, float]]] = {
        "histogram": (lambda axes: _histogram(axes, comparison), (5.2, 3.4)),
        "ranking": (lambda axes: _ranking(axes, comparison, rankings), (5.2, 4.6)),
        "map": (lambda axes: _map(axes, comparison, places), (5.2, 4.6)),
        "rarity": (lambda axes: _rarity(axes, comparison), (5.2, 4.0)),
        "energies": (lambda axes: _energies(axes, comparison), (5.2, 4.6)),
    }
    return {
        name: draw(folder, f"{comparison.name}_{name}", size, drawing)
        for name, (drawing, size) in drawings.items()
    }


# Those that `draw_on` draws: kind -> size in inches.
DRAWINGS = {
    "ranking": (5.2, 4.6),
    "histogram": (5.2, 3.4),
    "rarity": (5.2, 4.0),
    "energies": (5.2, 4.6),
}


def draw_on(axes: Axes | None, comparison: Comparison, kind: str) -> Axes:
    """Draws one figure of `DRAWINGS` on axes, or on those of a new figure; returns them."""
    drawings = {"histogram": _histogram, "rarity": _rarity, "energies": _energies}
    with matplotlib.rc_context(STYLE):
        if axes is None:
            from matplotlib import pyplot  # chooses how figures are shown

            _, axes = pyplot.subplots(figsize=DRAWINGS[kind], layout="constrained")
        if kind == "ranking":
            _ranking(axes, comparison, rank(comparison, RANKED))
        else:
            drawings[kind](axes, comparison)
    return axes


def draw(
    folder: pathlib.Path,
    stem: str,
    size: tuple[float, float],
    drawing: Callable[[Axes], None],
) -> pathlib.Path:
    """Saves a figure of one drawing as PNG and SVG; returns the SVG's path."""
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        drawing(figure.subplots())
        return save(figure, folder, stem)


def save(figure: Figure, folder: pathlib.Path, stem: str) -> pathlib.Path:
    """Saves a figure as PNG and SVG; returns the SVG's path."""
    # A set's name may end in what looks like a suffix.
    with atomic_path(folder / f"{stem}.png") as temporary:
        figure.savefig(temporary)
    path = folder / f"{stem}.svg"
    with atomic_path(path) as temporary:
        figure.savefig(temporary, metadata={"Date": None})
    return path


def plain_text(text: str) -> str:
    """Text that matplotlib writes as it stands: a dollar sign would start a formula."""
    return text.replace("$", r"\$")


def _histogram(axes: Axes, comparison: Comparison) -> None:
    """Delta of all concepts that fire in either arm, with the thresholds and the median."""
    columns = comparison.columns
    alive = columns["energy_real"] + columns["energy_generated"] > 0
    judged = alive & (columns["verdict"] != verdicts.NOT_ENOUGH_DATA)
    bins = np.linspace(0, 1, 51)
    axes.hist(
        columns["delta"][alive],
        bins,
        color=COLOURS[verdicts.NOT_ENOUGH_DATA],
        label="all that fire",
    )
    axes.hist(columns["delta"][judged], bins, color=GREY, label="enough data")
    for kind in verdicts.CALLED:
        chosen = columns["delta"][columns["verdict"] == kind]
        axes.hist(chosen, bins, color=COLOURS[kind], label=f"{kind} ({chosen.size})")
    for bound in (verdicts.PAPER_SUPPRESSED, verdicts.PAPER_EXAGGERATED):
        axes.axvline(bound, color=INK, linewidth=0.8, linestyle=":")
    if alive.any():
        median = float(np.median(columns["delta"][alive]))
        axes.axvline(median, color=INK, linewidth=1)
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
        yscale="log",
        xlim=(0, 1),
        ylabel="concepts",
        title="Divergence of every concept",
        xlabel=f"delta ({comparison.form}); below 0.5 drawn less than real",
    )
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=2)


def _ranking(axes: Axes, comparison: Comparison, rankings: list[Ranking], n: int = 10) -> None:
    """The strongest concepts with the 95 % interval of their ratio; hollow: not established."""
    columns = comparison.columns
    places, labels = [], []
    for i, ranking in enumerate(rankings):
        for concept in ranking.concepts[:n]:
            place = len(places) + 0.6 * i
            colour = COLOURS[ranking.kind]
            interval = np.array([columns["low"][concept], columns["high"][concept]])
            # An open end reaches the edge of the figure.
            interval = np.exp(np.clip(interval, *np.log(RATIOS_SHOWN)))
            axes.plot(interval, [place, place], color=colour, linewidth=2)
            axes.plot(
                np.clip(np.exp(columns["log_ratio"][concept]), *RATIOS_SHOWN),
                place,
                "o",
                color=colour,
                ms=5,
                fillstyle="full" if ranking.n_found else "none",
            )
            words = str(columns["words"][concept])
            words = plain_text(words[:26] + "…" if len(words) > 27 else words)
            places.append(place)
            labels.append(f"{words}  {concept}")
    axes.set_yticks(places, labels, fontsize=8)
    axes.invert_yaxis()
    axes.axvline(1, color=GREY, linewidth=0.8)
    margin = comparison.manifest["config"].get("compare.margin")
    for bound in (margin, 1 / margin) if margin else ():
        axes.axvline(bound, color=INK, linewidth=0.8, linestyle=":")
    axes.set(
        xscale="log",
        xlim=RATIOS_SHOWN,
        xlabel="energy generated / real; dotted: the margin",
        title="Strongest concepts",
    )
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _map(axes: Axes, comparison: Comparison, places: np.ndarray) -> None:
    """The dictionary's map; the most divergent concepts lie on top."""
    columns = comparison.columns
    order = np.argsort(np.abs(columns["delta"] - 0.5), kind="stable")
    size = 2 + 3 * np.log10(1 + columns["fires_real"] + columns["fires_generated"])
    drawn = axes.scatter(
        *places[order].T, c=columns["delta"][order], s=size[order], cmap=PALETTE, vmin=0, vmax=1,
        linewidths=0, rasterized=True,
    )  # fmt: skip
    axes.set(xticks=[], yticks=[], title="Map of the dictionary", aspect="equal")
    axes.spines[:].set_visible(False)
    axes.figure.colorbar(drawn, ax=axes, shrink=0.7, label=f"delta ({comparison.form})")


def _rarity(axes: Axes, comparison: Comparison) -> None:
    """How far delta lies from equality against how often the concept fires on real images."""
    columns = comparison.columns
    fires = columns["fires_real"] + 1
    _scatter(axes, columns, fires, np.abs(columns["delta"] - 0.5))
    line = chance_line(comparison)
    if line is not None:
        axes.plot(*line, color=INK, linewidth=1.2, label="95 % where nothing differs")
    axes.set(
        xscale="log",
        ylim=(-0.01, 0.51),
        title="Rare concepts diverge by chance too",
        xlabel="fires on real images + 1 (image-token pairs)",
        ylabel=f"|delta - 0.5|  ({comparison.form})",
    )
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


def _energies(axes: Axes, comparison: Comparison) -> None:
    """Energy in both arms, concept by concept."""
    columns = comparison.columns
    real, generated = columns["energy_real"], columns["energy_generated"]
    positive = np.concatenate([real[real > 0], generated[generated > 0], [1.0]])
    floor, top = positive.min() / 2, positive.max() * 1.5
    _scatter(axes, columns, np.maximum(real, floor), np.maximum(generated, floor))
    axes.plot([floor, top], [floor, top], color=INK, linewidth=0.8)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="energy per image, real",
        ylabel="energy per image, generated",
        title="Energy of every concept in both arms",
    )
    _legend_below(axes)


def _legend_below(axes: Axes) -> None:
    """Where it hides no point."""
    axes.legend(
        frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3,
        markerscale=1.5, columnspacing=1.0,
    )  # fmt: skip


def _scatter(axes: Axes, columns: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray) -> None:
    """One point per concept, coloured by verdict; the rarer verdicts lie on top."""
    for kind, colour in reversed(COLOURS.items()):
        chosen = columns["verdict"] == kind
        size = 24 if kind in verdicts.CALLED else 9
        axes.scatter(
            x[chosen], y[chosen], s=size, color=colour, alpha=0.8, linewidths=0, label=kind
        )
