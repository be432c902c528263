"""Whatever bytes come: an image or an `OslerError` of one line, and never the patient's name."""

import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as PilImage
from pydicom import DataElement, uid

from osler.errors import DicomError, InputError, OslerError, UnsupportedError
from osler.ingest import read_image_bytes
from osler.ingest.dicom import dataset
from osler.testing.dicom import make_dicom

TEST_FILES = Path(pydicom.__file__).parent / "data" / "test_files"
RGB = np.random.default_rng(0).integers(0, 256, (12, 9, 3), dtype=np.uint8)
GREY = np.arange(12, dtype=np.uint16).reshape(3, 4)
NAME = "Doe^Jane"


def _picture(kind: str) -> bytes:
    file = BytesIO()
    PilImage.fromarray(RGB).save(file, kind)
    return file.getvalue()


SMALL_FILES = [
    (TEST_FILES / name).read_bytes()
    for name in (
        "MR_small_expb.dcm",
        "MR_small_RLE.dcm",
        "MR_small_implicit.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "JPEGLSNearLossless_08.dcm",
        "JPGExtended.dcm",
        "SC_rgb_jpeg_dcmtk.dcm",
        "SC_rgb_jpeg_gdcm.dcm",
        "image_dfl.dcm",
        "reportsi.dcm",
    )
] + [_picture(kind) for kind in ("PNG", "JPEG", "WEBP", "TIFF")]

FREELY = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


def _read(data: bytes) -> None:
    """Read, and hold the reader to what it promises."""
    try:
        image = read_image_bytes(data, "x")
    except InputError as error:
        message = str(error)
        assert message.startswith("x: ")
        assert message.isprintable()
        assert "Traceback" not in message
        return
    if image.space == "modality":
        assert image.values.dtype == np.float32
        assert image.values.ndim == 2
        assert np.isfinite(image.values).all()
    else:
        assert image.values.dtype == np.uint8
        assert image.values.shape[2:] == (3,)


@FREELY
@given(st.binary(max_size=400))
def test_random_bytes(data: bytes) -> None:
    _read(data)
    _read(bytes(128) + b"DICM" + data)
    _read(b"\x89PNG\r\n\x1a\n" + data)


@FREELY
@given(st.data())
def test_truncated_files(data: st.DataObject) -> None:
    whole = data.draw(st.sampled_from(SMALL_FILES))
    _read(whole[: data.draw(st.integers(0, len(whole) - 1))])


@FREELY
@given(st.data())
def test_flipped_bits(data: st.DataObject) -> None:
    damaged = bytearray(data.draw(st.sampled_from(SMALL_FILES)))
    for _ in range(data.draw(st.integers(1, 8))):
        # Headers are where damage does most, and they stand in front.
        end = data.draw(st.sampled_from([min(len(damaged), 2500), len(damaged)]))
        damaged[data.draw(st.integers(0, end - 1))] ^= 1 << data.draw(st.integers(0, 7))
    _read(bytes(damaged))


@FREELY
@given(
    st.dictionaries(
        st.sampled_from(
            "Rows Columns SamplesPerPixel BitsAllocated BitsStored HighBit PixelRepresentation "
            "PlanarConfiguration PixelPaddingValue".split()
        ),
        st.integers(0, 65535) | st.sampled_from([0, 1, 2, 3, 8, 12, 16, 32, 64]),
    )
)
def test_odd_numbers(numbers: dict[str, int]) -> None:
    elements: dict[str, Any] = {
        keyword: DataElement(keyword, "US", value) for keyword, value in numbers.items()
    }
    _read(make_dicom(GREY, **elements))


