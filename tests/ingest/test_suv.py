"""Uptake values, where a PET says all that they need."""

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread, uid

from osler.ingest.decode import describe
from osler.testing.dicom import make_dicom

GREY = np.arange(12, dtype=np.uint16).reshape(3, 4)


Private = tuple[int, str, *tuple[tuple[int, str, str], ...]]


def pet(
    drug: dict[str, Any] | None = None, private: Private | None = None, **attributes: Any
) -> float | None:
    item = Dataset()
    for keyword, value in ({**DRUG, **(drug or {})}).items():
        if value is not None:
            setattr(item, keyword, value)
    tags: dict[str, Any] = {
        "Modality": "PT",
        "Units": "BQML",
        "CorrectedImage": ["NORM", "DTIM", "ATTN", "DECY"],
        "DecayCorrection": "START",
        "PatientWeight": 80,
        "SeriesDate": "20240302",
        "SeriesTime": "101000",
        "AcquisitionDate": "20240302",
        "AcquisitionTime": "101000.25",
        "RadiopharmaceuticalInformationSequence": [item],
    }
    data = make_dicom(GREY, **(tags | attributes))
    facts = describe(data if private is None else _with(data, *private), "x.dcm", whole=True)
    assert facts is not None
    return facts.suv_per_unit


def _with(data: bytes, group: int, creator: str, *elements: tuple[int, str, str]) -> bytes:
    ds = dcmread(BytesIO(data))
    block = ds.private_block(group, creator, create=True)
    for element, vr, value in elements:
        block.add_new(element, vr, value)
    file = BytesIO()
    ds.save_as(file)
    return file.getvalue()


DRUG = {
    "RadionuclideTotalDose": 400e6,
    "RadionuclideHalfLife": 6600,
    "RadiopharmaceuticalStartTime": "082000",
}


def test_one_half_life_after_the_injection() -> None:
    # 110 minutes are one half-life of 6,600 s: 200 MBq are left, in 80,000 g.
    assert pet() == pytest.approx(80_000 / 200e6)


def test_no_decay_where_it_is_corrected_to_the_injection() -> None:
    assert pet(DecayCorrection="ADMIN") == pytest.approx(80_000 / 400e6)


def test_an_injection_before_midnight_and_one_with_a_date() -> None:
    times: dict[str, Any] = {"SeriesTime": "003000", "AcquisitionTime": "003000"}
    assert pet({"RadiopharmaceuticalStartTime": "224000"}, **times) == pytest.approx(80_000 / 200e6)
    dated = {
        "RadiopharmaceuticalStartTime": None,
        "RadiopharmaceuticalStartDateTime": "20240302082000.00",
    }
    assert pet(dated) == pytest.approx(80_000 / 200e6)


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian])
def test_what_vendors_say_in_elements_of_their_own(syntax: uid.UID) -> None:
    counts: dict[str, Any] = {"Units": "CNTS", "syntax": syntax}
    scale, activity = (0x00, "DS", "0.0005"), (0x09, "DS", "2.5")
    philips = "Philips PET Private Group"
    assert pet(private=(0x7053, philips, scale, activity), **counts) == pytest.approx(0.0005)
    none = (0x00, "DS", "0")
    expected = 2.5 * 80_000 / 200e6
    assert pet(private=(0x7053, philips, none, activity), **counts) == pytest.approx(expected)
    assert pet(private=(0x7053, "Somebody else", scale), **counts) is None
    later: dict[str, Any] = {"SeriesTime": "111000", "syntax": syntax}
    start = (0x0D, "DT", "20240302101000.00")
    assert pet(private=(0x0009, "GEMS_PETD_01", start), **later) == pytest.approx(80_000 / 200e6)


def test_values_that_are_uptake_already() -> None:
    assert pet(Units="GML") == 1
    assert pet(Units="GML", SUVType="LBM") is None


@pytest.mark.parametrize(
    "attributes",
    [
        {"Units": "CNTS"},
        {"CorrectedImage": ["DECY"]},
        {"DecayCorrection": "NONE"},
        {"PatientWeight": []},
        {"PatientWeight": 0},
        {"SeriesTime": ""},
        {"SeriesTime": "111000"},  # made later, of images that were taken before
        {"RadiopharmaceuticalInformationSequence": []},
    ],
)
def test_nothing_is_guessed(attributes: dict[str, Any]) -> None:

    assert pet(**attributes) is None


@pytest.mark.parametrize(
    "drug",
    [
        {"RadionuclideHalfLife": None},
        {"RadionuclideHalfLife": 0},
        {"RadionuclideTotalDose": None},
        {"RadiopharmaceuticalStartTime": None},
    ],
)
def test_nothing_is_guessed_of_the_drug(drug: dict[str, Any]) -> None:
    assert pet(drug) is None
