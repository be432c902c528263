"""Which files are records: images and records of a patient often lie in one folder."""

import os
from pathlib import Path

from osler.errors import InputError
from osler.ingest.fhir.files import ENDINGS
from osler.ingest.file_part import FilePart, printable

_HEAD_BYTES = 1 << 16
_BOM = b"\xef\xbb\xbf"
# FHIR in JSON, C-CDA, FHIR in XML. Other JSON files lie beside images, as those of BIDS do.
_MARKS = (b'"resourceType"', b"urn:hl7-org:v3", b"http://hl7.org/fhir")


def is_meant_as_record(path: str | os.PathLike[str]) -> bool:
    """Whether a file is JSON or XML by its first letter, so that its reader should judge it.

    Raises:
        InputError: it cannot be read.
    """
    return _is_packed(path) or _text(_head(path)).startswith((b"{", b"<"))


def is_record(path: str | os.PathLike[str]) -> bool:
    """Whether a file that nobody named is FHIR or C-CDA, by its ending and its beginning."""
    if not Path(path).name.removesuffix(".gz").endswith(ENDINGS):
        return False
    if _is_packed(path):
        return True
    try:
        head = _head(path)
    except InputError:
        return False  # whoever reads the images says so
    return _text(head).startswith((b"{", b"<")) and any(mark in head for mark in _MARKS)


def _is_packed(path: str | os.PathLike[str]) -> bool:
    """By its name, as nothing is unpacked here; a volume's ends in ".nii.gz"."""
    return Path(path).name.endswith(tuple(f"{ending}.gz" for ending in ENDINGS))


def _head(path: str | os.PathLike[str]) -> bytes:
    return FilePart(Path(path), printable(os.fspath(path))).read(_HEAD_BYTES)


def _text(head: bytes) -> bytes:
    return head.removeprefix(_BOM).lstrip()
