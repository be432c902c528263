"""The largest of many values, faster than a general library finds them.

Shapes: V values, K of them.
"""

import ctypes
import functools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from osler.native.library import Library


@functools.cache
def _call(library: Library) -> Callable[..., None]:
    address, number = ctypes.c_void_p, ctypes.c_int32
    return library.function("osl_top_k", None, address, number, number, address)


def top_k(library: Library, values_V: NDArray[np.float32], k: int) -> NDArray[np.int32]:
    """Find the largest.

    Args:
        library: the kernels.
        values_V: float32, contiguous, none of them a NaN.
        k: how many, 1 to V; meant for some hundreds at most.

    Returns:
        int32 (K,), their places, largest first, equal ones in their order.
    """
    places_K = np.empty(k, np.int32)
    _call(library)(values_V.ctypes.data, len(values_V), k, places_K.ctypes.data)
    return places_K
