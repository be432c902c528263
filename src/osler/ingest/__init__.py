"""Bytes to typed records: pictures and DICOM objects become one kind of `Image`.

Every byte of an image is hostile. Lengths are checked before anything is allocated, and all parsing
and decoding happens in a killable child process with bounded memory and time.
"""

from osler.ingest.image import Image, Voi
from osler.ingest.read import read_image, read_image_bytes

__all__ = ["Image", "Voi", "read_image", "read_image_bytes"]
