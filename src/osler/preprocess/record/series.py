"""A test's values over time: one series for each test, in one unit."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from osler.ingest.fhir.fields import SYSTEM_NAMES
from osler.ingest.fhir.measurements import same_unit
from osler.ingest.fhir.records import (
    Concept,
    Measurement,
    Observation,
    Quantity,
    ReferenceRange,
    Timeline,
    When,
)
from osler.preprocess.record.units import convert

_MOST_UNITS = 20  # of one test; where there are more, none is converted


@dataclass(frozen=True, kw_only=True)
class Point:
    """One value.

    Attributes:
        source: the observation.
        when: when the value was true.
        measurement: in the unit of its series.
        original: as it was written, where it had to be converted.
    """

    source: str
    when: When | None
    measurement: Measurement
    original: Quantity | None = None


@dataclass(frozen=True, kw_only=True)
class Series:
    """All values of one test, oldest first.

    Attributes:
        name: in words.
        code: of its terminology, as "LOINC 718-7"; "" without one.
        unit: of all its quantities; "" for words and bare numbers.
        points: at least one.
    """

    name: str
    code: str
    unit: str
    points: tuple[Point, ...]

    @property
    def normal(self) -> ReferenceRange | None:
        """The range of the latest value that has one."""
        ranges = (point.measurement.reference for point in reversed(self.points))
        return next(filter(None, ranges), None)


def series_of(timeline: Timeline, test: str | None = None) -> list[Series]:
    """The tests of a timeline, in the order of their names.

    Args:
        timeline: the record.
        test: words that all stand in a test's name, in either case, or its code; None for all.
    """
    points: dict[str, list[Point]] = {}
    named: dict[str, tuple[str, Concept]] = {}
    for event in timeline.events:
        if isinstance(event, Observation):
            for key, name, what, found in _values(event):
                named.setdefault(key, (name, what))
                point = Point(source=event.source, when=event.start, measurement=found)
                points.setdefault(key, []).append(point)
    series: list[Series] = []
    for key, (name, what) in named.items():
        if test is None or _is_meant(test, name, what):
            series += _in_units(name, _code(what), points[key])
    return sorted(series, key=lambda found: (found.name.casefold(), found.unit))


def _values(event: Observation) -> Iterator[tuple[str, str, Concept, Measurement]]:
    if event.measurement.quantity or event.measurement.text or not event.components:
        yield event.what.key, event.what.text, event.what, event.measurement
    for part in event.components:
        name = f"{event.what.text}: {part.what.text}"
        yield f"{event.what.key}/{part.what.key}", name, part.what, part.measurement


def _is_meant(test: str, name: str, what: Concept) -> bool:
    if any(code.code.casefold() == test.casefold() for code in what.codings):
        return True
    return all(word in name.casefold() for word in test.casefold().split())


def _code(what: Concept) -> str:
    found = next((code for code in what.codings if code.code), None)
    return "" if found is None else f"{SYSTEM_NAMES.get(found.system, '')} {found.code}".strip()


def _in_units(name: str, code: str, points: Sequence[Point]) -> Iterator[Series]:
    """One series in the unit of the latest number, and one more for each unit that is no such."""
    by_unit: dict[str, list[Point]] = {}
    for point in points:
        amount = point.measurement.quantity
        by_unit.setdefault(amount.unit if amount else "", []).append(point)
    if len(by_unit) > _MOST_UNITS:
        for unit, alike in by_unit.items():
            yield Series(name=name, code=code, unit=unit, points=tuple(alike))
        return
    rest = list(points)
    while rest:
        amounts = (point.measurement.quantity for point in reversed(rest))
        latest = next(filter(None, amounts), None)
        taken: list[Point] = []
        others: list[Point] = []
        for point in rest:
            fitting = _in_unit_of(point, latest)
            (others if fitting is None else taken).append(fitting or point)
        yield Series(name=name, code=code, unit=latest.unit if latest else "", points=tuple(taken))
        rest = others


def _in_unit_of(point: Point, target: Quantity | None) -> Point | None:
    found = point.measurement
    if target is None or found.quantity is None:
        return point
    # A number without a unit is not taken to be in that of others.
    is_bare = not found.quantity.unit and bool(target.unit)
    if same_unit(found.quantity, target) and not is_bare:
        return point
    converted = convert(found.quantity, target)
    if converted is None:
        return None
    limits = found.reference
    if limits is not None:
        low = convert(limits.low, target) if limits.low else None
        high = convert(limits.high, target) if limits.high else None
        limits = ReferenceRange(low, high, limits.text) if low or high else None
    measurement = Measurement(converted, found.text, limits, found.flag)
    return Point(
        source=point.source, when=point.when, measurement=measurement, original=found.quantity
    )
