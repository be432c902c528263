"""A picture of a run: its loss, and below it every figure of its evaluations."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

_SMOOTHING = 0.9


def draw_curves(metrics: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw a run's curves; without matplotlib (the extra `train`), say so and leave it.

    Args:
        metrics: the lines of metrics.jsonl.
        path: the PNG file to write.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        log.warning("no %s: matplotlib is not installed (pip install 'osler[train]')", path.name)
        return
    losses = [(line["step"], line["loss"]) for line in metrics if "loss" in line]
    evaluations = [(line["step"], line["evaluation"]) for line in metrics if "evaluation" in line]
    if not losses:
        return
    names = sorted({name for _, figures in evaluations for name in figures})
    figure = Figure(figsize=(8, 3 + 2 * len(names)), layout="constrained")
    first, *others = figure.subplots(1 + len(names), 1, sharex=True, squeeze=False)[:, 0]
    steps, values = zip(*losses, strict=True)
    first.plot(steps, values, color="0.8", linewidth=0.8)
    first.plot(steps, _smoothed(values), color="C0")
    first.set_ylabel("loss")
    for axes, name in zip(others, names, strict=True):
        points = [(step, figures[name]) for step, figures in evaluations if name in figures]
        axes.plot(*zip(*points, strict=True), marker="o", markersize=3)
        axes.set_ylabel(name)
    figure.axes[-1].set_xlabel("step")
    partial = path.with_suffix(".partial")
    figure.savefig(partial, format="png", dpi=120)
    os.replace(partial, path)


def _smoothed(values: Sequence[float]) -> list[float]:
    """A running mean that starts at the first value."""
    smooth = [values[0]]
    for value in values[1:]:
        smooth.append(_SMOOTHING * smooth[-1] + (1 - _SMOOTHING) * value)
    return smooth
