"""Grey: stored bits, modality transforms, padding, and what is known of the display."""

from typing import Any

import numpy as np
import pytest
from pydicom import DataElement, Dataset, uid
from pydicom.pixels.processing import apply_modality_lut

from osler.errors import DicomError
from osler.ingest import read_image_bytes
from osler.ingest.image import Image
from osler.testing.dicom import Samples, make_dicom

RAMP = np.arange(64, dtype=np.uint16).reshape(8, 8)


def read(stored: Samples, **attributes: Any) -> Image:
    return read_image_bytes(make_dicom(stored, **attributes), "x.dcm")


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian])
def test_bits_above_the_stored_ones_are_masked(syntax: str) -> None:
    overlay = RAMP | 0xF000
    image = read(overlay, syntax=syntax, bits_stored=12)
    np.testing.assert_array_equal(image.values, RAMP)


def test_the_sign_is_extended_from_the_high_bit() -> None:
    signed = np.array([[-2048, -1], [0, 2047]], np.int16)
    image = read(signed & 0x0FFF, bits_stored=12)
    np.testing.assert_array_equal(image.values, signed)


def test_stored_bits_that_are_not_the_low_ones() -> None:
    image = read(RAMP << 4, bits_stored=12, HighBit=15)
    np.testing.assert_array_equal(image.values, RAMP)


@pytest.mark.parametrize("kind", [np.uint32, np.int32])
def test_thirty_two_bits(kind: type[np.uint32 | np.int32]) -> None:
    limits = np.iinfo(kind)
    stored = np.array([[limits.min, 1], [2, limits.max]], kind)
    np.testing.assert_array_equal(read(stored).values, stored.astype(np.float32))


def test_one_bit() -> None:
    bits = np.array([[1, 0, 1], [0, 1, 1]], np.uint8)
    packed = np.packbits(bits, axis=None, bitorder="little").tobytes()
    image = read(bits, frame=packed, BitsAllocated=1, BitsStored=1, HighBit=0)
    np.testing.assert_array_equal(image.values, bits)


@pytest.mark.parametrize("kind", [np.uint16, np.int16, np.uint32])
@pytest.mark.parametrize("slope", ["1", "-0.5", "3.774114", "-255", "257"])
@pytest.mark.parametrize("intercept", ["-1024", "0.000061", "8388609"])
def test_rescale_does_not_wrap(kind: type[Any], slope: str, intercept: str) -> None:
    # 0 - 1024 in the stored type would be 64512.
    limits = np.iinfo(kind)
    stored = np.linspace(limits.min, limits.max, 1 << 14).astype(kind).reshape(128, 128)
    image = read(stored, RescaleSlope=slope, RescaleIntercept=intercept)
    expected = stored * float(slope) + float(intercept)
    np.testing.assert_array_equal(image.values, expected.astype(np.float32))


@pytest.mark.parametrize(("given", "expected"), [("RescaleSlope", 2), ("RescaleIntercept", 1)])
def test_half_a_rescale_takes_the_others_default(given: str, expected: int) -> None:
    image = read(RAMP, **{given: "2"})
    assert image.values[0, 1] - image.values[0, 0] == expected
    assert image.values[0, 0] == (2 if given == "RescaleIntercept" else 0)


def test_rescale_of_an_enhanced_object_stands_in_its_functional_groups() -> None:
    transform, window = Dataset(), Dataset()
    transform.RescaleSlope, transform.RescaleIntercept = "2", "-7"
    window.WindowCenter, window.WindowWidth = "40", "400"
    shared, frame = Dataset(), Dataset()
    shared.PixelValueTransformationSequence = [transform]
    frame.FrameVOILUTSequence = [window]
    image = read(
        RAMP,
        NumberOfFrames=1,
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=[frame],
    )
    np.testing.assert_array_equal(image.values, RAMP * 2.0 - 7)
    assert image.voi is not None
    assert (image.voi.window_centers, image.voi.window_widths) == ((40,), (400,))


def table(first: int, entries: list[int], bits: int = 16, vr: str = "US") -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries), first, bits])
    data: Any = entries
    if vr == "OW":
        data = np.array(entries, "<u2").tobytes()
    item.add_new("LUTData", vr, data)
    return item


@pytest.mark.parametrize("vr", ["US", "OW"])
def test_modality_lut(vr: str) -> None:
    entries = [5, 1000, 65535, 7]
    image = read(RAMP, ModalityLUTSequence=[table(3, entries, vr=vr)], RescaleSlope="9")
    expected = np.array(entries)[np.clip(RAMP.astype(int) - 3, 0, 3)]
    np.testing.assert_array_equal(image.values, expected)


