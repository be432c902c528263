"""Resources to a timeline: each kind with what a clinician needs, and none lost."""

from typing import Any

import pytest

from osler.errors import RecordError
from osler.ingest.fhir.documents import resources_of_bytes
from osler.ingest.fhir.records import (
    Allergy,
    Condition,
    Encounter,
    FamilyHistory,
    ImagingStudy,
    Immunization,
    LeftOut,
    Medication,
    Note,
    Plan,
    Procedure,
    Report,
    Timeline,
)
from osler.ingest.fhir.timeline import choose_patient, patients_of, timeline_of
from osler.testing.fhir import (
    PATIENT,
    attachment,
    bundle,
    code_only,
    coded,
    lab,
    ndjson,
    note,
    resource,
)


def timeline(*resources: dict[str, Any], patient: str | None = None) -> Timeline:
    found = resources_of_bytes(bundle(*resources), "x.json")
    return timeline_of(found, choose_patient(found, patient))


def event(*resources: dict[str, Any]) -> Any:
    """The event of the first resource; the others are there to be referred to."""
    found = timeline(PATIENT, *resources)
    source = f"{resources[0]['resourceType']}/{resources[0]['id']}"
    return next(one for one in found.events if one.source == source)


ASTHMA = resource(
    "Condition",
    "c1",
    clinicalStatus=code_only("active"),
    verificationStatus=code_only("confirmed"),
    code=coded("Asthma", "195967001"),
    severity=coded("Moderate"),
    onsetDateTime="2010-03",
    encounter={"reference": "urn:uuid:e1"},
    note=[{"text": "Worse in\nspring."}],
)
VISIT = resource(
    "Encounter",
    "e1",
    status="finished",
    **{"class": {"code": "EMER"}},
    type=[coded("Emergency visit")],
    period={"start": "2020-03-01T22:00:00-05:00", "end": "2020-03-02T01:00:00-05:00"},
    reasonCode=[coded("Wheezing")],
    reasonReference=[{"reference": "Condition/c1"}],
    hospitalization={"dischargeDisposition": coded("Home")},
)


def test_the_patient_has_no_name() -> None:
    found = timeline(PATIENT | {"deceasedDateTime": "2021-05-06"})
    assert found.patient is not None
    assert (found.patient.source, found.patient.sex) == ("Patient/p1", "female")
    assert found.patient.is_dead
    assert found.patient.died is not None
    assert found.patient.died.precision == "day"
    assert "Nobody" not in repr(found)


def test_a_visit() -> None:
    found = event(VISIT, ASTHMA)
    assert isinstance(found, Encounter)
    assert found.end is not None
    assert found.setting == "emergency"
    assert found.reasons == ("Wheezing", "Asthma")
    assert found.discharge == "Home"
    assert found.end.text == "2020-03-02T01:00:00-05:00"


def test_a_problem_keeps_the_precision_of_its_date() -> None:
    found = event(ASTHMA, VISIT)
    assert isinstance(found, Condition)
    assert found.start is not None
    assert (found.start.text, found.start.precision) == ("2010-03", "month")
    assert found.is_active
    assert found.severity == "Moderate"
    assert found.encounter == "Encounter/e1"
    assert found.comments == ("Worse in spring.",)


def test_a_problem_that_is_over() -> None:
    over = ASTHMA | {"clinicalStatus": code_only("resolved"), "abatementDateTime": "2015"}
    found = event(over)
    assert not found.is_active
    assert found.end.text == "2015"


@pytest.mark.parametrize(
    ("dosage", "words"),
    [
        ({"text": "one at night"}, "one at night"),
        (
            {
                "doseAndRate": [{"doseQuantity": {"value": 500, "unit": "mg"}}],
                "timing": {"repeat": {"frequency": 3, "period": 1, "periodUnit": "d"}},
                "route": coded("Oral"),
            },
            "500 mg, 3 times a day, Oral",
        ),
        (
            {
                "doseAndRate": [{"rateRatio": {"numerator": {"value": 2, "unit": "mL"},
                                               "denominator": {"value": 1, "unit": "h"}}}],
                "asNeededCodeableConcept": coded("pain"),
            },
            "2 mL per h, as needed for pain",
        ),
        (
            {"timing": {"repeat": {"period": 8, "periodUnit": "h",
                                   "boundsDuration": {"value": 7, "unit": "days"}}}},
            "every 8 hours for 7 days",
        ),
        ({"timing": {"repeat": {"frequency": 1, "period": 1, "periodUnit": "wk"}}}, "once a week"),
        ({"timing": {"repeat": {"periodUnit": "eon", "period": "x"}}}, None),
    ],
)  # fmt: skip
def test_doses(dosage: dict[str, Any], words: str | None) -> None:
    request = resource(
        "MedicationRequest",
        "m1",
        status="active",
        medicationCodeableConcept=coded("Amoxicillin"),
        authoredOn="2020-01-02",
        dosageInstruction=[dosage],
    )
    found = event(request)
    assert isinstance(found, Medication)
    assert found.doses == (() if words is None else (words,))
    assert found.is_current


