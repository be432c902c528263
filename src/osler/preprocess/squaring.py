"""An image of any shape to the square that a model sees.

Shapes: H height, W width, S side of the square.
"""

from typing import Literal, get_args

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from PIL.Image import Resampling

from osler.errors import PromptError, UnsupportedError

Squaring = Literal["pad", "stretch"]
Display = NDArray[np.uint8]

# The most that DICOM's 16-bit Rows and Columns can say. Padding needs this times S in memory, so a
# file that claims an image of 1 x 100,000,000 pixels must not get through.
MAX_SIDE_PX = 65_535
_ROWS_AT_ONCE = 1024


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
    if is_grey(display_HW3):
        grey_SS = _squared(display_HW3[:, :, 0], squaring, side_px, resample)
        return np.broadcast_to(grey_SS[:, :, np.newaxis], (side_px, side_px, 3))
    return _squared(display_HW3, squaring, side_px, resample)


def is_grey(display_HW3: Display) -> bool:
    """Whether one channel stands for all three, without being there three times.

    >>> is_grey(np.broadcast_to(np.zeros((5, 4, 1), np.uint8), (5, 4, 3)))
    True
    """
    return display_HW3.strides[2] == 0


def _squared(levels: Display, squaring: Squaring, side_px: int, resample: Resampling) -> Display:
    """As `square`, of (H, W, 3) or (H, W)."""
    height, width = levels.shape[:2]
    if squaring == "stretch" or height == width:
        return _resized(levels, side_px, side_px, resample)
    # Pillow resizes along the rows first and rounds before it goes down the columns. Padding each
    # direction just before it is resized therefore gives, bit for bit, the resized padded square,
    # without that square: a 2,000 x 20,000 film would need 1.2 GB for it.
    longest = max(height, width)
    left, top = (longest - width) // 2, (longest - height) // 2
    columns = [(0, 0), (left, longest - width - left), (0, 0)][: levels.ndim]
    narrow = np.zeros((longest, side_px, *levels.shape[2:]), dtype=np.uint8)
    for start in range(0, height, _ROWS_AT_ONCE):
        rows = np.pad(levels[start : start + _ROWS_AT_ONCE], columns)
        narrow[top + start : top + start + len(rows)] = _resized(rows, len(rows), side_px, resample)
    return _resized(narrow, side_px, side_px, resample)


def _resized(levels: Display, height: int, width: int, resample: Resampling) -> Display:
    picture = PIL.Image.fromarray(np.ascontiguousarray(levels)).resize((width, height), resample)
    if levels.ndim == 2:
        return np.asarray(picture)
    # Pillow gives away its channels one by one sooner than side by side, and so they are wanted.
    return np.stack([np.asarray(band) for band in picture.split()]).transpose(1, 2, 0)