@pytest.mark.parametrize(
    "keyword",
    [
        "Rows",
        "Columns",
        "BitsAllocated",
        "BitsStored",
        "SamplesPerPixel",
        "PixelRepresentation",
        "PhotometricInterpretation",
    ],
)
def test_a_missing_attribute(keyword: str) -> None:
    without: dict[str, Any] = {keyword: None}
    with pytest.raises(DicomError, match=rf"^x\.dcm: {keyword} is missing$"):
        read_image_bytes(make_dicom(GREY, **without), "x.dcm")


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"Rows": 0}, "Rows x Columns is 0 x 4"),
        ({"Rows": [3, 4]}, "Rows is not one integer"),
        ({"Rows": DataElement("Rows", "LO", NAME)}, "Rows is not one integer"),
        ({"Rows": DataElement("Rows", "UL", 100_000)}, "100000"),
        ({"BitsAllocated": 12, "BitsStored": 12, "HighBit": 11}, "BitsAllocated 12 is not read"),
        ({"BitsStored": 17}, "BitsStored is 17 of 16 BitsAllocated"),
        ({"BitsStored": 0}, "BitsStored is 0"),
        ({"HighBit": 16}, "HighBit is 16 for 16 BitsStored"),
        ({"BitsStored": 12, "HighBit": 7}, "HighBit is 7 for 12 BitsStored"),
        ({"PixelRepresentation": 2}, "PixelRepresentation is 2"),
        ({"SamplesPerPixel": 4}, "SamplesPerPixel is 4 for MONOCHROME2"),
        ({"PixelData": b""}, "PixelData is empty"),
        ({"PixelData": None}, "without pixel data"),
        ({"RescaleSlope": DataElement("RescaleSlope", "LO", NAME)}, "RescaleSlope is not a number"),
        ({"RescaleIntercept": DataElement("RescaleIntercept", "FD", float("nan"))}, "one number"),
        ({"ModalityLUTSequence": DataElement("ModalityLUTSequence", "LO", NAME)}, "sequence"),
        ({"NumberOfFrames": 7}, "multi-frame with 7 frames"),
        ({"FloatPixelData": b"\0\0\0\0"}, "floating-point pixel data"),
    ],
)
def test_odd_values(attributes: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        read_image_bytes(make_dicom(GREY, **attributes), "x.dcm")
    assert str(caught.value).startswith("x.dcm: ")
    assert NAME not in str(caught.value)


def test_one_frame_is_one_frame() -> None:
    for count in (1, 0):
        data = make_dicom(GREY, NumberOfFrames=count)
        assert read_image_bytes(data, "x.dcm").size_px == (3, 4)


def test_truncated_native_pixels() -> None:
    data = make_dicom(GREY)
    with pytest.raises(DicomError, match="4 x 3 pixels need 24 bytes of pixel data; there are 20"):
        read_image_bytes(data[:-4], "x.dcm")


def test_truncated_encapsulated_pixels() -> None:
    data = make_dicom(GREY, syntax=uid.JPEG2000Lossless)
    with pytest.raises(DicomError, match="the pixel data is truncated"):
        read_image_bytes(data[:-30], "x.dcm")


def test_a_deflate_bomb(monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_dicom(GREY, syntax=uid.DeflatedExplicitVRLittleEndian)
    start = data.index(uid.DeflatedExplicitVRLittleEndian.encode()) + 22
    bomb = zlib.compressobj(wbits=-15)
    deflated = bomb.compress(bytes(5_000_000)) + bomb.flush()
    monkeypatch.setattr(dataset, "inflated_bytes", lambda _: 1_000_000)
    with pytest.raises(UnsupportedError, match="more than the 1,000,000 bytes"):
        dataset.read_attributes(data[:start] + deflated)


@pytest.mark.parametrize("cut", [1, 30])
def test_a_truncated_or_damaged_deflated_data_set(cut: int) -> None:
    ramp = np.arange(4000, dtype=np.uint16).reshape(40, 100)
    data = make_dicom(ramp, syntax=uid.DeflatedExplicitVRLittleEndian)
    with pytest.raises(DicomError, match="the deflated data set is truncated"):
        read_image_bytes(data[:-cut], "x.dcm")
    with pytest.raises(DicomError, match=r"deflated|structure|pixel"):
        read_image_bytes(data[:400] + bytes(50) + data[450:], "x.dcm")


def test_sequences_without_end() -> None:
    item = b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    sequence = b"\x28\x00\x00\x30SQ\0\0\xff\xff\xff\xff"
    with pytest.raises(DicomError, match=r"^x\.dcm: "):
        read_image_bytes(b"\x08\0\x60\0CS\x02\0CT" + (sequence + item) * 20_000, "x.dcm")


def test_a_jp2_file_whose_boxes_do_not_advance() -> None:
    boxes = b"\x00\x00\x00\x0cjP  \r\n\x87\n" + bytes(64)
    data = make_dicom(GREY, syntax=uid.JPEG2000Lossless, frame=boxes)
    with pytest.raises(DicomError, match="the JP2 file in the pixel data holds no codestream"):
        read_image_bytes(data, "x.dcm")


def test_names_of_patients_stay_in_the_file() -> None:
    secret = DataElement("PatientName", "PN", NAME)
    cases: list[dict[str, Any]] = [
        {"PatientName": secret, "Rows": None},
        {"PatientName": secret, "PhotometricInterpretation": NAME.upper()},
        {"PatientName": secret, "SpecificCharacterSet": NAME.upper(), "BitsAllocated": 9},
        {"PatientName": secret, "RescaleSlope": DataElement("RescaleSlope", "LO", NAME)},
    ]
    for attributes in cases:
        with pytest.raises(OslerError) as caught:
            read_image_bytes(make_dicom(GREY, **attributes), "x.dcm")
        assert "doe" not in str(caught.value).lower()
        assert caught.value.__cause__ is None