def test_modality_lut_of_signed_values_agrees_with_pydicom() -> None:
    stored = RAMP.astype(np.int16) - 32
    item = table(-32, list(range(1000, 1064)))
    image = read(stored, ModalityLUTSequence=[item])
    ds = Dataset()
    ds.ModalityLUTSequence = [item]
    np.testing.assert_array_equal(image.values, apply_modality_lut(stored, ds))
    # The same first value in an unsigned descriptor, as writers that know no SS have it.
    item = table(65536 - 32, list(range(1000, 1064)))
    np.testing.assert_array_equal(read(stored, ModalityLUTSequence=[item]).values, image.values)


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"RescaleSlope": "0"}, "RescaleSlope is 0"),
        ({"RescaleSlope": ["1", "2"]}, "RescaleSlope is not one number"),
        ({"ModalityLUTSequence": [table(0, [])]}, "lookup table"),
        ({"ModalityLUTSequence": [Dataset()]}, "a lookup table is malformed"),
    ],
)
def test_a_malformed_modality_transform(attributes: dict[str, Any], reason: str) -> None:
    with pytest.raises(DicomError, match=rf"x\.dcm: .*{reason}"):
        read(RAMP, **attributes)


def test_monochrome1_is_flagged_and_not_inverted() -> None:
    image = read(RAMP, PhotometricInterpretation="MONOCHROME1", Modality="DX")
    assert image.monochrome1
    np.testing.assert_array_equal(image.values, RAMP)
    assert not read(RAMP, PhotometricInterpretation="MONOCHROME2").monochrome1


@pytest.mark.parametrize(
    ("modality", "expected"), [("CT", "CT"), ("Doe^Jane", None), ("", None), (None, None)]
)
def test_a_modality_is_a_code_or_nothing(modality: str | None, expected: str | None) -> None:
    assert read(RAMP, Modality=modality).modality == expected


# --- padding ---------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", [0, 65535])
def test_padding_does_not_stretch_the_range(padding: int) -> None:
    stored = RAMP + 1000
    stored[:, :2] = padding
    image = read(stored, Modality="DX", PixelPaddingValue=padding, RescaleIntercept="-5")
    real = stored[:, 2:].astype(np.float32) - 5
    np.testing.assert_array_equal(image.values[:, 2:], real)
    assert np.all(image.values[:, :2] == (real.max() if padding else real.min()))


def test_a_range_of_padding() -> None:
    stored = RAMP + 1000
    stored[0] = np.arange(10, 18)
    image = read(stored, PixelPaddingValue=17, PixelPaddingRangeLimit=10)
    assert (image.values.min(), image.values.max()) == (1008, 1063)


def test_padding_of_signed_pixels_whose_value_is_written_unsigned() -> None:
    stored = RAMP.astype(np.int16)
    stored[0] = -2000
    unsigned = DataElement("PixelPaddingValue", "US", 65536 - 2000)
    assert read(stored, PixelPaddingValue=unsigned).values.min() == 8


def test_padding_in_the_middle_of_the_range_changes_nothing() -> None:
    np.testing.assert_array_equal(read(RAMP, PixelPaddingValue=30).values, RAMP)


def test_an_image_of_nothing_but_padding() -> None:
    stored = np.full((4, 4), 9, np.uint16)
    np.testing.assert_array_equal(read(stored, PixelPaddingValue=9).values, stored)


def test_ct_keeps_its_padding_below_every_window() -> None:
    stored = RAMP.astype(np.int16)
    stored[0] = -2000
    image = read(stored, Modality="CT", PixelPaddingValue=-2000, RescaleIntercept="-1024")
    assert image.values.min() == -3024


# --- how to show it ----------------------------------------------------------------------------


def test_all_windows_are_kept() -> None:
    image = read(RAMP, WindowCenter=["40", "-600"], WindowWidth=["400", "1500"])
    assert image.voi is not None
    assert image.voi.window_centers == (40, -600)
    assert image.voi.window_widths == (400, 1500)
    assert image.voi.function == "LINEAR"
    assert image.voi.lut is None


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_the_function_and_the_least_width_that_it_allows(function: str) -> None:
    image = read(RAMP, WindowCenter="3", WindowWidth="0.5", VOILUTFunction=function)
    if function == "LINEAR":
        assert image.voi is None
    else:
        assert image.voi is not None
        assert (image.voi.function, image.voi.window_widths) == (function, (0.5,))


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"WindowCenter": "40"},
        {"WindowCenter": "40", "WindowWidth": "0"},
        {"WindowCenter": "40", "WindowWidth": "400", "VOILUTFunction": "CUBIC"},
        {"VOILUTSequence": [Dataset()]},
    ],
)
def test_a_display_hint_that_makes_no_sense_is_none(attributes: dict[str, Any]) -> None:
    image = read(RAMP, **attributes)
    assert image.voi is None
    np.testing.assert_array_equal(image.values, RAMP)


@pytest.mark.parametrize("vr", ["US", "OW"])
def test_voi_lut(vr: str) -> None:
    entries = list(range(0, 4096, 64))
    image = read(RAMP, VOILUTSequence=[table(5, entries, bits=12, vr=vr)])
    assert image.voi is not None
    assert image.voi.lut is not None
    assert image.voi.lut.tolist() == entries
    assert (image.voi.lut_first, image.voi.lut_bits) == (5, 12)
    assert image.voi.window_centers == ()


def test_a_voi_lut_takes_modality_values_which_may_be_negative() -> None:
    item = table(65536 - 1000, [1, 2, 3])
    below = read(RAMP, VOILUTSequence=[item], RescaleIntercept="-1024")
    assert below.voi is not None
    assert below.voi.lut_first == -1000
    above = read(RAMP, VOILUTSequence=[item])
    assert above.voi is not None
    assert above.voi.lut_first == 64536
