"""An image of any shape to the square that a model sees.

Shapes: H height, W width, S side of the square.
"""

from typing import Literal, get_args

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from PIL.Image import Resampling

from osler.errors import PromptError, UnsupportedError
from osler.native.library import library
from osler.native.pixels import Filter, square_into

Squaring = Literal["pad", "stretch"]
Display = NDArray[np.uint8]

# The most that DICOM's 16-bit Rows and Columns can say. Padding needs this times S in memory, so a
# file that claims an image of 1 x 100,000,000 pixels must not get through.
MAX_SIDE_PX = 65_535
_ROWS_AT_ONCE = 1024
_NATIVE_FILTERS: dict[Resampling, Filter] = {
    Resampling.BILINEAR: "bilinear",
    Resampling.BICUBIC: "bicubic",
}


def square(
    display_HW3: Display, *, squaring: Squaring, side_px: int, resample: Resampling
) -> Display:
    """Bring an image to S x S.

    Args:
        display_HW3: uint8.
        squaring: "pad" adds black (zeros) on both sides of the shorter direction, half each and an
            odd pixel behind, and then resizes: as MedGemma was trained and is served. "stretch"
            resizes alone, as the plain `transformers` processors do.
        side_px: S.
        resample: Pillow's filter; when shrinking it averages over all that goes into a pixel.

    Returns:
        uint8 (S, S, 3); of a grey image as `is_grey` knows it another such one.

    Raises:
        PromptError: another squaring.
        UnsupportedError: a side of more than `MAX_SIDE_PX`.

    Source: MedGemma technical report (arXiv 2507.05201), image preparation; the placement is that
        of the released serving code.
    """
    if squaring not in get_args(Squaring):
        raise PromptError(f"squaring is {squaring!r}; it must be 'pad' or 'stretch'")
    height, width = display_HW3.shape[:2]
    longest = max(height, width)
    if longest > MAX_SIDE_PX:
        raise UnsupportedError(f"an image of {width} x {height} pixels is too long and thin")
    # Channel by channel, as they are wanted; grey has one.
    distinct_HWC = display_HW3[:, :, :1] if is_grey(display_HW3) else display_HW3
    bands_CSS = np.empty((distinct_HWC.shape[2], side_px, side_px), np.uint8)
    for band_HW, out_SS in zip(distinct_HWC.transpose(2, 0, 1), bands_CSS, strict=True):
        _square_into(band_HW, squaring, resample, out_SS)
    return np.broadcast_to(bands_CSS.transpose(1, 2, 0), (side_px, side_px, 3))


def is_grey(display_HW3: Display) -> bool:
    """Whether one channel stands for all three, without being there three times.

    >>> is_grey(np.broadcast_to(np.zeros((5, 4, 1), np.uint8), (5, 4, 3)))
    True
    """
    return display_HW3.strides[2] == 0


def _square_into(
    levels_HW: Display, squaring: Squaring, resample: Resampling, out_SS: Display
) -> None:
    """As `square`, of one channel."""
    height, width = levels_HW.shape
    if squaring == "stretch" and height != width:
        out_SS[:] = _resized(levels_HW, len(out_SS), len(out_SS), resample)
        return
    native, way = library(), _NATIVE_FILTERS.get(resample)
    if native is not None and way is not None:
        square_into(native, levels_HW, way, out_SS)
        return
    # Pillow resizes a square along the rows first and rounds before it goes down the columns.
    # Padding each direction just before it is resized therefore gives, bit for bit, the resized
    # padded square, without that square: a 2,000 x 20,000 film would need 400 MB for it.
    longest, side_px = max(height, width), len(out_SS)
    left, top = (longest - width) // 2, (longest - height) // 2
    narrow = np.zeros((longest, side_px), dtype=np.uint8)
    for start in range(0, height, _ROWS_AT_ONCE):
        rows = np.pad(
            levels_HW[start : start + _ROWS_AT_ONCE], [(0, 0), (left, longest - width - left)]
        )
        narrow[top + start : top + start + len(rows)] = _resized(rows, len(rows), side_px, resample)
    out_SS[:] = _resized(narrow, side_px, side_px, resample)


def _resized(levels_HW: Display, height: int, width: int, resample: Resampling) -> Display:
    picture = PIL.Image.fromarray(np.ascontiguousarray(levels_HW))
    return np.asarray(picture.resize((width, height), resample))