def test_a_period_of_a_medication_comes_from_its_dosage() -> None:
    period = {"start": "2020-01-03", "end": "2020-01-10"}
    request = resource(
        "MedicationRequest",
        "m1",
        status="completed",
        medicationCodeableConcept=coded("Amoxicillin"),
        authoredOn="2020-01-02",
        dosageInstruction=[{"timing": {"repeat": {"boundsPeriod": period}}}],
    )
    found = event(request)
    assert (found.start.text, found.end.text) == ("2020-01-03", "2020-01-10")


@pytest.mark.parametrize("link", ["#drug", "Medication/drug", "urn:uuid:drug"])
def test_a_medication_by_reference(link: str) -> None:
    drug = {"resourceType": "Medication", "id": "drug", "code": coded("Warfarin 5 mg")}
    request = resource(
        "MedicationStatement",
        "m1",
        status="active",
        medicationReference={"reference": link},
        effectivePeriod={"start": "2019"},
        contained=[drug] if link == "#drug" else [],
    )
    found = timeline(PATIENT, request, *([] if link == "#drug" else [drug]))
    (taken,) = found.events
    assert isinstance(taken, Medication)
    assert (taken.what.text, taken.act) == ("Warfarin 5 mg", "statement")
    if link != "#drug":
        assert found.left_out == (LeftOut("Medication", "read where it is referred to", 1),)


def test_medication_given_and_dispensed() -> None:
    given = resource(
        "MedicationAdministration",
        "m1",
        status="completed",
        medicationCodeableConcept=coded("Heparin"),
        effectiveDateTime="2020-01-01T10:00:00Z",
        dosage={"dose": {"value": 5000, "unit": "U"}, "route": coded("SC")},
    )
    assert event(given).doses == ("5000 U, SC",)
    handed = resource(
        "MedicationDispense",
        "m2",
        status="completed",
        medicationCodeableConcept=coded("Aspirin"),
        whenHandedOver="2020-01-02",
    )
    assert (event(handed).act, event(handed).start.text) == ("dispense", "2020-01-02")


def test_an_allergy() -> None:
    found = event(
        resource(
            "AllergyIntolerance",
            "a1",
            clinicalStatus=code_only("active"),
            code=coded("Penicillin"),
            criticality="high",
            category=["medication"],
            recordedDate="2001-01-01",
            reaction=[{"manifestation": [coded("Hives"), coded("Wheeze")], "severity": "severe"}],
        )
    )
    assert isinstance(found, Allergy)
    assert (found.criticality, found.categories) == ("high", ("medication",))
    assert found.reactions == ("Hives, Wheeze (severe)",)


