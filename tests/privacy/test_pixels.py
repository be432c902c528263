"""Text in pixels is found and blacked out, and nothing else is."""

import warnings
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom import Dataset, dcmread, uid

from osler.errors import UnsupportedError
from osler.privacy.actions import Actions
from osler.privacy.codestream_comments import without_comments
from osler.privacy.dicom_file import clean_dicom
from osler.privacy.profile import Profile
from osler.privacy.pseudonyms import Pseudonyms
from osler.privacy.text_in_pixels import find_text
from osler.testing.dicom import make_dicom
from osler.testing.series import slices

HEADER: dict[str, Any] = {
    "PatientName": "Quillfeather",
    "StudyInstanceUID": "1.2.3",
    "SeriesInstanceUID": "1.2.4",
}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def picture(text: str = "", place: tuple[int, int] = (10, 10)) -> NDArray[np.uint8]:
    y, x = np.mgrid[:160, :220]
    shades = Image.fromarray((80 + 40 * np.sin(x / 31) + 30 * np.cos(y / 23)).astype(np.uint8))
    if text:
        font = ImageFont.load_default(16)
        ImageDraw.Draw(shades).text(place, text, fill=255, font=font)
    return np.asarray(shades)


def clean(data: bytes) -> tuple[Dataset, dict[str, Any]]:
    actions = Actions()
    cleaned = clean_dicom(data, Profile(), Pseudonyms(b"k"), actions)
    return dcmread(BytesIO(cleaned.data)), actions.record()


def test_a_name_in_the_pixels_is_blacked_out() -> None:
    before = picture("QUILLFEATHER 4471923")
    ds, done = clean(make_dicom(before, syntax=uid.RLELossless, **HEADER))
    after = ds.pixel_array
    letters = before == 255
    assert letters.sum() > 200
    assert not (after[letters] == 255).any()
    assert np.array_equal(after[60:], before[60:])  # what is far from it is as it was
    assert done["blacked out"]
    assert ds.BurnedInAnnotation == "NO"
    assert ds.file_meta.TransferSyntaxUID == uid.ExplicitVRLittleEndian


def test_pixels_without_text_stay_as_they_are() -> None:
    before = picture("R")  # the side is no name
    ds, done = clean(make_dicom(before, syntax=uid.JPEG2000Lossless, **HEADER))
    assert np.array_equal(ds.pixel_array, before)
    assert ds.file_meta.TransferSyntaxUID == uid.JPEG2000Lossless
    assert "blacked out" not in done


@pytest.mark.parametrize("side_px", [64, 256, 512])
def test_a_trunk_with_two_lungs_is_no_eight(side_px: int) -> None:
    (before,) = (one.hu for one in slices(1, side_px=side_px))
    ds, done = clean(make_dicom(before, Modality="CT", **HEADER))
    assert np.array_equal(ds.pixel_array, before)
    assert "blacked out" not in done


def test_a_name_beside_a_trunk_is_blacked_out_alone() -> None:
    (before,) = (one.hu for one in slices(1, side_px=512))
    name = Image.new("L", before.shape)
    draw = ImageDraw.Draw(name)
    draw.text((20, 20), "QUILLFEATHER 4471923", fill=255, font=ImageFont.load_default(16))
    letters = np.asarray(name) > 128
    written = np.where(letters, 3000, before).astype(np.int16)
    ds, done = clean(make_dicom(written, Modality="CT", **HEADER))
    assert done["blacked out"]
    assert not (ds.pixel_array[letters] == 3000).any()
    assert np.array_equal(ds.pixel_array[80:], before[80:])


def test_outside_the_regions_of_an_ultrasound_nothing_stays() -> None:
    region = Dataset()
    region.RegionLocationMinX0, region.RegionLocationMaxX1 = 20, 199
    region.RegionLocationMinY0, region.RegionLocationMaxY1 = 40, 139
    before = picture()
    data = make_dicom(before, Modality="US", SequenceOfUltrasoundRegions=[region], **HEADER)
    ds, _ = clean(data)
    after = ds.pixel_array
    assert np.array_equal(after[40:140, 20:200], before[40:140, 20:200])
    assert (after[:40] == after[0, 0]).all()
    assert (after[:, 200:] == after[0, 0]).all()


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1500, 1300), (90, 900)])
def test_small_letters_in_pictures_of_odd_sizes(shape: tuple[int, int]) -> None:
    large = Image.new("L", shape[::-1], 60)
    place, font = (shape[1] - 260, shape[0] - 40), ImageFont.load_default(16)
    ImageDraw.Draw(large).text(place, "QUILLFEATHER Z", fill=255, font=font)
    boxes = find_text(np.asarray(large))
    assert any(box.top < shape[0] - 30 < box.bottom for box in boxes)


def test_without_the_reader_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("osler.privacy.text_in_pixels.find_spec", lambda name: None)
    with pytest.raises(UnsupportedError, match=r"osler\[ocr\].*--keep-pixels"):
        clean(make_dicom(picture(), **HEADER))


def test_comments_are_cut_out_of_codestreams() -> None:
    start, comment, rest = b"\xff\xd8", b"\xff\xfe\x00\x05Zeb", b"\xff\xda\x00\x02pixels\xff\xd9"
    assert without_comments(start + comment + rest) == start + rest
    assert without_comments(start + rest) == start + rest
    assert without_comments(b"no codestream") == b"no codestream"
