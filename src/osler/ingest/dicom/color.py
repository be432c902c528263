"""Color: decoded samples to display RGB of eight bits."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.pixels.processing import convert_color_space

from osler.errors import DicomError
from osler.ingest.dicom.attributes import value_of
from osler.ingest.dicom.dataset import is_little_endian
from osler.ingest.dicom.lookup_table import LookupTable, expand_segments, read_table

Stored = NDArray[np.integer[Any]]


def display_rgb(
    stored: Stored, photometric_interpretation: str, bits_stored: int
) -> NDArray[np.uint8]:
    """RGB or YBR samples of any depth to RGB.

    Args:
        stored: unsigned `(H, W, 3)`.
        photometric_interpretation: of `stored`.
        bits_stored: its depth.

    Returns:
        uint8 `(H, W, 3)`.

    Source: PS3.3 C.7.6.3.1.2.
    """
    samples = _eight_bits(stored, bits_stored)
    if photometric_interpretation.startswith("YBR"):
        return convert_color_space(samples, "YBR_FULL", "RGB")
    return samples


def _eight_bits(stored: Stored, bits: int) -> NDArray[np.uint8]:
    if bits > 8:
        return (stored >> (bits - 8)).astype(np.uint8)
    if bits < 8:
        return (stored.astype(np.uint16) * 255 // ((1 << bits) - 1)).astype(np.uint8)
    return stored.astype(np.uint8)


def palette_rgb(stored: Stored, ds: Dataset) -> NDArray[np.uint8]:
    """Palette indices to RGB, by plain or segmented palettes.

    Args:
        stored: unsigned `(H, W)`.

    Returns:
        uint8 `(H, W, 3)`.

    Raises:
        DicomError: a palette that is missing or malformed.

    Source: PS3.3 C.7.6.3.1.5, C.7.6.3.1.6, C.7.9.
    """
    channels = [_palette(ds, channel)(stored) for channel in ("Red", "Green", "Blue")]
    rgb = np.stack(channels, axis=-1)
    # The high byte of 16-bit entries, unless their writer put eight bits into the low one.
    deep = rgb.max() > 0xFF
    return (rgb >> 8 if deep else rgb).astype(np.uint8)


def _palette(ds: Dataset, channel: str) -> LookupTable:
    # The first value that is mapped and the number of entries are the same for all three.
    descriptor = value_of(ds, "RedPaletteColorLookupTableDescriptor")
    little_endian = is_little_endian(ds)
    data = value_of(ds, f"{channel}PaletteColorLookupTableData")
    if data is None:
        segments = value_of(ds, f"Segmented{channel}PaletteColorLookupTableData")
        if descriptor is None or segments is None:
            raise DicomError("PALETTE COLOR without a palette")
        data = expand_segments(descriptor, segments, little_endian=little_endian)
    return read_table(descriptor, data, signed_input=False, little_endian=little_endian)
