"""Lookup tables as DICOM stores them: modality, VOI and palette tables share one form."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from osler.errors import DicomError
from osler.ingest.dicom.attributes import MALFORMED

_MOST_ENTRIES = 1 << 16


@dataclass(frozen=True, kw_only=True)
class LookupTable:
    """Entries for the input values from `first` on; inputs outside take the nearest entry.

    Source: PS3.3 C.11.1.1, C.11.2.1.1, C.7.6.3.1.5.
    """

    first: int
    bits: int
    entries: NDArray[np.uint16]

    def __call__(self, values: NDArray[np.integer[Any]]) -> NDArray[np.uint16]:
        """Map integers of any shape.

        >>> table = LookupTable(first=-1, bits=8, entries=np.array([7, 8, 9], np.uint16))
        >>> table(np.array([-5, -1, 0, 200], np.int16)).tolist()
        [7, 7, 8, 9]
        """
        # Wide enough for unsigned 32-bit values less a negative `first`.
        places = values.astype(np.int64) - self.first
        return self.entries[np.clip(places, 0, len(self.entries) - 1, out=places)]


def read_table(
    descriptor: Any, data: Any, *, signed_input: bool, little_endian: bool
) -> LookupTable:
    """Make a table of a descriptor's three values and its data.

    Args:
        descriptor: number of entries (0 for 65,536), first input value, bits of an entry.
        data: integers, or bytes of 8- or 16-bit words.
        signed_input: whether the first input value is meant to be signed.
        little_endian: byte order of 16-bit words.

    Raises:
        DicomError: not such a descriptor, or fewer data than it says.
    """
    try:
        count, first, bits = (int(value) & 0xFFFF for value in descriptor)
        count = count or _MOST_ENTRIES
        if signed_input and first > 0x7FFF:
            first -= 0x10000
        return LookupTable(first=first, bits=bits, entries=_entries(data, count, little_endian))
    except MALFORMED:
        raise DicomError("a lookup table is malformed") from None


def _entries(data: Any, count: int, little_endian: bool) -> NDArray[np.uint16]:
    if isinstance(data, bytes):
        # Two 8-bit entries may share a word; a 16-bit table has twice as many bytes.
        entries = _words(data, 2 if len(data) >= 2 * count else 1, little_endian)
    else:
        entries = (np.atleast_1d(np.asarray(data, np.int64)) & 0xFFFF).astype(np.uint16)
    if len(entries) < count:
        raise DicomError(f"a lookup table has {len(entries)} of {count} entries")
    return entries[:count]


def _words(data: bytes, size: int, little_endian: bool) -> NDArray[np.uint16]:
    """Words of one or two bytes; DICOM stores both as words of two (OW)."""
    even = data[: len(data) // 2 * 2]
    words = np.frombuffer(even, "<u2" if little_endian else ">u2").astype("<u2")
    return words.view(f"<u{size}").astype(np.uint16)


def expand_segments(descriptor: Any, data: bytes, *, little_endian: bool) -> list[int]:
    """Expand a segmented palette into the entries that it stands for.

    A discrete segment (0) lists entries, a linear one (1) leads from the last entry to its value,
    an indirect one (2) repeats earlier segments, none of which may be indirect.

    Args:
        descriptor: the palette's three values, of which the last says 8 or 16 bits.
        data: the segments.
        little_endian: byte order of the words.

    Raises:
        DicomError: segments that make no table.

    Source: PS3.3 C.7.9.2.
    """
    try:
        size = 2 if descriptor[2] > 8 else 1
        words = _words(data, size, little_endian).tolist()
        entries: list[int] = []
        _expand(words, size, 0, len(words), entries, may_repeat=True)
        return entries
    except MALFORMED:
        raise DicomError("a segmented palette is malformed") from None


def _expand(
    words: list[int], size: int, at: int, segments: int, entries: list[int], *, may_repeat: bool
) -> None:
    """Append to `entries` what the next `segments` from word `at` on stand for."""
    while segments and at + 1 < len(words) and len(entries) <= _MOST_ENTRIES:
        kind, length = words[at], words[at + 1]
        at += 2
        segments -= 1
        if kind == 0:
            entries += words[at : at + length]
            at += length
        elif kind == 1:
            line = np.linspace(entries[-1], words[at], length + 1)[1:]
            entries += np.rint(line).astype(int).tolist()
            at += 1
        elif kind == 2 and may_repeat:
            pointer = words[at : at + 4 // size]
            offset_bytes = sum(word << (8 * size * i) for i, word in enumerate(pointer))
            _expand(words, size, offset_bytes // size, length, entries, may_repeat=False)
            at += 4 // size
        else:
            raise DicomError("a segmented palette has a segment of unknown kind")
