"""Figures over several models, and sheets of the images of the strongest concepts."""

import itertools
import pathlib
import textwrap

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bsjax.report.correlations import Matrix, as_text, find
from bsjax.report.figures import GREY, INK, STYLE, draw, plain_text, save
from bsjax.report.overlays import LoadThumbnail
from bsjax.report.tables import Comparison, Measured, Ranking
from bsjax.stats import verdicts
from bsjax.stats.models import Correlation

LINES = ("#5776b4", "#b16243", "#2e8b57", "#8a4fa3", "#b8860b", "#3d7ea6", "#a03050", "#555555")
SHEET_CONCEPTS, SHEET_IMAGES = 6, 4
CELL = 18  # characters of a line within the matrix


def draw_models(
    folder: pathlib.Path, comparisons: list[Comparison], matrix: Matrix | None = None
) -> dict[str, str]:
    """Draws how models differ; returns file stem -> what it shows.

    Per-image differences stand for one model too; scatters and the matrix need two.
    """
    drawn = {"images": "How much each image's codes differ from its real counterpart's: the"
             " mean over concepts of generated - real, one curve per model."}  # fmt: skip
    draw(folder, "images", (5.2, 3.4), lambda axes: _per_image(axes, comparisons))
    if len(comparisons) > 1:
        draw(folder, "models_matrix", (4.6, 4.0), lambda axes: _matrix(axes, comparisons, matrix))
        drawn["models_matrix"] = (
            "Correlation of the models' log ratios, without the noise of the real images, with its"
            " 95 % interval; on the diagonal each model's reliability."
        )
    for left, right in itertools.combinations(comparisons, 2):
        stem = f"models_{left.name}__{right.name}"
        found = find(matrix, left.name, right.name)
        draw(
            folder,
            stem,
            (4.6, 4.2),
            lambda axes, a=left, b=right, found=found: _scatter(axes, a, b, found),
        )
        drawn[stem] = f"relative of every concept that both can judge, {left.name}, {right.name}."
    return drawn


def _per_image(axes: Axes, comparisons: list[Comparison]) -> None:
    for comparison, colour in zip(comparisons, itertools.cycle(LINES), strict=False):
        values = np.sort([row["mean_difference"] for row in comparison.datapoints])
        share = (np.arange(values.size) + 0.5) / max(values.size, 1)
        axes.plot(values, share, color=colour, label=comparison.name)
    axes.axvline(0, color=GREY, linewidth=0.8)
    axes.set(
        xlabel="mean energy difference of an image (generated - real)",
        ylabel="share of images below",
        title="Per-image differences",
        ylim=(0, 1),
    )
    axes.legend(frameon=False, fontsize=8)


def _matrix(axes: Axes, comparisons: list[Comparison], matrix: Matrix | None) -> None:
    names = [plain_text(comparison.name) for comparison in comparisons]
    found = [[find(matrix, a.name, b.name) for b in comparisons] for a in comparisons]
    axes.imshow(
        np.nan_to_num([[each.r for each in row] for row in found]), cmap="Blues", vmin=0, vmax=1.4
    )
    for i, j in np.ndindex(len(names), len(names)):
        text = as_text(found[i][j], is_self=i == j)
        text = textwrap.fill(plain_text(text), CELL) if found[i][j].reason else text
        text = text.replace(" ", "\n", 1)
        axes.text(j, i, text, ha="center", va="center", color=INK, fontsize=7)
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.spines[:].set_visible(False)
    axes.set_title("Correlation of log ratios")


def _scatter(axes: Axes, left: Comparison, right: Comparison, found: Correlation) -> None:
    judged = np.ones(len(left.columns["relative"]), bool)
    for comparison in (left, right):
        judged &= comparison.columns["verdict"] != verdicts.NOT_ENOUGH_DATA
    x, y = left.columns["relative"][judged], right.columns["relative"][judged]
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.axvline(0, color=GREY, linewidth=0.8)
    axes.scatter(x, y, s=6, color=LINES[0], alpha=0.6, linewidths=0, rasterized=True)
    title = plain_text(textwrap.shorten(as_text(found), 60))
    title = title if found.reason else f"r = {title}"
    axes.set(
        xlim=(-1.03, 1.03), ylim=(-1.03, 1.03), xlabel=f"relative, {plain_text(left.name)}",
        ylabel=f"relative, {plain_text(right.name)}", title=title,
    )  # fmt: skip


def draw_sheet(
    folder: pathlib.Path, comparison: Comparison, ranking: Ranking, load: LoadThumbnail
) -> tuple[str, str] | None:
    """Top real images of a ranking's first concepts and what was generated for their captions.

    Returns:
      File stem and what it shows; None if the ranking is empty.
    """
    concepts = ranking.concepts[:SHEET_CONCEPTS]
    if not concepts:
        return None
    partner = {row["row_real"]: row["row_generated"] for row in comparison.datapoints}
    stem = f"{comparison.name}_sheet_{ranking.kind}"
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 1.2 * len(concepts) + 0.4), layout="constrained")
        grid = figure.subplots(len(concepts), 2 * SHEET_IMAGES, squeeze=False)
        for line, concept in zip(grid, concepts, strict=True):
            rows = comparison.real.top_rows[concept][:SHEET_IMAGES]
            for slot, axes in enumerate(line):
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set_visible(False)
                row = rows[slot // 2] if slot // 2 < len(rows) else -1
                arm = comparison.real
                if slot % 2:
                    row, arm = partner.get(row, -1), comparison.generated
                _show(axes, arm, int(row), load)
            words = plain_text(str(comparison.columns["words"][concept]))[:34]
            ratio = np.exp(comparison.columns["log_ratio"][concept])
            text = f"{concept}  {words}  generated / real {ratio:.2g}"
            title = line[0].set_title(text, fontsize=8)
            title.set_in_layout(False)  # it may be wider than its column
        path = save(figure, folder, stem)
    return path.stem, (
        f"{comparison.name}, {ranking.title.lower()}: the real images that show each concept most,"
        " each beside the one generated for its caption."
    )


def _show(axes: Axes, arm: Measured, row: int, load: LoadThumbnail) -> None:
    try:
        axes.imshow(
            load(arm.paths[row], arm.resize, arm.crop) if row >= 0 else [[1]], cmap="gray_r"
        )
    except (OSError, ValueError):
        axes.text(0.5, 0.5, "gone", ha="center", va="center", fontsize=7)
