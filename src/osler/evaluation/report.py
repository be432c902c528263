"""A report of figures: as Markdown, as JSON, and in a document between two marker lines."""

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from osler.errors import UnreadableFileError
from osler.evaluation.figure import Figure

BEGIN = "<!-- figures: begin -->"
END = "<!-- figures: end -->"


@dataclass(frozen=True, kw_only=True)
class Section:
    """Figures that belong together.

    Attributes:
        title: of the section.
        says: what a reader must know to read them.
        figures: rows by their names, columns by metric and by whom.
    """

    title: str
    says: str
    figures: Sequence[Figure] = field(default_factory=tuple)


def markdown(sections: Iterable[Section], about: Mapping[str, Any]) -> str:
    """The report as Markdown: what was measured, the targets, and a table of each section."""
    sections = [section for section in sections if section.figures]
    figures = [figure for section in sections for figure in section.figures]
    parts = ["; ".join(f"{name}: {value}" for name, value in about.items()) + "."]
    parts.append("Shares with their 95 % intervals, bootstrapped over patients, lesions or cases.")
    if aimed := [figure for figure in figures if figure.target is not None]:
        parts += ["### Targets", _target_table(aimed)]
    for section in sections:
        parts += [f"### {section.title}", section.says, figure_table(section.figures)]
    return "\n\n".join(parts) + "\n"


def figure_table(figures: Iterable[Figure]) -> str:
    """Figures as a Markdown table: a row for each name, a column for each metric and by whom."""
    rows: dict[tuple[str, int], dict[tuple[str, str], Figure]] = {}
    for figure in figures:
        rows.setdefault((figure.name, figure.images), {})[figure.metric, figure.by] = figure
    columns = list(dict.fromkeys(column for cells in rows.values() for column in cells))
    heads = [metric + (f", {by}" if by else "") for metric, by in columns]
    unscored = any(cell.unscored for cells in rows.values() for cell in cells.values())
    lines = [
        _row("What", "n", *heads, *(["Unscored"] if unscored else [])),
        "|---" + "|---:" * (len(heads) + 1 + unscored) + "|",
    ]
    for (name, images), cells in rows.items():
        shown = [_shown(cells[column]) if column in cells else "" for column in columns]
        most = [str(max(cell.unscored for cell in cells.values()))] if unscored else []
        lines.append(_row(name, f"{images:,}", *shown, *most))
    return "\n".join(lines)


def record(sections: Iterable[Section], about: Mapping[str, Any]) -> str:
    """The report as JSON."""
    values = {
        "about": dict(about),
        "sections": [
            {
                "title": section.title,
                "says": section.says,
                "figures": [figure.record() for figure in section.figures],
            }
            for section in sections
        ],
    }
    return json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all.

    Raises:
        UnreadableFileError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise UnreadableFileError(f"{path}: cannot be written ({error.strerror})") from error


def between_markers(path: Path, text: str) -> str:
    """A document with new text between its marker lines.

    Args:
        path: the document.
        text: in place of what stands between `BEGIN` and `END`.

    Raises:
        UnreadableFileError: it cannot be read, or has not one line of each marker, in this order.
    """
    try:
        document = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableFileError(f"{path}: cannot be read as text") from error
    before, begin, rest = document.partition(f"{BEGIN}\n")
    _, end, after = rest.partition(f"{END}\n")
    if not begin or not end or END in before or BEGIN in rest or END in after:
        raise UnreadableFileError(f"{path}: needs one line {BEGIN} and after it one line {END}")
    return f"{before}{begin}\n{text.strip()}\n\n{end}{after}"


def _target_table(figures: Iterable[Figure]) -> str:
    lines = [_row("What", "Metric", "Measured", "Target", "Reached"), "|---|---|---:|---:|---|"]
    for figure in figures:
        target = f"{figure.target:.1%}"
        wanted = f"interval above {target}" if figure.clearly else f"at least {target}"
        metric = figure.metric + (f", {figure.by}" if figure.by else "")
        reached = "yes" if figure.reached else "**no**"
        lines.append(_row(figure.name, metric, _shown(figure), wanted, reached))
    return "\n".join(lines)


def _shown(figure: Figure) -> str:
    if math.isnan(figure.value):
        return "not measured"
    return f"{figure.value:.1%} ({figure.low:.1%} to {figure.high:.1%})"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
