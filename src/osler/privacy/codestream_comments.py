"""Comments and application segments of compressed frames, where writers put names and places."""

import struct

_SOI, _SOC = b"\xff\xd8", b"\xff\x4f"
_COMMENT, _JPEG_2000_COMMENT = 0xFE, 0x64
# JFIF and Adobe segments, and JPEG-LS and HTJ2K parameters, say how the samples are to be read.
_APPLICATION = frozenset(range(0xE0, 0xF0)) - {0xE0, 0xEE, 0xE8}
_START_OF_SCAN, _START_OF_TILE = 0xDA, 0x90


def without_comments(codestream: bytes) -> bytes:
    """A JPEG, JPEG-LS or JPEG 2000 codestream without what is written beside the picture.

    Where the segments make no sense, it comes back as it is: a decoder has accepted it.
    """
    if codestream.startswith(_SOI):
        return _filtered(codestream, {_COMMENT, *_APPLICATION}, _START_OF_SCAN)
    if codestream.startswith(_SOC):
        return _filtered(codestream, {_JPEG_2000_COMMENT}, _START_OF_TILE)
    return codestream


def _filtered(codestream: bytes, unwanted: set[int], last: int) -> bytes:
    kept = [codestream[:2]]
    place = 2
    while place + 4 <= len(codestream) and codestream[place] == 0xFF:
        marker = codestream[place + 1]
        if marker == last:
            return b"".join(kept) + codestream[place:]
        (length,) = struct.unpack_from(">H", codestream, place + 2)
        if marker not in unwanted:
            kept.append(codestream[place : place + 2 + length])
        place += 2 + length
    return codestream
