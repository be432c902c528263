"""Images to what a vision tower takes, bit for bit as numpy and Pillow make it, and sooner.

Shapes: H height, W width, S side of a square, T pixels that make one.
"""

import ctypes
import functools
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from osler.native.library import Library

Filter = Literal["bilinear", "bicubic"]
Levels = NDArray[np.uint8]
_WEIGHT_BITS = 22  # as in csrc/pixels.c


class _Channel(ctypes.Structure):
    """`osl_channel` of csrc/pixels.c."""

    _fields_ = (
        ("levels", ctypes.c_void_p),
        ("height", ctypes.c_int32),
        ("width", ctypes.c_int32),
        ("row_step", ctypes.c_int64),
        ("column_step", ctypes.c_int64),
    )


class _Weights(ctypes.Structure):
    """`osl_weights` of csrc/pixels.c; keeps the arrays that it points to."""

    _fields_ = (
        ("side", ctypes.c_int32),
        ("taps", ctypes.c_int32),
        ("first", ctypes.c_void_p),
        ("weights", ctypes.c_void_p),
    )
    arrays: tuple[NDArray[np.int32], NDArray[np.int32]]


class _Calls:
    """The library's calls."""

    def __init__(self, library: Library) -> None:
        address, real = ctypes.c_void_p, ctypes.c_float
        small, large = ctypes.c_int32, ctypes.c_int64
        self.levels: Callable[..., None] = library.function(
            "osl_levels", None, address, large, real, real, real, small, address
        )
        self.square: Callable[..., int] = library.function(
            "osl_square", small, address, small, small, address, address
        )
        self.looked_up: Callable[..., None] = library.function(
            "osl_looked_up", None, address, large, large, address, address
        )


_calls = functools.cache(_Calls)


def levels_between(
    library: Library,
    values: NDArray[np.float32],
    low: float,
    high: float,
    out: Levels,
    *,
    inverted: bool,
) -> None:
    """Write grey levels on a ramp: 0 up to `low`, 255 from `high` on.

    Args:
        library: the kernels.
        values: float32 of any shape, finite.
        low: where the ramp begins.
        high: where it ends, above `low`.
        out: uint8 of the same shape, contiguous.
        inverted: 255 up to `low`, and 0 from `high` on.
    """
    values = np.ascontiguousarray(values)
    _calls(library).levels(
        values.ctypes.data, values.size, low, high, high - low, inverted, out.ctypes.data
    )


def square_into(library: Library, levels_HW: Levels, way: Filter, out_SS: Levels) -> None:
    """Pad one channel with black to a square, half on each side and an odd pixel behind; resize it.

    Args:
        library: the kernels.
        levels_HW: uint8; its rows and columns may be any steps apart.
        way: Pillow's filter.
        out_SS: uint8, contiguous; it gets what Pillow makes of the padded square.

    Raises:
        MemoryError: there is none for H rows of S levels.
    """
    height, width = levels_HW.shape
    longest = max(height, width)
    is_done = _calls(library).square(
        ctypes.byref(_Channel(levels_HW.ctypes.data, height, width, *levels_HW.strides)),
        (longest - height) // 2,
        (longest - width) // 2,
        ctypes.byref(_weights(longest, len(out_SS), way)),
        out_SS.ctypes.data,
    )
    if not is_done:
        raise MemoryError(f"no memory to resize {width} x {height} pixels")


def looked_up(
    library: Library, levels_SS: Levels, table: NDArray[np.float32], out_SS: NDArray[np.float32]
) -> None:
    """Write what a table has for each level.

    Args:
        library: the kernels.
        levels_SS: uint8; its rows follow one another without a gap, its columns may be apart.
        table: float32 (256,).
        out_SS: float32, contiguous.
    """
    _calls(library).looked_up(
        levels_SS.ctypes.data,
        levels_SS.size,
        levels_SS.strides[1],
        table.ctypes.data,
        out_SS.ctypes.data,
    )


@functools.lru_cache(maxsize=64)
def _weights(size_px: int, side_px: int, way: Filter) -> _Weights:
    """Which pixels of a line make each of the square's, and how much of each.

    Source: Pillow, src/libImaging/Resample.c, precompute_coeffs and normalize_coeffs_8bpc.
    """
    scale = size_px / side_px
    stretch = max(scale, 1.0)
    reach = _REACH[way] * stretch
    centers_S = (np.arange(side_px) + 0.5) * scale
    first_S = np.maximum((centers_S - reach + 0.5).astype(np.int32), 0)
    end_S = np.minimum((centers_S + reach + 0.5).astype(np.int32), size_px)
    places_ST = first_S[:, np.newaxis] + np.arange((end_S - first_S).max())
    away_ST = (places_ST - centers_S[:, np.newaxis] + 0.5) * (1.0 / stretch)
    weights_ST = np.where(places_ST < end_S[:, np.newaxis], _FILTERS[way](np.abs(away_ST)), 0.0)
    total_S = np.zeros(side_px)
    for weights_S in weights_ST.T:  # one after another: sums in another order round otherwise
        total_S += weights_S
    weights_ST /= total_S[:, np.newaxis]
    rounded_ST = weights_ST * (1 << _WEIGHT_BITS) + np.copysign(0.5, weights_ST)
    arrays = first_S, np.ascontiguousarray(rounded_ST.astype(np.int32))
    found = _Weights(side_px, arrays[1].shape[1], *(array.ctypes.data for array in arrays))
    found.arrays = arrays
    return found


def _triangle(away: NDArray[np.float64]) -> NDArray[Any]:
    return np.where(away < 1, 1 - away, 0.0)


def _cubic(away: NDArray[np.float64]) -> NDArray[Any]:
    near = (1.5 * away - 2.5) * away * away + 1
    far = (((away - 5) * away + 8) * away - 4) * -0.5
    return np.where(away < 1, near, np.where(away < 2, far, 0.0))


_FILTERS = {"bilinear": _triangle, "bicubic": _cubic}
_REACH = {"bilinear": 1.0, "bicubic": 2.0}  # in pixels, where nothing shrinks
