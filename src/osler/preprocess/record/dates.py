"""Dates as a reader wants them: the day, the minute if it is known, the zone if it matters."""

from collections import Counter
from datetime import timezone

from osler.ingest.fhir.records import Timeline, When

UNDATED = "undated"


class Dates:
    """Writes dates in short; the zone that most of a record's times have is said once, at its top.

    Args:
        timeline: the record.
    """

    def __init__(self, timeline: Timeline) -> None:
        zones = Counter(
            zone
            for event in timeline.events
            if event.start and (zone := event.start.zone) is not None
        )
        self.zone: timezone | None = zones.most_common(1)[0][0] if zones else None

    def short(self, when: When | None) -> str:
        """A date with its precision: "2019", "2019-03-01", "2019-03-01 10:15"."""
        if when is None:
            return UNDATED
        if when.precision != "time":
            return when.text
        text = f"{when.text[:10]} {when.text[11:16]}"
        return text if when.zone in (None, self.zone) else f"{text} {when.zone}"

    def period(self, start: When | None, end: When | None) -> str:
        """The beginning, and the end where it is another day."""
        if end is None or (start is not None and start.text[:10] == end.text[:10]):
            return self.short(start)
        return f"{self.short(start)} to {self.short(end)}"


def years_between(start: When, end: When) -> int:
    """Whole years from one date to another, as an age is counted.

    >>> years_between(When("1961-04-02", 0), When("2020-03-01T10:15:00Z", 0))
    58
    """
    first, last = (f"{when.text[:10]}-01-01"[:10] for when in (start, end))
    return int(last[:4]) - int(first[:4]) - (last[5:] < first[5:])
