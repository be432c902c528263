"""Color: depths, planes, YBR and palettes, to eight-bit RGB."""

from typing import Any

import numpy as np
import pytest
from pydicom import uid
from pydicom.pixels.processing import convert_color_space

from osler.errors import DicomError, UnsupportedError
from osler.ingest import read_image_bytes
from osler.ingest.dicom.lookup_table import expand_segments
from osler.testing.dicom import Samples, make_dicom

RNG = np.random.default_rng(1)
RGB = RNG.integers(0, 256, (6, 10, 3), dtype=np.uint8)
INDICES = np.arange(60, dtype=np.uint8).reshape(6, 10)


def values(stored: Samples, **attributes: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
    image = read_image_bytes(make_dicom(stored, **attributes), "x.dcm")
    assert image.space == "display"
    assert image.values.dtype == np.uint8
    assert (image.voi, image.monochrome1) == (None, False)
    return image.values.astype(np.uint8)


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian])
def test_planes(syntax: str) -> None:
    np.testing.assert_array_equal(values(RGB, syntax=syntax), RGB)
    planes = RGB.transpose(2, 0, 1).tobytes()
    np.testing.assert_array_equal(
        values(RGB, syntax=syntax, frame=planes, PlanarConfiguration=1), RGB
    )


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_deep_color_keeps_its_high_bits(bits: int) -> None:
    deep = RGB.astype(np.uint16) << (bits - 8)
    np.testing.assert_array_equal(values(deep, bits_stored=bits), RGB)


def test_shallow_color_fills_the_range() -> None:
    shallow = RGB & 0x0F
    np.testing.assert_array_equal(values(shallow, bits_stored=4), shallow * 17)


def test_ybr_full() -> None:
    ybr = convert_color_space(RGB, "RGB", "YBR_FULL")
    got = values(ybr, PhotometricInterpretation="YBR_FULL")
    np.testing.assert_array_equal(got, convert_color_space(ybr, "YBR_FULL", "RGB"))
    assert np.abs(got.astype(int) - RGB).max() <= 2


def test_ybr_full_422() -> None:
    # Y1 Y2 Cb Cr for each pair of pixels (PS3.3 C.7.6.3.1.2)
    pairs = RNG.integers(0, 256, (6, 5, 4), dtype=np.uint8)
    full = np.empty((6, 10, 3), np.uint8)
    full[:, ::2, 0], full[:, 1::2, 0] = pairs[..., 0], pairs[..., 1]
    full[:, ::2, 1:] = full[:, 1::2, 1:] = pairs[..., 2:]
    got = values(full, frame=pairs.tobytes(), PhotometricInterpretation="YBR_FULL_422")
    np.testing.assert_array_equal(got, convert_color_space(full, "YBR_FULL", "RGB"))


def palettes(first: int, entries: np.ndarray[Any, Any], bits: int) -> dict[str, Any]:
    attributes: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for channel, column in zip(("Red", "Green", "Blue"), entries.T, strict=True):
        name = f"{channel}PaletteColorLookupTable"
        attributes[f"{name}Descriptor"] = [len(entries) % 65536, first, bits]
        attributes[f"{name}Data"] = column.tobytes()
    return attributes


@pytest.mark.parametrize("first", [0, 7])
def test_palette_of_eight_bits(first: int) -> None:
    entries = RNG.integers(0, 256, (32, 3), dtype=np.uint8)
    expected = entries[np.clip(INDICES.astype(int) - first, 0, 31)]
    np.testing.assert_array_equal(values(INDICES, **palettes(first, entries, 8)), expected)


def test_palette_of_eight_bits_in_words() -> None:
    entries = RNG.integers(0, 256, (64, 3), dtype=np.uint8)
    got = values(INDICES, **palettes(0, entries.astype("<u2"), 8))
    np.testing.assert_array_equal(got, entries[INDICES])


