"""Figures over several models, and sheets of the images of the strongest concepts."""

import itertools
import math
import pathlib
import textwrap

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from PIL import Image

from bsjax.report import style as styles
from bsjax.report.correlations import Matrix, as_text, find
from bsjax.report.looks import SCHEMES
from bsjax.report.overlays import LoadThumbnail
from bsjax.report.style import draw, plain_text, save, shortened
from bsjax.report.tables import Comparison, Measured, Ranking, top_pairs
from bsjax.stats import verdicts
from bsjax.stats.models import Correlation

# Of models beside one another, on either ground; the first is that of generated images.
LINES = {
    "light": ("#c2417c", "#1a5f8a", "#7a6a00", "#2f7040", "#4b1d6b", "#5a6067"),
    "dark": ("#e060a0", "#8ecbf0", "#d6c04a", "#8fce9d", "#9a63c8", "#f2f4f6"),
}
DASHES = ("-", "--", ":")  # where there are more models than colours
SHEET_CONCEPTS, SHEET_IMAGES = 6, 4
SHEET_PIXELS = 160  # a side, of an image kept in a sheet
CELL = 18  # characters of a line within the matrix
DISAGREEMENTS = 5  # named on a scatter


def draw_models(
    folder: pathlib.Path,
    comparisons: list[Comparison],
    matrix: Matrix | None = None,
    style: str = "light",
) -> dict[str, str]:
    """Draws how models differ; returns file stem -> what it shows.

    Per-image differences stand for one model too; scatters and the matrix need two.
    """
    drawn = {"images": "How much each generated image differs from its real counterpart: the mean"
             " over concepts of generated - real, one curve per model."}  # fmt: skip
    draw(folder, "images", (5.2, 3.4), lambda axes, s: _per_image(axes, comparisons, s), style)
    n = len(comparisons)
    if n > 1:
        side = max(3.0, 1.3 * n + 1)
        draw(
            folder,
            "models_matrix",
            (side + 0.6, side),
            lambda axes, s: _matrix(axes, comparisons, matrix, s),
            style,
        )
        drawn["models_matrix"] = (
            "Do two models change the same concepts? Correlation of their log ratios, without the"
            " noise of the real images, with its 95 % interval; on the diagonal each model's"
            " reliability."
        )
    for left, right in itertools.combinations(comparisons, 2):
        stem = f"models_{left.name}__{right.name}"
        found = find(matrix, left.name, right.name)
        draw(
            folder,
            stem,
            (5.0, 5.0),
            lambda axes, s, a=left, b=right, found=found: _scatter(axes, a, b, found, s),
            style,
        )
        drawn[stem] = (
            f"Every concept that both can judge, generated against real, by {left.name} and by"
            f" {right.name}. On the diagonal both draw it alike. Named: those that differ most."
        )
    return drawn


def _per_image(axes: Axes, comparisons: list[Comparison], style: str = "light") -> None:
    lines = itertools.product(DASHES, LINES[style])
    look = SCHEMES[style]
    for comparison, (dash, colour) in zip(comparisons, itertools.cycle(lines), strict=False):
        values = np.sort([row["mean_difference"] for row in comparison.datapoints])
        share = (np.arange(values.size) + 0.5) / max(values.size, 1)
        name = shortened(comparison.name, 30)
        axes.plot(values, share, dash, color=colour, label=name, rasterized=values.size > 5000)
    axes.axvline(0, color=look.soft, linewidth=0.8, zorder=0)
    axes.set(
        xlabel="less than the real image  ←  mean energy difference  →  more than it",
        ylabel="share of generated images below",
        title="How far each generated image is from its real one",
        ylim=(0, 1),
    )
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    axes.legend()


