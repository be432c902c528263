"""What a compressed frame says of itself, read before a decoder sees it.

A decoder allocates by the codestream's own header and not by the data set's, so the two must agree
first. And a decoder may fill up a truncated codestream with grey and say nothing.
"""

import struct
from dataclasses import dataclass
from typing import Literal

from osler.errors import DicomError

_SOI, _SOC_SIZ = b"\xff\xd8", b"\xff\x4f\xff\x51"
_END = b"\xff\xd9"  # JPEG EOI and JPEG 2000 EOC; no entropy-coded byte pair looks like it
_APP0, _APP14 = 0xE0, 0xEE
_START_OF_FRAME = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # F7: JPEG-LS
_START_OF_SCAN = 0xDA
_JP2_SIGNATURE = b"\x00\x00\x00\x0cjP  "


@dataclass(frozen=True, kw_only=True)
class FrameHeader:
    """The size and coding of one compressed frame.

    Attributes:
        color: what the components are, where the codestream itself says so.
    """

    rows: int
    columns: int
    components: int
    precision: int
    color: Literal["RGB", "YBR_FULL"] | None = None


def read_frame_header(codestream: bytes) -> FrameHeader:
    """Read the header of a JPEG, JPEG-LS, JPEG 2000 or HTJ2K codestream.

    Raises:
        DicomError: not such a codestream, or one that is truncated.

    Source: ISO/IEC 10918-1 annex B, 14495-1 annex C, 15444-1 annexes A and I.
    """
    try:
        if codestream.startswith(_SOI):
            header, start = _jpeg(codestream)
        else:
            header, start = _jpeg_2000(codestream)
    except (IndexError, struct.error):
        raise DicomError("the compressed pixel data is truncated") from None
    if codestream.rfind(_END, start) < 0:
        raise DicomError("the compressed pixel data is truncated")
    return header


def _jpeg(codestream: bytes) -> tuple[FrameHeader, int]:
    color: Literal["RGB", "YBR_FULL"] | None = None
    offset = len(_SOI)
    while True:
        if codestream[offset] != 0xFF:
            raise DicomError("the compressed pixel data is damaged")
        marker = codestream[offset + 1]
        if marker == 0xFF:  # fill byte
            offset += 1
            continue
        (length,) = struct.unpack_from(">H", codestream, offset + 2)
        segment = codestream[offset + 4 : offset + 2 + length]
        if marker == _APP0 and segment.startswith(b"JFIF"):
            color = color or "YBR_FULL"
        elif marker == _APP14 and segment.startswith(b"Adobe"):
            color = "YBR_FULL" if segment[11:12] == b"\x01" else "RGB"
        elif marker in _START_OF_FRAME:
            break
        elif marker == _START_OF_SCAN:
            raise DicomError("the compressed pixel data is damaged")
        offset += 2 + length
    precision, rows, columns, components = struct.unpack_from(">BHHB", segment)
    if components == 3 and bytes(segment[6:15:3]).upper() == b"RGB":
        color = "RGB"
    header = FrameHeader(
        rows=rows,
        columns=columns,
        components=components,
        precision=precision,
        color=color if components == 3 else None,
    )
    return header, offset


def _jpeg_2000(codestream: bytes) -> tuple[FrameHeader, int]:
    start = _skip_jp2_boxes(codestream) if codestream.startswith(_JP2_SIGNATURE) else 0
    if not codestream.startswith(_SOC_SIZ, start):
        raise DicomError("the compressed pixel data is not what its transfer syntax says")
    # SIZ: length, capabilities, far corner, near corner, tiles, components, bits of the first
    right, bottom, left, top = struct.unpack_from(">4I", codestream, start + 8)
    components, bits = struct.unpack_from(">HB", codestream, start + 40)
    header = FrameHeader(
        rows=bottom - top,
        columns=right - left,
        components=components,
        precision=(bits & 0x7F) + 1,  # the top bit says whether the samples are signed
    )
    return header, start


def _skip_jp2_boxes(file: bytes) -> int:
    """Where the codestream starts in a JP2 file, which DICOM forbids and some writers embed."""
    offset = 0
    while offset < len(file):
        length, kind = struct.unpack_from(">I4s", file, offset)
        if kind == b"jp2c":
            return offset + 8
        if length < 8:  # would never advance
            break
        offset += length
    raise DicomError("the JP2 file in the pixel data holds no codestream")
