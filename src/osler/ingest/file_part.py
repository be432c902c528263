"""A file on disk, or the member of a zip on disk, without unpacking it."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from osler.errors import UnreadableFileError, UnsupportedError
from osler.ingest.limits import MAX_FILE_BYTES


@dataclass(frozen=True)
class FilePart:
    """Where the bytes of one file stand.

    Attributes:
        path: the file on disk.
        name: what to call it in messages, on one line.
        offset: where its bytes begin.
        size_bytes: how many they are; None for all of the file.
        inflated_bytes: how many they become; None where they are not deflated.
    """

    path: Path
    name: str
    offset: int = 0
    size_bytes: int | None = None
    inflated_bytes: int | None = None

    def read(self, most_bytes: int | None = None) -> bytes:
        """Its bytes, or the first of them, which may be those of a file too long to be read whole.

        Raises:
            UnreadableFileError: not there, a folder, not permitted, empty.
            UnsupportedError: all of it is too long.
        """
        try:
            with open(self.path, "rb", opener=_open_at_once) as file:
                status = os.fstat(file.fileno())
                if stat.S_ISDIR(status.st_mode):
                    raise UnreadableFileError(f"{self.name}: a folder, not a file")
                if not stat.S_ISREG(status.st_mode):
                    raise UnreadableFileError(f"{self.name}: not a regular file")
                size = status.st_size if self.size_bytes is None else self.size_bytes
                if most_bytes is None or size == 0:
                    self._check(size)
                file.seek(self.offset)
                return file.read(size if most_bytes is None else min(size, most_bytes))
        except FileNotFoundError:
            raise UnreadableFileError(f"{self.name}: no such file") from None
        except IsADirectoryError:
            raise UnreadableFileError(f"{self.name}: a folder, not a file") from None
        except PermissionError:
            raise UnreadableFileError(f"{self.name}: no permission to read it") from None
        except (OSError, ValueError) as error:  # ValueError: a null character in the name
            reason = error.strerror if isinstance(error, OSError) else "not a file name"
            raise UnreadableFileError(f"{self.name}: cannot be read ({reason})") from None

    def check_size(self) -> None:
        """Refuse a file that is too long to be read whole.

        Raises:
            UnsupportedError: it is.
        """
        self._check(self.path.stat().st_size if self.size_bytes is None else self.size_bytes)

    def _check(self, size_bytes: int) -> None:
        becomes = size_bytes if self.inflated_bytes is None else self.inflated_bytes
        check_file_size(becomes, self.name)


def _open_at_once(path: str, flags: int) -> int:
    """Open without waiting for whoever writes to a named pipe."""
    return os.open(path, flags | os.O_NONBLOCK)


def check_file_size(size_bytes: int, name: str) -> None:
    """Refuse a file that is empty or too long.

    Raises:
        UnreadableFileError: empty.
        UnsupportedError: more than `MAX_FILE_BYTES`.
    """
    if size_bytes == 0:
        raise UnreadableFileError(f"{name}: the file is empty")
    if size_bytes > MAX_FILE_BYTES:
        raise UnsupportedError(
            f"{name}: {size_bytes:,} bytes are more than the {MAX_FILE_BYTES:,} that are read"
        )


def printable(name: str) -> str:
    """A file's name on one line, whatever characters it holds."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)