def _matrix(
    axes: Axes, comparisons: list[Comparison], matrix: Matrix | None, style: str = "light"
) -> None:
    look = SCHEMES[style]
    names = [shortened(comparison.name, 24) for comparison in comparisons]
    found = [[find(matrix, a.name, b.name) for b in comparisons] for a in comparisons]
    shades = LinearSegmentedColormap.from_list("r", (look.paper, look.accent))
    values = np.nan_to_num([[each.r for each in row] for row in found])
    np.fill_diagonal(values, 0)  # no correlation of two models
    axes.imshow(np.abs(values), cmap=shades, vmin=0, vmax=2.5)  # so light that text can be read
    for i, j in np.ndindex(len(names), len(names)):
        text = as_text(found[i][j], is_self=i == j)
        text = textwrap.fill(plain_text(text), CELL) if found[i][j].reason else text
        text = text.replace(" ", "\n", 1)
        colour = look.soft if i == j else look.ink
        axes.text(j, i, text, ha="center", va="center", fontsize=8, color=colour)
    axes.set_xticks(range(len(names)), names, rotation=30 if len(names) > 2 else 0,
                    ha="right" if len(names) > 2 else "center")  # fmt: skip
    axes.set_yticks(range(len(names)), names)
    axes.set_xticks(np.arange(len(names) - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(len(names) - 1) + 0.5, minor=True)
    axes.grid(which="minor", color=look.line, linewidth=1)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    axes.set_title("Do they change the same concepts?")


def _scatter(
    axes: Axes, left: Comparison, right: Comparison, found: Correlation, style: str = "light"
) -> None:
    look = SCHEMES[style]
    judged, called = np.ones(len(left.columns["log_ratio"]), bool), []
    for comparison in (left, right):
        judged &= comparison.columns["verdict"] != verdicts.NOT_ENOUGH_DATA
        called.append(np.isin(comparison.columns["verdict"], verdicts.CALLED))
    logs = np.stack([each.columns["log_ratio"] for each in (left, right)])
    judged &= np.isfinite(logs).all(axis=0)
    reach = styles.fold_reach(logs[:, judged])
    x, y = np.exp(np.clip(logs, -math.log(reach), math.log(reach)))
    for axis, comparison in ((axes.xaxis, left), (axes.yaxis, right)):
        styles.fold_axis(axis, reach)
        axis.set_label_text(f"{shortened(comparison.name, 30)}, compared with real images")
    axes.axhline(1, color=look.line, linewidth=0.8, zorder=0)
    axes.axvline(1, color=look.line, linewidth=0.8, zorder=0)
    axes.plot([1 / reach, reach], [1 / reach, reach], color=look.soft, linewidth=1, zorder=0)
    both, either = called[0] & called[1], called[0] | called[1]
    for chosen, label, colour, size in (
        (judged & ~either, "called in neither", look.soft, 7),
        (judged & either & ~both, "called in one", look.accent, 20),
        (judged & both, "called in both", look.ink, 20),
    ):
        axes.scatter(x[chosen], y[chosen], s=size, color=colour, alpha=0.7, linewidths=0,
                     rasterized=True, label=f"{label} ({int(chosen.sum())})")  # fmt: skip
    text = plain_text(textwrap.shorten(as_text(found), 60))
    axes.set(aspect="equal", title=text if found.reason else f"r = {text}")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3, handletextpad=0.2)
    gap = np.where(judged & either, np.abs(logs[0] - logs[1]), 0)
    words = left.columns["words"]
    most = [k for k in np.argsort(-gap, kind="stable")[:DISAGREEMENTS] if gap[k] > 0]
    styles.label_points(
        axes, [(x[k], y[k], f"{shortened(str(words[k]), 20)} {k}") for k in most], style
    )


def draw_sheet(
    folder: pathlib.Path,
    comparison: Comparison,
    ranking: Ranking,
    load: LoadThumbnail,
    style: str = "light",
) -> tuple[str, str] | None:
    """The images that show a ranking's first concepts most, each beside its counterpart.

    Of suppressed concepts these are real images with what was generated for their captions, of
    exaggerated ones generated images with the real ones of their captions.

    Returns:
      File stem and what it shows; None if no concept of the ranking has an image to show.
    """
    pairs = {
        concept: top_pairs(comparison, concept, ranking.kind, SHEET_IMAGES)
        for concept in ranking.concepts[:SHEET_CONCEPTS]
    }
    pairs = {concept: found for concept, found in pairs.items() if found}
    if not pairs:
        return None
    arms = [("real", comparison.real), ("generated", comparison.generated)]
    if ranking.kind == verdicts.EXAGGERATED:
        arms.reverse()
    stem = f"{comparison.name}_sheet_{ranking.kind}"
    images = {
        (arm, row): _image(measured, row, load)
        for found in pairs.values()
        for pair in found
        for (arm, measured), row in zip(arms, (pair.row, pair.other), strict=True)
        if row >= 0
    }
    for each in (style, styles.OTHER[style]):
        with styles.legible(), matplotlib.rc_context(styles.rc(each)):
            figure = _sheet(comparison, ranking, pairs, [arm for arm, _ in arms], images, each)
            save(figure, folder, stem, None if each == style else each)
    first, second = (
        ("real", "generated image") if arms[0][0] == "real" else ("generated", "real image")
    )
    beside = f", each beside the {second} of its caption" if comparison.is_paired else ""
    return stem, (
        f"{comparison.name}, {ranking.title.lower()}: the {first} images that show each concept"
        f" most{beside}."
    )


