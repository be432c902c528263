"""FHIR records and plain notes with identifiers in every place that there is."""

import base64
import json
from typing import Any

from osler.evaluation.deidentification.identifiers import Identifiers, Plant

Json = dict[str, Any]


class TextPlanter:
    """Makes planted records and notes of one patient.

    Args:
        ids: what to plant.
    """

    def __init__(self, ids: Identifiers) -> None:
        self.ids = ids
        self.plants: list[Plant] = []

    def plant(self, place: str, file: str, value: str) -> str:
        """Note an identifier, and give it back."""
        self.plants.append(Plant(place=place, file=file, value=value))
        return value

    def bundle(self, file: str) -> bytes:
        """A bundle with a resource of each kind that names somebody."""
        ids = self.ids

        def put(value: str) -> str:
            return self.plant("FHIR element", file, value)

        def day() -> str:
            return put(ids.day().isoformat())

        def person(*, given: str = "") -> Json:
            return {"family": put(ids.word()), "given": [put(given or ids.word())]}

        def address() -> Json:
            return {
                "line": [put(ids.street())],
                "city": put(ids.word()),
                "postalCode": put(ids.digits(5)),
                "country": "DE",
            }

        def telecom() -> list[Json]:
            mail = put(f"{ids.word()}@{ids.word()}.example".lower())
            return [
                {"system": "phone", "value": put(ids.phone())},
                {"system": "email", "value": mail},
            ]

        def identifier() -> list[Json]:
            return [
                {
                    "system": f"http://{put(ids.word().lower())}.example/ids",
                    "value": put(ids.digits(9)),
                }
            ]

        def div(html: str) -> Json:
            return {"status": "generated", "div": f"<div>{html}</div>"}

        def words(place: str) -> str:
            return self._sentences(place, file, [family])

        def attached(kind: str, text: str, **rest: str) -> Json:
            return {"attachment": {"contentType": kind, "data": _base64(text), **rest}}

        patient_id, doctor_id, place_id = (put(ids.word().lower()) for _ in range(3))
        name = person()
        family = name["family"]
        subject = {"reference": f"Patient/{patient_id}", "display": f"{name['given'][0]} {family}"}
        doctor = person()
        author = {
            "reference": f"Practitioner/{doctor_id}",
            "display": f"Dr. {put(doctor['family'])}",
        }
        server = f"http://{put(ids.word().lower())}.example"
        hospital = {"reference": f"Organization/{place_id}", "display": put(ids.word())}
        mothers_name: Json = {
            "url": "http://hl7.org/fhir/StructureDefinition/patient-mothersMaidenName",
            "valueString": put(ids.word()),
        }
        resources: list[Json] = [
            {
                "resourceType": "Patient",
                "id": patient_id,
                "text": div(f"<b>{put(family)}</b> {put(ids.word())}"),
                "extension": [mothers_name],
                "identifier": identifier(),
                "name": [name, {"text": f"{put(ids.word())} {put(ids.word())}"}],
                "telecom": telecom(),
                "birthDate": day(),
                "address": [address()],
                "photo": [{"contentType": "image/png", "data": _base64(put(ids.word()))}],
                "contact": [{"name": person(), "telecom": telecom(), "address": address()}],
                "_birthDate": {"extension": [{"url": "x", "valueString": put(ids.word())}]},
            },
            {
                "resourceType": "Practitioner",
                "id": doctor_id,
                "name": [doctor],
                "identifier": identifier(),
                "telecom": telecom(),
                "address": [address()],
                "qualification": [{"identifier": identifier()}],
            },
            {
                "resourceType": "RelatedPerson",
                "id": put(ids.word()),
                "patient": subject,
                "name": [person()],
                "telecom": telecom(),
            },
            {
                "resourceType": "Organization",
                "id": place_id,
                "name": put(f"{ids.word()} {ids.word()}"),
                "alias": [put(ids.word())],
                "telecom": telecom(),
                "address": [address()],
                "contact": [{"name": person()}],
            },
            {
                "resourceType": "Location",
                "id": put(ids.word()),
                "name": put(ids.word()),
                "position": {"longitude": float(put(f"7.{ids.digits(6)}")), "latitude": 50.5},
                "address": address(),
            },
            {
                "resourceType": "Encounter",
                "id": put(ids.word()),
                "status": "finished",
                "subject": subject,
                "participant": [{"individual": author}],
                "serviceProvider": hospital,
                "period": {"start": f"{day()}T10:00:00Z", "end": f"{day()}T11:00:00+01:00"},
                "hospitalization": {"preAdmissionIdentifier": identifier()[0]},
            },
            {
                "resourceType": "Observation",
                "id": put(ids.word()),
                "status": "final",
                "code": {"coding": [{"system": "http://loinc.org", "code": "718-7"}]},
                "subject": subject,
                "performer": [author],
                "effectiveDateTime": day(),
                "issued": f"{day()}T10:00:00.000Z",
                "valueString": f"Told to {put(family)} and to Dr. {put(ids.word())}",
                "note": [{"text": words("FHIR narrative"), "time": day()}],
            },
            {
                "resourceType": "Device",
                "id": put(ids.word()),
                "patient": subject,
                "serialNumber": put(ids.digits(10)),
                "lotNumber": put(ids.word()),
                "udiCarrier": [{"carrierHRF": put(ids.digits(13))}],
            },
            {
                "resourceType": "Coverage",
                "id": put(ids.word()),
                "status": "active",
                "beneficiary": subject,
                "subscriberId": put(ids.digits(9)),
                "payor": [{"reference": f"Organization/{place_id}"}],
            },
            {
                "resourceType": "DocumentReference",
                "id": put(ids.word()),
                "status": "current",
                "subject": subject,
                "date": f"{day()}T00:00:00Z",
                "author": [author],
                "content": [
                    attached("text/plain", words("FHIR attachment"), title=f"On {put(family)}"),
                    attached("text/html", f"<p>{words('FHIR attachment')}</p>"),
                    attached("application/pdf", f"%PDF {put(ids.word())}", url=f"{server}/a.pdf"),
                ],
            },
            {
                "resourceType": "ImagingStudy",
                "id": put(ids.word()),
                "status": "available",
                "subject": subject,
                "identifier": [{"system": "urn:dicom:uid", "value": f"urn:oid:{put(ids.uid())}"}],
                "started": day(),
                "series": [{"uid": put(ids.uid()), "instance": [{"uid": put(ids.uid())}]}],
            },
            {
                "resourceType": "Composition",
                "id": put(ids.word()),
                "status": "final",
                "subject": subject,
                "title": f"Summary of {put(family)}",
                "date": day(),
                "author": [author],
                "section": [
                    {"title": "Course", "text": div(f"<p>{words('FHIR narrative')}</p>")}
                ],
            },
        ]  # fmt: skip
        entries = [
            {"fullUrl": f"{server}/{each['resourceType']}/{each['id']}", "resource": each}
            for each in resources
        ]  # fmt: skip
        bundle = {"resourceType": "Bundle", "type": "collection", "entry": entries}
        return json.dumps(bundle, ensure_ascii=False).encode()

    def note(self, file: str) -> bytes:
        """A letter of which nothing but itself says whose it is."""
        return self._sentences("plain text", file, []).encode()

    def _sentences(self, place: str, file: str, known: list[str]) -> str:
        """Sentences of a note, with an identifier or two in each."""
        ids = self.ids

        def put(value: str) -> str:
            return self.plant(place, file, value)

        first, born, seen = ids.word(), ids.day(), ids.day()
        lines = [
            f"Patient: {put(ids.word())}, {ids.given()}",
            f"MRN: {put(ids.digits(8))}   DOB: {put(f'{born:%m/%d/%Y}')}   SSN {put(_social(ids))}",
            f"Dear Dr. {put(first)}, thank you for referring Mrs. {put(ids.word())}.",
            f"She was seen on {put(f'{seen:%B} {seen.day}, {seen.year}')} at {put(ids.word())} "
            "General Hospital.",
            f"She lives at {put(ids.street())} and can be reached at {put(ids.phone())}"
            f" or {put(f'{ids.word()}@mail.example'.lower())}.",
            f"A {put(f'{ids.random.randrange(91, 105)}-year-old')} woman with a pacemaker, "
            f"serial number {put(f'PM{ids.digits(7)}')}.",
            f"Hemoglobin 10.3 g/dL on {put(ids.day().isoformat())}, platelets 250,000, BP 120/80.",
            f"Her daughter {ids.given()} {put(ids.word())} was present; results at "
            f"https://{put(ids.word().lower())}.example/results.",
            f"Accession number {put(f'A{ids.digits(8)}')}, compared with CT of "
            f"{put(f'{ids.day():%d.%m.%Y}')}.",
            f"Electronically signed by: {ids.given()} {put(ids.word())}, MD",
        ]  # fmt: skip
        lines += [f"{put(name)} tolerates the treatment well." for name in known]
        return "\n".join(lines)


def _social(ids: Identifiers) -> str:
    digits = ids.digits(9)
    return f"{digits[:3]}-{digits[3:5]}-{digits[5:]}"


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