def test_procedures_vaccines_plans_and_families() -> None:
    period = {"start": "2020-01-01T08:00:00+01:00", "end": "2020-01-01T09:00:00+01:00"}
    done = event(resource("Procedure", "r1", status="completed", code=coded("Appendectomy"),
                          performedPeriod=period, bodySite=[coded("Appendix")],
                          reasonReference=[{"reference": "C/z", "display": "Pain"}]))  # fmt: skip
    assert isinstance(done, Procedure)
    assert (done.body_sites, done.reasons) == (("Appendix",), ("Pain",))
    vaccine = event(resource("Immunization", "i1", status="not-done", vaccineCode=coded("MMR"),
                             occurrenceDateTime="1962", statusReason=coded("Refused"),
                             protocolApplied=[{"doseNumberPositiveInt": 2,
                                               "seriesDosesString": "3"}]))  # fmt: skip
    assert isinstance(vaccine, Immunization)
    assert (vaccine.dose, vaccine.reason_not_done) == ("2 of 3", "Refused")
    plan = event(resource("CarePlan", "cp1", status="active", category=[coded("Asthma care")],
                          period={"start": "2020"}, addresses=[{"reference": "Condition/c1"}],
                          activity=[{"detail": {"code": coded("Exercise")}},
                                    {"detail": {"description": "Diary"}}]), ASTHMA)  # fmt: skip
    assert isinstance(plan, Plan)
    assert (plan.activities, plan.reasons) == (("Exercise", "Diary"), ("Asthma",))
    goal = event(resource("Goal", "g1", lifecycleStatus="active", description={"text": "Walk"}))
    assert (goal.what.text, goal.status, goal.start) == ("Walk", "active", None)
    order = event(resource("ServiceRequest", "s1", status="active", code=coded("Chest CT"),
                           authoredOn="2020-02-02"))  # fmt: skip
    assert order.start.text == "2020-02-02"
    family = event({"resourceType": "FamilyMemberHistory", "id": "f1", "status": "completed",
                    "patient": {"reference": "Patient/p1"}, "relationship": coded("Mother"),
                    "condition": [{"code": coded("Breast cancer"),
                                   "onsetAge": {"value": 48, "unit": "years"}}]})  # fmt: skip
    assert isinstance(family, FamilyHistory)
    assert family.conditions == ("Breast cancer (at 48 years)",)


def test_a_report_leads_to_its_results_and_its_text() -> None:
    report = resource(
        "DiagnosticReport",
        "d1",
        status="final",
        code=coded("CT chest"),
        effectiveDateTime="2020-03-01",
        conclusion="Nodule in the\nright upper lobe.",
        result=[{"reference": "urn:uuid:o1"}],
        imagingStudy=[{"reference": "ImagingStudy/i9"}],
        presentedForm=[attachment("FINDINGS\nA nodule.")],
    )
    found = event(report, lab("o1", "2020-03-01", 9.1))
    assert isinstance(found, Report)
    assert found.conclusion == "Nodule in the right upper lobe."
    assert (found.results, found.studies) == (("Observation/o1",), ("ImagingStudy/i9",))
    assert found.attachments[0].text == "FINDINGS\nA nodule."


def test_a_note_whose_text_is_a_binary() -> None:
    written = attachment("Dear colleague")
    binary = {"resourceType": "Binary", "id": "b1", **written}
    found = event(note("n1", "2020-01-01", {"url": "Binary/b1"}), binary)
    assert isinstance(found, Note)
    assert found.attachments[0].text == "Dear colleague"
    lost = event(note("n1", "2020-01-01", {"url": "https://elsewhere.example/Binary/b2"}))
    assert lost.attachments[0].refused == "its content is elsewhere and not in this record"


def test_an_imaging_study_has_its_dicom_uids() -> None:
    study = resource(
        "ImagingStudy",
        "i1",
        status="available",
        started="2020-03-01T10:15:00Z",
        identifier=[{"value": "ACC-1"}, {"system": "urn:dicom:uid", "value": "urn:oid:1.2.840.99"}],
        series=[
            {
                "uid": "1.2.840.99.1",
                "modality": {"code": "CT"},
                "bodySite": {"display": "Chest"},
                "numberOfInstances": 300,
            }
        ],
    )
    found = event(study)
    assert isinstance(found, ImagingStudy)
    assert found.study_uid == "1.2.840.99"
    assert found.series[0].series_uid == "1.2.840.99.1"
    assert (found.modalities, found.series[0].instances) == (("CT",), 300)
    assert found.what.text == "CT Chest"


def test_a_composition_gives_its_sections() -> None:
    section = {
        "title": "Plan",
        "text": {"div": "<div><p>Rest.</p></div>"},
        "section": [{"title": "Later", "text": {"div": "<div>Run.</div>"}}],
    }
    found = event(resource("Composition", "k1", status="final", type=coded("Letter"),
                           date="2020-01-01", section=[section]))  # fmt: skip
    assert found.attachments[0].text == "Plan\nRest.\n\nLater\nRun."


