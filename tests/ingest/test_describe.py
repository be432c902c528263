"""What a file says of itself: codes and places, nothing of the patient, whatever its bytes are."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as PilImage
from pydicom import DataElement, Dataset, uid

from osler.errors import InputError, UnsupportedError
from osler.ingest import facts as facts_module
from osler.ingest.decode import decode_frames, describe
from osler.ingest.facts import FileFacts
from osler.ingest.limits import HEAD_BYTES
from osler.ingest.scan import scan
from osler.testing.dicom import make_dicom
from osler.testing.series import make_enhanced, make_series, slices

pytestmark = pytest.mark.filterwarnings("ignore")  # as the worker ignores them

GREY = np.arange(12, dtype=np.uint16).reshape(3, 4)
NAME = "Doe^Jane"
WIDE = np.zeros((600, 700), np.uint16)


def facts_of(**attributes: Any) -> FileFacts:
    found = describe(make_dicom(GREY, **attributes), "x.dcm", whole=True)
    assert found is not None
    return found


def test_the_facts() -> None:
    found = facts_of(
        Modality="MG",
        BodyPartExamined="BREAST",
        ImageLaterality="L",
        ContrastBolusAgent="IODINE",
        PixelSpacing=[0.5, 0.25],
        SliceThickness=3,
        SeriesNumber=7,
        StudyDate="20240301",
        StudyTime="101112.5",
        BurnedInAnnotation="NO",
        StudyInstanceUID="2.25.1",
        SeriesInstanceUID="2.25.2",
    )
    assert (found.kind, found.rows, found.columns, len(found.frames)) == ("dicom", 3, 4, 1)
    assert (found.modality, found.body_part, found.laterality) == ("MG", "BREAST", "L")
    assert (found.has_contrast, found.burned_in_text, found.is_capture) == (True, False, True)
    assert (found.pixel_spacing_mm, found.slice_thickness_mm) == ((0.5, 0.25), 3)
    assert (found.study, found.series, found.instance) == ("2.25.1", "2.25.2", "2.25.1")
    assert (found.series_number, found.moment) == (7, "20240301101112")


def test_the_patient_is_a_digest_that_tells_patients_apart() -> None:
    one, same, other = (
        facts_of(PatientID=identity).patient for identity in ("12345", "12345 ", "12346")
    )
    assert one == same != other
    assert "12345" not in one
    assert facts_of().patient == ""
    assert facts_of(PatientID="12345", IssuerOfPatientID="B").patient != one


def test_free_text_and_nonsense_are_not_facts() -> None:
    wrong = {
        "BodyPartExamined": DataElement("BodyPartExamined", "LO", NAME),
        "Laterality": DataElement("Laterality", "LO", NAME),
        "StudyDate": DataElement("StudyDate", "LO", NAME),
        "StudyInstanceUID": DataElement("StudyInstanceUID", "LO", NAME),
        "SeriesNumber": DataElement("SeriesNumber", "LO", NAME),
        "PixelSpacing": DataElement("PixelSpacing", "LO", NAME),
        "ImagePositionPatient": DataElement("ImagePositionPatient", "LO", NAME),
        "ImageOrientationPatient": DataElement("ImageOrientationPatient", "LO", NAME),
        "SeriesDescription": NAME,
        "PatientName": NAME,
    }
    found = facts_of(**wrong)
    assert found == FileFacts(
        kind="dicom",
        rows=3,
        columns=4,
        frames=found.frames,
        modality="OT",
        instance="2.25.1",
        is_capture=True,
    )
    assert found.frames[0].pose is None
    assert "Doe" not in repr(found)


@pytest.mark.parametrize(
    "orientation",
    [[1, 0, 0, 1, 0, 0], [0, 0, 0, 0, 1, 0], [1, 0, 0, 0, 1], [1, 0, 0, 0, 1, float("nan")]],
)
def test_directions_that_span_no_plane(orientation: list[float]) -> None:
    element = DataElement("ImageOrientationPatient", "FD", orientation)
    found = facts_of(ImagePositionPatient=[0, 0, 0], ImageOrientationPatient=element)
    assert found.frames[0].pose is None


def test_private_facts_are_not_shown_by_repr() -> None:
    found = facts_of(StudyDate="20240301", PatientID="12345", StudyInstanceUID="2.25.77")
    assert not any(text in repr(found) for text in ("20240301", "2.25.77", found.patient))
    assert facts_module.FileFacts.__dataclass_params__.frozen  # type: ignore[attr-defined]


def test_the_beginning_is_enough_unless_the_header_is_long() -> None:
    whole = make_dicom(WIDE, Modality="CR")
    assert len(whole) > HEAD_BYTES
    found = describe(whole[:HEAD_BYTES], "x.dcm", whole=False)
    assert found == describe(whole, "x.dcm", whole=True)
    long = make_dicom(WIDE, Modality="CR", RedPaletteColorLookupTableData=bytes(2 * HEAD_BYTES))
    assert describe(long[:HEAD_BYTES], "x.dcm", whole=False) is None
    deflated = make_dicom(
        np.random.default_rng(0).integers(0, 9999, (400, 400)).astype(np.uint16),
        syntax=uid.DeflatedExplicitVRLittleEndian,
    )
    assert describe(deflated[:HEAD_BYTES], "x.dcm", whole=False) is None


def test_a_long_header_is_read_in_a_second_go(tmp_path: Path) -> None:
    path = tmp_path / "x.dcm"
    path.write_bytes(make_dicom(WIDE, RedPaletteColorLookupTableData=bytes(2 * HEAD_BYTES)))
    assert scan(path).studies[0].series[0].file.rows == 600


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"Modality": "SEG"}, "of modality SEG, not an image"),
        ({"Modality": "SM", "NumberOfFrames": 40}, "a whole slide"),
        ({"NumberOfFrames": 20_001}, "20,001 frames are more than"),
        ({"Rows": 65_535, "Columns": 65_535}, "65535 x 65535 pixels"),
    ],
)
def test_what_is_refused(attributes: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnsupportedError, match=rf"^x\.dcm: .*{reason}"):
        facts_of(**attributes)


def test_groups_that_do_not_fit_the_frames() -> None:
    data = make_enhanced(slices(4), NumberOfFrames=5)
    with pytest.raises(InputError, match="5 frames, and what is said of 4"):
        describe(data, "x.dcm", whole=True)


def test_a_picture_lies_as_its_exif_says() -> None:
    exif = PilImage.Exif()
    exif[0x0112] = 6
    file = BytesIO()
    PilImage.new("RGB", (40, 30)).save(file, "JPEG", exif=exif)
    found = describe(file.getvalue(), "x.jpg", whole=True)
    assert found is not None
    assert (found.kind, found.rows, found.columns) == ("picture", 40, 30)


SMALL = [
    make_series(slices(1, side_px=4))[0],
    make_enhanced(slices(3, side_px=4)),
    make_enhanced(slices(3, side_px=4), syntax=uid.RLELossless),
]


@settings(
    max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
@given(st.data())
def test_damage_is_an_error_of_ours(data: st.DataObject) -> None:
    damaged = bytearray(data.draw(st.sampled_from(SMALL)))
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(132, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = describe(bytes(damaged), "x.dcm", whole=True)
        if found is not None:
            list(decode_frames(bytes(damaged), "x.dcm", range(len(found.frames))))
    except InputError as error:
        message = str(error)
        assert message.startswith("x.dcm: ")
        assert message.isprintable()


def test_items_without_end() -> None:
    item = Dataset()
    item.PerFrameFunctionalGroupsSequence = []
    for _ in range(50):
        outer = Dataset()
        outer.PerFrameFunctionalGroupsSequence = [item]
        item = outer
    data = make_dicom(GREY, PerFrameFunctionalGroupsSequence=[item])
    assert describe(data, "x.dcm", whole=True) is not None
