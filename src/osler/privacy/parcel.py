"""A JSON record and a file's bytes in one payload, between the reading process and its workers."""

import struct
from typing import Any

import msgspec

_LENGTH = struct.Struct("<Q")


def pack(record: Any, data: bytes = b"") -> bytes:
    """Both in one."""
    text = msgspec.json.encode(record)
    return _LENGTH.pack(len(text)) + text + data


def unpack(payload: memoryview | bytes) -> tuple[bytes, bytes]:
    """The record's JSON and the file's bytes.

    Raises:
        ValueError: nothing that `pack` makes.
    """
    view = memoryview(payload)
    if len(view) < _LENGTH.size:
        raise ValueError("a parcel without its length")
    (length,) = _LENGTH.unpack(view[: _LENGTH.size])
    start = _LENGTH.size + length
    if start > len(view):
        raise ValueError("a parcel of impossible length")
    return bytes(view[_LENGTH.size : start]), bytes(view[start:])
