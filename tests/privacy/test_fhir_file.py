"""FHIR records without whom they are about."""

import json
from base64 import b64decode
from typing import Any

import pytest

from osler.errors import UnreadableFileError
from osler.privacy.actions import Actions
from osler.privacy.fhir_file import clean_fhir, survey_fhir
from osler.privacy.profile import Profile
from osler.privacy.pseudonyms import Pseudonyms
from osler.testing.fhir import PATIENT, SUBJECT, attachment, lab, note, resource

Json = dict[str, Any]


def clean(*resources: Json, lines: bool = False, **options: Any) -> list[Json]:
    if lines:
        data = b"".join(json.dumps(each).encode() + b"\n" for each in resources)
    else:
        here = "http://here/fhir"
        entries = [
            {"fullUrl": f"{here}/{each['resourceType']}/{each['id']}", "resource": each}
            for each in resources
        ]
        data = json.dumps(
            {"resourceType": "Bundle", "type": "collection", "entry": entries}
        ).encode()
    profile, actions = Profile(**options), Actions()
    cleaned, are_lines = clean_fhir(data, survey_fhir(data), profile, Pseudonyms(b"k"), actions)
    assert are_lines is lines
    if lines:
        return [json.loads(line) for line in cleaned.splitlines()]
    return [entry["resource"] for entry in json.loads(cleaned)["entry"]]


def test_a_patient_keeps_nothing_but_a_pseudonym() -> None:
    whole: Json = {
        **PATIENT,
        "text": {"status": "generated", "div": "<div>Nemo Nobody</div>"},
        "identifier": [{"system": "http://ward.example/mrn", "value": "4471923"}],
        "telecom": [{"system": "phone", "value": "555-0188"}],
        "address": [{"line": ["12 Oak Street"], "city": "Wallop", "country": "GB"}],
        "photo": [{"contentType": "image/png", "data": "AAAA"}],
        "contact": [{"name": {"text": "Somebody Nobody"}}],
        "_birthDate": {"extension": []},
    }
    (patient,) = clean(whole)
    pseudonyms = Pseudonyms(b"k")
    assert patient["name"] == [{"family": pseudonyms.patient("4471923")}]
    assert patient["identifier"][0]["value"] == pseudonyms.identifier("4471923")
    assert patient["address"] == [{"country": "GB"}]
    assert not {"text", "telecom", "photo", "birthDate", "gender", "_birthDate"} & patient.keys()
    assert patient["meta"]["security"][0]["code"] == "PSEUDED"
    for gone in ("Nobody", "Nemo", "4471923", "ward.example", "Wallop", "555"):
        assert gone not in json.dumps(patient)


def test_characteristics_are_kept_when_asked_for() -> None:
    (patient,) = clean(PATIENT, retain_characteristics=True, retain_dates="full")
    assert (patient["gender"], patient["birthDate"]) == ("female", "1961-04-02")


def test_nobody_is_over_89() -> None:
    (patient,) = clean({**PATIENT, "birthDate": "1921-04-02"}, retain_characteristics=True)
    assert "birthDate" not in patient


@pytest.mark.parametrize("lines", [False, True])
def test_no_reference_breaks(lines: bool) -> None:
    patient, result = clean(PATIENT, lab("1", "2024-03-11", 10.3), lines=lines)
    assert result["subject"] == {"reference": f"Patient/{patient['id']}"}
    assert patient["id"] != "p1"


@pytest.mark.parametrize(
    ("reference", "target"),
    [
        ("urn:uuid:p1", "urn:uuid:{}"),
        ("http://here/fhir/Patient/p1", "http://deidentified.invalid/fhir/Patient/{}"),
        ("Patient/p1/_history/2", "Patient/{}/_history/2"),
        ("#p1", "#{}"),
    ],
)
def test_references_of_every_form_lead_to_the_same(reference: str, target: str) -> None:
    patient, other = clean(
        PATIENT, {"resourceType": "Basic", "id": "b", "subject": {"reference": reference}}
    )
    assert other["subject"]["reference"] == target.format(patient["id"])


def test_a_conditional_reference_finds_its_identifier() -> None:
    doctor: Json = {
        "resourceType": "Practitioner",
        "id": "d",
        "identifier": [{"system": "http://hl7.org/fhir/sid/us-npi", "value": "99"}],
    }
    encounter: Json = {"resourceType": "Encounter", "id": "e", "subject": SUBJECT}
    encounter["participant"] = [
        {"individual": {"reference": "Practitioner?identifier=http://hl7.org/fhir/sid/us-npi|99"}}
    ]
    cleaned, referring = clean(doctor, encounter)
    identifier = cleaned["identifier"][0]
    reference = referring["participant"][0]["individual"]["reference"]
    assert reference == f"Practitioner?identifier={identifier['system']}|{identifier['value']}"


