"""From a file's bytes to an `Image`, by what the bytes are and not by what the file is called.

Called by the worker process; everybody else calls `osler.ingest.read_image`.
"""

import hashlib

from osler.errors import InputError, UnreadableFileError
from osler.ingest.image import Image

_PICTURE_STARTS = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",  # JPEG
    b"II*\0",  # TIFF, little endian
    b"MM\0*",  # TIFF, big endian
    b"II+\0",  # BigTIFF
    b"MM\0+",
)

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
    sha256 = hashlib.sha256(data).hexdigest()
    # Imports wait until they are needed: pydicom and its decoders take half a second.
    try:
        if is_dicom(data):
            from osler.ingest.dicom.reader import decode_dicom

            return decode_dicom(data, source=source, sha256=sha256)
        if is_picture(data):
            from osler.ingest.pictures import decode_picture

            return decode_picture(data, source=source, sha256=sha256)
        raise UnreadableFileError("neither DICOM nor a PNG, JPEG, WebP or TIFF picture")
    except InputError as error:
        raise type(error)(f"{source}: {error}") from None


def is_picture(data: bytes) -> bool:
    """Whether the bytes start like one of the picture formats that are read."""
    return data.startswith(_PICTURE_STARTS) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP")


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
