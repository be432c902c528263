"""Pictures: the same RGB as Pillow's own conversion, upright, and deep grey kept deep."""

import warnings
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image as PilImage

from osler.errors import UnreadableFileError, UnsupportedError
from osler.ingest import read_image_bytes

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (30, 40, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (30, 40)).astype(np.uint16)


def encoded(picture: PilImage.Image, kind: str, **options: Any) -> bytes:
    file = BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


MODES = {
    "PNG": ("RGB", "RGBA", "L", "LA", "P", "1"),
    "JPEG": ("RGB", "L", "CMYK", "1"),
    "WEBP": ("RGB", "RGBA", "L"),
    "TIFF": ("RGB", "RGBA", "L", "LA", "P", "PA", "1", "CMYK"),
}


@pytest.mark.parametrize(
    ("kind", "mode"), [(kind, mode) for kind, modes in MODES.items() for mode in modes]
)
def test_every_mode_is_what_convert_makes_of_it(kind: str, mode: str) -> None:
    picture = PilImage.fromarray(RGB).convert(mode)
    if mode in ("RGBA", "LA"):
        picture.putalpha(PilImage.fromarray(DEEP.astype(np.uint8)))
    data = encoded(picture, kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transparency of palettes
        expected = np.asarray(PilImage.open(BytesIO(data)).convert("RGB"))
    image = read_image_bytes(data, "x")
    assert (image.space, image.decoder, image.modality) == ("display", "pillow", None)
    np.testing.assert_array_equal(image.values, expected)
    assert image.values.dtype == np.uint8


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"})],
)
def test_sixteen_bit_grey_keeps_its_range(kind: str, options: dict[str, str]) -> None:
    image = read_image_bytes(encoded(PilImage.fromarray(DEEP), kind, **options), "x")
    assert image.space == "modality"
    assert image.values.dtype == np.float32
    np.testing.assert_array_equal(image.values, DEEP)
    assert (image.monochrome1, image.voi) == (False, None)


def test_floating_point_tiff() -> None:
    values = DEEP.astype(np.float32) / 7
    image = read_image_bytes(encoded(PilImage.fromarray(values), "TIFF"), "x")
    np.testing.assert_array_equal(image.values, values)
    values[3, 4] = np.nan
    with pytest.raises(UnreadableFileError, match=r"x: .* not numbers"):
        read_image_bytes(encoded(PilImage.fromarray(values), "TIFF"), "x")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_exif_orientation(kind: str, orientation: int) -> None:
    # A dark and a bright corner tell all eight apart, even through JPEG.
    stored = np.full((24, 40), 128, np.uint8)
    stored[:8, :8], stored[-8:, :8] = 0, 255
    exif = PilImage.Exif()
    exif[0x0112] = orientation
    shown = [
        stored,
        stored[:, ::-1],
        stored[::-1, ::-1],
        stored[::-1],
        stored.T,
        np.rot90(stored, -1),
        stored[::-1, ::-1].T,
        np.rot90(stored),
    ][orientation - 1]
    image = read_image_bytes(encoded(PilImage.fromarray(stored), kind, exif=exif), "x")
    assert image.size_px == shown.shape
    difference = image.values[:, :, 0].astype(int) - shown
    assert np.abs(difference).max() <= (0 if kind in ("PNG", "TIFF") else 40)


def test_exif_orientation_of_deep_grey() -> None:
    exif = PilImage.Exif()
    exif[0x0112] = 6
    image = read_image_bytes(encoded(PilImage.fromarray(DEEP), "PNG", exif=exif), "x")
    np.testing.assert_array_equal(image.values, np.rot90(DEEP, -1))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_a_truncated_picture(kind: str) -> None:
    data = encoded(PilImage.fromarray(RGB), kind)
    for length in (20, len(data) // 2, len(data) * 3 // 4):
        with pytest.raises(UnreadableFileError, match="half: the picture is damaged or truncated"):
            read_image_bytes(data[:length], "half")


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_several_pages_or_frames_are_not_dropped_in_silence(kind: str) -> None:
    pages = [PilImage.fromarray(RGB), PilImage.fromarray(255 - RGB)]
    data = encoded(pages[0], kind, save_all=True, append_images=pages[1:])
    with pytest.raises(UnsupportedError, match="x: holds 2 pictures"):
        read_image_bytes(data, "x")


def test_a_cameras_preview_is_left_out() -> None:
    pages = [PilImage.fromarray(RGB), PilImage.fromarray(255 - RGB)]
    data = encoded(pages[0], "MPO", save_all=True, append_images=pages[1:])
    expected = np.asarray(PilImage.open(BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(read_image_bytes(data, "x").values, expected)


def test_other_picture_formats() -> None:
    for kind in ("GIF", "BMP", "PPM"):
        with pytest.raises(UnreadableFileError, match="neither DICOM nor"):
            read_image_bytes(encoded(PilImage.fromarray(RGB), kind), "x")