def test_palette_of_sixteen_bits() -> None:
    entries = RNG.integers(0, 256, (64, 3), dtype=np.uint8)
    deep = entries.astype("<u2") << 8
    np.testing.assert_array_equal(values(INDICES, **palettes(0, deep, 16)), entries[INDICES])


def test_deep_indices_into_a_shallow_palette_do_not_wrap() -> None:
    entries = RNG.integers(0, 256, (1000, 3), dtype=np.uint8)
    indices = RNG.integers(0, 1000, (6, 10)).astype(np.uint16)
    np.testing.assert_array_equal(values(indices, **palettes(0, entries, 8)), entries[indices])


def test_segmented_palette() -> None:
    # Discrete 10 20, a line to 50 in 3 steps, then the first segment again: 10 20 30 40 50 10 20.
    words = [0, 2, 10, 20, 1, 3, 50, 2, 1, 0, 0]
    data = np.array(words, "<u2").tobytes()
    attributes: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for channel in ("Red", "Green", "Blue"):
        attributes[f"{channel}PaletteColorLookupTableDescriptor"] = [7, 0, 16]
        attributes[f"Segmented{channel}PaletteColorLookupTableData"] = data
    got = values(INDICES, **attributes)
    assert got[0, :8, 0].tolist() == [10, 20, 30, 40, 50, 10, 20, 20]


@pytest.mark.parametrize("little_endian", [True, False])
@pytest.mark.parametrize("bits", [8, 16])
def test_segments_in_either_byte_order(bits: int, little_endian: bool) -> None:
    # The indirect segment points at the line, which starts from whatever came last.
    line_at = 4 * bits // 8
    pointer = [line_at, 0] if bits == 16 else [line_at, 0, 0, 0]
    words = [0, 2, 10, 20, 1, 2, 40, 0, 1, 100, 2, 1, *pointer]
    data = np.array(words, f"<u{bits // 8}").tobytes()
    data += bytes(len(data) % 2)
    if not little_endian:
        data = np.frombuffer(data, "<u2").astype(">u2").tobytes()
    entries = expand_segments([7, 0, bits], data, little_endian=little_endian)
    assert entries == [10, 20, 30, 40, 100, 70, 40]


@pytest.mark.parametrize(
    "words",
    [
        [1, 2, 40],  # a line from nowhere
        [3, 1, 1],  # reserved
        [0, 1, 5, 2, 1, 6, 0],  # an indirect segment that repeats itself
        [0, 1],  # says one entry, has none
    ],
)
def test_segments_that_make_no_table(words: list[int]) -> None:
    attributes: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for channel in ("Red", "Green", "Blue"):
        attributes[f"{channel}PaletteColorLookupTableDescriptor"] = [4, 0, 16]
        attributes[f"Segmented{channel}PaletteColorLookupTableData"] = np.array(
            words, "<u2"
        ).tobytes()
    with pytest.raises(DicomError, match=r"x\.dcm: a (segmented palette|lookup table)"):
        values(INDICES, **attributes)


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "PALETTE COLOR without a palette"),
        (
            palettes(0, RGB[0, :4].astype("<u2"), 16) | {"RedPaletteColorLookupTableData": b"ab"},
            "2 of 4",
        ),
        ({"PhotometricInterpretation": "RGB"}, "SamplesPerPixel is 1 for RGB"),
        ({"PhotometricInterpretation": "PURPLE"}, "none that DICOM defines"),
    ],
)
def test_malformed_color(attributes: dict[str, Any], reason: str) -> None:
    with pytest.raises(DicomError, match=rf"x\.dcm: .*{reason}"):
        values(INDICES, **attributes)


@pytest.mark.parametrize("space", ["CMYK", "ARGB", "HSV", "YBR_PARTIAL_420"])
def test_retired_color_spaces(space: str) -> None:
    with pytest.raises(UnsupportedError, match=rf"x\.dcm: PhotometricInterpretation {space}"):
        values(RGB, PhotometricInterpretation=space)


def test_signed_color() -> None:
    with pytest.raises(DicomError, match="signed samples in RGB"):
        values(RGB.astype(np.int8))
