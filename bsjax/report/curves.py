"""Training curves as a figure: reads curves.jsonl, writes curves.png."""

import io
import json
from typing import Any

import matplotlib.figure

SHOWN = (
    ("loss", "loss"),
    ("r2", "R2"),
    ("dead_share", "dead share"),
    ("l0", "active concepts a token"),
    ("threshold", "running threshold"),
    ("learning_rate", "learning rate"),
    ("tokens_per_second", "tokens / s"),
)


def plot_curves(source: Any, target: Any) -> None:
    """One small panel a metric over the steps.

    Args:
      source: path of curves.jsonl.
      target: path of the PNG.
    """
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    figure = matplotlib.figure.Figure(figsize=(11, 5), layout="constrained")
    axes = figure.subplots(2, 4).ravel()
    for axis, (name, label) in zip(axes, SHOWN, strict=False):
        axis.plot([row["step"] for row in rows], [row[name] for row in rows], color="#5776b4")
        if name == "loss":
            axis.set_yscale("log")
        if name == "r2":
            # The first steps lie far below, and what comes later would be a flat line.
            axis.set_ylim(max(min(row[name] for row in rows), -1.0) - 0.05, 1.05)
        axis.set_title(label, fontsize=10, loc="left")
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_xlabel("step", fontsize=8)
    for axis in axes[len(SHOWN) :]:
        axis.set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    target.write_bytes(buffer.getvalue())
