"""Grey: stored values to modality values, and how the object asks to be shown."""

import math
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from osler.errors import DicomError
from osler.ingest.dicom.attributes import (
    all_numbers,
    first_item,
    functional_group,
    integer,
    number,
    value_of,
)
from osler.ingest.dicom.dataset import is_little_endian
from osler.ingest.dicom.lookup_table import LookupTable, read_table
from osler.ingest.dicom.pixel_header import PixelHeader
from osler.ingest.image import Voi

Stored = NDArray[np.integer[Any]]
Function = Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"]
_ROWS_AT_ONCE = 64
_WHOLE_IN_FLOAT32 = 1 << 24
_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


def modality_values(
    stored: Stored, ds: Dataset, header: PixelHeader, frame: int = 0
) -> NDArray[np.float32]:
    """Apply the modality LUT, or else rescale slope and intercept, or neither.

    Args:
        stored: integers `(H, W)`.
        frame: which of the object's frames they are.

    Returns:
        float32 `(H, W)`, Hounsfield units for CT.

    Raises:
        DicomError: a table or a number that is malformed, or a slope of 0.

    Source: PS3.3 C.11.1, C.7.6.16.2.9.
    """
    table = _table_of(ds, "ModalityLUTSequence", signed_input=header.pixel_representation == 1)
    if table is not None:
        return table(stored).astype(np.float32)
    group = functional_group(ds, "PixelValueTransformationSequence", frame)
    slope = number(group, "RescaleSlope", default=1.0)
    intercept = number(group, "RescaleIntercept", default=0.0)
    if slope == 0:
        raise DicomError("RescaleSlope is 0")
    values = np.empty(stored.shape, np.float32)
    # In double precision where a sum of single-precision products would not round alike.
    precision = np.float32 if _is_exact(stored, slope, intercept) else np.float64
    for start in range(0, len(stored), _ROWS_AT_ONCE):  # which stay in the processor's cache
        rows = slice(start, start + _ROWS_AT_ONCE)
        scaled: NDArray[Any] = stored[rows].astype(precision)
        scaled *= slope
        scaled += intercept
        values[rows] = scaled
    return values


def _is_exact(stored: Stored, slope: float, intercept: float) -> bool:
    """Whether all products and sums are whole numbers that single precision has."""
    largest = abs(slope) * (1 << 8 * stored.dtype.itemsize) + abs(intercept)
    return slope.is_integer() and intercept.is_integer() and largest <= _WHOLE_IN_FLOAT32


def without_padding(
    values: NDArray[np.float32], stored: Stored, ds: Dataset, header: PixelHeader
) -> NDArray[np.float32]:
    """Draw padding in to the nearest end of what the real pixels span.

    Padding is often far outside of that (-2000 around a CT's circle, 65535 around a radiograph),
    and a full-range rescale would give it most of the grey levels.

    Args:
        values: float32 `(H, W)`, modality values.
        stored: the stored values that they came of, among which the padding is.

    Source: PS3.3 C.7.5.1.1.2.
    """
    one_end = value_of(ds, "PixelPaddingValue")
    if one_end is None:
        return values
    limits = [_as_stored(integer(ds, "PixelPaddingValue"), header)]
    limits.append(_as_stored(integer(ds, "PixelPaddingRangeLimit", default=one_end), header))
    padding = (stored >= min(limits)) & (stored <= max(limits))
    if padding.all() or not padding.any():
        return values
    real = values[~padding]
    return np.clip(values, real.min(), real.max())


def _as_stored(value: int, header: PixelHeader) -> int:
    """A padding value as the stored pixels have it; its own VR is often of the other sign."""
    value &= (1 << header.bits_allocated) - 1
    if header.pixel_representation == 1 and value >> (header.bits_allocated - 1):
        value -= 1 << header.bits_allocated
    return value


def voi_of(ds: Dataset, values: NDArray[np.float32], frame: int = 0) -> Voi | None:
    """The object's windows or VOI LUT; None where it has none that makes sense.

    A hint for the eye that is malformed is left out, since the pixels are sound without it.

    Args:
        values: the modality values, to tell whether the LUT's input is signed.
        frame: which of the object's frames they are.

    Source: PS3.3 C.11.2, C.7.6.16.2.10.
    """
    group = functional_group(ds, "FrameVOILUTSequence", frame)
    try:
        table = _table_of(group, "VOILUTSequence", signed_input=bool(values.min() < 0))
    except DicomError:
        table = None
    try:
        function, windows = _windows(group)
    except DicomError:
        function, windows = "LINEAR", []
    if not windows and table is None:
        return None
    return Voi(
        window_centers=tuple(center for center, _ in windows),
        window_widths=tuple(width for _, width in windows),
        function=function,
        lut=None if table is None else table.entries.astype(np.int64),
        lut_first=0 if table is None else table.first,
        lut_bits=8 if table is None else table.bits,
    )


def _windows(group: Dataset) -> tuple[Function, list[tuple[float, float]]]:
    """The function, and (center, width) of each window that it can be used with."""
    name = str(value_of(group, "VOILUTFunction") or "LINEAR").strip()
    if name not in _FUNCTIONS:
        raise DicomError("VOILUTFunction is none that DICOM defines")
    function = cast(Function, name)
    # PS3.3 C.11.2.1.2.1 for LINEAR, C.11.2.1.3 for the others
    least = 1.0 if function == "LINEAR" else math.ulp(0.0)
    pairs = zip(all_numbers(group, "WindowCenter"), all_numbers(group, "WindowWidth"), strict=False)
    return function, [
        (center, width)
        for center, width in pairs
        if math.isfinite(center) and least <= width < math.inf
    ]


def _table_of(ds: Dataset, sequence: str, *, signed_input: bool) -> LookupTable | None:
    item = first_item(ds, sequence)
    if item is None:
        return None
    return read_table(
        value_of(item, "LUTDescriptor"),
        value_of(item, "LUTData"),
        signed_input=signed_input,
        little_endian=is_little_endian(ds),
    )
