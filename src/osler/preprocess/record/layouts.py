"""Events as lines: newest first, problems first, or all in full, oldest first."""

from typing import Literal

from osler.ingest.fhir.records import (
    AnyEvent,
    Condition,
    Medication,
    Note,
    Report,
    Timeline,
    time_of,
)
from osler.preprocess.record.dates import UNDATED, Dates, years_between
from osler.preprocess.record.lines import Block, Citations
from osler.preprocess.record.usefulness import usefulness
from osler.preprocess.record.words import in_words, kind_of

# In the order of the sections; what matters today stands first.
_SECTIONS = {
    "allergy": "Allergies",
    "active problem": "Active problems",
    "current medication": "Current medications",
    "note": "Notes",
    "report": "Reports",
    "imaging": "Imaging",
    "result": "Laboratory results",
    "vital sign": "Vital signs",
    "finding": "Other findings",
    "problem": "Past problems",
    "medication": "Other medications",
    "procedure": "Procedures",
    "visit": "Visits",
    "vaccine": "Vaccines",
    "family history": "Family history",
    "history": "Social history",
    "survey": "Surveys",
    "order": "Orders",
    "plan": "Plans",
    "goal": "Goals",
}


class Layout:
    """Writes the events of one record.

    Args:
        timeline: the record.
        citations: how lines name their sources.

    Attributes:
        dates: how lines write dates.
        worth: how useful each source is.
    """

    def __init__(self, timeline: Timeline, citations: Citations) -> None:
        self._timeline = timeline
        self._cite = citations
        self.dates = Dates(timeline)
        self.worth = usefulness(timeline)

    def header(self) -> str:
        """Whom the record is about, without a name, and what holds for all of its lines."""
        patient, events = self._timeline.patient, self._timeline.events
        dated = [event.start for event in events if event.start]
        lines = []
        if patient is not None:
            said = [patient.sex or "sex not known"]
            if patient.born:
                said.append(f"born {patient.born.text}")
            if patient.is_dead:
                said.append(f"died {self.dates.short(patient.died)}" if patient.died else "dead")
            last = patient.died or (dated[-1] if dated else None)
            if patient.born and last:
                then = "then" if patient.died else f"at the last entry, {last.text[:10]}"
                said.append(f"{years_between(patient.born, last)} years old {then}")
            lines.append(f"Patient: {', '.join(said)} {self._cite(patient.source)}")
        if self.dates.zone is not None:
            lines.append(f"Times are in {self.dates.zone} where no other zone is given.")
        return "\n".join(lines)

    def blocks(self, style: Literal["newest", "problems", "full"]) -> list[Block]:
        """The events, in the order of a style."""
        events = self._timeline.events
        if style == "full":
            return [self._block(event, "", self._full(event)) for event in events]
        # Those of one time stay in their order.
        latest = sorted(events, key=time_of, reverse=True)
        if style == "newest":
            return [
                self._block(event, "", (self._compact(event, f"{kind_of(event)}: "),))
                for event in latest
            ]
        blocks = [self._block(event, _section(event), (self._compact(event),)) for event in latest]
        order = {section: place for place, section in enumerate(_SECTIONS.values())}
        return sorted(blocks, key=lambda block: order[block.section])

    def _block(self, event: AnyEvent, section: str, lines: tuple[str, ...]) -> Block:
        return Block(
            lines=lines,
            section=section,
            kind=kind_of(event),
            day=event.start.text[:10] if event.start else "",
            usefulness=self.worth[event.source],
        )

    def _compact(self, event: AnyEvent, kind: str = "") -> str:
        date = self.dates.period(event.start, event.end)
        return f"{date} {kind}{in_words(event)} {self._cite(event.source)}"

    def _full(self, event: AnyEvent) -> tuple[str, ...]:
        date = " to ".join(when.text for when in (event.start, event.end) if when) or UNDATED
        said = f"{date} {kind_of(event)}: {in_words(event, full=True, name=self._cite.name)}"
        texts = event.attachments if isinstance(event, Note | Report) else ()
        written = "\n".join(found.text or f"({found.refused})" for found in texts).splitlines()
        numbered = (
            f"  {line} {self._cite(event.source, number)}"
            for number, line in enumerate(written, start=1)
            if line
        )
        return f"{said} {self._cite(event.source)}", *numbered


def _section(event: AnyEvent) -> str:
    if isinstance(event, Condition) and event.is_active:
        return _SECTIONS["active problem"]
    if isinstance(event, Medication) and event.is_current:
        return _SECTIONS["current medication"]
    return _SECTIONS[kind_of(event)]
