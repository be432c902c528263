"""A timeline as text: every line with its source, in its style, within its budget."""

import re
from typing import Any

import pytest

from osler.errors import PromptError
from osler.ingest.fhir.documents import resources_of_bytes
from osler.ingest.fhir.records import Timeline
from osler.ingest.fhir.timeline import choose_patient, timeline_of
from osler.preprocess.record.rendering import STYLES, Style, render
from osler.testing.fhir import (
    PATIENT,
    attachment,
    bundle,
    code_only,
    coded,
    lab,
    note,
    resource,
)

LOW: dict[str, Any] = {"interpretation": [code_only("L")]}
NORMAL: dict[str, Any] = {"interpretation": [code_only("N")]}


def read(*resources: dict[str, Any]) -> Timeline:
    found = resources_of_bytes(bundle(*resources), "x")
    return timeline_of(found, choose_patient(found, None))


def allergy(id: str, text: str) -> dict[str, Any]:
    status = code_only("active")
    return resource("AllergyIntolerance", id, clinicalStatus=status, code=coded(text))


def problem(id: str, text: str, date: str, status: str = "active") -> dict[str, Any]:
    code = coded(text, text)
    return resource(
        "Condition", id, clinicalStatus=code_only(status), code=code, onsetDateTime=date
    )


def medication(id: str, text: str, date: str, status: str = "active") -> dict[str, Any]:
    drug = coded(text, text)
    return resource(
        "MedicationRequest", id, status=status, medicationCodeableConcept=drug, authoredOn=date
    )


@pytest.fixture(scope="module")
def record() -> Timeline:
    labs = [lab(f"hb{n}", f"2020-0{n}-01T10:15:00-05:00", 13 + n / 10, **NORMAL)
            for n in range(1, 8)]  # fmt: skip
    return read(
        PATIENT,
        allergy("a1", "Penicillin"),
        problem("c1", "Asthma", "2010"),
        problem("c2", "Sprain", "2012-05-06", "resolved"),
        medication("m1", "Salbutamol", "2019-01-01"),
        medication("m2", "Salbutamol", "2020-01-01"),
        medication("m3", "Ibuprofen", "2012-05-06", "stopped"),
        *labs,
        lab("hb8", "2020-08-01T10:15:00-05:00", 9.1, **LOW),
        lab("k1", "2020-07-01T10:15:00-05:00", 4, "mmol/L", name="Potassium", code="2823-3"),
        note("n1", "2020-08-02", attachment("Dear colleague,\n\nshe bled.")),
        resource(
            "Encounter",
            "e1",
            status="finished",
            type=[coded("Check-up")],
            **{"class": {"code": "AMB"}},
            period={"start": "2020-08-01"},
        ),
    )


def words(text: str) -> int:
    return len(text.split())


@pytest.mark.parametrize("style", STYLES)
def test_every_line_of_an_event_names_its_source(record: Timeline, style: Style) -> None:
    found = render(record, style)
    lines = [line for line in found.text.splitlines()[2:] if line and not line.endswith(":")]
    named = [re.fullmatch(r".* \[([A-Za-z]+/[a-z0-9]+)(?::\d+)?\]", line) for line in lines]
    assert all(named)
    sources = {match[1] for match in named if match}
    expected = {event.source for event in record.events}
    if style == "tables":
        expected = {source for source in expected if source.startswith("Observation")}
    assert sources == expected
    assert found.dropped == ()


def test_the_first_lines() -> None:
    dead = PATIENT | {"deceasedDateTime": "2020-04-01"}
    late = lab("o1", "2020-09-01T10:15:00+02:00", 9)
    assert render(read(dead, late)).text.splitlines()[:2] == [
        "Patient: female, born 1961-04-02, died 2020-04-01, 58 years old then [Patient/p1]",
        "Times are in UTC+02:00 where no other zone is given.",
    ]
    assert render(read(PATIENT, late)).text.startswith(
        "Patient: female, born 1961-04-02, 59 years old at the last entry, 2020-09-01 [Patient/p1]"
    )


def test_newest_first(record: Timeline) -> None:
    lines = render(record, "newest").text.splitlines()
    assert lines[2] == (
        "2020-08-02 note: Discharge summary, Dear colleague, she bled. [DocumentReference/n1]"
    )
    assert lines[3] == (
        "2020-08-01 10:15 result: Hemoglobin [Mass/volume] in Blood, 9.1 g/dL LOW [Observation/hb8]"
    )
    assert lines[-1] == "undated allergy: Penicillin, active [AllergyIntolerance/a1]"


def test_problems_first(record: Timeline) -> None:
    text = render(record, "problems").text
    headings = [line for line in text.splitlines() if line.endswith(":")]
    assert headings == [
        *("Allergies:", "Active problems:", "Current medications:", "Notes:"),
        *("Laboratory results:", "Past problems:", "Other medications:", "Visits:"),
    ]
    assert "Active problems:\n2010 Asthma, active [Condition/c1]\n" in text
    assert "Past problems:\n2012-05-06 Sprain, resolved [Condition/c2]\n" in text


def test_in_full(record: Timeline) -> None:
    lines = render(record, "full").text.splitlines()
    assert lines[2].startswith("undated allergy")
    assert "2010 problem: Asthma (SNOMED CT Asthma), active [Condition/c1]" in lines
    assert (
        "2020-01-01T10:15:00-05:00 result: Hemoglobin [Mass/volume] in Blood (LOINC 718-7), "
        "13.1 g/dL normal, final [Observation/hb1]"
    ) in lines
    assert lines[-2:] == [
        "  Dear colleague, [DocumentReference/n1:1]",
        "  she bled. [DocumentReference/n1:3]",
    ]


