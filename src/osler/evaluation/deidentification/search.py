"""Whether what was planted is still there: in bytes, in what they hold coded, and in pixels."""

import base64
import binascii
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from io import BytesIO
from typing import Any

import numpy as np
from pydicom import Dataset, dcmread

from osler.evaluation.deidentification.identifiers import Plant

_BASE64 = re.compile(rb'"data"\s*:\s*"([A-Za-z0-9+/=\s]+)"')
# So much of a line's pixels may stay, as where a letter's edge looks out of a box.
_LEFT_OF_A_LINE = 0.02
# Numbers of so few digits stand in the middle of long ones, as of UIDs, by chance.
_BY_CHANCE = 6


def remaining(plants: Iterable[Plant], files: Mapping[str, bytes | None]) -> list[Plant]:
    """Which identifiers are still in the files that they were put into.

    Args:
        plants: what was planted, by the names of the files before.
        files: what became of each of them; None where it was not written.
    """
    texts = {name: _searchable(data) for name, data in files.items() if data is not None}
    pictures: dict[str, Any] = {}
    left = []
    for plant in plants:
        data = files.get(plant.file)
        if data is None:
            continue
        if plant.spot is None:
            if _holds(texts[plant.file], plant.value):
                left.append(plant)
            continue
        if plant.file not in pictures:
            pictures[plant.file] = _frames(dcmread(BytesIO(data)))
        if _is_visible(plant, pictures[plant.file]):
            left.append(plant)
    return left


def broken_references(before: Iterable[bytes], after: Iterable[bytes]) -> int:
    """How many references to a file among them lead to none of them afterwards."""
    first, second = [_references(data) for data in before], [_references(data) for data in after]
    there_before = {instance for instance, _ in first}
    there_after = {instance for instance, _ in second}
    led = sum(reference in there_before for _, references in first for reference in references)
    lead = sum(reference in there_after for _, references in second for reference in references)
    return led - lead


def _references(data: bytes) -> tuple[str, list[str]]:
    ds = dcmread(BytesIO(data))
    found = [
        str(element.value)
        for element in ds.iterall()
        if element.keyword == "ReferencedSOPInstanceUID"
    ]
    return str(ds.SOPInstanceUID), found


def _searchable(data: bytes) -> bytes:
    """The bytes in small letters, with what they hold deflated or in base64 behind them."""
    pieces = [data, *_decoded(data)]
    if data[128:132] == b"DICM":
        pieces += _inflated(data)
    else:
        pieces.append(json_text(data))
    return b"\n".join(pieces).lower()


def json_text(data: bytes) -> bytes:
    """JSON with its characters as they are, and not escaped; what is none, as it is."""
    try:
        return json.dumps(json.loads(data), ensure_ascii=False).encode()
    except ValueError:
        return data


def _decoded(data: bytes) -> Iterator[bytes]:
    for match in _BASE64.finditer(data):
        try:
            yield base64.b64decode(match[1])
        except binascii.Error:
            continue


def _inflated(data: bytes) -> Iterator[bytes]:
    length = int.from_bytes(data[140:144], "little")
    try:
        yield zlib.decompress(data[144 + length :], -zlib.MAX_WBITS)
    except zlib.error:
        return


def _holds(text: bytes, value: str) -> bool:
    low = value.lower()
    if value.isdigit() and len(value) <= _BY_CHANCE:
        return re.search(rb"(?<!\d)%b(?!\d)" % low.encode(), text) is not None
    return low.encode() in text or low.encode("utf-16-le") in text


def _frames(ds: Dataset) -> np.ndarray[Any, Any]:
    frames = ds.pixel_array.astype(np.float32)
    if ds.SamplesPerPixel == 3:
        frames = frames.mean(axis=-1)
    return frames if frames.ndim == 3 else frames[None]


def _is_visible(plant: Plant, frames: np.ndarray[Any, Any]) -> bool:
    """Whether the line's pixels still differ from one another or from what is around them."""
    spot = plant.spot
    assert spot is not None
    if spot.shape != frames.shape[1:]:
        return True
    rows, columns = np.nonzero(spot)
    top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    inside = spot[top:bottom, left:right]
    for frame in frames:
        line = frame[top:bottom, left:right]
        black = np.median(line)
        if (line[inside] != black).mean() > _LEFT_OF_A_LINE:
            return True
    return False