SIDE, GAP, BETWEEN, LABEL, HEAD, EDGE = 0.68, 0.03, 0.13, 1.45, 0.62, 0.08  # inches of a sheet


def _sheet(comparison, ranking, pairs, arms, images, style) -> Figure:
    """Rows of concepts, columns of pairs; every place of the grid is filled."""
    look, n = SCHEMES[style], len(pairs)
    width = LABEL + SHEET_IMAGES * (2 * SIDE + GAP) + (SHEET_IMAGES - 1) * BETWEEN + EDGE
    height = HEAD + n * (SIDE + GAP * 3) + EDGE
    figure = Figure(figsize=(width, height))
    title = f"{ranking.title}, {shortened(comparison.name, 40)}"
    figure.text(EDGE / width, 1 - 0.17 / height, title, fontsize=11, weight="bold", va="center")
    for line, (concept, found) in enumerate(pairs.items()):
        bottom = height - HEAD - (line + 1) * (SIDE + GAP * 3) + GAP * 3
        _describe(figure, comparison, concept, ranking.kind, (EDGE / width, (bottom + SIDE / 2)
                  / height), SIDE / height, style)  # fmt: skip
        for slot in range(2 * SHEET_IMAGES):
            left = LABEL + slot * (SIDE + GAP) + slot // 2 * (BETWEEN - GAP)
            axes = figure.add_axes((left / width, bottom / height, SIDE / width, SIDE / height))
            axes.set(xticks=[], yticks=[], facecolor=look.card)
            axes.spines[:].set_visible(False)
            if line == 0:
                arm = arms[slot % 2]
                axes.set_title(arm, fontsize=8, loc="center", color=getattr(look, arm), pad=3)
            if slot // 2 >= len(found):
                _say(axes, "no other\ncaption" if slot % 2 == 0 else "", look.soft)
                continue
            row = found[slot // 2][1 + slot % 2]
            if row < 0:
                _say(axes, "unpaired", look.soft)
                continue
            image = images[arms[slot % 2], row]
            if image is None:
                _say(axes, "file is\ngone", look.soft)
            else:
                axes.imshow(image, interpolation="none")
    return figure


def _say(axes: Axes, text: str, colour: str) -> None:
    axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=7, color=colour)


def _describe(figure: Figure, comparison, concept, kind, place, side, style) -> None:
    """What a row of a sheet shows: words, number of the concept, how much less or more."""
    columns, (x, y) = comparison.columns, place
    words = textwrap.wrap(str(columns["words"][concept]) or "(no typical word)", 19)[:2]
    log_ratio = float(columns["log_ratio"][concept])
    fold = f"{math.exp(abs(log_ratio)):.2g}× {'less' if log_ratio < 0 else 'more'} than real"
    figure.text(x, y + 0.14 * side, plain_text("\n".join(words)), fontsize=9, va="center",
                weight="bold")  # fmt: skip
    figure.text(x, y - 0.2 * side, fold, fontsize=8, va="center", color=styles.colours(style)[kind])
    look = SCHEMES[style]
    figure.text(x, y - 0.39 * side, f"concept {concept}", fontsize=7, va="center", color=look.soft)


def _image(arm: Measured, row: int, load: LoadThumbnail) -> Image.Image | None:
    """What the encoder saw of an image, as small as a sheet shows it; None: the file is gone."""
    try:
        image = load(arm.paths[row], arm.resize, arm.crop)
    except (OSError, ValueError):
        return None
    if max(image.size) > SHEET_PIXELS:
        image = image.resize((SHEET_PIXELS, SHEET_PIXELS), Image.Resampling.LANCZOS)
    return image.convert("RGB")
