"""Who is in a record: each patient with what is known of them, and everybody else together."""

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from osler.privacy.known import Known

Json = dict[str, Any]

_PERSONS = frozenset(("Practitioner", "RelatedPerson", "Person", "PractitionerRole"))
_PLACES = frozenset(("Organization", "Location", "HealthcareService", "CareTeam", "InsurancePlan"))
_REFERENCE = re.compile(r"(?:.*[/:])?([A-Za-z0-9\-.]{1,64})")
_TITLE = re.compile(r"(?:Dr|Mr|Mrs|Ms|Miss|Prof)\b", re.IGNORECASE)
_DEEPEST = 100


class Person(msgspec.Struct):
    """One patient.

    Attributes:
        identity: what tells the patient apart: the medical record number, or what there is.
        names: of the patient and of those who are named as contacts.
        literals: numbers and addresses.
    """

    identity: str = ""
    names: set[str] = msgspec.field(default_factory=set)
    literals: set[str] = msgspec.field(default_factory=set)


class People(msgspec.Struct):
    """All who are in the records of a run.

    Attributes:
        patients: by logical id.
        others: staff, relatives and places, and what DICOM headers name.
    """

    patients: dict[str, Person] = msgspec.field(default_factory=dict)
    others: Person = msgspec.field(default_factory=Person)

    def add(self, other: "People") -> None:
        """Take in what another part of the run knows."""
        for id, person in other.patients.items():
            mine = self.patients.setdefault(id, Person(identity=person.identity))
            mine.names |= person.names
            mine.literals |= person.literals
        self.others.names |= other.others.names
        self.others.literals |= other.others.literals

    def known_of(self, patient: str) -> Known:
        """What must not remain in a patient's resources."""
        person = self.patients.get(patient, Person())
        return Known(person.names | self.others.names, person.literals | self.others.literals)

    def everyone(self) -> Known:
        """What must not remain in a text of which nobody says whose it is."""
        people = [self.others, *self.patients.values()]
        return Known(
            (name for person in people for name in person.names),
            (literal for person in people for literal in person.literals),
        )


def id_in(reference: str) -> str:
    """The logical id that a reference ends in.

    >>> id_in("http://here/fhir/Patient/1"), id_in("urn:uuid:2"), id_in("Patient/3/_history/4")
    ('1', '2', '3')
    """
    match = _REFERENCE.fullmatch(reference.partition("?")[0].partition("/_history/")[0])
    return match[1] if match else reference


def patient_of(resource: Json) -> str:
    """The id of the patient whom a resource is about; "" where it does not say."""
    if resource.get("resourceType") == "Patient":
        return str(resource.get("id") or "")
    for key in ("subject", "patient", "beneficiary", "individual", "for"):
        value = resource.get(key)
        if isinstance(value, dict) and isinstance(value.get("reference"), str):
            return id_in(value["reference"])
    return ""


def people_in(resources: Iterator[Json]) -> People:
    """Who is in some resources."""
    people = People()
    for resource in resources:
        kind = resource.get("resourceType")
        if kind == "Patient":
            id = str(resource.get("id") or "")
            person = people.patients.setdefault(id, Person(identity=_identity(resource)))
            _collect(resource, person, names_places=False)
        elif kind in _PERSONS or kind in _PLACES:
            _collect(resource, people.others, names_places=kind in _PLACES)
        _collect_references(resource, people)
    return people


def _identity(patient: Json) -> str:
    identifiers = [each for each in _list(patient.get("identifier")) if isinstance(each, dict)]
    values = [(_is_record_number(each), str(each.get("value") or "")) for each in identifiers]
    for wanted in (True, False):
        for is_record_number, value in values:
            if value and is_record_number is wanted:
                return value
    return str(patient.get("id") or "")


def _is_record_number(identifier: Json) -> bool:
    kind = identifier.get("type")
    codings = _list(kind.get("coding")) if isinstance(kind, dict) else []
    return any(isinstance(coding, dict) and coding.get("code") == "MR" for coding in codings)


def _collect(
    value: Any, person: Person, *, names_places: bool, key: str = "", depth: int = 0
) -> None:
    """Take names, numbers and addresses out of a person's or a place's resource."""
    if depth > _DEEPEST:
        return
    if isinstance(value, list):
        for each in value:
            _collect(each, person, names_places=names_places, key=key, depth=depth + 1)
    elif isinstance(value, dict):
        is_name = "family" in value or "given" in value
        if isinstance(value.get("valueString"), str) and "name" in str(value.get("url")).lower():
            person.names.add(value["valueString"])  # a mother's maiden name, say
        for inner, each in value.items():
            if inner in ("text", "meta") and isinstance(each, dict):
                continue
            if inner == "text" and is_name:
                inner = "family"
            _collect(each, person, names_places=names_places, key=inner, depth=depth + 1)
    elif isinstance(value, str):
        if key in ("family", "given"):
            person.names.add(value)
        elif key in ("value", "line", "city", "postalCode", "alias") or (
            key == "name" and names_places
        ):
            person.literals.add(value)
        elif key == "name":
            person.names.add(value)


def _collect_references(value: Any, people: People, depth: int = 0) -> None:
    """Take the names that references show for whom they refer to."""
    if depth > _DEEPEST:
        return
    if isinstance(value, list):
        for each in value:
            _collect_references(each, people, depth + 1)
    elif isinstance(value, dict):
        reference, display = value.get("reference"), value.get("display")
        if isinstance(reference, str) and isinstance(display, str):
            _note_display(reference, display, people)
        for each in value.values():
            if isinstance(each, list | dict):
                _collect_references(each, people, depth + 1)


def _note_display(reference: str, display: str, people: People) -> None:
    kind = reference.rpartition("/")[0].rpartition("/")[2] or reference.partition("?")[0]
    if kind == "Patient":
        id = id_in(reference)
        people.patients.setdefault(id, Person(identity=id)).names.add(display)
    elif kind in _PERSONS or _TITLE.match(display):
        people.others.names.add(display)
    elif kind in _PLACES:
        people.others.literals.add(display)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
