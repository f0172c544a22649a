"""What a training leaves to look at: its curves, and the distributions behind quality.json."""

import io
import json
from typing import Any

import matplotlib.figure
import numpy as np

SHOWN = (
    ("loss", "loss"),
    ("r2", "R2"),
    ("dead_share", "dead share"),
    ("l0", "active concepts per token"),
    ("threshold", "running threshold"),
    ("learning_rate", "learning rate"),
    ("tokens_per_second", "tokens / s"),
)

# Field of `bsjax.sae.quality.Distributions`, what it counts, title.
DISTRIBUTIONS = (
    ("relative_error", "tokens", "residual / token (length)"),
    ("n_active", "tokens", "active concepts per token"),
    ("hoyer", "tokens", "Hoyer sparsity of a token"),
    ("energy", "concepts", "energy by rank"),
    ("ood", "concepts", "distance of an atom to the data"),
    ("collinearity", "concepts", "largest |cosine| to another"),
)
COLOUR = "#5776b4"


def plot_curves(source: Any, target: Any) -> None:
    """One small panel a metric over the steps.

    Args:
      source: path of curves.jsonl.
      target: path of the PNG.
    """
    rows = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    figure = matplotlib.figure.Figure(figsize=(11, 5), layout="constrained")
    axes = figure.subplots(2, 4).ravel()
    for axis, (name, label) in zip(axes, SHOWN, strict=False):
        axis.plot([row["step"] for row in rows], [row[name] for row in rows], color=COLOUR)
        if name == "loss":
            axis.set_yscale("log")
        if name == "r2":
            # The first steps lie far below, and what comes later would be a flat line.
            axis.set_ylim(max(min(row[name] for row in rows), -1.0) - 0.05, 1.05)
        _label(axis, label, "step")
    for axis in axes[len(SHOWN) :]:
        axis.set_visible(False)
    _write(figure, target)


def plot_quality(distributions: Any, target: Any) -> None:
    """One histogram a measure over tokens or concepts; energies by rank on a logarithmic scale.

    Args:
      distributions: `bsjax.sae.quality.Distributions`.
      target: path of the PNG.
    """
    figure = matplotlib.figure.Figure(figsize=(11, 5), layout="constrained")
    for axis, (name, unit, title) in zip(figure.subplots(2, 3).ravel(), DISTRIBUTIONS, strict=True):
        values = np.asarray(getattr(distributions, name))
        if name == "energy":
            alive = np.sort(values[values > 0])[::-1]
            axis.plot(np.arange(1, len(alive) + 1), alive, color=COLOUR)
            axis.set_yscale("log" if len(alive) else "linear")
            _label(axis, f"{title} ({len(values) - len(alive)} dead)", "rank")
            continue
        is_count = name == "n_active"
        axis.hist(values, np.arange(values.max() + 2) - 0.5 if is_count else 40, color=COLOUR)
        axis.axvline(values.mean(), color="#333333", linewidth=1, linestyle="--")
        _label(axis, f"{title}: mean {values.mean():.3g}", "")
        axis.set_ylabel(unit, fontsize=8)
    _write(figure, target)


def _label(axis, title: str, x: str) -> None:
    axis.set_title(title, fontsize=10, loc="left")
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_xlabel(x, fontsize=8)


def _write(figure, target: Any) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    target.write_bytes(buffer.getvalue())
