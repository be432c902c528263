"""Encounters, conditions, allergies, procedures, immunisations, plans and families.

Source: the resources' pages of FHIR R4; a function's name is its resource's.
"""

from osler.ingest.fhir.context import Context, named
from osler.ingest.fhir.documents import Found
from osler.ingest.fhir.fields import (
    Json,
    child,
    children,
    code_words,
    coding,
    concept,
    concepts,
    first_code,
    number,
    string,
    strings,
    words,
    words_of_all,
)
from osler.ingest.fhir.measurements import quantity_words
from osler.ingest.fhir.records import (
    Allergy,
    Condition,
    Encounter,
    FamilyHistory,
    Immunization,
    Plan,
    Procedure,
    When,
)

# http://terminology.hl7.org/CodeSystem/v3-ActCode, of which Encounter.class is one.
_SETTINGS = {
    "AMB": "ambulatory",
    "EMER": "emergency",
    "FLD": "field",
    "HH": "home health",
    "IMP": "inpatient",
    "ACUTE": "inpatient, acute",
    "NONAC": "inpatient, not acute",
    "OBSENC": "observation",
    "PRENC": "pre-admission",
    "SS": "short stay",
    "VR": "virtual",
}


def encounter(resource: Json, found: Found, context: Context) -> Encounter:
    """`Encounter`."""
    kind = coding(resource, "class")
    setting = _SETTINGS.get(kind.code) or code_words(kind)
    types = concepts(resource, "type")
    period = child(resource, "period")
    diagnoses = (
        context.words(child(item, "condition"), resource)
        for item in children(resource, "diagnosis")
    )
    reasons = [*context.reasons(resource), *filter(None, diagnoses)]
    return Encounter(
        **context.common(resource, found, types[0] if types else named(setting)),
        start=context.date(period, "start"),
        end=context.date(period, "end"),
        setting=setting,
        reasons=tuple(dict.fromkeys(reasons)),
        discharge=words(child(resource, "hospitalization"), "dischargeDisposition"),
    )


def condition(resource: Json, found: Found, context: Context) -> Condition:
    """`Condition`."""
    common = context.common(resource, found, concept(resource, "code"))
    start, end = _choice(resource, context, "onset")
    if start is None:
        start = context.date(resource, "recordedDate", "assertedDate")
    abated, abated_end = _choice(resource, context, "abatement")
    common["status"] = first_code(resource, "clinicalStatus")
    return Condition(
        **common,
        start=start,
        end=abated_end or abated or end,
        verification=first_code(resource, "verificationStatus"),
        severity=words(resource, "severity"),
        body_sites=words_of_all(resource, "bodySite"),
    )


def allergy_intolerance(resource: Json, found: Found, context: Context) -> Allergy:
    """`AllergyIntolerance`."""
    common = context.common(resource, found, concept(resource, "code"))
    common["status"] = first_code(resource, "clinicalStatus")
    start, _ = _choice(resource, context, "onset")
    reactions = []
    for reaction in children(resource, "reaction"):
        manifested = ", ".join(words_of_all(reaction, "manifestation"))
        severity = string(reaction, "severity")
        text = manifested or string(reaction, "description")
        reactions.append(f"{text} ({severity})" if text and severity else text or severity)
    return Allergy(
        **common,
        start=start or context.date(resource, "recordedDate", "lastOccurrence"),
        verification=first_code(resource, "verificationStatus"),
        criticality=string(resource, "criticality"),
        categories=strings(resource, "category"),
        reactions=tuple(filter(None, reactions)),
    )


def procedure(resource: Json, found: Found, context: Context) -> Procedure:
    """`Procedure`."""
    start, end = _choice(resource, context, "performed")
    return Procedure(
        **context.common(resource, found, concept(resource, "code")),
        start=start,
        end=end,
        body_sites=words_of_all(resource, "bodySite"),
        reasons=context.reasons(resource),
        outcome=words(resource, "outcome"),
    )


def immunization(resource: Json, found: Found, context: Context) -> Immunization:
    """`Immunization`."""
    doses = []
    for protocol in children(resource, "protocolApplied"):
        numbers = [
            number(protocol, f"{key}PositiveInt") or string(protocol, f"{key}String")
            for key in ("doseNumber", "seriesDoses")
        ]
        doses.append(" of ".join(filter(None, numbers)))
    return Immunization(
        **context.common(resource, found, concept(resource, "vaccineCode")),
        start=context.date(resource, "occurrenceDateTime", "recorded"),
        dose=next(filter(None, doses), quantity_words(resource, "doseQuantity")),
        reason_not_done=words(resource, "statusReason"),
    )


def care_plan(resource: Json, found: Found, context: Context) -> Plan:
    """`CarePlan`."""
    categories = concepts(resource, "category")
    title = string(resource, "title")
    what = named(title) if title else categories[0] if categories else named("")
    period = child(resource, "period")
    activities = []
    for activity in children(resource, "activity"):
        detail = child(activity, "detail")
        activities.append(words(detail, "code") or string(detail, "description"))
    return Plan(
        **context.common(resource, found, what),
        start=context.date(period, "start") or context.date(resource, "created"),
        end=context.date(period, "end"),
        activities=tuple(dict.fromkeys(filter(None, activities))),
        reasons=context.words_of_all(resource, "addresses"),
    )


def goal(resource: Json, found: Found, context: Context) -> Plan:
    """`Goal`."""
    common = context.common(resource, found, concept(resource, "description"))
    lifecycle, achieved = string(resource, "lifecycleStatus"), words(resource, "achievementStatus")
    common["status"] = ", ".join(filter(None, (lifecycle, achieved)))
    return Plan(
        **common,
        start=context.date(resource, "startDate", "statusDate"),
        reasons=context.words_of_all(resource, "addresses"),
    )


def service_request(resource: Json, found: Found, context: Context) -> Plan:
    """`ServiceRequest`."""
    return Plan(
        **context.common(resource, found, concept(resource, "code")),
        start=context.date(resource, "authoredOn", "occurrenceDateTime"),
        reasons=context.reasons(resource),
    )


def family_member_history(resource: Json, found: Found, context: Context) -> FamilyHistory:
    """`FamilyMemberHistory`."""
    relationship = concept(resource, "relationship")
    conditions = []
    for item in children(resource, "condition"):
        name, age = words(item, "code"), quantity_words(item, "onsetAge")
        conditions.append(f"{name} (at {age})" if name and age else name)
    return FamilyHistory(
        **context.common(resource, found, relationship),
        start=context.date(resource, "date"),
        relationship=relationship.text,
        conditions=tuple(filter(None, conditions)),
    )


def _choice(value: Json, context: Context, key: str) -> tuple[When | None, When | None]:
    """The beginning and end of a dateTime-or-Period choice, as `performed[x]`.

    An age or words, as FHIR allows for onsets, are no date and are not made one.
    """
    if (point := context.date(value, f"{key}DateTime")) is not None:
        return point, None
    period = child(value, f"{key}Period")
    return context.date(period, "start"), context.date(period, "end")
