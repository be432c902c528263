"""The records that a timeline is made of: what FHIR says, in types, with where it says it.

Names, addresses and identifiers of persons are not taken over. Every string is on one line and free
of control characters, except the text of an `Attachment`, which keeps its lines. None can refer to
itself, so the collector of cycles need not look at them (gc=False).
"""

from datetime import UTC, timedelta, timezone
from typing import Literal

import msgspec
from msgspec import Struct

Precision = Literal["year", "month", "day", "time"]


class When(Struct, frozen=True, gc=False):
    """A FHIR date, dateTime or instant.

    Attributes:
        text: as it was written, so with its precision and zone: "2019", "2019-03-01",
            "2019-03-01T10:15:00-05:00".
        epoch_s: seconds since 1970 of the beginning of what `text` names; UTC where it has no zone.

    Source: FHIR R4, datatypes, date and dateTime.
    """

    text: str
    epoch_s: float

    @property
    def precision(self) -> Precision:
        """How exact the text is."""
        by_length: dict[int, Precision] = {4: "year", 7: "month", 10: "day"}
        return by_length.get(len(self.text), "time")

    @property
    def order(self) -> tuple[str, float]:
        """By the day as it was written, then by the instant, so that a list reads in order."""
        return self.text[:10], self.epoch_s

    @property
    def zone(self) -> timezone | None:
        """The offset from UTC that was written; None where there is none."""
        if self.text.endswith("Z"):
            return UTC
        if self.precision != "time" or self.text[-6] not in "+-":
            return None
        offset = timedelta(hours=int(self.text[-5:-3]), minutes=int(self.text[-2:]))
        return timezone(offset if self.text[-6] == "+" else -offset)


class Coding(Struct, frozen=True, gc=False):
    """A code of a terminology; `system` is its URI."""

    system: str
    code: str
    display: str = ""


class Concept(Struct, frozen=True, gc=False):
    """What a CodeableConcept says: words, and the codes that they stand for."""

    text: str
    codings: tuple[Coding, ...] = ()

    @property
    def key(self) -> str:
        """What is the same for the same concept: the first code, or the words."""
        if self.codings and self.codings[0].code:
            return f"{self.codings[0].system}|{self.codings[0].code}"
        return self.text.casefold()


class Quantity(Struct, frozen=True, gc=False):
    """A number as it was written, with all its digits, and its unit.

    Attributes:
        value: decimal.
        unit: as a person reads it, or the code where there is no more.
        code: of UCUM; "" where the unit is of another system or of none.
        comparator: "<", "<=", ">=", ">", or "" for the value itself.
    """

    value: str
    unit: str = ""
    code: str = ""
    comparator: str = ""


class ReferenceRange(Struct, frozen=True, gc=False):
    """What is normal: limits, or words, or both."""

    low: Quantity | None = None
    high: Quantity | None = None
    text: str = ""


class Measurement(Struct, frozen=True, gc=False):
    """What was found: a quantity, or words.

    Attributes:
        quantity: the number, where there is one.
        text: a coded or written value, a range, a ratio, or why there is none; "" with a quantity.
        reference: what is normal.
        flag: the laboratory's interpretation in words ("high", "critically low", "normal"); where
            it gave none, "below range" or "above range" by the numbers.
    """

    quantity: Quantity | None = None
    text: str = ""
    reference: ReferenceRange | None = None
    flag: str = ""

    @property
    def is_abnormal(self) -> bool:
        """Whether a flag says more than that all is as it should be."""
        return self.flag not in ("", "normal", "negative", "not detected", "within range")


class Component(Struct, frozen=True, gc=False):
    """A part of an observation, as the systolic pressure."""

    what: Concept
    measurement: Measurement


class Attachment(Struct, frozen=True, gc=False):
    """A document's content.

    Attributes:
        text: with its lines; "" where it was not read.
        content_type: as it was declared.
        refused: why there is no text; "" where there is.
    """

    text: str = ""
    content_type: str = ""
    refused: str = ""


class Series(Struct, frozen=True, gc=False):
    """A series of an imaging study."""

    series_uid: str
    modality: str = ""
    body_site: str = ""
    description: str = ""
    instances: int = 0


class Event(Struct, frozen=True, kw_only=True, gc=False, tag=True, tag_field="type"):
    """What all that is on a timeline has.

    Attributes:
        source: the resource, as "Condition/7b1"; what an answer cites.
        what: its main concept.
        start: when it began, or was; None where nobody says.
        end: when it ended.
        status: FHIR's word for how far it is ("final", "completed", "active", ...).
        encounter: the `source` of its encounter; "" without one.
        comments: annotations.
    """

    source: str
    what: Concept
    start: When | None = None
    end: When | None = None
    status: str = ""
    encounter: str = ""
    comments: tuple[str, ...] = ()


