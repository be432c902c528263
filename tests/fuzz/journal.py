"""How far a fuzzing process has come, in memory that outlasts it.

A codec written in C++ may end its process in a way that libFuzzer says nothing of.
"""

import mmap
import struct
from pathlib import Path

_HEAD = struct.Struct("<QQ")


class Journal:
    """The number of files that were begun, and the last of them.

    Args:
        path: of a file to keep it in.
        most_bytes: the longest file.
    """

    def __init__(self, path: Path, most_bytes: int) -> None:
        path.write_bytes(bytes(_HEAD.size + most_bytes))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self._begun = 0

    def begin(self, data: bytes) -> None:
        """Note a file that is about to be read."""
        self._begun += 1
        self._map[: _HEAD.size] = _HEAD.pack(self._begun, len(data))
        self._map[_HEAD.size : _HEAD.size + len(data)] = data


def read_journal(path: Path) -> tuple[int, bytes]:
    """How many files were begun, and the last of them."""
    noted = path.read_bytes()
    begun, size_bytes = _HEAD.unpack_from(noted)
    return begun, noted[_HEAD.size : _HEAD.size + size_bytes]
