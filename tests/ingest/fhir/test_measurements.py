"""Values, ranges and flags of observations."""

from typing import Any

import pytest

from osler.ingest.fhir import measurements
from osler.ingest.fhir.records import Measurement, Quantity
from osler.testing.fhir import as_read, code_only, coded


def measurement(value: dict[str, Any]) -> Measurement:
    return measurements.measurement(as_read(value))


def quantity(value: Any, unit: str = "g/dL", **more: Any) -> dict[str, Any]:
    return {"value": value, "unit": unit, **more}


def test_a_quantity_keeps_its_digits_and_its_unit() -> None:
    found = measurement(
        {"valueQuantity": {"value": "4.10", "unit": "g", "code": "g", "comparator": "<",
                           "system": "http://unitsofmeasure.org"}}
    )  # fmt: skip
    assert found.quantity == Quantity("4.10", "g", "g", "<")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"valueCodeableConcept": coded("Positive")}, "Positive"),
        ({"valueCodeableConcept": code_only("LA9633-4", "http://loinc.org")}, "LOINC LA9633-4"),
        ({"valueString": " yellow\n"}, "yellow"),
        ({"valueBoolean": False}, "no"),
        ({"valueInteger": 0}, "0"),
        ({"valueDateTime": "2020-01"}, "2020-01"),
        ({"valueRange": {"low": quantity(1), "high": quantity(2)}}, "1 to 2 g/dL"),
        ({"valueRatio": {"numerator": quantity(1, ""), "denominator": quantity(128, "")}}, "1:128"),
        ({"valuePeriod": {"start": "2020", "end": "2021"}}, "2020 to 2021"),
        ({"dataAbsentReason": coded("refused")}, "no value (refused)"),
        ({"valueQuantity": {"value": "1e999"}}, ""),
        ({"valueQuantity": [1]}, ""),
        ({}, ""),
    ],
)
def test_values_in_words(value: dict[str, Any], text: str) -> None:
    found = measurement(value)
    assert (found.quantity, found.text) == (None, text)


@pytest.mark.parametrize(
    ("code", "flag", "is_abnormal"),
    [
        ("H", "high", True),
        ("LL", "critically low", True),
        ("N", "normal", False),
        ("POS", "positive", True),
        ("NEG", "negative", False),
        ("odd", "odd", True),
    ],
)
def test_the_laboratorys_flag(code: str, flag: str, is_abnormal: bool) -> None:
    value = {"valueQuantity": quantity(5), "interpretation": [code_only(code)]}
    assert (measurement(value).flag, measurement(value).is_abnormal) == (flag, is_abnormal)


@pytest.mark.parametrize(
    ("value", "comparator", "flag"),
    [
        (11.9, "", "below range"),
        (12, "", "within range"),
        (16, "", "within range"),
        (16.1, "", "above range"),
        (12, "<", "below range"),
        (12, "<=", ""),
        (13, "<", ""),
        (5, "<", "below range"),
        (16, ">", "above range"),
        (20, ">", "above range"),
        (11, ">", ""),
    ],
)
def test_a_flag_by_the_range(value: float, comparator: str, flag: str) -> None:
    limits = {"low": quantity(12), "high": quantity(16)}
    found = measurement(
        {"valueQuantity": quantity(str(value), comparator=comparator), "referenceRange": [limits]}
    )
    assert found.flag == flag


def test_limits_in_another_unit_give_no_flag() -> None:
    limits = {"low": quantity(120, "g/L"), "high": quantity(160, "g/L")}
    assert measurement({"valueQuantity": quantity(13), "referenceRange": [limits]}).flag == ""
    bare = {"low": {"value": 12}}
    found = measurement({"valueQuantity": quantity(9), "referenceRange": [bare]})
    assert found.flag == "below range"


def test_of_several_ranges_the_normal_one() -> None:
    ranges = [
        {"low": quantity(1), "type": code_only("therapeutic")},
        {"low": quantity(12), "type": code_only("normal")},
    ]
    found = measurement({"valueQuantity": quantity(9), "referenceRange": ranges})
    assert found.reference is not None
    assert found.reference.low == Quantity("12", "g/dL")
