"""The room's door: one file or one file's bytes to an `Image`."""

import os
import stat
from pathlib import Path

from osler.errors import UnreadableFileError, UnsupportedError
from osler.ingest.image import Image
from osler.ingest.limits import MAX_FILE_BYTES
from osler.ingest.worker_pool import decoding_workers


def read_image(path: str | os.PathLike[str]) -> Image:
    """Read a picture (PNG, JPEG, WebP, TIFF) or a single-frame DICOM object, by its content.

    Args:
        path: a file; its name and extension do not matter.

    Returns:
        The pixels before any window or model is chosen, and what is known of them.

    Raises:
        UnreadableFileError: not there, empty, a folder, not permitted, damaged, another format.
        DicomError: a DICOM object that is malformed or has no pixels.
        UnsupportedError: several frames, too many pixels, a transfer syntax that is not decoded.
    """
    name = _printable(os.fspath(path))
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise UnreadableFileError(f"{name}: a folder, not a file")
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableFileError(f"{name}: not a regular file")
        _check_file_size(status.st_size, name)
        with open(path, "rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise UnreadableFileError(f"{name}: no such file") from None
    except PermissionError:
        raise UnreadableFileError(f"{name}: no permission to read it") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        reason = error.strerror if isinstance(error, OSError) else "not a file name"
        raise UnreadableFileError(f"{name}: cannot be read ({reason})") from None
    return read_image_bytes(data, Path(path).name)


def read_image_bytes(data: bytes, source: str) -> Image:
    """Read a picture or a DICOM object that is already in memory.

    Args:
        data: a whole file.
        source: the file's name, for messages and for the record.

    Returns:
        As `read_image`.

    Raises:
        As `read_image`.
    """
    source = _printable(source)
    _check_file_size(len(data), source)
    return decoding_workers.decode(data, source)


def _check_file_size(size_bytes: int, name: str) -> None:
    if size_bytes == 0:
        raise UnreadableFileError(f"{name}: the file is empty")
    if size_bytes > MAX_FILE_BYTES:
        raise UnsupportedError(
            f"{name}: {size_bytes:,} bytes are more than the {MAX_FILE_BYTES:,} that are read"
        )


def _printable(name: str) -> str:
    """A file's name on one line, whatever characters it holds."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)
