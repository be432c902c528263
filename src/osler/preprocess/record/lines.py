"""What a rendering is made of, before a budget: lines that know how useful they are."""

from dataclasses import dataclass

from osler.ingest.fhir.records import Timeline


@dataclass(frozen=True, kw_only=True)
class Block:
    """What stands or falls together: an event's line or lines.

    Attributes:
        lines: each names the source that it comes from.
        section: the heading that it stands under; "" for none.
        kind: in a word, for what is said of those left out ("result").
        day: its date as it was written; "" without one.
        usefulness: the larger, the longer it is kept.
    """

    lines: tuple[str, ...]
    section: str
    kind: str
    day: str
    usefulness: tuple[int, float]


class Citations:
    """How lines name their sources.

    Args:
        timeline: the record.
        short: cut ids to what tells those of one type apart: they cost half a line otherwise.
    """

    def __init__(self, timeline: Timeline, *, short: bool) -> None:
        sources = [event.source for event in timeline.events]
        if timeline.patient is not None:
            sources.append(timeline.patient.source)
        self._sources = {source: source for source in sources}
        if short:
            self._sources = dict(zip(sources, shortened(sources), strict=True))

    def __call__(self, source: str, line: int | None = None) -> str:
        """A source, or a line of a source's text, as lines name it."""
        return f"[{self.name(source)}]" if line is None else f"[{self.name(source)}:{line}]"

    def name(self, source: str) -> str:
        """A source by the name that lines have for it; itself where it is none of the record's."""
        return self._sources.get(source, source)

    @property
    def sources(self) -> dict[str, str]:
        """The sources that lines may name: from the name to the whole."""
        return {name: source for source, name in self._sources.items()}


def shortened(sources: list[str], least: int = 4) -> list[str]:
    """Cut each to the beginning that no other has.

    >>> shortened(["Patient/1", "Observation/5b8d77", "Observation/5b8d12", "Observation/5c"])
    ['Patient/1', 'Observation/5b8d7', 'Observation/5b8d1', 'Observation/5c']
    """
    ordered = sorted(set(sources))
    cut = {}
    for before, one, after in zip(["", *ordered], ordered, [*ordered[1:], ""], strict=False):
        shared = max(_shared(one, before), _shared(one, after))
        cut[one] = one[: max(shared + 1, one.find("/") + 1 + least)]
    return [cut[source] for source in sources]


def _shared(one: str, other: str) -> int:
    """How many letters two begin with in common."""
    for position, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return position
    return min(len(one), len(other))
