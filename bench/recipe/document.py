"""Puts what the proofs found into docs/recipe.md, between the marker lines of each."""

import math
from collections.abc import Sequence
from pathlib import Path

from bench.recipe.record import Record, figures_of
from osler.errors import UnreadableFileError
from osler.evaluation.figure import Figure
from osler.training.run_log import write_whole

NOT_YET = "Not yet measured."
_DECIMALS = {"AUC": ".3f", "loss": ".3f", "perplexity": ".2f"}
_SHARE = ".1%"


def put(path: Path, name: str, text: str) -> None:
    """Replace what stands between the markers of a proof.

    Raises:
        UnreadableFileError: the document cannot be read, or lacks the markers.
    """
    try:
        document = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UnreadableFileError(f"{path}: cannot be read as text") from error
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"
    before, found, rest = document.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise UnreadableFileError(f"{path}: needs one line {begin.strip()} and one {end.strip()}")
    write_whole(path, f"{before}{begin}\n{text.strip()}\n\n{end}{after}")


def markdown(name: str, record: Record, pictures: str) -> str:
    """What a proof found.

    Args:
        name: of the proof.
        record: see `record.proof`.
        pictures: the folder of its pictures, as the document names it.
    """
    command = f"python -m bench.recipe --data DIR --run RUN --out OUT --only {name}"
    took = f"training and measuring took {record['seconds'] / 60:.0f} minutes"
    about = "; ".join(f"{key}: {value}" for key, value in record["settings"].items())
    parts = [f"```\n{command}\n```", f"{about}; {took}."]
    for plot in record["plots"]:
        parts.append(f"![{plot['title']}]({pictures}/{plot['file']})")
    for table in record["tables"]:
        parts += [f"**{table['title']}.** {table['says']}", figure_table(figures_of(table))]
    for words in record["words"]:
        parts += [f"**{words['title']}.**", _rows(words["heads"], words["rows"], "---")]
    return "\n\n".join(parts)


def figure_table(figures: Sequence[Figure]) -> str:
    """A row for each name, a column for each metric and by whom."""
    cells = {(f.name, f.metric, f.by): f for f in figures}
    columns = list(dict.fromkeys((f.metric, f.by) for f in figures))
    names = list(dict.fromkeys(f.name for f in figures))
    heads = ["", "n", *(f"{metric}, {by}" for metric, by in columns)]
    rows = []
    for name in names:
        count = max(f.images for f in figures if f.name == name)
        found = [cells.get((name, *column)) for column in columns]
        rows.append([name, f"{count:,}", *("" if one is None else shown(one) for one in found)])
    return _rows(heads, rows, "---:")


def shown(figure: Figure) -> str:
    """A figure with its interval; of a difference, with its sign.

    >>> shown(Figure(name="", metric="AUC gain", value=0.1, low=-0.05, high=0.25, images=9))
    '+0.100 (-0.050 to +0.250)'
    """
    if math.isnan(figure.value):
        return "not measured"
    kind, _, is_difference = figure.metric.partition(" ")
    form = ("+" if is_difference else "") + _DECIMALS.get(kind, _SHARE)
    return f"{figure.value:{form}} ({figure.low:{form}} to {figure.high:{form}})"


def _rows(heads: Sequence[str], rows: Sequence[Sequence[str]], rest: str) -> str:
    lines = [_row(heads), f"|---|{'|'.join([rest] * (len(heads) - 1))}|"]
    return "\n".join([*lines, *map(_row, rows)])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(' '.join(cell.replace('|', '/').split()) for cell in cells)} |"
