"""Series of a test: in one unit where there is a way to it, apart where there is none."""

from typing import Any

import pytest

from osler.ingest.fhir.documents import resources_of_bytes
from osler.ingest.fhir.records import Quantity
from osler.ingest.fhir.timeline import choose_patient, timeline_of
from osler.preprocess.record.series import Series, series_of
from osler.preprocess.record.units import convert
from osler.testing.fhir import PATIENT, bundle, lab


def series(*resources: dict[str, Any]) -> list[Series]:
    found = resources_of_bytes(bundle(PATIENT, *resources), "x")
    return series_of(timeline_of(found, choose_patient(found, None)))


def in_unit(value: str, unit: str) -> Quantity:
    return Quantity(value, unit, unit)


@pytest.mark.parametrize(
    ("value", "unit", "target", "expected"),
    [
        ("91", "g/L", "g/dL", "9.10"),
        ("9.15", "g/dL", "g/L", "91.5"),
        ("250", "10*3/uL", "10*9/L", "250"),
        ("98.6", "[degF]", "Cel", "37.0"),
        ("154", "[lb_av]", "kg", "69.9"),
        ("5.5", "mmol/L", "umol/L", "5500"),
        ("760", "mm[Hg]", "kPa", "101"),
    ],
)
def test_units_by_ucum(value: str, unit: str, target: str, expected: str) -> None:
    assert convert(in_unit(value, unit), in_unit("1", target)) == in_unit(expected, target)


@pytest.mark.parametrize(
    ("unit", "target"),
    [
        ("mmol/L", "mg/dL"),  # needs the substance
        ("%", "mmol/mol"),  # HbA1c: another scale
        ("[IU]/L", "mg/L"),
        ("{score}", "%"),
        ("apples", "g/L"),
        ("", "g/L"),
        ("((((", "g/L"),
        ("10*999999999", "g/L"),
        ("(" * 900 + "g" + ")" * 900, "g"),
        ("10*999.g", "g"),
        ("[degF]", "K.m"),
    ],
)
def test_units_without_a_sure_way(unit: str, target: str) -> None:
    assert convert(in_unit("5", unit), in_unit("1", target)) is None


def test_a_series_takes_the_unit_of_its_latest_value() -> None:
    limits = {"low": {"value": 120, "unit": "g/L"}, "high": {"value": 160, "unit": "g/L"}}
    (hb,) = series(
        lab("o1", "2019", 110, "g/L", referenceRange=[limits]), lab("o2", "2020", 9.1, "g/dL")
    )
    assert hb.unit == "g/dL"
    first, second = hb.points
    assert first.measurement.quantity is not None
    assert (first.measurement.quantity.value, first.original) == ("11.0", in_unit("110", "g/L"))
    assert first.measurement.flag == "below range"
    assert hb.normal is not None
    assert hb.normal.low == Quantity("12.0", "g/dL", "g/dL")
    assert second.original is None


def test_what_cannot_be_converted_stands_apart() -> None:
    found = series(
        lab("o1", "2018", 90, "mg/dL", name="Glucose", code="1"),
        lab("o2", "2019", 5, "mmol/L", name="Glucose", code="1"),
        lab("o3", "2020", 95, "mg/dL", name="Glucose", code="1"),
    )
    assert [(one.unit, len(one.points)) for one in found] == [("mg/dL", 2), ("mmol/L", 1)]


def test_a_number_without_a_unit_stands_apart() -> None:
    found = series(lab("o1", "2019", 9, ""), lab("o2", "2020", 9, "g/dL"))
    assert [one.unit for one in found] == ["", "g/dL"]


def test_words_stay_in_their_series() -> None:
    positive = lab("o2", "2020", 1) | {"valueString": "clotted"}
    del positive["valueQuantity"]
    (hb,) = series(lab("o1", "2019", 9), positive)
    assert [point.measurement.text for point in hb.points] == ["", "clotted"]


def test_units_without_end_are_not_converted() -> None:
    labs = [lab(f"o{n}", "2020", n, f"{n % 30 + 1}.g/L") for n in range(60)]
    found = series(*labs)
    assert len(found) == 30
    for one in found:
        assert all(p.measurement.quantity and p.measurement.quantity.unit == one.unit
                   for p in one.points)  # fmt: skip
