"""DICOM files without whom they are about."""

import warnings
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread, uid

from osler.errors import DicomError, UnsupportedError
from osler.privacy.actions import Actions
from osler.privacy.dicom_file import clean_dicom
from osler.privacy.profile import Profile
from osler.privacy.pseudonyms import Pseudonyms
from osler.testing.dicom import LOSSLESS_SYNTAXES, make_dicom

PIXELS = (np.arange(32 * 32, dtype=np.uint16) % 251).reshape(32, 32)
HEADER: dict[str, Any] = {
    "PatientName": "Quillfeather^Zeb",
    "PatientID": "Q-4471",
    "PatientBirthDate": "19570314",
    "PatientSex": "F",
    "PatientAge": "093Y",
    "StudyInstanceUID": "1.2.3.4",
    "SeriesInstanceUID": "1.2.3.5",
    "StudyDate": "20240311",
    "StudyTime": "101500",
    "ContentDate": "20240311",
    "AcquisitionDateTime": "20240311101500.5+0100",
    "InstitutionName": "Lower Wallop",
}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():  # as in the worker: pydicom warns of what it reads and writes
        warnings.simplefilter("ignore")
        yield


def clean(data: bytes, key: bytes = b"k", **options: Any) -> Dataset:
    profile = Profile(**{"clean_pixels": False, **options})
    return dcmread(BytesIO(clean_dicom(data, profile, Pseudonyms(key), Actions()).data))


def made(**attributes: Any) -> bytes:
    return make_dicom(PIXELS, **{**HEADER, **attributes})


def test_the_patient_becomes_a_pseudonym_and_the_object_says_so() -> None:
    ds = clean(made())
    assert ds.PatientName == ds.PatientID == Pseudonyms(b"k").patient("Q-4471")
    assert ds.PatientBirthDate == ds.PatientSex == ds.StudyDate == ""
    assert ds.ContentDate == "19000101"
    assert "PatientAge" not in ds
    assert ds.PatientIdentityRemoved == "YES"
    assert ds.LongitudinalTemporalInformationModified == "REMOVED"
    codes = [item.CodeValue for item in ds.DeidentificationMethodCodeSequence]
    assert codes == ["113100", "113104"]
    assert np.array_equal(ds.pixel_array, PIXELS)


def test_uids_stay_joined_across_files_and_in_the_file_meta_information() -> None:
    first, second = (
        clean(made()),
        clean(made(SOPInstanceUID="2.25.2", RelatedSeriesSequence=[_ref()])),
    )
    assert first.StudyInstanceUID == second.StudyInstanceUID != "1.2.3.4"
    assert first.SOPInstanceUID == first.file_meta.MediaStorageSOPInstanceUID
    reference = second.RelatedSeriesSequence[0].ReferencedSOPSequence[0]
    assert reference.ReferencedSOPInstanceUID == first.SOPInstanceUID
    assert reference.ReferencedSOPClassUID == uid.SecondaryCaptureImageStorage
    assert clean(made(), b"l").StudyInstanceUID != first.StudyInstanceUID


def _ref() -> Dataset:
    target, series = Dataset(), Dataset()
    target.ReferencedSOPClassUID = uid.SecondaryCaptureImageStorage
    target.ReferencedSOPInstanceUID = "2.25.1"
    series.ReferencedSOPSequence = [target]
    return series


def test_modified_dates_keep_their_distance() -> None:
    days = Pseudonyms(b"k").shift_days("Q-4471")
    first = clean(made(), retain_dates="modified")
    second = clean(made(StudyDate="20240411"), retain_dates="modified")
    moved = [
        np.datetime64(f"{d[:4]}-{d[4:6]}-{d[6:]}") for d in (first.StudyDate, second.StudyDate)
    ]
    assert (moved[0] - np.datetime64("2024-03-11")).astype(int) == days
    assert (moved[1] - moved[0]).astype(int) == 31
    assert first.StudyTime == "101500"
    assert first.AcquisitionDateTime.endswith("101500.5+0100")
    assert first.PatientBirthDate == ""
    assert first.LongitudinalTemporalInformationModified == "MODIFIED"


def test_full_dates_and_characteristics() -> None:
    ds = clean(made(), retain_dates="full", retain_characteristics=True)
    assert (ds.StudyDate, ds.PatientSex, ds.PatientBirthDate) == ("20240311", "F", "")
    assert ds.PatientAge == "090Y"  # nobody is older
    assert ds.LongitudinalTemporalInformationModified == "UNMODIFIED"


def test_a_date_that_is_none_does_not_stay() -> None:
    ds = clean(made(StudyDate="about 2024"), retain_dates="modified")
    assert ds.StudyDate == "19000101"


