"""Tables of tests over time: a section for each test, a row for each value, oldest first."""

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from osler.ingest.fhir.measurements import limits_words
from osler.preprocess.record.dates import Dates
from osler.preprocess.record.lines import Block, Citations
from osler.preprocess.record.series import Point, Series
from osler.preprocess.record.words import amount_words, measured


def table_blocks(
    series: Sequence[Series],
    citations: Citations,
    dates: Dates,
    worth: Mapping[str, tuple[int, float]],
) -> list[Block]:
    """The rows of the tables.

    Args:
        series: the tests.
        citations: how rows name their sources.
        dates: how they write dates.
        worth: how useful each source is.
    """
    return [
        Block(
            lines=(f"{dates.short(point.when)} {_value(point, found)} {citations(point.source)}",),
            section=_heading(found),
            kind="value",
            day=point.when.text[:10] if point.when else "",
            usefulness=worth[point.source],
        )
        for found in series
        for point in found.points
    ]


def _heading(series: Series) -> str:
    normal = limits_words(series.normal)
    said = (series.name or "(unnamed)", f"({series.code})" if series.code else "")
    parts = (" ".join(filter(None, said)), series.unit, f"normal {normal}" if normal else "")
    return ", ".join(filter(None, parts))


def _value(point: Point, series: Series) -> str:
    """What was measured, without what the heading says."""
    found = point.measurement
    if found.quantity is not None:
        found = replace(found, quantity=replace(found.quantity, unit=""))
    if limits_words(found.reference) == limits_words(series.normal):
        found = replace(found, reference=None)
    text = measured(found)
    return f"{text} (written {amount_words(point.original)})" if point.original else text