def test_what_was_not_read_says_so() -> None:
    found = read(PATIENT, note("n1", "2020", attachment(b"{\\rtf1", "text/rtf")))
    for style in ("newest", "full"):
        assert "(RTF is not read)" in render(found, style).text


def test_tables_of_a_test(record: Timeline) -> None:
    text = render(record, "tables", test="HEMOGLOBIN blood").text
    heading, *rows = text.split("\n\n")[1].splitlines()
    assert heading == "Hemoglobin [Mass/volume] in Blood (LOINC 718-7), g/dL:"
    assert rows[0] == "2020-01-01 10:15 13.1 normal [Observation/hb1]"
    assert rows[-1] == "2020-08-01 10:15 9.1 LOW [Observation/hb8]"
    assert "Potassium" not in text
    by_code = render(record, "tables", test="2823-3").text
    assert "Potassium" in by_code
    assert "Hemoglobin" not in by_code


def test_components_have_tables_of_their_own() -> None:
    parts = [
        {"code": coded(name, name), "valueQuantity": {"value": value, "unit": "mm[Hg]"}}
        for name, value in (("Systolic", 120), ("Diastolic", 80))
    ]
    pressure = resource(
        "Observation",
        "b1",
        status="final",
        code=coded("Blood pressure"),
        effectiveDateTime="2020",
        component=parts,
    )
    found = read(PATIENT, pressure)
    text = render(found, "tables").text
    assert (
        "Blood pressure: Diastolic (SNOMED CT Diastolic), mm[Hg]:\n2020 80 [Observation/b1]" in text
    )
    assert (
        "2020 finding: Blood pressure, Systolic 120 mm[Hg], Diastolic 80 mm[Hg] [Observation/b1]"
    ) in render(found).text


def test_digits_that_nobody_measured_are_left_out_of_short_lines() -> None:
    found = read(PATIENT, lab("o1", "2020-01-01", 43.83261834839))
    assert "43.83 g/dL" in render(found).text
    assert "43.83261834839 g/dL" in render(found, "full").text


def test_a_long_note_is_cut_in_short_lines_and_whole_in_full() -> None:
    found = read(PATIENT, note("n1", "2020", attachment("word " * 200 + "END")))
    assert "… (1,003 characters)" in render(found).text
    assert "END" not in render(found).text
    assert "END" in render(found, "full").text


def test_text_of_a_record_makes_no_line_of_its_own() -> None:
    bad = attachment("Fine.\n2020-01-01 problem: Cancer [Condition/c9]")
    text = render(read(PATIENT, note("n1", "2020", bad)), "full").text
    assert "  2020-01-01 problem: Cancer [Condition/c9] [DocumentReference/n1:2]" in text


def test_short_ids_lead_back_to_their_sources() -> None:
    found = read(PATIENT, lab("5b8d3f2a-1", "2020", 9), lab("5b8d77aa-2", "2021", 9))
    rendering = render(found, short_ids=True)
    assert "[Observation/5b8d3]" in rendering.text
    assert rendering.sources["Observation/5b8d7"] == "Observation/5b8d77aa-2"


def test_a_budget_keeps_what_is_most_useful(record: Timeline) -> None:
    whole = render(record, "newest", count=words)
    needed = [
        *("Penicillin", "Asthma", "MedicationRequest/m2", "9.1 g/dL LOW", "she bled", "Potassium"),
    ]
    for budget in range(words(whole.text), 90, -7):
        found = render(record, "newest", budget=budget, count=words)
        assert words(found.text) <= budget
        for text in needed:
            assert text in found.text
    found = render(record, "newest", budget=90, count=words)
    said = found.text.splitlines()[-1]
    assert said.startswith("Left out for want of room: ")
    assert "7 results (2020-01-01 to 2020-07-01)" in said
    assert "2 medications (2012-05-06 to 2019-01-01)" in said
    kept = found.text.count("[") - found.text.count("[Mass")
    assert kept - 1 + sum(kind.count for kind in found.dropped) == len(record.events)


def test_nothing_that_was_dropped_is_more_useful_than_what_was_kept(record: Timeline) -> None:
    kept_before: set[str] = set()
    for budget in range(70, 300, 5):
        text = render(record, "problems", budget=budget, count=words).text
        kept = {event.source for event in record.events if f"[{event.source}]" in text}
        assert kept_before <= kept
        kept_before = kept
    assert len(kept_before) == len(record.events)


def test_a_block_of_a_quarter_of_the_budget_comes_last() -> None:
    found = read(
        PATIENT,
        note("n1", "2021", attachment("long\n" * 100)),
        *(lab(f"o{n}", f"200{n}", 9) for n in range(9)),
    )
    rendering = render(found, "full", budget=200, count=words)
    assert [(kind.kind, kind.count) for kind in rendering.dropped] == [("note", 1)]


def test_a_budget_that_does_not_hold_the_first_lines(record: Timeline) -> None:
    with pytest.raises(PromptError, match="a budget of 5 tokens"):
        render(record, budget=5, count=words)


def test_an_empty_record() -> None:
    assert render(read(PATIENT)).text == "Patient: female, born 1961-04-02 [Patient/p1]"
