"""Memory that the kernels may be given."""

import numpy as np
from numpy.typing import NDArray

ALIGN_BYTES = 64  # a line of the cache, and the widest register


def aligned_bytes(size_bytes: int) -> NDArray[np.uint8]:
    """Memory that begins on a 64-byte boundary; what is in it is undefined.

    Args:
        size_bytes: how much.

    Returns:
        uint8 (size_bytes,).
    """
    room = np.empty(size_bytes + ALIGN_BYTES - 1, np.uint8)
    start = -room.ctypes.data % ALIGN_BYTES
    return room[start : start + size_bytes]


def is_aligned(array: NDArray[np.generic]) -> bool:
    """Whether an array is one contiguous piece that begins on a 64-byte boundary."""
    return array.flags.c_contiguous and array.ctypes.data % ALIGN_BYTES == 0