def test_an_imaging_study_keeps_the_uid_that_dicom_gets() -> None:
    study = resource(
        "ImagingStudy",
        "s",
        identifier=[{"system": "urn:dicom:uid", "value": "urn:oid:1.2.3.4"}],
        series=[{"uid": "1.2.3.5"}],
    )
    _, cleaned = clean(PATIENT, study)
    new = Pseudonyms(b"k")
    assert cleaned["identifier"][0]["value"] == f"urn:oid:{new.uid('1.2.3.4')}"
    assert cleaned["series"][0]["uid"] == new.uid("1.2.3.5")


def test_dates_go_move_or_stay() -> None:
    day = "2024-03-11T10:15:00+01:00"
    records = [PATIENT, lab("1", day, 10.3, issued="2024-03-11T11:00:00Z")]
    removed, moved, kept = (
        clean(*records, retain_dates=dates)[1] for dates in ("none", "modified", "full")
    )
    assert removed["effectiveDateTime"] == "2024"
    assert "issued" not in removed
    assert moved["effectiveDateTime"] != day
    assert moved["effectiveDateTime"].endswith("T10:15:00+01:00")
    assert moved["issued"][:10] == moved["effectiveDateTime"][:10]
    assert kept["effectiveDateTime"] == day


def test_medicine_stays() -> None:
    _, result = clean(PATIENT, lab("1", "2024-03-11", 10.3))
    assert result["valueQuantity"]["value"] == 10.3
    assert result["code"]["coding"][0] == {
        "system": "http://loinc.org",
        "code": "718-7",
        "display": "Hemoglobin [Mass/volume] in Blood",
    }


def test_notes_are_decoded_cleaned_and_encoded() -> None:
    letter = note(
        "n",
        "2024-03-11",
        attachment("Nemo has no fever. Seen by Dr. Okafor."),
        attachment("<p>Ne<b>mo</b> &#78;obody is well.</p>", "text/html"),
        attachment(b"%PDF", "application/pdf"),
    )
    _, cleaned = clean(PATIENT, letter)
    plain, html, pdf = (content["attachment"] for content in cleaned["content"])
    assert b64decode(plain["data"]).decode() == "[NAME] has no fever. Seen by Dr. [NAME]."
    assert b"obody" not in b64decode(html["data"])
    assert b"is well" in b64decode(html["data"])
    assert "data" not in pdf


def test_a_narrative_of_a_section_is_cleaned() -> None:
    div = "<div><p>Ne<i>mo</i> sleeps badly</p></div>"
    section = {"title": "Course", "text": {"status": "generated", "div": div}}
    composition = resource("Composition", "c", section=[section])
    _, cleaned = clean(PATIENT, composition)
    assert "sleeps badly" in cleaned["section"][0]["text"]["div"]
    assert "Nemo" not in cleaned["section"][0]["text"]["div"]


def test_devices_lose_their_numbers() -> None:
    numbers = {"serialNumber": "PM-1", "udiCarrier": [{"carrierHRF": "(01)1"}]}
    device = resource("Device", "d", manufacturer="ACME", **numbers)
    _, cleaned = clean(PATIENT, device)
    assert cleaned["manufacturer"] == "ACME"
    assert not {"serialNumber", "udiCarrier"} & cleaned.keys()


def test_each_patient_of_an_export_has_days_of_their_own() -> None:
    patients = [{**PATIENT, "id": f"p{number}"} for number in range(2)]
    results = [
        lab(str(number), "2024-03-11", 1, subject={"reference": f"Patient/p{number}"})
        for number in range(2)
    ]
    *_, first, second = clean(*patients, *results, lines=True, retain_dates="modified")
    assert first["effectiveDateTime"] != second["effectiveDateTime"]


@pytest.mark.parametrize(
    "data", [b'{"resourceType": "Patient"', b'{"a": 1}', b"[" * 5000, b"\x1f\x8bxx"]
)
def test_what_is_no_record_is_refused(data: bytes) -> None:
    with pytest.raises(UnreadableFileError):
        survey_fhir(data)


def test_a_deep_resource_is_refused_or_cleaned_and_crashes_nothing() -> None:
    deep: Any = {"resourceType": "Basic", "id": "b"}
    for _ in range(150):
        deep = {"resourceType": "Basic", "id": "b", "contained": [deep]}
    with pytest.raises(UnreadableFileError, match="deep"):
        clean(deep)