def test_every_resource_is_taken_or_counted() -> None:
    resources = [
        PATIENT,
        ASTHMA,
        VISIT,
        lab("o1", "2020-01-01", 9.1),
        lab("o1", "2020-01-01", 9.2),  # the same once more
        lab("o2", "2020-01-01", 9.3, status="entered-in-error"),
        ASTHMA | {"id": "c2", "verificationStatus": code_only("entered-in-error")},
        {"resourceType": "Claim", "id": "x1", "patient": {"reference": "Patient/p1"}},
        {"resourceType": "Organization", "id": "x2"},
        {"id": "x3"},
        lab("o3", "2020-01-01", 9.3) | {"subject": {"reference": "Patient/other"}},
        {"resourceType": "Observation"},  # of nobody, without an id
    ]
    found = timeline(*resources)
    assert found.taken == {"Condition": 1, "Encounter": 1, "Observation": 2, "Patient": 1}
    assert set(found.left_out) == {
        LeftOut("Observation", "another version of the same", 1),
        LeftOut("Observation", "entered in error", 1),
        LeftOut("Condition", "entered in error", 1),
        LeftOut("Claim", "not part of a timeline", 1),
        LeftOut("Organization", "not part of a timeline", 1),
        LeftOut("(no type)", "malformed", 1),
        LeftOut("Observation", "of another patient", 1),
    }
    total = sum(found.taken.values()) + sum(kind.count for kind in found.left_out)
    assert total == len(resources)
    assert found.problems == {"no name or code": 1}


def test_the_newest_version_is_the_one_that_counts() -> None:
    versions = [
        lab("o1", "2020-01-01", value, meta={"versionId": str(number), "lastUpdated": updated})
        for number, (value, updated) in enumerate(
            [(1, "2020-01-01T00:00:00Z"), (3, "2020-03-01T00:00:00Z"), (2, "2020-02-01T00:00:00Z")]
        )
    ]
    found = event(versions[0], *versions[1:])
    assert found.measurement.quantity.value == "3"


def test_events_are_in_the_order_of_their_days() -> None:
    dates = ["2020-03-01T23:30:00-05:00", "2020-03-02", "2020", "2020-03-02T01:00:00+01:00", "2019"]
    found = timeline(PATIENT, *(lab(f"o{n}", date, 1) for n, date in enumerate(dates)))
    assert [one.start.text for one in found.events if one.start] == [
        *("2019", "2020", "2020-03-01T23:30:00-05:00", "2020-03-02", "2020-03-02T01:00:00+01:00"),
    ]


def test_a_date_that_is_none_is_noticed() -> None:
    found = timeline(PATIENT, lab("o1", "2020-13-01", 1), lab("o2", "soon", 1))
    assert [one.start for one in found.events] == [None, None]
    assert found.problems == {"a date that is none": 2}


def test_several_patients_need_a_choice() -> None:
    other = PATIENT | {"id": "p2"}
    theirs = lab("o2", "2020-01-01", 2) | {"subject": {"reference": "urn:uuid:p2"}}
    resources = [PATIENT, other, lab("o1", "2020-01-01", 1), theirs]
    with pytest.raises(RecordError, match="2 patients: choose one"):
        timeline(*resources)
    with pytest.raises(RecordError, match="no patient of that id among 2"):
        timeline(*resources, patient="p3")
    for wanted, source in (("p2", "Observation/o2"), ("Patient/p1", "Observation/o1")):
        found = timeline(*resources, patient=wanted)
        assert [one.source for one in found.events] == [source]
        assert found.left_out[0].reason == "of another patient"
    counts, _ = patients_of(resources_of_bytes(bundle(*resources), "x"))
    assert counts == {"Patient/p1": 1, "Patient/p2": 1}


def test_resources_that_were_taken_out_of_their_bundle() -> None:
    theirs = lab("o1", "2020-01-01", 1) | {"subject": {"reference": "urn:uuid:p1"}}
    found = resources_of_bytes(ndjson(PATIENT, theirs), "x")
    record = timeline_of(found, choose_patient(found, None))
    assert [event.source for event in record.events] == ["Observation/o1"]
    assert patients_of(found)[0] == {"Patient/p1": 1}


def test_a_record_without_a_patient_resource() -> None:
    found = resources_of_bytes(ndjson(lab("o1", "2020-01-01", 1)), "x")
    record = timeline_of(found, choose_patient(found, None))
    assert record.patient is None
    assert len(record.events) == 1


@pytest.mark.parametrize("data", [b"{}", b'{"a": 1}', b'{"resourceType": 5}\n{"b": 2}'])
def test_json_that_is_no_fhir(data: bytes) -> None:
    found = resources_of_bytes(data, "x.json")
    with pytest.raises(RecordError, match="holds no FHIR resource"):
        timeline_of(found, choose_patient(found, None))
