"""What a proof leaves, as JSON holds it: tables, pictures, samples. See `document` and `plots`."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from osler.evaluation.figure import Figure

Record = dict[str, Any]
# From a series' name to its points: x, y, and the deviation of y, 0 where it is not known.
Series = Mapping[str, Sequence[tuple[float, float, float]]]


def table(title: str, says: str, figures: Sequence[Figure]) -> Record:
    """Figures as a table: a row for each name, a column for each metric and by whom.

    Args:
        title: of the table.
        says: what a reader must know to read it.
        figures: in the order of their columns.
    """
    return {"title": title, "says": says, "figures": [figure.record() for figure in figures]}


def figures_of(values: Record) -> list[Figure]:
    """The figures of a table again."""
    found: list[dict[str, Any]] = [
        {name: math.nan if value is None else value for name, value in figure.items()}
        for figure in values["figures"]
    ]
    return [Figure(**{name: of[name] for name in of.keys() - {"reached"}}) for of in found]


def points(file: str, title: str, x: str, figures: Sequence[Figure]) -> Record:
    """A picture of figures with their intervals, row by row.

    Args:
        file: its name.
        title: above it.
        x: what its axis says.
        figures: all of one metric.
    """
    values = [figure.record() for figure in figures]
    return {"kind": "points", "file": file, "title": title, "x": x, "figures": values}


def curves(
    file: str, title: str, x: str, y: str, panels: Mapping[str, Series], *, log_x: bool = False
) -> Record:
    """A picture of curves, a panel for each name.

    Args:
        file: its name.
        title: above it.
        x: what its axis says.
        y: likewise.
        panels: series by the panel's title.
        log_x: whether x grows by factors.
    """
    plain = {
        panel: {name: [list(point) for point in of_one] for name, of_one in series.items()}
        for panel, series in panels.items()
    }
    values = {"title": title, "x": x, "y": y, "panels": plain, "log_x": log_x}
    return {"kind": "curves", "file": file, **values}


def samples(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Record:
    """Words, such as answers before and after."""
    return {"title": title, "heads": list(heads), "rows": [list(row) for row in rows]}


def proof(
    *,
    tables: Sequence[Record],
    plots: Sequence[Record] = (),
    words: Sequence[Record] = (),
    settings: Mapping[str, Any],
) -> Record:
    """All that a proof leaves.

    Args:
        tables: see `table`.
        plots: see `points` and `curves`.
        words: see `samples`.
        settings: numbers that a reader may want to know.
    """
    return {
        "settings": dict(settings),
        "tables": list(tables),
        "plots": list(plots),
        "words": list(words),
    }