class Encounter(Event, frozen=True, kw_only=True, gc=False):
    """A visit or a stay."""

    setting: str = ""
    reasons: tuple[str, ...] = ()
    discharge: str = ""


class Condition(Event, frozen=True, kw_only=True, gc=False):
    """A problem or diagnosis."""

    verification: str = ""
    severity: str = ""
    body_sites: tuple[str, ...] = ()

    @property
    def is_active(self) -> bool:
        """Whether it is there now, as far as is known."""
        if self.verification in ("refuted", "entered-in-error"):
            return False
        if self.status:
            return self.status in ("active", "recurrence", "relapse")
        return self.end is None


class Medication(Event, frozen=True, kw_only=True, gc=False):
    """A medicine that was asked for, reported, given or handed out; `act` says which."""

    act: Literal["request", "statement", "administration", "dispense"]
    doses: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()

    @property
    def is_current(self) -> bool:
        """Whether the patient is to take it now, as far as is known."""
        return self.act in ("request", "statement") and self.status == "active" and not self.end


class Allergy(Event, frozen=True, kw_only=True, gc=False):
    """An allergy or intolerance."""

    verification: str = ""
    criticality: str = ""
    categories: tuple[str, ...] = ()
    reactions: tuple[str, ...] = ()


class Observation(Event, frozen=True, kw_only=True, gc=False):
    """A laboratory result, a vital sign, a finding, an answer of a history."""

    category: str = ""
    measurement: Measurement = Measurement()
    components: tuple[Component, ...] = ()

    @property
    def is_abnormal(self) -> bool:
        """Whether it, or a part of it, is flagged."""
        return self.measurement.is_abnormal or any(
            part.measurement.is_abnormal for part in self.components
        )


class Procedure(Event, frozen=True, kw_only=True, gc=False):
    """Something done to the patient."""

    body_sites: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    outcome: str = ""


class Immunization(Event, frozen=True, kw_only=True, gc=False):
    """A vaccine, given or not; `status` says which."""

    dose: str = ""
    reason_not_done: str = ""


class Report(Event, frozen=True, kw_only=True, gc=False):
    """A diagnostic report; `results` and `studies` are sources of what it rests on."""

    category: str = ""
    conclusion: str = ""
    results: tuple[str, ...] = ()
    studies: tuple[str, ...] = ()
    attachments: tuple[Attachment, ...] = ()


class Note(Event, frozen=True, kw_only=True, gc=False):
    """A clinical document."""

    category: str = ""
    attachments: tuple[Attachment, ...] = ()


class ImagingStudy(Event, frozen=True, kw_only=True, gc=False):
    """An imaging study; `study_uid` is its DICOM Study Instance UID (0020,000D)."""

    study_uid: str = ""
    modalities: tuple[str, ...] = ()
    series: tuple[Series, ...] = ()


class Plan(Event, frozen=True, kw_only=True, gc=False):
    """Something intended: a care plan, a goal, an order; the source's type says which."""

    activities: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()


class FamilyHistory(Event, frozen=True, kw_only=True, gc=False):
    """What a relative had."""

    relationship: str = ""
    conditions: tuple[str, ...] = ()


AnyEvent = (
    Encounter
    | Condition
    | Medication
    | Allergy
    | Observation
    | Procedure
    | Immunization
    | Report
    | Note
    | ImagingStudy
    | Plan
    | FamilyHistory
)


def time_of(event: Event) -> tuple[str, float]:
    """What events are sorted by; those without a date come first."""
    return event.start.order if event.start else ("", 0.0)


class Patient(Struct, frozen=True, kw_only=True, gc=False):
    """Whom the record is about, without a name."""

    source: str
    sex: str = ""
    born: When | None = None
    died: When | None = None
    is_dead: bool = False


class LeftOut(Struct, frozen=True, gc=False):
    """Resources that are not on the timeline, and why."""

    type: str
    reason: str
    count: int


class Timeline(Struct, frozen=True, kw_only=True, gc=False):
    """One patient's record.

    Attributes:
        patient: whom it is about; None where no Patient resource says.
        events: oldest first; those without a date before all others.
        taken: resources that the patient and the events are, by type.
        left_out: all others. `taken` and `left_out` together count every resource once.
        problems: what was wrong inside resources that were taken, with how often.
    """

    patient: Patient | None
    events: tuple[AnyEvent, ...]
    taken: dict[str, int]
    left_out: tuple[LeftOut, ...]
    problems: dict[str, int] = msgspec.field(default_factory=dict)
