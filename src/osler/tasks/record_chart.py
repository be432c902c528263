"""A test's values over time as a picture, with the normal range behind them."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import IO, TYPE_CHECKING

from osler.errors import RecordError, UnsupportedError
from osler.ingest.fhir.records import Quantity, ReferenceRange, Timeline, When
from osler.preprocess.record.series import Series, series_of

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

_MOST_PANELS = 6
_PANEL_INCHES = (8.0, 2.6)
_MARGIN = 0.08
_YEARS = ("1800", "2200")  # an axis of dates has an end
_USUAL, _OFF, _BAND = "#1f4e79", "#c0392b", "#dfeee0"


def chart_series(timeline: Timeline, test: str) -> list[Series]:
    """The tests that a chart of some words shows: those with dated numbers.

    Args:
        timeline: the record.
        test: words that all stand in the test's name, or its code.

    Raises:
        RecordError: no such test, or more than a chart has room for.
    """
    found = [series for series in series_of(timeline, test) if _numbers(series)]
    if not found:
        raise RecordError("no test of that name or code has a number and a date")
    if len(found) > _MOST_PANELS:
        raise RecordError(f"{len(found)} tests have that in their name; give more of it, or a code")
    return found


def draw_chart(series: Sequence[Series], file: IO[bytes]) -> None:
    """Draw a panel for each test, as a PNG.

    Args:
        series: as `chart_series` gives them.
        file: to write to.

    Raises:
        UnsupportedError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UnsupportedError("a chart needs pip install 'osler[plot]'") from None
    width, height = _PANEL_INCHES
    figure = Figure(figsize=(width, height * len(series)), layout="constrained")
    panels = figure.subplots(len(series), squeeze=False, sharex=True)[:, 0]
    for axes, one in zip(panels, series, strict=True):
        _panel(axes, one)
    if handles := _legend(series):
        figure.legend(
            handles=handles, loc="outside lower right", ncols=3, frameon=False, fontsize=8
        )
    figure.savefig(file, format="png", dpi=150)


def _numbers(series: Series) -> list[tuple[datetime, Quantity, bool]]:
    """The dated quantities: when, what, and whether it is flagged."""
    return [
        (_moment(point.when), found.quantity, found.is_abnormal)
        for point in series.points
        if point.when is not None
        and (found := point.measurement).quantity is not None
        and _YEARS[0] <= point.when.text <= _YEARS[1]
    ]


def _moment(when: When) -> datetime:
    """By the clock and calendar that it was written with."""
    day, time = f"{when.text[:10]}-01-01"[:10], when.text[11:16] or "00:00"
    return datetime.fromisoformat(f"{day} {time}")


def _panel(axes: "Axes", series: Series) -> None:
    from matplotlib.dates import date2num

    numbers = _numbers(series)
    times = [float(date2num(moment)) for moment, _, _ in numbers]
    values = [float(Decimal(amount.value)) for _, amount, _ in numbers]
    axes.plot(times, values, color=_USUAL, linewidth=1, zorder=2)
    for time, value, (_, amount, is_off) in zip(times, values, numbers, strict=True):
        color = _OFF if is_off else _USUAL
        # A value beyond what could be measured is hollow.
        face = "white" if amount.comparator else color
        axes.plot(time, value, "o", color=color, markerfacecolor=face, markersize=5, zorder=3)
    if series.normal is not None:
        _band(axes, series.normal)
    axes.xaxis_date()
    axes.set_title(" ".join(filter(None, (series.name, f"({series.code})"))), fontsize=10)
    axes.set_ylabel(series.unit.strip("{}"))
    axes.grid(axis="y", color="#eeeeee", zorder=0)
    axes.spines[["top", "right"]].set_visible(False)


def _band(axes: "Axes", normal: ReferenceRange) -> None:
    """Shade what is normal, with a margin, so that a limit is seen for what it is."""
    limits = [float(Decimal(limit.value)) for limit in (normal.low, normal.high) if limit]
    if not limits:
        return
    bottom, top = axes.get_ylim()
    bottom, top = min(bottom, *limits), max(top, *limits)
    margin = (top - bottom) * _MARGIN
    bottom, top = bottom - margin, top + margin
    low = limits[0] if normal.low else bottom
    axes.axhspan(low, limits[-1] if normal.high else top, color=_BAND, zorder=0)
    axes.set_ylim(bottom, top)


def _legend(series: Sequence[Series]) -> "list[Artist]":
    """What the colours and forms that occur mean; nothing where all are plain values."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    numbers = [number for one in series for number in _numbers(one)]
    handles: list[Artist] = []
    if any(one.normal is not None for one in series):
        handles.append(Patch(color=_BAND, label="normal"))
    if any(is_off for _, _, is_off in numbers):
        handles.append(Line2D([], [], color=_OFF, marker="o", linewidth=0, label="flagged"))
    if any(amount.comparator for _, amount, _ in numbers):
        hollow = Line2D([], [], color=_USUAL, marker="o", linewidth=0, markerfacecolor="white")
        hollow.set_label("less or more than")
        handles.append(hollow)
    return handles