def test_private_attributes_overlays_and_curves_go_at_every_depth() -> None:
    data = dcmread(BytesIO(made()))
    inner = Dataset()
    for ds in (data, inner):
        ds.private_block(0x0011, "ACME", create=True).add_new(1, "LO", "Quillfeather")
        ds.add_new((0x6002, 0x0022), "LO", "Quillfeather")
        ds.add_new((0x5004, 0x0022), "LO", "Quillfeather")
    data.SharedFunctionalGroupsSequence = [inner]
    file = BytesIO()
    data.save_as(file)
    cleaned = clean(file.getvalue())
    assert cleaned.SharedFunctionalGroupsSequence[0] == Dataset()
    assert not any(tag.is_private or tag.group >> 8 in (0x50, 0x60) for tag in set(cleaned.keys()))


def test_a_name_goes_from_where_no_table_looks() -> None:
    ds = clean(made(ManufacturerModelName="For Zeb", ImageType=["DERIVED", "QUILLFEATHER"]))
    assert ds.ManufacturerModelName == "ANON"
    assert list(ds.ImageType) == ["DERIVED", "ANON"]


def test_codes_that_an_object_needs_are_no_names() -> None:
    ds = clean(made(PatientName="Text^Ct", Modality="CT", TimezoneOffsetFromUTC="+0100"))
    assert ds.Modality == "CT"
    kept = clean(made(TimezoneOffsetFromUTC="+0100"), retain_dates="modified")
    assert kept.TimezoneOffsetFromUTC == "+0100"


def test_text_of_a_report_is_cleaned_and_not_lost() -> None:
    item, container = Dataset(), Dataset()
    item.ValueType, item.TextValue = "TEXT", "Zeb has no pneumothorax. Called (312) 555-0188."
    container.ValueType, container.ContentSequence = "CONTAINER", [item]
    ds = clean(made(ContentSequence=[container]))
    text = ds.ContentSequence[0].ContentSequence[0].TextValue
    assert text == "[NAME] has no pneumothorax. Called [PHONE]."


def test_preamble_and_file_meta_information_are_new() -> None:
    data = bytearray(made())
    data[:12] = b"Quillfeather"
    ds = dcmread(BytesIO(bytes(data)))
    ds.file_meta.SourceApplicationEntityTitle = "QUILLFEATHER"
    file = BytesIO()
    ds.save_as(file)
    cleaned = clean_dicom(file.getvalue(), Profile(clean_pixels=False), Pseudonyms(b"k"), Actions())
    assert cleaned.data[:128] == bytes(128)
    assert b"quillfeather" not in cleaned.data.lower()


@pytest.mark.parametrize("syntax", LOSSLESS_SYNTAXES)
def test_pixels_stay_what_they_are_in_every_transfer_syntax(syntax: str) -> None:
    ds = clean(make_dicom(PIXELS, syntax=syntax, **HEADER))
    assert ds.file_meta.TransferSyntaxUID == syntax
    assert ds.PatientName != HEADER["PatientName"]
    assert np.array_equal(ds.pixel_array, PIXELS)


def test_a_file_without_preamble() -> None:
    ds = clean(make_dicom(PIXELS, preamble=False, **HEADER))
    assert ds.PatientIdentityRemoved == "YES"


def test_comments_of_compressed_frames_go() -> None:
    from osler.testing.dicom import encode_frame

    frame = encode_frame(PIXELS.astype(np.uint8), uid.JPEGBaseline8Bit, 8)
    with_comment = frame[:2] + b"\xff\xfe\x00\x0eQuillfeather" + frame[2:]
    data = make_dicom(
        PIXELS.astype(np.uint8), syntax=uid.JPEGBaseline8Bit, frame=with_comment, **HEADER
    )
    ds = clean(data)
    assert b"Quillfeather" in data
    assert b"Quillfeather" not in ds.PixelData
    assert ds.pixel_array.shape == PIXELS.shape


@pytest.mark.parametrize(
    ("attributes", "error", "reason"),
    [
        ({"EncapsulatedDocument": b"%PDF-1.4"}, UnsupportedError, "document inside"),
        ({"DirectoryRecordSequence": []}, DicomError, "DICOMDIR"),
        ({"SpecimenLabelInImage": "YES"}, UnsupportedError, "label"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LABEL", "NONE"]}, UnsupportedError, "label"),
    ],
)
def test_what_cannot_be_cleaned_is_refused(
    attributes: dict[str, Any], error: type[Exception], reason: str
) -> None:
    with pytest.raises(error, match=reason):
        clean(made(**attributes))


def test_truncated_pixels_are_refused() -> None:
    with pytest.raises(DicomError):
        clean(made()[:-900])


def test_an_unreadable_value_goes() -> None:
    data = made(SliceThickness="1.5")
    assert "SliceThickness" in clean(data)
    assert "SliceThickness" not in clean(data.replace(b"1.5 ", b"Zeb "))


def test_the_report_names_places_and_no_values() -> None:
    actions = Actions()
    clean_dicom(made(), Profile(clean_pixels=False), Pseudonyms(b"k"), actions)
    record = actions.record()
    assert record["new UID"]["SOPInstanceUID (0008,0018)"] == 1
    assert record["replaced"]["PatientName (0010,0010)"] == 1
    for value in ("Quillfeather", "Q-4471", "Wallop", "1957"):
        assert value not in str(record)
