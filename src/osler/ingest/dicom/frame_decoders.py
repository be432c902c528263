"""Stored values out of the pixel data element, by whichever decoder its transfer syntax needs."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels.decoders.base import Decoder

from osler.errors import DicomError, UnsupportedError
from osler.ingest.dicom.attributes import MALFORMED
from osler.ingest.dicom.codestream import FrameHeader, read_frame_header
from osler.ingest.dicom.pixel_header import PixelHeader

# In this order: the next is tried where one fails. pylibjpeg is asked for JPEG 2000 only, where
# OpenJPEG stands behind it; for JPEG it would load libjpeg, which is under the GPL.
_JPEG = ("gdcm", "imagecodecs")
_JPEG_2000 = ("openjpeg", "imagecodecs")
_DECODERS: dict[str, tuple[str, ...]] = {
    uid.JPEGBaseline8Bit: _JPEG,
    uid.JPEGExtended12Bit: _JPEG,  # gdcm reads 8 bits of it only
    uid.JPEGLossless: _JPEG,
    uid.JPEGLosslessSV1: _JPEG,
    uid.JPEGLSLossless: _JPEG,
    uid.JPEGLSNearLossless: _JPEG,
    uid.JPEG2000Lossless: _JPEG_2000,
    uid.JPEG2000: _JPEG_2000,
    uid.HTJ2KLossless: _JPEG_2000,
    uid.HTJ2KLosslessRPCL: _JPEG_2000,
    uid.HTJ2K: _JPEG_2000,
    uid.RLELossless: ("pydicom",),
}
_PLUGINS = {
    "gdcm": ("pydicom.pixels.decoders.gdcm", "_decode_frame"),
    "openjpeg": ("pydicom.pixels.decoders.pylibjpeg", "_decode_frame"),
    "pydicom": ("pydicom.pixels.decoders.rle", "_decode_frame"),
    "imagecodecs": ("osler.ingest.dicom.imagecodecs_plugin", "decode_frame"),
}


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One decoded frame.

    Attributes:
        stored: integers `(H, W)` or `(H, W, 3)`, as wide and as signed as the header says.
        photometric_interpretation: of `stored`; the decoder may have undone a color transform.
        decoder: what decoded it.
    """

    stored: NDArray[np.integer[Any]]
    photometric_interpretation: str
    decoder: str


def decode_frame(
    pixel_data: bytes, pixel_vr: str, syntax: uid.UID, header: PixelHeader, frame: int = 0
) -> Frame:
    """Decode one frame of a pixel data element.

    Args:
        pixel_data: the element's value, encapsulated where the transfer syntax compresses.
        pixel_vr: its value representation; big-endian files swap bytes stored as words.
        syntax: the transfer syntax.
        header: the checked description of the frames.
        frame: which of them, from 0.

    Raises:
        UnsupportedError: a transfer syntax that no decoder here reads.
        DicomError: pixel data that is truncated, damaged, or not what the header says.

    Source: PS3.5 section 8 and annex A.
    """
    try:
        if syntax in uid.UncompressedTransferSyntaxes:
            return _native(pixel_data, pixel_vr, syntax, header, frame)
        if syntax in _DECODERS:
            return _compressed(pixel_data, syntax, header, frame)
    except MALFORMED:
        raise DicomError("the pixel data is damaged") from None
    # A UID that DICOM does not define is its own name, and could be anything.
    name = "unknown" if syntax.name == str(syntax) else syntax.name
    raise UnsupportedError(f"transfer syntax {name} is not decoded")


