"""Medicines: asked for, reported, given, handed out; with dose and period.

Source: FHIR R4, MedicationRequest, MedicationStatement, MedicationAdministration,
MedicationDispense, datatypes Dosage and Timing.
"""

from collections.abc import Sequence
from typing import Literal

from osler.ingest.fhir.context import Context
from osler.ingest.fhir.documents import Found
from osler.ingest.fhir.fields import (
    Json,
    boolean,
    child,
    children,
    concept,
    count,
    number,
    reference,
    string,
    words,
    words_of_all,
)
from osler.ingest.fhir.measurements import quantity_words, range_words, ratio_words
from osler.ingest.fhir.records import Concept, Medication, When

# http://unitsofmeasure.org codes that Timing.repeat takes.
_PERIODS = {
    "s": "second",
    "min": "minute",
    "h": "hour",
    "d": "day",
    "wk": "week",
    "mo": "month",
    "a": "year",
}


def medication_request(resource: Json, found: Found, context: Context) -> Medication:
    """`MedicationRequest`."""
    dosages = children(resource, "dosageInstruction")
    start, end = _bounds(dosages, context)
    authored = context.date(resource, "authoredOn")
    return _medication(resource, found, context, "request", dosages, (start or authored, end))


def medication_statement(resource: Json, found: Found, context: Context) -> Medication:
    """`MedicationStatement`."""
    dosages = children(resource, "dosage")
    start, end = _effective(resource, context)
    start = start or context.date(resource, "dateAsserted")
    return _medication(resource, found, context, "statement", dosages, (start, end))


def medication_administration(resource: Json, found: Found, context: Context) -> Medication:
    """`MedicationAdministration`."""
    dosages = children(resource, "dosage")
    period = _effective(resource, context)
    return _medication(resource, found, context, "administration", dosages, period)


def medication_dispense(resource: Json, found: Found, context: Context) -> Medication:
    """`MedicationDispense`."""
    dosages = children(resource, "dosageInstruction")
    start = context.date(resource, "whenHandedOver", "whenPrepared")
    return _medication(resource, found, context, "dispense", dosages, (start, None))


def _medication(
    resource: Json,
    found: Found,
    context: Context,
    act: Literal["request", "statement", "administration", "dispense"],
    dosages: Sequence[Json],
    period: tuple[When | None, When | None],
) -> Medication:
    start, end = period
    return Medication(
        **context.common(resource, found, _medicine(resource, context)),
        start=start,
        end=end,
        act=act,
        doses=tuple(dict.fromkeys(filter(None, map(dosage_words, dosages)))),
        reasons=context.reasons(resource),
    )


def _medicine(resource: Json, context: Context) -> Concept:
    """`medication[x]`: a concept, or a Medication of this record, contained or not."""
    if "medicationCodeableConcept" in resource:
        return concept(resource, "medicationCodeableConcept")
    target = context.find(reference(resource, "medicationReference"), resource)
    named = concept(target or {}, "code")
    if named.text:
        return named
    return Concept(string(child(resource, "medicationReference"), "display"))


def _effective(resource: Json, context: Context) -> tuple[When | None, When | None]:
    if (point := context.date(resource, "effectiveDateTime")) is not None:
        return point, None
    period = child(resource, "effectivePeriod")
    return context.date(period, "start"), context.date(period, "end")


def _bounds(dosages: Sequence[Json], context: Context) -> tuple[When | None, When | None]:
    for dosage in dosages:
        period = child(child(child(dosage, "timing"), "repeat"), "boundsPeriod")
        if period:
            return context.date(period, "start"), context.date(period, "end")
    return None, None


def dosage_words(dosage: Json) -> str:
    """A Dosage in words: the prescriber's own, or put together from its parts.

    >>> from osler.ingest.fhir.fields import object_of
    >>> dosage_words(object_of(b'''{
    ...     "doseAndRate": [{"doseQuantity": {"value": 500, "unit": "mg"}}],
    ...     "timing": {"repeat": {"frequency": 2, "period": 1, "periodUnit": "d"}},
    ...     "asNeededBoolean": true
    ... }'''))
    '500 mg, 2 times a day, as needed'
    """
    if text := string(dosage, "text"):
        return text
    # MedicationAdministration has the dose at the top.
    given = [quantity_words(dosage, "dose")]
    for dose in children(dosage, "doseAndRate"):
        given += [
            quantity_words(dose, "doseQuantity") or range_words(child(dose, "doseRange")),
            ratio_words(child(dose, "rateRatio")) or quantity_words(dose, "rateQuantity"),
        ]
    needed = words(dosage, "asNeededCodeableConcept")
    parts = [
        *given,
        timing_words(child(dosage, "timing")),
        words(dosage, "route"),
        f"as needed for {needed}" if needed else "",
        "as needed" if boolean(dosage, "asNeededBoolean") else "",
        *words_of_all(dosage, "additionalInstruction"),
    ]
    return ", ".join(filter(None, parts))


def timing_words(timing: Json) -> str:
    """A Timing in words.

    >>> from osler.ingest.fhir.fields import object_of
    >>> timing_words(object_of(b'{"repeat": {"frequency": 1, "period": 8, "periodUnit": "h"}}'))
    'every 8 hours'
    """
    if text := words(timing, "code"):
        return text
    repeat = child(timing, "repeat")
    unit = _PERIODS.get(string(repeat, "periodUnit"), "")
    period = number(repeat, "period") or "1"
    frequency = count(repeat, "frequency") or 1
    duration = quantity_words(repeat, "boundsDuration")
    often = ""
    if unit and period in ("1", "1.0"):
        often = f"{frequency} times a {unit}" if frequency > 1 else f"once a {unit}"
    elif unit:
        often = f"{frequency} times every" if frequency > 1 else "every"
        often += f" {period} {unit}s"
    return " ".join(filter(None, (often, f"for {duration}" if duration else "")))
