"""Where the elements of a data set lie (PS3.5 section 7): headers are read, values passed over.

Memory stays the same whatever a file says of itself, as it may come from anywhere: nothing is
built of items, and no value is read that nobody asks for.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_DELIMITERS = 0xFFFE
_UNDEFINED = 0xFFFFFFFF
# PS3.5 table 7.1-1: those with a length of four bytes.
_LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_UNKNOWN = b"UN"
_DEEPEST = 64


class MalformedError(Exception):
    """A data set that ends too early, or is none; inside this room only."""


@dataclass(frozen=True, slots=True)
class Element:
    """A place in a file.

    Attributes:
        tag: group and element as one number.
        start: where its header begins.
        value: where its value begins.
        length: of the value, in bytes.
    """

    tag: int
    start: int
    value: int
    length: int


def elements(
    file: BinaryIO, start: int, *, is_implicit: bool, is_little_endian: bool
) -> Iterator[Element]:
    """The elements of a data set that goes on to the file's end, without those in sequences.

    Args:
        file: seekable.
        start: where the data set begins.
        is_implicit: whether headers hold no value representation.
        is_little_endian: the order of bytes.

    Raises:
        MalformedError: when it comes to a place where the data set breaks off.
    """
    size = file.seek(0, os.SEEK_END)
    order = "<" if is_little_endian else ">"
    position = start
    # Of what is open: whether it is a sequence, to be followed by items, and how these are written.
    opened: list[tuple[bool, bool]] = []
    while position < size:
        in_sequence, implicit = opened[-1] if opened else (False, is_implicit)
        tag, kind, length, value = _header(file, position, order, is_implicit=implicit)
        if tag in (_ITEM_END, _SEQUENCE_END):
            if not opened or in_sequence != (tag == _SEQUENCE_END):
                raise MalformedError
            opened.pop()
            position = value
            continue
        if in_sequence != (tag == _ITEM):
            raise MalformedError
        if not opened:
            yield Element(tag, position, value, length)
        position = value
        if length != _UNDEFINED:
            position += length
        elif len(opened) < _DEEPEST:
            # What is unknown is written as by implicit VR (PS3.5 section 6.2.2).
            opened.append((tag != _ITEM, implicit or kind == _UNKNOWN))
        else:
            raise MalformedError
    if opened or position != size:
        raise MalformedError


def _header(
    file: BinaryIO, position: int, order: str, *, is_implicit: bool
) -> tuple[int, bytes, int, int]:
    """Tag, value representation, length, and where the value begins."""
    file.seek(position)
    header = file.read(12)
    if len(header) < 8:
        raise MalformedError
    group, number = struct.unpack_from(f"{order}HH", header)
    kind = header[4:6]
    # Some writers fall back to implicit VR inside sequences.
    has_kind = group != _DELIMITERS and not is_implicit and kind.isalpha() and kind.isupper()
    if not has_kind:
        (length,) = struct.unpack_from(f"{order}L", header, 4)
        return group << 16 | number, b"", length, position + 8
    if kind not in _LONG:
        (length,) = struct.unpack_from(f"{order}H", header, 6)
        return group << 16 | number, kind, length, position + 8
    if len(header) < 12:
        raise MalformedError
    (length,) = struct.unpack_from(f"{order}L", header, 8)
    return group << 16 | number, kind, length, position + 12
