"""Draws the pictures of a proof."""

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.recipe.record import Record, figures_of
from osler.errors import UnsupportedError
from osler.evaluation.figure import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Picture

_COLORS = ("#1f5f8b", "#e08e2b", "#3b8a4a", "#a03c55", "#7a5fa8")
_COLUMNS = 3
_PANEL_WIDTH, _PANEL_HEIGHT = 3.6, 2.7


def draw(plot: Record, folder: Path) -> Path:
    """Draw one picture.

    Args:
        plot: see `record.points` and `record.curves`.
        folder: created where it is not there.

    Raises:
        UnsupportedError: matplotlib is not installed.
    """
    picture = _points(plot) if plot["kind"] == "points" else _curves(plot)
    content = io.BytesIO()
    picture.savefig(content, format="png", dpi=110)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / str(plot["file"])
    partial = path.with_suffix(".partial")
    partial.write_bytes(content.getvalue())
    os.replace(partial, path)
    return path


def _points(plot: Record) -> "Picture":
    """A row for each name, a dot with its interval for each who is compared."""
    figures = figures_of(plot)
    names = list(dict.fromkeys(figure.name for figure in figures))
    shown = list(dict.fromkeys(figure.by for figure in figures))
    picture: Picture = _canvas(9, 1.6 + (0.2 + 0.17 * len(shown)) * len(names))
    axes = picture.subplots()
    step = 0.8 / len(shown)
    for order, by in enumerate(shown):
        offset = (order - (len(shown) - 1) / 2) * step
        of_one = [figure for figure in figures if figure.by == by]
        places = [names.index(figure.name) + offset for figure in of_one]
        color = _COLORS[order % len(_COLORS)]
        for place, figure in zip(places, of_one, strict=True):
            axes.plot([figure.low, figure.high], [place] * 2, color=color, linewidth=2)
        axes.plot([figure.value for figure in of_one], places, "o", color=color, label=by)
    axes.set_yticks(range(len(names)), [_with_count(name, figures) for name in names])
    axes.invert_yaxis()
    if " " in figures[0].metric:  # a difference
        axes.axvline(0, color="black", linewidth=1)
    axes.set_xlabel(f"{plot['x']}, with 95 % intervals")
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    picture.suptitle(plot["title"])
    picture.legend(loc="outside lower center", ncols=min(len(shown), 4), frameon=False)
    return picture


def _curves(plot: Record) -> "Picture":
    """A panel for each name; a band is one deviation to both sides."""
    panels = plot["panels"]
    columns = min(_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    width, height = (_PANEL_WIDTH, _PANEL_HEIGHT) if columns == _COLUMNS else (4.8, 3.4)
    picture: Picture = _canvas(max(7, width * columns), height * rows + 1)
    grid = picture.subplots(rows, columns, squeeze=False).flatten()
    series = list(dict.fromkeys(name for of_panel in panels.values() for name in of_panel))
    for axes, (panel, of_panel) in zip(grid, panels.items(), strict=False):
        for name, points in of_panel.items():
            _curve(axes, points, _COLORS[series.index(name) % len(_COLORS)])
        axes.set_title(panel, fontsize="medium")
        axes.grid(color="0.9")
        if plot["log_x"]:
            axes.set_xscale("log")
            axes.minorticks_off()
            known = sorted({x for points in of_panel.values() for x, _, _ in points})
            axes.set_xticks(known, [f"{x:,}" for x in known])
    for axes in grid[max(0, len(panels) - columns) : len(panels)]:
        axes.set_xlabel(plot["x"])
    for axes in grid[::columns]:
        axes.set_ylabel(plot["y"])
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    handles = [
        grid[0].plot([], [], color=_COLORS[place % len(_COLORS)], label=name)[0]
        for place, name in enumerate(series)
    ]
    picture.suptitle(plot["title"])
    picture.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
    return picture


def _curve(axes: "Axes", points: list[list[float]], color: str) -> None:
    if not points:
        return
    x, y, deviations = zip(*points, strict=True)
    axes.plot(x, y, color=color, marker="o" if len(points) < 12 else "", markersize=3)
    if any(deviations):
        low, high = ([v + side * d for v, d in zip(y, deviations, strict=True)] for side in (-1, 1))
        axes.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)


def _with_count(name: str, figures: list[Figure]) -> str:
    return f"{name}, n = {max(f.images for f in figures if f.name == name):,}"


def _canvas(width: float, height: float) -> Any:
    try:
        from matplotlib.figure import Figure as Canvas
    except ModuleNotFoundError as error:
        raise UnsupportedError("drawing needs pip install 'osler[train]'") from error
    return Canvas(figsize=(width, height), layout="constrained")
