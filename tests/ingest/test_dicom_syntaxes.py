"""Every transfer syntax that is read, over depths and signs, from synthetic files."""

from typing import Any

import numpy as np
import pytest
from pydicom import uid

from osler.errors import DicomError, UnsupportedError
from osler.ingest import read_image_bytes
from osler.ingest.decode import decode
from osler.ingest.dicom import frame_decoders
from osler.ingest.dicom.codestream import read_frame_header
from osler.testing.dicom import (
    LOSSLESS_SYNTAXES,
    LOSSY_SYNTAXES,
    Samples,
    encode_frame,
    make_dicom,
)

ROWS, COLUMNS = 40, 56
Y, X = np.mgrid[:ROWS, :COLUMNS]
SMOOTH = ((np.sin(Y / 7) + np.cos(X / 9) + 2) * 1000).astype(np.uint16)  # 0 to 4000
GREYS: dict[str, tuple[Samples, int]] = {
    "8 bits": ((SMOOTH >> 4).astype(np.uint8), 8),
    "10 of 16 bits": (SMOOTH >> 2, 10),
    "12 of 16 bits": (SMOOTH, 12),
    "16 bits": (SMOOTH << 4, 16),
    "12 of 16 bits, signed": (SMOOTH.astype(np.int16) - 2000, 12),
    "16 bits, signed": (SMOOTH.astype(np.int16) * 8 - 16_000, 16),
}
RGB = np.stack([SMOOTH >> 4, SMOOTH[::-1] >> 4, SMOOTH[:, ::-1] >> 4], axis=-1).astype(np.uint8)

ENCAPSULATED = [s for s in (*LOSSLESS_SYNTAXES, *LOSSY_SYNTAXES) if uid.UID(s).is_encapsulated]
DECODER_OF: dict[str, str] = {
    **dict.fromkeys(uid.UncompressedTransferSyntaxes, "numpy"),
    uid.RLELossless: "pydicom",
    **dict.fromkeys(uid.JPEGTransferSyntaxes, "gdcm"),
    **dict.fromkeys(uid.JPEGLSTransferSyntaxes, "gdcm"),
    **dict.fromkeys(uid.JPEG2000TransferSyntaxes, "openjpeg"),
}


def _encoded(depth: str, syntax: str) -> bytes:
    stored, bits_stored = GREYS[depth]
    return make_dicom(stored, syntax=syntax, bits_stored=bits_stored)


def _possible(depth: str, syntax: str) -> bool:
    if syntax == uid.JPEGBaseline8Bit:
        return depth == "8 bits"
    if syntax == uid.JPEGExtended12Bit:
        return "12" in depth or depth == "8 bits"
    # The encoder at hand knows no other precision than the array's, and so no sign at bit 12.
    return not (syntax in uid.JPEGLSTransferSyntaxes and depth == "12 of 16 bits, signed")


@pytest.mark.parametrize(
    ("depth", "syntax"),
    [(d, s) for d in GREYS for s in LOSSLESS_SYNTAXES if _possible(d, s)],
    ids=lambda value: value if value in GREYS else uid.UID(value).keyword,
)
def test_lossless_grey(depth: str, syntax: str) -> None:
    image = read_image_bytes(_encoded(depth, syntax), "x.dcm")
    np.testing.assert_array_equal(image.values, GREYS[depth][0])
    assert image.decoder == DECODER_OF[syntax]


@pytest.mark.parametrize(
    ("depth", "syntax"),
    [(d, s) for d in GREYS for s in LOSSY_SYNTAXES if _possible(d, s)],
    ids=lambda value: value if value in GREYS else uid.UID(value).keyword,
)
def test_lossy_grey(depth: str, syntax: str) -> None:
    image = read_image_bytes(_encoded(depth, syntax), "x.dcm")
    difference = image.values - GREYS[depth][0].astype(np.float32)
    assert np.abs(difference).max() <= 4
    twelve_bit_jpeg = syntax == uid.JPEGExtended12Bit and depth != "8 bits"
    assert image.decoder == ("imagecodecs" if twelve_bit_jpeg else DECODER_OF[syntax])


@pytest.mark.parametrize("syntax", LOSSLESS_SYNTAXES, ids=lambda s: uid.UID(s).keyword)
def test_lossless_color(syntax: str) -> None:
    transformed = syntax in uid.JPEG2000TransferSyntaxes
    space = "YBR_RCT" if transformed else "RGB"
    data = make_dicom(RGB, syntax=syntax, PhotometricInterpretation=space)
    image = read_image_bytes(data, "x.dcm")
    assert image.space == "display"
    assert image.values.dtype == np.uint8
    np.testing.assert_array_equal(image.values, RGB)


@pytest.mark.parametrize("syntax", LOSSY_SYNTAXES, ids=lambda s: uid.UID(s).keyword)
def test_lossy_color(syntax: str) -> None:
    space = "RGB"
    if syntax in (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit):
        space = "YBR_FULL"
    elif syntax in uid.JPEG2000TransferSyntaxes:
        space = "YBR_ICT"
    data = make_dicom(RGB, syntax=syntax, PhotometricInterpretation=space)
    difference = read_image_bytes(data, "x.dcm").values - RGB.astype(int)
    assert np.abs(difference).max() <= 4


