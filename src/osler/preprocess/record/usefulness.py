"""Which events a reader would miss most, when there is no room for all."""

from collections.abc import Mapping
from enum import IntEnum

from osler.ingest.fhir.records import (
    Allergy,
    AnyEvent,
    Condition,
    Encounter,
    FamilyHistory,
    ImagingStudy,
    Medication,
    Note,
    Observation,
    Procedure,
    Report,
    Timeline,
)

_STAYS = ("inpatient", "inpatient, acute", "inpatient, not acute", "emergency", "short stay")


class Worth(IntEnum):
    """Classes of events, the least useful first; within one, newer is more useful."""

    REPEATED = 0  # older results that are as they should be, renewed prescriptions, single doses
    ROUTINE = 1  # visits, vaccines, plans, families
    PAST = 2  # what is over: resolved problems, stopped medicines, older results that are off
    LATEST = 3  # the latest value of each test; procedures; stays in hospital
    TELLING = 4  # the latest value where it is off; reports, notes, images
    PRESENT = 5  # allergies, problems, medicines of today


def usefulness(timeline: Timeline) -> Mapping[str, tuple[int, float]]:
    """How useful each event is, by its source: its class, then its time."""
    # The last of each comes last, as events are ordered by time.
    last = {(type(event), event.what.key): event.source for event in timeline.events}
    return {
        event.source: (
            _worth(event, last[type(event), event.what.key] == event.source),
            event.start.epoch_s if event.start else float("-inf"),
        )
        for event in timeline.events
    }


def _worth(event: AnyEvent, is_last: bool) -> Worth:
    match event:
        case Allergy():
            return Worth.PAST if event.status in ("inactive", "resolved") else Worth.PRESENT
        case Condition():
            if event.is_active:
                return Worth.PRESENT if is_last else Worth.REPEATED
            return Worth.PAST
        case Medication():
            if event.is_current:
                return Worth.PRESENT if is_last else Worth.REPEATED
            return Worth.PAST if is_last else Worth.REPEATED
        case Observation():
            if event.is_abnormal:
                return Worth.TELLING if is_last else Worth.PAST
            return Worth.LATEST if is_last else Worth.REPEATED
        case Note() | ImagingStudy():
            return Worth.TELLING
        case Report():
            said = event.conclusion or any(found.text for found in event.attachments)
            return Worth.TELLING if said else Worth.REPEATED  # its results have lines of their own
        case Procedure():
            return Worth.LATEST if is_last else Worth.PAST
        case Encounter():
            return Worth.LATEST if event.setting in _STAYS else Worth.ROUTINE
        case FamilyHistory():
            return Worth.PAST
    return Worth.ROUTINE
