"""Real files in many transfer syntaxes, against pydicom's own reading of them."""

import functools
import warnings
from pathlib import Path
from typing import Any

import data_store
import imagecodecs
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.encaps import get_frame
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut

from osler.errors import DicomError, UnsupportedError
from osler.ingest import read_image
from osler.ingest.image import Image

FOLDERS = (
    Path(data_store.__path__[0]) / "data",
    Path(pydicom.__file__).parent / "data" / "test_files",
)
FILES = {
    path.name if path.parent in FOLDERS else f"{path.parent.name}-{path.name}": path
    for folder in FOLDERS
    for path in sorted(folder.rglob("*"))
    if path.is_file() and path.suffix not in (".py", ".pyc")
}

TWELVE_BIT_JPEG = {"JPEG-lossy.dcm", "JPGExtended.dcm"}
# What pydicom has no decoder for; and a big-endian palette, which it takes for little-endian. That
# file is compared with its little-endian twin below.
NOT_FOR_PYDICOM = {*TWELVE_BIT_JPEG, "OBXXXX1A_expb.dcm"}
MALFORMED = {
    "JPEG2000-embedded-sequence-delimiter.dcm": "the compressed frame is 1024 x 3722445056",
    "MR_truncated.dcm": "64 x 64 pixels need 8,192 bytes of pixel data; there are 8,130",
    "badVR.dcm": "NumberOfFrames is not one integer",
    "meta_missing_tsyntax.dcm": "BitsStored is missing",
    "nested_priv_SQ.dcm": "BitsStored is missing",
    "emri_small_jpeg_2k_lossless_too_short.dcm": "the pixel data is truncated",
}
LOSSY = {"JPEG Baseline (Process 1)", "JPEG 2000 Image Compression"}


def _read(path: Path) -> pydicom.FileDataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pydicom.dcmread(path, force=True)


@functools.cache
def _frames(name: str) -> int | None:
    """How many frames a file holds; None where it is no image."""
    ds = _read(FILES[name])
    if name in MALFORMED or "PixelData" not in ds:
        return None
    return int(ds.get("NumberOfFrames") or 1)


SINGLE = sorted(n for n in FILES if _frames(n) == 1 and n not in NOT_FOR_PYDICOM)
MULTI = sorted(n for n in FILES if (_frames(n) or 0) > 1)
WITHOUT = sorted(
    n
    for n in FILES
    if n not in MALFORMED
    and _frames(n) is None
    and FILES[n].read_bytes()[128:132] == b"DICM"
    and "PixelData" not in _read(FILES[n])
)


def test_the_files_are_there() -> None:
    assert len(SINGLE) >= 120
    assert len(MULTI) >= 20
    assert len(WITHOUT) >= 50


@functools.lru_cache(maxsize=64)  # several are compared more than once
def _image(name: str) -> Image:
    return read_image(FILES[name])


def _expected(ds: pydicom.FileDataset) -> NDArray[Any]:
    """What pydicom makes of a file: modality values, or RGB of eight bits."""
    if not ds.file_meta.get("TransferSyntaxUID"):
        ds.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    stored = ds.pixel_array
    if ds.PhotometricInterpretation == "PALETTE COLOR":
        rgb = apply_color_lut(stored, ds)
        return rgb >> 8 if rgb.dtype == np.uint16 else rgb
    if ds.SamplesPerPixel == 3:
        return stored >> (8 * stored.dtype.itemsize - 8)
    return apply_modality_lut(stored, ds)


@pytest.mark.parametrize("name", SINGLE)
def test_as_pydicom_reads_it(name: str) -> None:
    image = _image(name)
    ds = _read(FILES[name])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = _expected(ds)
    grey = ds.PhotometricInterpretation.startswith("MONOCHROME")
    assert image.space == ("modality" if grey else "display")
    assert image.modality == ds.get("Modality")
    assert image.monochrome1 == (ds.PhotometricInterpretation == "MONOCHROME1")
    if "WindowCenter" in ds:
        assert image.voi is not None
        assert image.voi.window_centers == tuple(np.atleast_1d(ds.WindowCenter).astype(float))
        assert image.voi.window_widths == tuple(np.atleast_1d(ds.WindowWidth).astype(float))
    lossy = ds.file_meta.TransferSyntaxUID.name in LOSSY
    if lossy:
        difference = image.values.astype(np.float64) - expected
        slope = float(ds.get("RescaleSlope", 1))
        assert np.abs(difference).max() <= 1.01 * slope  # decoders differ by one stored level
    else:
        np.testing.assert_array_equal(image.values, expected.astype(image.values.dtype))


@pytest.mark.parametrize("name", MULTI)
def test_several_frames_are_refused(name: str) -> None:
    with pytest.raises(UnsupportedError, match=f"{FILES[name].name}: multi-frame with "):
        read_image(FILES[name])


@pytest.mark.parametrize("name", WITHOUT)
def test_objects_without_pixels(name: str) -> None:
    kind = "a DICOMDIR" if "DICOMDIR" in name else "a DICOM object without pixel data"
    with pytest.raises(DicomError, match=f"{FILES[name].name}: {kind}"):
        read_image(FILES[name])