def _native(
    pixel_data: bytes, pixel_vr: str, syntax: uid.UID, header: PixelHeader, frame: int
) -> Frame:
    start = frame * header.native_bytes
    there = min(max(len(pixel_data) - start, 0), header.native_bytes)
    if there < header.native_bytes:
        raise DicomError(
            f"{header.columns} x {header.rows} pixels need {header.native_bytes:,} bytes of pixel "
            f"data; there are {there:,}"
        )
    if syntax.is_little_endian and header.is_plain:
        kind = f"<{'ui'[header.pixel_representation]}{header.bits_allocated // 8}"
        samples = np.frombuffer(pixel_data, kind, header.samples, start).reshape(header.shape)
        return Frame(
            stored=_significant_bits(samples, header, header.high_bit),
            photometric_interpretation=header.photometric_interpretation,
            decoder="numpy",
        )
    pixel_data = pixel_data[start : start + header.native_bytes + header.native_bytes % 2]
    options = _options(header) | {"pixel_vr": pixel_vr, "correct_unused_bits": False}
    stored, properties = Decoder(syntax).as_array(pixel_data, index=0, raw=True, **options)
    return Frame(
        stored=_significant_bits(stored, header, header.high_bit),
        photometric_interpretation=str(properties["photometric_interpretation"]),
        decoder="numpy",
    )


def _compressed(pixel_data: bytes, syntax: uid.UID, header: PixelHeader, frame: int) -> Frame:
    codestream = get_frame(pixel_data, frame, number_of_frames=header.number_of_frames)
    pixel_data = encapsulate([codestream], has_bot=False)
    options = _options(header)
    color = None
    if syntax != uid.RLELossless:
        inner = read_frame_header(codestream)
        _check_agreement(inner, header)
        color = inner.color
        options["planar_configuration"] = 0  # says nothing of these (PS3.5 8.2)
    for name in _DECODERS[syntax]:
        decoder = Decoder(syntax)
        decoder.add_plugin(name, _PLUGINS[name])
        try:
            stored, properties = decoder.as_array(pixel_data, index=0, raw=True, **options)
        except MALFORMED:
            continue
        return Frame(
            stored=stored,
            photometric_interpretation=color or str(properties["photometric_interpretation"]),
            decoder=name,
        )
    names = " and ".join(_DECODERS[syntax])
    raise DicomError(f"the {syntax.name} pixel data is damaged: {names} cannot decode it")


def _options(header: PixelHeader) -> dict[str, Any]:
    return {
        "rows": header.rows,
        "columns": header.columns,
        "number_of_frames": 1,
        "samples_per_pixel": header.samples_per_pixel,
        "photometric_interpretation": header.photometric_interpretation,
        "planar_configuration": header.planar_configuration,
        "bits_allocated": header.bits_allocated,
        "bits_stored": header.bits_stored,
        "pixel_representation": header.pixel_representation,
        "pixel_keyword": "PixelData",
    }


def _check_agreement(inner: FrameHeader, header: PixelHeader) -> None:
    outer_size, inner_size = (header.rows, header.columns), (inner.rows, inner.columns)
    if outer_size != inner_size:
        raise DicomError(
            f"Rows x Columns is {outer_size[0]} x {outer_size[1]}, but the compressed frame is "
            f"{inner_size[0]} x {inner_size[1]}"
        )
    if inner.components != header.samples_per_pixel:
        raise DicomError(
            f"SamplesPerPixel is {header.samples_per_pixel}, but the compressed frame has "
            f"{inner.components}"
        )
    if inner.precision > header.bits_allocated:
        raise DicomError(
            f"BitsAllocated is {header.bits_allocated}, but the compressed frame has "
            f"{inner.precision} bits"
        )


def _significant_bits(
    stored: NDArray[np.integer[Any]], header: PixelHeader, high_bit: int
) -> NDArray[np.integer[Any]]:
    """Drop what stands above and below the stored bits, and extend the sign.

    What stands above may be anything, overlays in old files (PS3.5 8.1.1).
    """
    stored = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    if header.bits_stored == header.bits_allocated:
        return stored
    shifted: NDArray[np.integer[Any]] = np.left_shift(stored, header.bits_allocated - 1 - high_bit)
    np.right_shift(shifted, header.bits_allocated - header.bits_stored, out=shifted)
    return shifted
