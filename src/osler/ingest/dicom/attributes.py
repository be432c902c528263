"""Reading single attributes of a data set that may hold anything."""

import functools
import math
import struct
from collections.abc import Iterable
from typing import Any

from pydicom import Dataset
from pydicom.errors import BytesLengthException
from pydicom.tag import BaseTag, Tag

from osler.errors import DicomError

# What pydicom raises on values and structures that are not as they should be.
MALFORMED = (
    BytesLengthException,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    IndexError,
    ArithmeticError,
    NotImplementedError,
    RuntimeError,
    EOFError,
    OSError,
    struct.error,
)


# An attribute's tag; pydicom takes long to find it, and longer to say that a data set has none.
tag_of = functools.cache(Tag)


def value_of(ds: Dataset, keyword: str) -> Any:
    """The value of one attribute, or None where it is absent or empty.

    Raises:
        DicomError: bytes that are no value of the attribute's type.
    """
    tag: BaseTag = tag_of(keyword)
    try:
        value = ds[tag].value if tag in ds else None
        return None if value is None or value == "" else value
    except MALFORMED:
        raise DicomError(f"{keyword} is malformed") from None


def binary(ds: Dataset, keyword: str) -> tuple[bytes, str]:
    """The bytes of one attribute, and their value representation.

    Raises:
        DicomError: absent, or not bytes.
    """
    try:
        element = ds[keyword]
    except MALFORMED:
        raise DicomError(f"{keyword} is malformed") from None
    if not isinstance(element.value, bytes):
        raise DicomError(f"{keyword} is empty or malformed")
    return element.value, str(element.VR)


def integer(ds: Dataset, keyword: str, default: int | None = None) -> int:
    """One integer.

    Raises:
        DicomError: not an integer, or absent without a default.
    """
    value = value_of(ds, keyword)
    if value is None:
        if default is None:
            raise DicomError(f"{keyword} is missing")
        return default
    if isinstance(value, int):
        return int(value)
    raise DicomError(f"{keyword} is not one integer")


def number(ds: Dataset, keyword: str, default: float) -> float:
    """One finite decimal number.

    Raises:
        DicomError: not a finite number.
    """
    numbers = all_numbers(ds, keyword)
    if not numbers:
        return default
    if len(numbers) > 1 or not math.isfinite(numbers[0]):
        raise DicomError(f"{keyword} is not one number")
    return numbers[0]


def all_numbers(ds: Dataset, keyword: str) -> list[float]:
    """All decimal numbers of an attribute with one or more values.

    Raises:
        DicomError: something in it is not a number.
    """
    value = value_of(ds, keyword)
    try:
        if value is None:
            return []
        if isinstance(value, Iterable) and not isinstance(value, str | bytes):
            return [float(one) for one in value]
        return [float(value)]
    except MALFORMED:
        raise DicomError(f"{keyword} is not a number") from None


def items_of(ds: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence; empty where there is none.

    Raises:
        DicomError: not a sequence.
    """
    try:
        items = list(value_of(ds, keyword) or ())
    except MALFORMED:
        raise DicomError(f"{keyword} is malformed") from None
    if not all(isinstance(item, Dataset) for item in items):
        raise DicomError(f"{keyword} is not a sequence")
    return items


def first_item(ds: Dataset, keyword: str) -> Dataset | None:
    """The first item of a sequence, or None where there is none.

    Raises:
        DicomError: not a sequence.
    """
    return next(iter(items_of(ds, keyword)), None)


def functional_group(ds: Dataset, macro: str, frame: int = 0) -> Dataset:
    """Where the attributes of a functional group's macro stand.

    Enhanced objects keep them in the frame's own group or the shared one; in all others they
    stand in the data set itself.

    Args:
        ds: the whole object.
        macro: keyword of the macro's sequence.
        frame: which of the frames, from 0.

    Source: PS3.3 C.7.6.16.
    """
    own = items_of(ds, "PerFrameFunctionalGroupsSequence")[frame : frame + 1]
    for group in (*own, *items_of(ds, "SharedFunctionalGroupsSequence")[:1]):
        item = first_item(group, macro)
        if item is not None:
            return item
    return ds