@pytest.mark.parametrize("name", sorted(MALFORMED))
def test_malformed_files_say_what_is_wrong(name: str) -> None:
    with pytest.raises(DicomError) as caught:
        read_image(FILES[name])
    assert str(caught.value).startswith(f"{name}: ")
    assert MALFORMED[name] in str(caught.value)


@pytest.mark.parametrize("name", sorted(TWELVE_BIT_JPEG))
def test_twelve_bit_jpeg(name: str) -> None:
    image = read_image(FILES[name])
    frame = get_frame(_read(FILES[name]).PixelData, 0, number_of_frames=1)
    assert image.decoder == "imagecodecs"
    np.testing.assert_array_equal(image.values, imagecodecs.jpeg8_decode(frame))


def _pair(first: str, second: str) -> tuple[Image, Image]:
    return _image(first), _image(second)


@pytest.mark.parametrize(
    ("compressed", "plain", "decoder"),
    [
        ("RG1_J2KR.dcm", "RG1_UNCR.dcm", "openjpeg"),
        ("RG3_J2KR.dcm", "RG3_UNCR.dcm", "openjpeg"),
        ("MR2_J2KR.dcm", "MR2_UNCR.dcm", "openjpeg"),
        ("693_J2KR.dcm", "693_UNCR.dcm", "openjpeg"),
        ("US1_J2KR.dcm", "US1_UNCR.dcm", "openjpeg"),
        ("OBXXXX1A_rle.dcm", "OBXXXX1A.dcm", "pydicom"),
        ("OBXXXX1A_expb.dcm", "OBXXXX1A.dcm", "numpy"),
        ("MR_small_RLE.dcm", "MR_small.dcm", "pydicom"),
        ("MR_small_jpeg_ls_lossless.dcm", "MR_small.dcm", "gdcm"),
        ("MR_small_jp2klossless.dcm", "MR_small.dcm", "openjpeg"),
        ("MR_small_expb.dcm", "MR_small.dcm", "numpy"),
        ("MR_small_implicit.dcm", "MR_small.dcm", "numpy"),
        ("gdcm-US-ALOKA-16_big.dcm", "gdcm-US-ALOKA-16.dcm", "numpy"),
        ("color-pl.dcm", "color-px.dcm", "numpy"),
        ("SC_rgb_rle.dcm", "SC_rgb.dcm", "pydicom"),
        ("SC_rgb_16bit.dcm", "SC_rgb.dcm", "numpy"),
        ("SC_rgb_32bit.dcm", "SC_rgb.dcm", "numpy"),
        ("SC_rgb_small_odd_big_endian.dcm", "SC_rgb_small_odd.dcm", "numpy"),
        ("SC_rgb_jpeg_gdcm.dcm", "SC_rgb.dcm", "gdcm"),
    ],
)
def test_lossless_compression_changes_nothing(compressed: str, plain: str, decoder: str) -> None:
    one, other = _pair(compressed, plain)
    assert one.decoder == decoder
    np.testing.assert_array_equal(one.values, other.values)


@pytest.mark.parametrize(
    ("lossy", "its_decompressed"),
    [
        ("RG1_J2KI.dcm", "RG1_UNCI.dcm"),
        ("RG3_J2KI.dcm", "RG3_UNCI.dcm"),
        ("MR2_J2KI.dcm", "MR2_UNCI.dcm"),
        ("693_J2KI.dcm", "693_UNCI.dcm"),
        ("US1_J2KI.dcm", "US1_UNCI.dcm"),
        ("SC_rgb_jpeg.dcm", "SC_rgb_jpeg_dcmd.dcm"),
        ("SC_rgb_dcmtk_+eb+cr.dcm", "SC_rgb_dcmtk_ebcr_dcmd.dcm"),
        ("SC_rgb_dcmtk_+eb+cy+n1.dcm", "SC_rgb_dcmtk_ebcyn1_dcmd.dcm"),
        ("SC_rgb_dcmtk_+eb+cy+n2.dcm", "SC_rgb_dcmtk_ebcyn2_dcmd.dcm"),
        ("SC_rgb_dcmtk_+eb+cy+np.dcm", "SC_rgb_dcmtk_ebcynp_dcmd.dcm"),
        ("SC_rgb_dcmtk_+eb+cy+s2.dcm", "SC_rgb_dcmtk_ebcys2_dcmd.dcm"),
        ("SC_rgb_dcmtk_+eb+cy+s4.dcm", "SC_rgb_dcmtk_ebcys4_dcmd.dcm"),
    ],
)
def test_lossy_frames_decode_as_another_toolkit_did(lossy: str, its_decompressed: str) -> None:
    one, other = _pair(lossy, its_decompressed)
    slope = float(_read(FILES[lossy]).get("RescaleSlope", 1))
    difference = np.abs(one.values.astype(np.float64) - other.values)
    assert difference.mean() <= 0.5 * slope
    assert difference.max() <= 4.01 * slope
