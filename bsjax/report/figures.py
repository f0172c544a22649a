"""The figures of a comparison, each saved as PNG and SVG."""

import pathlib
from collections.abc import Callable

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bsjax.report.tables import Comparison, Ranking
from bsjax.stats import verdicts

UNDER, OVER, GREY, INK = "#3d7ea6", "#d08a2e", "#9aa0a6", "#202124"
COLOURS = {
    verdicts.SUPPRESSED: UNDER,
    verdicts.EXAGGERATED: OVER,
    verdicts.NO_DIFFERENCE: GREY,
    verdicts.NOT_ENOUGH_DATA: "#d9dce0",
}
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


def draw_all(
    comparison: Comparison, rankings: list[Ranking], folder: pathlib.Path
) -> dict[str, pathlib.Path]:
    """Draws every figure into `folder`; returns the SVG of each by name."""
    drawings: dict[str, tuple[Callable[[Axes], None], tuple[float, float]]] = {
        "histogram": (lambda axes: _histogram(axes, comparison), (5.2, 3.4)),
        "ranking": (lambda axes: _ranking(axes, comparison, rankings), (5.2, 4.6)),
        "rarity": (lambda axes: _rarity(axes, comparison), (5.2, 3.4)),
        "energies": (lambda axes: _energies(axes, comparison), (5.2, 4.0)),
    }
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    with matplotlib.rc_context(STYLE):
        for name, (draw, size) in drawings.items():
            figure = Figure(figsize=size, layout="constrained")
            draw(figure.subplots())
            stem = folder / f"{comparison.name}_{name}"
            figure.savefig(stem.with_suffix(".png"))
            paths[name] = stem.with_suffix(".svg")
            figure.savefig(paths[name], metadata={"Date": None})
    return paths


def _histogram(axes: Axes, comparison: Comparison) -> None:
    """Delta of all concepts that fire in either arm, with the thresholds and the median."""
    columns, settings = comparison.columns, comparison.manifest["config"]
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
    for kind in (verdicts.SUPPRESSED, verdicts.EXAGGERATED):
        chosen = columns["delta"][columns["verdict"] == kind]
        axes.hist(chosen, bins, color=COLOURS[kind], label=f"{kind} ({chosen.size})")
    for bound in (settings["compare.suppressed"], settings["compare.exaggerated"]):
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
    axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=2)


def _ranking(axes: Axes, comparison: Comparison, rankings: list[Ranking], n: int = 10) -> None:
    """The strongest concepts with the 95 % interval of their delta; hollow: not significant."""
    columns = comparison.columns
    places, labels = [], []
    for i, ranking in enumerate(rankings):
        for concept in ranking.concepts[:n]:
            place = len(places) + 0.6 * i
            colour = COLOURS[ranking.kind]
            interval = columns["delta_low"][concept], columns["delta_high"][concept]
            axes.plot(interval, [place, place], color=colour, linewidth=2)
            axes.plot(
                columns["delta"][concept],
                place,
                "o",
                color=colour,
                ms=5,
                fillstyle="full" if ranking.n_found else "none",
            )
            words = str(columns["words"][concept])
            # A dollar sign in a caption would start a formula.
            words = (words[:26] + "…" if len(words) > 27 else words).replace("$", r"\$")
            places.append(place)
            labels.append(f"{words}  {concept}")
    axes.set_yticks(places, labels, fontsize=8)
    axes.invert_yaxis()
    axes.axvline(0.5, color=GREY, linewidth=0.8)
    axes.set(
        xlim=(0, 1),
        xlabel=f"delta ({comparison.form}) with 95 % interval",
        title="Strongest concepts",
    )


def _rarity(axes: Axes, comparison: Comparison) -> None:
    """How far delta lies from equality against how often the concept fires on real images."""
    columns = comparison.columns
    _scatter(axes, columns, columns["fires_real"] + 1, np.abs(columns["delta"] - 0.5))
    axes.set(
        xscale="log",
        ylim=(-0.01, 0.51),
        title="Rare concepts diverge by chance too",
        xlabel="fires on real images + 1 (image-token pairs)",
        ylabel=f"|delta - 0.5|  ({comparison.form})",
    )
    axes.legend(frameon=False, fontsize=8, loc="upper right")


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
        xlabel="energy an image, real",
        ylabel="energy an image, generated",
        title="Energy of every concept in both arms",
    )
    axes.legend(frameon=False, fontsize=8, loc="upper left")


def _scatter(axes: Axes, columns: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray) -> None:
    """One point a concept, coloured by verdict; the rarer verdicts lie on top."""
    for kind, colour in reversed(COLOURS.items()):
        chosen = columns["verdict"] == kind
        size = 24 if kind in (verdicts.SUPPRESSED, verdicts.EXAGGERATED) else 9
        axes.scatter(
            x[chosen], y[chosen], s=size, color=colour, alpha=0.8, linewidths=0, label=kind
        )
