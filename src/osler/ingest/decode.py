"""From a file's bytes to images and facts, by what the bytes are and not by the file's name.

Called by the worker process; everybody else calls `osler.ingest.read_image` or
`osler.ingest.scan.scan`.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from osler.errors import InputError, UnreadableFileError
from osler.ingest.facts import FileFacts, FrameFacts
from osler.ingest.image import Image

_PICTURE_STARTS = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",  # JPEG
    b"II*\0",  # TIFF, little endian
    b"MM\0*",  # TIFF, big endian
    b"II+\0",  # BigTIFF
    b"MM\0+",
)
_GZIP = b"\x1f\x8b"

# A data set without the 132 bytes in front starts with its file meta group (0002) or with the
# first of the identifying group (0008), little or big endian (PS3.5 section 7.1).
_DATA_SET_STARTS = (b"\x02\0", b"\x08\0", b"\0\x08")


def decode(data: bytes, source: str) -> Image:
    """Decode one picture or single-frame DICOM object.

    Args:
        data: the whole file.
        source: the file's name, for messages and for the record.

    Raises:
        InputError: the class says what is wrong, the message names `source` and the reason.
    """
    with _named(source):
        if is_dicom(data):
            from osler.ingest.dicom.reader import decode_dicom

            return decode_dicom(data, source=source, sha256=_sha256(data))
        return _picture(data, source)


def decode_frames(data: bytes, source: str, frames: Sequence[int]) -> Iterator[Image]:
    """Decode some frames of a multi-frame DICOM object, slices of a NIfTI volume, or a picture.

    Args:
        data: the whole file.
        source: the file's name, for messages and for the record.
        frames: their numbers, from 0, in the order wanted; of a NIfTI file as `describe` lists
            them.

    Raises:
        InputError: as `decode`.
    """
    with _named(source):
        sha256 = _sha256(data)
        if is_dicom(data):
            from osler.ingest.dicom.reader import decode_dicom_frames

            yield from decode_dicom_frames(data, frames, source=source, sha256=sha256)
        elif is_nifti(data):
            from osler.ingest.nifti import decode_slices

            yield from decode_slices(data, frames, source=source, sha256=sha256)
        else:
            yield _picture(data, source)


def frame_ranges(data: bytes, source: str, frames: Sequence[int]) -> Iterator[tuple[float, float]]:
    """The smallest and largest value of some frames, each as (low, high).

    Raises:
        InputError: as `decode`.
    """
    for image in decode_frames(data, source, frames):
        yield float(image.values.min()), float(image.values.max())


def describe(data: bytes, source: str, *, whole: bool) -> FileFacts | None:
    """Say what a file holds, without decoding its pixels where that can be.

    Args:
        data: the whole file, or its beginning.
        source: the file's name, for messages.
        whole: False where `data` is only the beginning.

    Returns:
        None where the beginning does not say enough.

    Raises:
        InputError: as `decode`; a broken rest is found only when it is decoded.
    """
    with _named(source):
        if is_dicom(data):
            from osler.ingest.dicom.describe import describe_dicom

            return describe_dicom(data, whole=whole)
        if is_nifti(data):
            from osler.ingest.nifti import describe_nifti

            return describe_nifti(data) if whole else None
        if not is_picture(data):
            raise _unknown()
        if not whole:
            return None
        from osler.ingest.pictures import picture_size

        rows, columns = picture_size(data)
        return FileFacts(kind="picture", rows=rows, columns=columns, frames=(FrameFacts(),))


def is_picture(data: bytes) -> bool:
    """Whether the bytes start like one of the picture formats that are read."""
    return data.startswith(_PICTURE_STARTS) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP")


def is_nifti(data: bytes) -> bool:
    """Whether the bytes may be a NIfTI file in one piece; of a gzip file nothing else is known.

    >>> is_nifti(b"\\x1f\\x8b...")
    True
    """
    return data[344:347] == b"n+1" or data[4:7] == b"n+2" or data.startswith(_GZIP)


def is_dicom(data: bytes) -> bool:
    """Whether the bytes are a DICOM file (PS3.10 section 7.1), or a data set without its preamble.

    >>> is_dicom(bytes(128) + b"DICM")
    True
    >>> is_dicom(b"Dear colleague,")
    False
    """
    if data[128:132] == b"DICM":
        return True
    if not data.startswith(_DATA_SET_STARTS) or len(data) < 8:
        return False
    vr = data[4:6]
    if vr.isalpha() and vr.isupper():
        return True
    return int.from_bytes(data[4:8], "little") <= len(data)  # implicit VR: a length stands here


def _picture(data: bytes, source: str) -> Image:
    if not is_picture(data):
        raise _unknown()
    # Imports wait until they are needed: pydicom and its decoders take half a second.
    from osler.ingest.pictures import decode_picture

    return decode_picture(data, source=source, sha256=_sha256(data))


def _unknown() -> UnreadableFileError:
    return UnreadableFileError("neither DICOM nor a PNG, JPEG, WebP or TIFF picture")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@contextmanager
def _named(source: str) -> Iterator[None]:
    """Name the file in the errors of what is inside."""
    try:
        yield
    except InputError as error:
        raise type(error)(f"{source}: {error}") from None
