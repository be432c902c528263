"""A timeline as a text that a model or a person reads."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from osler.ingest.fhir.records import Timeline
from osler.preprocess.record.budget import Dropped, fit
from osler.preprocess.record.layouts import Layout
from osler.preprocess.record.lines import Citations
from osler.preprocess.record.series import series_of
from osler.preprocess.record.tables import table_blocks

Style = Literal["newest", "problems", "tables", "full"]
STYLES: tuple[Style, ...] = get_args(Style)


@dataclass(frozen=True, kw_only=True)
class Rendering:
    """The text and what became of the record on its way into it.

    Attributes:
        text: lines; those of events end with their source in brackets.
        sources: from the name in the brackets, without a line's number, to the source.
        dropped: what the budget had no room for.
    """

    text: str
    sources: dict[str, str]
    dropped: tuple[Dropped, ...]


def render(
    timeline: Timeline,
    style: Style = "newest",
    *,
    test: str | None = None,
    short_ids: bool = False,
    budget: int | None = None,
    count: Callable[[str], int] = len,
) -> Rendering:
    """Write a timeline.

    Args:
        timeline: the record.
        style: "newest" first; "problems" of today first, then by kind; "tables" of tests over
            time; "full", with codes and the texts of notes, oldest first.
        test: with tables, only those tests: words of the name, or a code.
        short_ids: name sources by the beginning of their ids.
        budget: tokens at most; the least useful goes first, and the last line says what went.
        count: how many tokens a text has.

    Raises:
        PromptError: a budget that does not hold even the first lines.
    """
    citations = Citations(timeline, short=short_ids)
    layout = Layout(timeline, citations)
    if style == "tables":
        series = series_of(timeline, test)
        blocks = table_blocks(series, citations, layout.dates, layout.worth)
    else:
        blocks = layout.blocks(style)
    text, dropped = fit(layout.header(), blocks, budget, count)
    return Rendering(text=text, sources=citations.sources, dropped=dropped)
