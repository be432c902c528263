"""A checksum that is as fast as memory.

Eight 64-bit lanes, each with a sum of its words and a sum of those sums: the first finds any
changed word, the second any change of order. It keeps accidents out, not forgers.

Source: J. Fletcher, An arithmetic checksum for serial transmissions (1982), with 64-bit words and
without a modulus, as file systems use it.
"""

import ctypes
import hashlib

import numpy as np
from numpy.typing import NDArray

from osler.native.library import library

_LANES = 8
_LINE_BYTES = 8 * _LANES
_CHUNK_LINES = 4096


class Checksum:
    """The checksum of bytes that come in pieces; all but the last in multiples of 64 bytes."""

    def __init__(self) -> None:
        self._sums = np.zeros((2, _LANES), np.uint64)
        self._bytes = 0

    def update(self, data: NDArray[np.uint8]) -> "Checksum":
        """Continue with some bytes.

        Args:
            data: uint8 in one dimension, contiguous.

        Returns:
            Itself.
        """
        if self._bytes % _LINE_BYTES:
            raise ValueError("only the last piece may be of another length than whole lines")
        self._bytes += len(data)
        whole = len(data) // _LINE_BYTES * _LINE_BYTES
        self._add(data[:whole])
        if whole < len(data):
            last = np.zeros(_LINE_BYTES, np.uint8)
            last[: len(data) - whole] = data[whole:]
            self._add(last)
        return self

    def hexdigest(self) -> str:
        """The sums and the length, folded into 32 hexadecimal digits."""
        return hashlib.sha256(
            self._sums.astype("<u8").tobytes() + self._bytes.to_bytes(8, "little")
        ).hexdigest()[:32]

    def _add(self, lines: NDArray[np.uint8]) -> None:
        native = library()
        if native is None:
            self._add_in_numpy(lines)
            return
        address = ctypes.c_void_p
        add = native.function("osl_checksum", None, address, address, ctypes.c_int64)
        add(self._sums.ctypes.data, lines.ctypes.data, len(lines) // _LINE_BYTES)

    def _add_in_numpy(self, lines: NDArray[np.uint8]) -> None:
        words = lines.view("<u8").reshape(-1, _LANES)
        first, second = self._sums
        for start in range(0, len(words), _CHUNK_LINES):
            chunk = words[start : start + _CHUNK_LINES]
            count = np.uint64(len(chunk))
            # Each word is in all sums from its own on.
            weight = np.arange(len(chunk), 0, -1, dtype=np.uint64)
            second += count * first + (weight[:, np.newaxis] * chunk).sum(axis=0)
            first += chunk.sum(axis=0)
