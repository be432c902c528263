"""The room's door: one file or one file's bytes to an `Image`."""

import os
from pathlib import Path

from osler.errors import UnsupportedError
from osler.ingest.file_part import FilePart, check_file_size, printable
from osler.ingest.image import Image
from osler.ingest.slide.recognise import is_mrxs
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
    part = FilePart(Path(path), printable(os.fspath(path)))
    return read_image_bytes(part.read(), part.path.name)


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
    source = printable(source)
    if is_mrxs(source):  # by itself it is a picture of the whole glass, with its label
        raise UnsupportedError(f"{source}: a whole slide, which is not one image")
    check_file_size(len(data), source)
    return decoding_workers.decode(data, source)
