"""Each event in one line of words, without its date and its source."""

from collections.abc import Callable
from decimal import Decimal

from osler.ingest.fhir.fields import SYSTEM_NAMES
from osler.ingest.fhir.measurements import limits_words
from osler.ingest.fhir.records import (
    Allergy,
    AnyEvent,
    Attachment,
    Concept,
    Condition,
    Encounter,
    FamilyHistory,
    ImagingStudy,
    Immunization,
    Measurement,
    Medication,
    Note,
    Observation,
    Plan,
    Procedure,
    Quantity,
    Report,
)

_MEASURED_DIGITS = 6  # a number with more of them was computed
_KEPT_DIGITS = 4
_SNIPPET = 300  # characters of a note or report in a compact line

_OBSERVED = {
    "laboratory": "result",
    "vital signs": "vital sign",
    "vital-signs": "vital sign",
    "social history": "history",
    "social-history": "history",
    "survey": "survey",
}
_PLANNED = {"Goal": "goal", "ServiceRequest": "order"}
_ACTS = {"statement": "reported", "administration": "given", "dispense": "dispensed"}
# A status that says no more than that the thing is there.
_USUAL = frozenset(("final", "finished", "completed", "available", "current", "amended", ""))


def kind_of(event: AnyEvent) -> str:
    """What sort of event it is, in a word that also says what is left out."""
    match event:
        case Observation():
            return _OBSERVED.get(event.category.lower(), "finding")
        case Plan():
            return _PLANNED.get(event.source.partition("/")[0], "plan")
    return {
        Encounter: "visit",
        Condition: "problem",
        Medication: "medication",
        Allergy: "allergy",
        Procedure: "procedure",
        Immunization: "vaccine",
        Report: "report",
        Note: "note",
        ImagingStudy: "imaging",
        FamilyHistory: "family history",
    }[type(event)]


def in_words(event: AnyEvent, *, full: bool = False, name: Callable[[str], str] = str) -> str:
    """An event on one line.

    Args:
        event: of a timeline.
        full: with codes, all digits, and all that is known; else what a reader needs.
        name: how other sources are named.
    """
    found = [_named(event.what, full) or "(unnamed)", *_parts(event, full)]
    if event.status not in _USUAL or full:
        found.append(event.status)
    if full:
        found += event.comments
        rests_on = (*event.results, *event.studies) if isinstance(event, Report) else ()
        found.append(_labelled("of", *map(name, rests_on)))
        found.append(f"at {name(event.encounter)}" if event.encounter else "")
    return ", ".join(filter(None, found))


def _parts(event: AnyEvent, full: bool) -> list[str]:
    """What is said behind the name; empty strings count for nothing."""
    match event:
        case Observation():
            return _observed(event, full)
        case Encounter():
            setting = "" if event.setting == event.what.text else event.setting
            return [setting, _for(event.reasons), _labelled("discharge", event.discharge)]
        case Condition():
            doubt = "" if event.verification == "confirmed" else event.verification
            return [event.severity, *event.body_sites, doubt]
        case Medication():
            return [_ACTS.get(event.act, ""), "; ".join(event.doses), _for(event.reasons)]
        case Allergy():
            risk = f"{event.criticality} risk" if event.criticality else ""
            doubt = "" if event.verification == "confirmed" else event.verification
            return [*event.categories, risk, _labelled("reaction", *event.reactions), doubt]
        case Procedure():
            return [*event.body_sites, _for(event.reasons), _labelled("outcome", event.outcome)]
        case Immunization():
            return [_labelled("dose", event.dose), event.reason_not_done]
        case Report():
            text = event.conclusion or _text(event.attachments, full)
            return [_counted(len(event.results), "result") if event.results else "", text]
        case Note():
            return [_text(event.attachments, full)]
        case ImagingStudy():
            return _imaged(event, full)
        case Plan():
            return [_for(event.reasons), "; ".join(event.activities)]
        case FamilyHistory():
            return ["; ".join(event.conditions)]


def _named(what: Concept, full: bool) -> str:
    """The words of a concept; in full, with its codes."""
    if not full:
        return what.text
    codes = (f"{SYSTEM_NAMES.get(c.system, c.system)} {c.code}".strip() for c in what.codings)
    said = "; ".join(code for code in codes if code and code != what.text)
    return f"{what.text} ({said})" if said else what.text


def _observed(event: Observation, full: bool) -> list[str]:
    parts = [measured(event.measurement, full)]
    for part in event.components:
        parts.append(f"{_named(part.what, full)} {measured(part.measurement, full)}")
    return parts


def measured(found: Measurement, full: bool = False) -> str:
    """A value with its flag and, where that says it is off or all is wanted, what is normal.

    >>> measured(Measurement(Quantity("9.1", "g/dL"), flag="low"))
    '9.1 g/dL LOW'
    """
    text = found.text if found.quantity is None else amount_words(found.quantity, full)
    if found.flag and (full or found.flag != "within range"):
        text += f" {found.flag.upper() if found.is_abnormal else found.flag}"
    if found.reference and (full or found.is_abnormal):
        text += f" (normal {limits_words(found.reference)})"
    return text.strip()


def amount_words(amount: Quantity, full: bool = False) -> str:
    """A quantity in words; in short, without the digits that nobody measured.

    >>> amount_words(Quantity("43.8326183483", "mg/dL")), amount_words(Quantity("7.40"))
    ('43.83 mg/dL', '7.40')
    """
    value = amount.value if full else _rounded(amount.value)
    unit = amount.unit.strip("{}")  # UCUM's braces around what is no unit, as {score}
    return f"{amount.comparator}{value} {unit}".rstrip()


def _rounded(text: str) -> str:
    if len(text) <= _MEASURED_DIGITS:
        return text
    value = Decimal(text)
    if len(value.as_tuple().digits) <= _MEASURED_DIGITS or value == value.to_integral_value():
        return text
    places = max(_KEPT_DIGITS - 1 - value.adjusted(), 0)
    return f"{value:.{places}f}"


def _imaged(event: ImagingStudy, full: bool) -> list[str]:
    images = sum(series.instances for series in event.series)
    parts = [", ".join(event.modalities), f"{len(event.series)} series", _counted(images, "image")]
    if full:
        parts.append(_labelled("study", event.study_uid))
        for series in event.series:
            said = (series.modality, series.body_site, series.description, series.series_uid)
            parts.append(_labelled("series", " ".join(filter(None, said))))
    return parts


def _text(attachments: tuple[Attachment, ...], full: bool) -> str:
    """The beginning of what is written there; in full the texts have lines of their own."""
    if full:
        return ""
    said = [found.text or f"({found.refused})" for found in attachments]
    text = " / ".join(" ".join(words.split()) for words in said)
    return text if len(text) <= _SNIPPET else f"{text[:_SNIPPET]} … ({len(text):,} characters)"


def _for(reasons: tuple[str, ...]) -> str:
    return f"for {'; '.join(reasons)}" if reasons else ""


def _counted(number: int, thing: str) -> str:
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def _labelled(label: str, *texts: str) -> str:
    said = "; ".join(filter(None, texts))
    return f"{label} {said}" if said else ""