@pytest.mark.parametrize("syntax", frame_decoders._DECODERS, ids=lambda s: uid.UID(s).keyword)
def test_the_fallback_decodes_alike(syntax: str, monkeypatch: pytest.MonkeyPatch) -> None:
    decoders = frame_decoders._DECODERS[syntax]
    cases: list[tuple[Samples, int, dict[str, Any]]] = [(*GREYS["8 bits"], {}), (RGB, 8, {})]
    if syntax != uid.JPEGBaseline8Bit:
        cases.append((*GREYS["12 of 16 bits"], {}))
    for stored, bits_stored, attributes in cases:
        if stored.ndim == 3 and syntax in (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit):
            attributes = {"PhotometricInterpretation": "YBR_FULL"}
        if stored.ndim == 3 and syntax in uid.JPEG2000TransferSyntaxes:
            attributes = {"PhotometricInterpretation": "YBR_ICT"}
        data = make_dicom(stored, syntax=syntax, bits_stored=bits_stored, **attributes)
        first = decode(data, "x.dcm")
        monkeypatch.setitem(frame_decoders._DECODERS, syntax, decoders[-1:])
        last = decode(data, "x.dcm")
        monkeypatch.setitem(frame_decoders._DECODERS, syntax, decoders)
        assert last.decoder == decoders[-1]
        difference = np.abs(last.values.astype(float) - first.values)
        assert difference.max() <= (0 if syntax in LOSSLESS_SYNTAXES else 1)


def test_a_file_labelled_rgb_whose_jpeg_says_ycbcr() -> None:
    data = make_dicom(RGB, syntax=uid.JPEGBaseline8Bit, PhotometricInterpretation="RGB")
    difference = read_image_bytes(data, "x.dcm").values - RGB.astype(int)
    assert np.abs(difference).max() <= 4


@pytest.mark.parametrize("syntax", [uid.JPEGLosslessSV1, uid.JPEGBaseline8Bit])
def test_planar_configuration_says_nothing_of_jpeg(syntax: str) -> None:
    space = "RGB" if syntax == uid.JPEGLosslessSV1 else "YBR_FULL"
    data = make_dicom(RGB, syntax=syntax, PhotometricInterpretation=space, PlanarConfiguration=1)
    difference = read_image_bytes(data, "x.dcm").values - RGB.astype(int)
    assert np.abs(difference).max() <= 4


@pytest.mark.parametrize("syntax", ENCAPSULATED)
def test_a_truncated_codestream_gives_no_half_picture(syntax: str) -> None:
    stored, bits = GREYS["8 bits"]
    frame = encode_frame(stored, syntax, bits)
    for length in (4, 30, len(frame) // 2, len(frame) - 40):
        data = make_dicom(stored, syntax=syntax, frame=frame[:length])
        with pytest.raises(DicomError, match=r"x\.dcm: .*(truncated|damaged|transfer syntax)"):
            read_image_bytes(data, "x.dcm")


@pytest.mark.parametrize(
    ("syntax", "offset", "value"),
    [
        (uid.JPEG2000Lossless, 8, (100_000).to_bytes(4, "big")),
        (uid.JPEG2000Lossless, 12, (100_000).to_bytes(4, "big")),
        (uid.HTJ2KLossless, 8, (100_000).to_bytes(4, "big")),
    ],
)
def test_a_huge_codestream_in_a_small_image(syntax: str, offset: int, value: bytes) -> None:
    stored, bits = GREYS["8 bits"]
    frame = bytearray(encode_frame(stored, syntax, bits))
    frame[offset : offset + 4] = value
    data = make_dicom(stored, syntax=syntax, frame=bytes(frame))
    with pytest.raises(DicomError, match=r"Rows x Columns is 40 x 56, but .*100000"):
        read_image_bytes(data, "x.dcm")


def test_a_codestream_of_other_samples_or_depth() -> None:
    grey, _ = GREYS["8 bits"]
    frame = encode_frame(RGB, uid.JPEGLSLossless, 8)
    with pytest.raises(DicomError, match="SamplesPerPixel is 1, but the compressed frame has 3"):
        read_image_bytes(make_dicom(grey, syntax=uid.JPEGLSLossless, frame=frame), "x.dcm")
    frame = encode_frame(GREYS["16 bits"][0], uid.JPEGLSLossless, 16)
    with pytest.raises(DicomError, match="BitsAllocated is 8, but the compressed frame has 16"):
        read_image_bytes(make_dicom(grey, syntax=uid.JPEGLSLossless, frame=frame), "x.dcm")


@pytest.mark.parametrize(
    ("syntax", "name"),
    [
        (uid.MPEG4HP41, "MPEG-4 AVC"),
        (uid.JPEG2000MC, "JPEG 2000 Part 2"),
        ("1.2.3.4.5.6", "unknown"),
    ],
)
def test_a_transfer_syntax_that_is_not_read(syntax: str, name: str) -> None:
    data = make_dicom(GREYS["8 bits"][0], syntax=uid.HTJ2K)
    data = data.replace(f"{uid.HTJ2K}\0".encode(), syntax.encode().ljust(24, b"\0"))
    with pytest.raises(UnsupportedError, match=rf"x\.dcm: transfer syntax {name}"):
        read_image_bytes(data, "x.dcm")


@pytest.mark.parametrize("syntax", [s for s in ENCAPSULATED if s != uid.RLELossless])
def test_frame_headers_agree_with_what_was_encoded(syntax: str) -> None:
    header = read_frame_header(encode_frame(RGB, syntax, 8))
    assert (header.rows, header.columns, header.components) == (ROWS, COLUMNS, 3)
    assert header.precision == 8
