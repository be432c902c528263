"""From what was measured to what is shown: modality values to 8-bit RGB.

Shapes: H height, W width.
"""

import numpy as np
from numpy.typing import NDArray

from osler.ingest.image import Image, Voi
from osler.native.library import library
from osler.native.pixels import levels_between
from osler.preprocess.windows import ct_windows_hu

Values = NDArray[np.float32]
Shown = NDArray[np.uint8]

# Rescaled over their full range even where the object brings a window: as MedGemma was trained.
_FULL_RANGE_MODALITIES = ("CR", "DX", "RG", "MR")


def render(image: Image, *, medgemma_version: str) -> Shown:
    """Choose a model's view of an image.

    CT becomes colour by the version's three windows; radiographs and MR are rescaled from their
    smallest to their largest value, and the slices of a volume over the range that is chosen for
    all of it; other grey images follow the window or lookup table that they bring, and have their
    full range where they bring none. MONOCHROME1 is then inverted, except for CT, whose Hounsfield
    units mean the same either way. RGB is left as it is.

    Args:
        image: what a reader gave.
        medgemma_version: "1" or "1.5".

    Returns:
        uint8 (H, W, 3); of grey one channel that is seen three times, and not to be written to.

    Raises:
        PromptError: an unknown version.

    Source: MedGemma technical reports, as in `windows.py`; DICOM PS3.3 C.7.6.3.1.2 and C.11.2.
    """
    windows_hu = ct_windows_hu(medgemma_version)
    if image.space == "display":
        return image.values.astype(np.uint8, copy=False)
    values_HW = image.values.astype(np.float32, copy=False)
    if image.modality == "CT":
        shown_3HW = np.empty((3, *values_HW.shape), np.uint8)
        for (low, high), out_HW in zip(windows_hu, shown_3HW, strict=True):
            _between(values_HW, low, high, out_HW)
        return shown_3HW.transpose(1, 2, 0)
    grey_HW = _grey(values_HW, image)
    return np.broadcast_to(grey_HW[:, :, np.newaxis], (*grey_HW.shape, 3))


def _grey(values_HW: Values, image: Image) -> Shown:
    if image.shown_range is None:
        if image.modality not in _FULL_RANGE_MODALITIES and image.voi is not None:
            unit_HW = _as_asked(values_HW, image.voi)
            if unit_HW is not None:
                return _levels(1 - unit_HW if image.monochrome1 else unit_HW)
        low, high = float(values_HW.min()), float(values_HW.max())
    else:
        low, high = image.shown_range
    grey_HW = np.empty(values_HW.shape, np.uint8)
    _between(values_HW, low, high, grey_HW, inverted=image.monochrome1)
    return grey_HW


def _between(
    values_HW: Values, low: float, high: float, out_HW: Shown, *, inverted: bool = False
) -> None:
    native = library()
    if native is not None and low < high:
        levels_between(native, values_HW, low, high, out_HW, inverted=inverted)
        return
    unit_HW = _ramp(values_HW, low, high)
    out_HW[:] = _levels(1 - unit_HW if inverted else unit_HW)


def _as_asked(values_HW: Values, voi: Voi) -> Values | None:
    """By the object's own table or window, 0 to 1; None where it has none that shows anything."""
    if voi.lut is not None and len(voi.lut):
        return _looked_up(values_HW, voi.lut, voi)
    for center, width in zip(voi.window_centers, voi.window_widths, strict=False):
        # PS3.3 C.11.2.1.2: at least 1, or above 0 where exact; others show nothing. Of several
        # windows the first is the one to begin with.
        if width >= 1 or (width > 0 and voi.function != "LINEAR"):
            return _windowed(values_HW, center, width, voi.function)
    return None


def _ramp(values_HW: Values, low: float, high: float) -> Values:
    """0 up to `low`, 1 from `high` on, a line between; a range without extent is black."""
    if high <= low:
        return np.zeros_like(values_HW)
    ramp_HW: Values = (np.clip(values_HW, low, high) - np.float32(low)) / np.float32(high - low)
    return ramp_HW


def _windowed(values_HW: Values, center: float, width: float, function: str) -> Values:
    """A window of PS3.3 C.11.2.1.2 or C.11.2.1.3, 0 to 1."""
    if function == "SIGMOID":
        # Beyond +-80 nothing changes in 8 bits, and exp stays finite.
        exponent_HW = np.clip(-4 * (values_HW - center) / width, -80, 80)
        sigmoid_HW: Values = (1 / (1 + np.exp(exponent_HW))).astype(np.float32)
        return sigmoid_HW
    if function == "LINEAR_EXACT":
        return _ramp(values_HW, center - width / 2, center + width / 2)
    low = center - 0.5 - (width - 1) / 2
    if width == 1:  # a threshold: the line between has no extent
        return (values_HW > low).astype(np.float32)
    return _ramp(values_HW, low, low + width - 1)


def _looked_up(values_HW: Values, lut: NDArray[np.int64], voi: Voi) -> Values:
    """PS3.3 C.11.2.1.1: values before the first entry take it, those behind the last take that."""
    index_HW = np.clip(np.rint(values_HW) - voi.lut_first, 0, len(lut) - 1).astype(np.int64)
    unit_HW: Values = (lut[index_HW] / (2**voi.lut_bits - 1)).astype(np.float32)
    return np.clip(unit_HW, 0, 1)


def _levels(unit_HW: Values) -> Shown:
    levels_HW: Shown = np.rint(unit_HW * 255).astype(np.uint8)
    return levels_HW
