"""How every figure looks: its colours and type, axes in words, and the files it becomes."""

import contextlib
import functools
import pathlib
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import matplotlib
import numpy as np
from absl import logging
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator
from matplotlib.transforms import Bbox

from bsjax.core.artifacts import atomic_path
from bsjax.report.looks import LOOKS, SCHEMES

# Kind of file -> what is not to be told in it: the same figure has the same bytes, today or
# tomorrow.
FILES = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
OTHER = {"light": "dark", "dark": "light"}
DPI = 160
# Ticks of an axis of folds.
STEPS = {1.5: (1.5,), 4: (2, 4), 8: (2, 4, 8), 10: (10,), 100: (10, 100)}
# For captions in other scripts.
FALLBACKS = ("Noto Sans CJK JP", "Noto Sans CJK SC", "Microsoft YaHei", "Hiragino Sans GB",
             "Arial Unicode MS", "Noto Sans Arabic", "Noto Sans Devanagari", "Noto Sans Thai",
             "Noto Emoji")  # fmt: skip
MISSING = r"Glyph \d+ .*missing from"
MANY = 4000  # concepts, from which on points are smaller and shine through
Drawing = Callable[[Axes, str], None]


def rc(style: str) -> dict[str, Any]:
    """matplotlib's settings for a style of `looks.SCHEMES`."""
    look = SCHEMES[style]
    return {
        "font.size": 9,
        "font.family": families(),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": look.soft,
        "axes.facecolor": look.paper,
        "axes.labelcolor": look.ink,
        "axes.titlecolor": look.ink,
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.titlepad": 9,
        "figure.constrained_layout.w_pad": 0.1,  # inches
        "figure.constrained_layout.h_pad": 0.1,
        "figure.dpi": DPI,
        "figure.facecolor": look.paper,
        "savefig.facecolor": look.paper,
        "legend.frameon": False,
        "legend.fontsize": 8,
        "legend.labelcolor": look.ink,
        "text.color": look.ink,
        "xtick.color": look.soft,
        "xtick.labelcolor": look.ink,
        "xtick.labelsize": 8,
        "ytick.color": look.soft,
        "ytick.labelcolor": look.ink,
        "ytick.labelsize": 8,
        "pdf.fonttype": 42,  # text stays text, in fonts that journals take
        "svg.hashsalt": "bsjax",
    }


@functools.cache
def families() -> list[str]:
    """The figures' font, and those installed here that have characters which it lacks."""
    installed = set(font_manager.get_font_names())
    return ["DejaVu Sans", *(name for name in FALLBACKS if name in installed)]


@contextlib.contextmanager
def legible() -> Iterator[None]:
    """Tells in one line, once, of captions whose characters no font here has."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", MISSING)
        yield
    missing = [each for each in caught if re.match(MISSING, str(each.message))]
    if missing:
        logging.log_first_n(logging.WARNING, "figures show boxes for some characters: install a"
                            " font that has them, such as Noto Sans CJK (%s)", 1,
                            missing[0].message)  # fmt: skip
    for each in caught:
        if each not in missing:
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)


def colours(style: str) -> dict[str, str]:
    """Verdict -> colour of its marks."""
    return {kind: getattr(look, style) for kind, look in LOOKS.items()}


def marker(kind: str) -> str:
    """A verdict's sign as a marker, so that it can be told without colour."""
    return {-1: "v", 0: "o", 1: "^"}[LOOKS[kind].sign]


def draw(
    folder: pathlib.Path,
    stem: str,
    size: tuple[float, float],
    drawing: Drawing,
    style: str = "light",
) -> pathlib.Path:
    """Saves a figure of one drawing in both styles; returns the SVG's path.

    Args:
      folder: of the figures.
      stem: of the files.
      size: inches.
      drawing: draws on axes in a style.
      style: of <stem>.png, .svg and .pdf; the other style is <stem>_dark.png or _light.png.
    """
    for each in (style, OTHER[style]):
        with legible(), matplotlib.rc_context(rc(each)):
            figure = Figure(figsize=size, layout="constrained")
            drawing(figure.subplots(), each)
            save(figure, folder, stem, None if each == style else each)
    return folder / f"{stem}.svg"


def save(figure: Figure, folder: pathlib.Path, stem: str, other: str | None = None) -> None:
    """Saves a figure as PNG, SVG and PDF; of the `other` style, for pages, as PNG alone."""
    for kind in ("png",) if other else FILES:
        # A set's name may end in what looks like a suffix.
        path = folder / f"{stem}{f'_{other}' if other else ''}.{kind}"
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format=kind, dpi=DPI, metadata=FILES[kind])
        figure.set_layout_engine("none")  # found once, it is the same in every file


def plain_text(text: str) -> str:
    """Text that matplotlib writes as it stands: a dollar sign would start a formula."""
    return text.replace("$", r"\$")


def shortened(text: str, length: int) -> str:
    """Text of at most so many characters that matplotlib writes as it stands."""
    text = text or "(no typical word)"
    return plain_text(text if len(text) <= length else f"{text[: length - 1].rstrip()}…")


def fold_words(ratio: float) -> str:
    """A ratio to the real images in words: 10× less, the same, 2× more."""
    if ratio == 1:
        return "the same"
    return f"{1 / ratio:.3g}× less" if ratio < 1 else f"{ratio:.3g}× more"


def fold_axis(axis: Axis, reach: float) -> None:
    """Makes an axis one of ratios, from 1/reach to reach, in words."""
    end = max(ratio for ratio in STEPS if ratio <= max(reach, 1.5))
    folds = [1.0, *(each for step in STEPS[end] for each in (step, 1 / step))]
    axis.axes.set(**{f"{axis.axis_name}scale": "log", f"{axis.axis_name}lim": (1 / reach, reach)})
    axis.set_major_locator(FixedLocator(sorted(folds)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: fold_words(float(value))))


def fold_reach(log_ratios: np.ndarray, most: float = 100.0) -> float:
    """How far an axis of ratios reaches to show what is finite of these; at least 2.2."""
    known = np.abs(log_ratios[np.isfinite(log_ratios)])
    return float(np.clip(1.15 * np.exp(known.max(initial=0.0)), 2.2, most))


def amount_axis(axis: Axis) -> None:
    """Makes an axis logarithmic, with numbers as people write them: 0.01, 10, 1,000."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_formatter(NullFormatter())


def label_points(axes: Axes, labels: list[tuple[float, float, str]], style: str) -> None:
    """Writes texts beside points (x, y), the first ones first; those that would overlap not."""
    look = SCHEMES[style]
    drawn = [
        axes.annotate(
            text, (x, y), (6, 5), textcoords="offset points", fontsize=8, fontweight="bold",
            bbox={"facecolor": look.paper, "edgecolor": "none", "alpha": 0.75, "pad": 0.6},
        )
        for x, y, text in labels
    ]  # fmt: skip
    axes.figure.draw_without_rendering()
    taken: list[Bbox] = []
    for text in drawn:
        box, frame = text.get_window_extent(), axes.get_window_extent()
        if box.x1 > frame.x1:  # to the left of its point
            text.set(ha="right", position=(-6, 5))
            box = text.get_window_extent()
        if any(box.overlaps(other) for other in taken) or box.x0 < frame.x0 or box.y1 > frame.y1:
            text.remove()
        else:
            taken.append(box)
