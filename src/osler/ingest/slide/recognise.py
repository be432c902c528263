"""Whether a file may be a whole slide, by its name and its first bytes."""

from pathlib import Path

from osler.ingest.decode import is_dicom

# VL Whole Slide Microscopy Image Storage, which stands in the file meta information (PS3.10 7.1).
_WHOLE_SLIDE = b"1.2.840.10008.5.1.4.1.1.77.1.6"
_META_BYTES = 4096
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def may_be_slide(name: str, head: bytes) -> bool:
    """Whether a closer look is worth it.

    >>> may_be_slide("a.svs", b"II*\\0...")
    True
    >>> may_be_slide("a.dcm", bytes(128) + b"DICM...")
    False
    """
    if is_mrxs(name) or head.startswith(_TIFF_STARTS):
        return True
    return is_dicom(head) and _WHOLE_SLIDE in head[:_META_BYTES]


def is_mrxs(name: str) -> bool:
    """Whether a name is that of a MIRAX slide.

    Such a file is a small JPEG of the whole glass with its label, and the slide is in the folder
    beside it.
    """
    return Path(name).suffix.lower() == ".mrxs"
