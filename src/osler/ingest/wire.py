"""Messages between the reading process and its workers.

A message is two lengths, a JSON header and a payload of raw bytes. It is not pickle: a decoder that
a malformed file has taken over must not be able to run code in the reading process.
"""

import dataclasses
import json
import os
import struct
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from osler.errors import (
    DicomError,
    InputError,
    RecordError,
    UnreadableFileError,
    UnsupportedError,
)
from osler.ingest.image import Image, Voi
from osler.ingest.limits import MAX_FILE_BYTES, MAX_PIXELS, check_size

if TYPE_CHECKING:
    from pydantic import TypeAdapter

_LENGTHS = struct.Struct("<IQ")
_MAX_HEADER_BYTES = 1 << 20
_MAX_PAYLOAD_BYTES = max(MAX_FILE_BYTES, 4 * MAX_PIXELS) + (1 << 20)
_ERRORS: dict[str, type[InputError]] = {
    kind.__name__: kind for kind in (DicomError, RecordError, UnreadableFileError, UnsupportedError)
}

Payload = bytes | memoryview


def send(pipe: int, header: Mapping[str, Any], *payload: Payload) -> None:
    """Write one message to a pipe's file descriptor.

    Raises:
        BrokenPipeError: nobody reads the other end any more.
    """
    text = json.dumps(header).encode()
    lengths = _LENGTHS.pack(len(text), sum(len(part) for part in payload))
    for part in (lengths + text, *payload):
        rest = memoryview(part)
        while rest:
            rest = rest[os.write(pipe, rest) :]


def receive(pipe: int) -> tuple[dict[str, Any], memoryview]:
    """Read one message from a pipe's file descriptor.

    Raises:
        EOFError: the other end was closed before the message was complete.
        ValueError: lengths or a header that `send` does not write.
    """
    header_bytes, payload_bytes = _LENGTHS.unpack(_exactly(pipe, _LENGTHS.size))
    if header_bytes > _MAX_HEADER_BYTES or payload_bytes > _MAX_PAYLOAD_BYTES:
        raise ValueError("a message of impossible length")
    header = json.loads(bytes(_exactly(pipe, header_bytes)))
    return header, _exactly(pipe, payload_bytes)


def _exactly(pipe: int, size_bytes: int) -> memoryview:
    whole = np.empty(size_bytes, np.uint8).data  # a bytearray would be filled with zeros
    rest = whole
    while rest:
        count = os.readv(pipe, [rest])
        if count == 0:
            raise EOFError("the other end of the pipe was closed")
        rest = rest[count:]
    return whole


def send_image(pipe: int, image: Image) -> None:
    """Write an `Image`: its pixels, and its VOI table if it has one, are the payload."""
    header: dict[str, Any] = {
        field.name: getattr(image, field.name) for field in dataclasses.fields(image)
    }
    header["values"] = image.size_px
    payload = [_raw(image.values)]
    if image.voi is not None:
        voi = dataclasses.asdict(dataclasses.replace(image.voi, lut=None))
        header["voi"] = voi
        if image.voi.lut is not None:
            voi["lut"] = len(image.voi.lut)
            payload.append(_raw(image.voi.lut))
    send(pipe, header, *payload)


def send_error(pipe: int, error: InputError) -> None:
    """Write an error of the input's."""
    send(pipe, {"error": type(error).__name__, "message": str(error)})


def send_record(pipe: int, record: object) -> None:
    """Write a record of dataclasses, tuples and numbers, which travels as JSON."""
    send(pipe, {"record": True}, msgspec.json.encode(record))


def receive_record(pipe: int, kind: Any) -> Any:
    """Read what `send_record` or `send_error` wrote, and check it as a stranger's.

    Args:
        pipe: its file descriptor.
        kind: the type that the record must have.

    Raises:
        InputError: the one that was sent.
        EOFError: the worker ended before it had answered.
        ValueError: anything else than a record of that kind.
    """
    header, payload = receive(pipe)
    _raise_error(header)
    return _checker(kind).validate_json(bytes(payload), strict=True)


@cache
def _checker(kind: Any) -> "TypeAdapter[Any]":
    """What checks one kind of record; made once, as that takes longer than to check."""
    # It takes a fifth of a second to import, and a single image does without.
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def receive_payload(pipe: int) -> memoryview:
    """Read a reply whose payload the caller takes apart.

    Raises:
        InputError: the one that was sent.
        EOFError: the worker ended before it had answered.
    """
    header, payload = receive(pipe)
    _raise_error(header)
    return payload


def _raise_error(header: dict[str, Any]) -> None:
    try:
        if "error" in header:
            raise _ERRORS[header["error"]](header["message"])
    except (KeyError, TypeError) as error:
        raise ValueError("a message that is neither a reply nor an error") from error


def receive_image(pipe: int) -> Image:
    """Read what `send_image` or `send_error` wrote.

    Raises:
        InputError: the one that was sent.
        EOFError: the worker ended before it had answered.
        ValueError: a message that is neither an image nor an error.
    """
    header, payload = receive(pipe)
    _raise_error(header)
    try:
        return _image(header, payload)
    except (KeyError, TypeError) as error:
        raise ValueError("a message that is neither an image nor an error") from error


def _image(header: dict[str, Any], payload: memoryview) -> Image:
    height, width = header.pop("values")
    check_size(height, width)
    pixels = payload[: height * width * (4 if header["space"] == "modality" else 3)]
    values: NDArray[np.float32] | NDArray[np.uint8]
    if header["space"] == "modality":
        values = np.frombuffer(pixels, np.float32).reshape(height, width)
    else:
        values = np.frombuffer(pixels, np.uint8).reshape(height, width, 3)
    voi = header.pop("voi")
    if voi is not None:
        lut = None if voi.pop("lut") is None else np.frombuffer(payload[len(pixels) :], np.int64)
        centers, widths = voi.pop("window_centers"), voi.pop("window_widths")
        voi = Voi(window_centers=tuple(centers), window_widths=tuple(widths), lut=lut, **voi)
    return Image(values=values, voi=voi, **header)


def _raw(values: NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(values).data.cast("B")
