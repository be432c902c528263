"""Found resources to one patient's timeline; every one is on it or counted as left out."""

from collections import Counter
from collections.abc import Iterable, Mapping

from osler.errors import RecordError
from osler.ingest.fhir import clinical, medications, results
from osler.ingest.fhir.context import Context, Converter, decode, reference_key
from osler.ingest.fhir.documents import Found
from osler.ingest.fhir.fields import Json, boolean, first_code, string
from osler.ingest.fhir.limits import MAX_PATIENTS, MAX_RESOURCES
from osler.ingest.fhir.records import AnyEvent, LeftOut, Patient, Timeline, time_of

_CONVERTERS: Mapping[str, Converter] = {
    "Encounter": clinical.encounter,
    "Condition": clinical.condition,
    "AllergyIntolerance": clinical.allergy_intolerance,
    "Procedure": clinical.procedure,
    "Immunization": clinical.immunization,
    "CarePlan": clinical.care_plan,
    "Goal": clinical.goal,
    "ServiceRequest": clinical.service_request,
    "FamilyMemberHistory": clinical.family_member_history,
    "MedicationRequest": medications.medication_request,
    "MedicationStatement": medications.medication_statement,
    "MedicationAdministration": medications.medication_administration,
    "MedicationDispense": medications.medication_dispense,
    "Observation": results.observation,
    "DiagnosticReport": results.diagnostic_report,
    "DocumentReference": results.document_reference,
    "Composition": results.composition,
    "ImagingStudy": results.imaging_study,
}
# No events, but events refer to what they say.
_ERROR = "entered-in-error"
_PARTS = frozenset(("Medication", "Binary"))


Patients = dict[str, frozenset[str]]


def patients_of(resources: Iterable[Found]) -> tuple[dict[str, int], Patients]:
    """The patients of some files.

    Returns:
        Those that resources are about, as "Patient/1", with how many those are; and, for each that
        has a Patient resource, the `reference_key` of all that it is called.
    """
    subjects: Counter[str] = Counter()
    names: dict[str, set[str]] = {}
    for found in resources:
        if found.type == "Patient":
            names.setdefault(found.source, set()).update(_keys(found))
        elif found.subject:
            subjects[reference_key(found.subject)] += 1
        if len(subjects) + len(names) > MAX_PATIENTS:
            raise RecordError(f"holds more than {MAX_PATIENTS:,} patients")
    called = {key: source for source, keys in names.items() for key in keys}
    counts = dict.fromkeys(names, 0)
    for key, number in subjects.items():
        source = called.get(key, key)
        counts[source] = counts.get(source, 0) + number
    return counts, {source: frozenset(keys) for source, keys in names.items()}


def choose_patient(resources: Iterable[Found], wanted: str | None) -> frozenset[str]:
    """All that the patient is called whose timeline it is to be.

    Args:
        resources: of some files.
        wanted: an id, with or without "Patient/"; None for the only patient.

    Raises:
        RecordError: no such patient, or several and none was named, or more than `MAX_PATIENTS`.
    """
    counts, names = patients_of(resources)
    if wanted is not None:
        source = wanted if "/" in wanted or wanted.startswith("urn:") else f"Patient/{wanted}"
        if source not in counts:
            raise RecordError(f"no patient of that id among {len(counts):,}")
        return names.get(source, frozenset((source,)))
    candidates = list(names or counts)
    if len(candidates) > 1:
        reason = "choose one (--patient; --list shows their ids)"
        raise RecordError(f"holds {len(candidates):,} patients: {reason}")
    return frozenset().union(*(names.get(source, (source,)) for source in candidates))


def timeline_of(resources: Iterable[Found], patient: frozenset[str]) -> Timeline:
    """Read all that is about one patient.

    Args:
        resources: of some files.
        patient: what `choose_patient` gave.

    Raises:
        RecordError: there is no FHIR resource at all, or more than `MAX_RESOURCES`.
    """
    left: Counter[tuple[str, str]] = Counter()
    kept: dict[str, Found] = {}
    for position, found in enumerate(resources):
        if not found.type:
            left["(no type)", "malformed"] += 1
            continue
        if reason := _not_wanted(found, patient):
            left[found.type, reason] += 1
            continue
        if not found.id and not found.full_url:
            found = found.called(f"#{position}")
        other = kept.setdefault(found.source, found)
        if other is not found:
            left[found.type, "another version of the same"] += 1
            if found.version > other.version:
                kept[found.source] = found
        if len(kept) > MAX_RESOURCES:
            raise RecordError(f"holds more than {MAX_RESOURCES:,} resources")
    if not kept and set(left) <= {("(no type)", "malformed")}:
        raise RecordError("holds no FHIR resource")
    return _assemble(kept, left)


def _not_wanted(found: Found, patient: frozenset[str]) -> str:
    """Why a resource is not for this timeline; "" where it is."""
    subject = found.source if found.type == "Patient" else found.subject
    if subject and reference_key(subject) not in patient:
        return "of another patient"
    if found.type not in _CONVERTERS and found.type not in _PARTS and found.type != "Patient":
        return "not part of a timeline"
    return ""


def _assemble(kept: Mapping[str, Found], left: Counter[tuple[str, str]]) -> Timeline:
    context = Context({key: found for found in kept.values() for key in _keys(found)})
    events: list[AnyEvent] = []
    patient: Patient | None = None
    taken: Counter[str] = Counter()
    for found in kept.values():
        if found.type in _PARTS:
            left[found.type, "read where it is referred to"] += 1
            continue
        resource = decode(found)
        if resource is None:
            left[found.type, "malformed"] += 1
        elif _is_error(resource):
            left[found.type, "entered in error"] += 1
        else:
            taken[found.type] += 1
            if found.type == "Patient":
                patient = _patient(resource, found, context)
            else:
                events.append(_CONVERTERS[found.type](resource, found, context))
    events.sort(key=time_of)
    return Timeline(
        patient=patient,
        events=tuple(events),
        taken=dict(sorted(taken.items())),
        left_out=tuple(LeftOut(*what, number) for what, number in sorted(left.items())),
        problems=dict(sorted(context.problems.items())),
    )


def _keys(found: Found) -> list[str]:
    """All that other resources may call one."""
    # Taken out of its bundle, a resource keeps the name that the others there have for it: its id.
    url = found.full_url or f"urn:uuid:{found.id}"
    return [found.source, url if url.startswith("urn:") else reference_key(url)]


def _is_error(resource: Json) -> bool:
    return string(resource, "status") == _ERROR or (
        "verificationStatus" in resource and first_code(resource, "verificationStatus") == _ERROR
    )


def _patient(resource: Json, found: Found, context: Context) -> Patient:
    died = context.date(resource, "deceasedDateTime")
    return Patient(
        source=found.source,
        sex=string(resource, "gender"),
        born=context.date(resource, "birthDate"),
        died=died,
        is_dead=died is not None or boolean(resource, "deceasedBoolean") is True,
    )
