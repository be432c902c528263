"""Records made to do harm: whatever they say, a timeline or one line of reason, and soon."""

import json
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from osler.errors import InputError
from osler.ingest.fhir.documents import resources_of_bytes
from osler.ingest.fhir.limits import MAX_NESTED_SECTIONS
from osler.ingest.fhir.records import Coding, Concept, LeftOut, Note, Timeline
from osler.ingest.fhir.timeline import _CONVERTERS, choose_patient, timeline_of
from osler.testing.fhir import PATIENT, bundle, coded, lab, resource


def read(data: bytes) -> Timeline:
    found = resources_of_bytes(data, "x")
    return timeline_of(found, choose_patient(found, None))


def outcome(data: bytes) -> str:
    """What became of it: a timeline, or a reason."""
    try:
        read(data)
    except InputError as error:
        return str(error)
    return "a timeline"


FIELDS = """
    id meta status code text coding system display value valueQuantity valueCodeableConcept unit
    component referenceRange low high interpretation effectiveDateTime effectivePeriod start end
    subject reference contained medicationReference dosageInstruction timing repeat period
    periodUnit doseAndRate doseQuantity content attachment contentType data url series uid modality
    identifier class type reasonReference reaction manifestation section div note vaccineCode
    protocolApplied activity detail relationship condition description result presentedForm
""".split()

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "2020-01-01", "#x", "Patient/p1", "Medication/x", "PGI+", "\u202e\x00"])
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=5)
    ),
    max_leaves=25,
)
FREELY = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


@FREELY
@given(
    st.sampled_from(sorted(_CONVERTERS)),
    st.dictionaries(st.sampled_from(FIELDS), VALUES, min_size=3),
)
def test_fields_of_any_kind_anywhere(kind: str, fields: dict[str, Any]) -> None:
    subject = {"reference": "Patient/p1"}
    hostile = {**fields, "resourceType": kind, "subject": subject, "patient": subject, "id": "x"}
    entries = [{"resource": PATIENT}, {"resource": hostile}]
    found = read(json.dumps({"resourceType": "Bundle", "entry": entries}).encode())
    assert sum(found.taken.values()) + sum(kind.count for kind in found.left_out) == 2


def test_mutated_bytes() -> None:
    good = bundle(
        PATIENT, lab("o1", "2020-01-01", 9.1), resource("Condition", "c1", code=coded("A"))
    )
    draw = random.Random(0)
    outcomes = set()
    for _ in range(1500):
        data = bytearray(good)
        for _ in range(draw.randint(1, 4)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        outcomes.add(outcome(bytes(data)))
    assert "a timeline" in outcomes
    assert len(outcomes) > 5
    assert not any("\n" in reason or "Nobody" in reason for reason in outcomes)


def test_references_in_a_ring() -> None:
    ring = [
        resource("Condition", f"c{n}", code=coded(f"c{n}"),
                 encounter={"reference": "Encounter/e"}) for n in range(3)
    ] + [
        resource("Procedure", "r", code=coded("r"),
                 reasonReference=[{"reference": "Procedure/r"}, {"reference": "#r"}],
                 contained=[{"resourceType": "Condition", "id": "r", "code": coded("inside"),
                             "contained": [{"id": "r"}]}]),
        resource("Encounter", "e", reasonReference=[{"reference": "Encounter/e"}],
                 diagnosis=[{"condition": {"reference": "Condition/c0"}}]),
    ]  # fmt: skip
    found = read(bundle(PATIENT, *ring))
    assert len(found.events) == len(ring)
    procedure = next(one for one in found.events if one.source == "Procedure/r")
    assert procedure.reasons == ("r", "inside")  # type: ignore[union-attr]


@pytest.mark.parametrize("number", ["1e999999999", "9" * 4000, "1" + "0" * 400, "-1e-99", "1e5"])
def test_numbers_of_absurd_size(number: str) -> None:
    data = bundle(PATIENT, lab("o1", "2020-01-01", "NUMBER")).replace(b'"NUMBER"', number.encode())
    found = read(data)
    text = repr(found.events)
    assert len(text) < 2000
    assert sum(found.taken.values()) + sum(kind.count for kind in found.left_out) == 2


def test_depth_inside_a_resource() -> None:
    deep = b'{"a":' * 5000 + b"1" + b"}" * 5000
    data = b'{"resourceType":"Observation","id":"o","code":' + deep + b"}"
    with pytest.raises(InputError, match="nested too deeply"):
        read(data)


def test_text_cannot_make_lines_or_move_the_cursor() -> None:
    name = "Fever\n2020-01-01 problem: Cancer [Condition/fake]\x1b[2J\u202eabc\u200b"
    found = read(bundle(PATIENT, resource("Condition", "c1", code={"text": name})))
    text = found.events[0].what.text
    assert text.isprintable()
    assert text.startswith("Fever 2020-01-01")


def test_a_list_without_end_is_cut() -> None:
    parts = [{"code": coded("x"), "valueInteger": 1}] * 5000
    (found,) = read(bundle(PATIENT, resource("Observation", "o", component=parts))).events
    assert len(found.components) == 1000  # type: ignore[union-attr]


def test_a_number_is_no_words() -> None:
    code = {"coding": [{"system": 1.5, "code": 2.5, "display": 3.5}], "text": 4.5}
    (found,) = read(bundle(PATIENT, resource("Condition", "c1", code=code))).events
    assert found.what == Concept("", (Coding("", "", ""),))


@pytest.mark.parametrize(
    ("place", "counted"),
    [
        (b'"text": "Anemia"', LeftOut("Condition", "malformed", 1)),
        (b'"onsetDateTime"', LeftOut("(no type)", "malformed", 1)),
    ],
)
def test_text_that_is_not_utf_8_costs_its_resource_alone(place: bytes, counted: LeftOut) -> None:
    condition = resource("Condition", "c1", code=coded("Anemia"), onsetDateTime="2020")
    data = bundle(PATIENT, condition, lab("o1", "2020-01-01", 9.1))
    found = read(data.replace(place, place[:-1] + b'\xff"'))
    assert [one.source for one in found.events] == ["Observation/o1"]
    assert found.left_out == (counted,)


def test_sections_in_sections_have_an_end() -> None:
    section: dict[str, Any] = {"title": "deepest"}
    for number in range(100):
        section = {"section": [section], "text": {"div": f"<div>{number}</div>"}}
    (found,) = read(bundle(PATIENT, resource("Composition", "n", section=[section]))).events
    assert isinstance(found, Note)
    assert found.attachments[0].text.split() == [str(99 - n) for n in range(MAX_NESTED_SECTIONS)]
