"""Who a file is, and whether it is whole; runs in the child process.

Pixels and names are not read.
"""

import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from pydicom.config import IGNORE
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from osler.archive.elements import Element, MalformedError, elements
from osler.archive.instance import LONGEST_UID, Instance, InstanceFile
from osler.errors import DicomError, InputError, UnreadableFileError

_PREAMBLE_BYTES = 132
_TRANSFER_SYNTAX_UID = 0x00020010
_SOP_CLASS_UID, _SOP_INSTANCE_UID = 0x00080016, 0x00080018
_STUDY_INSTANCE_UID, _SERIES_INSTANCE_UID = 0x0020000D, 0x0020000E
# Of a deflated data set, to find its UIDs in.
_MOST_HEAD_BYTES = 4 << 20
_BLOCK_BYTES = 1 << 20


def parse_instance(path: Path, name: str) -> InstanceFile:
    """Read who a file is, from its beginning.

    Args:
        path: the file.
        name: what to call it in messages.

    Raises:
        UnreadableFileError: not a DICOM file (PS3.10).
        DicomError: malformed, or without the UIDs that every instance has.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        try:
            syntax, offset = _file_meta(file, name)
            found = _uids(file, syntax, offset)
            instance = Instance(
                study_uid=found.get(_STUDY_INSTANCE_UID, ""),
                series_uid=found.get(_SERIES_INSTANCE_UID, ""),
                sop_uid=found.get(_SOP_INSTANCE_UID, ""),
                sop_class_uid=found.get(_SOP_CLASS_UID, ""),
            )
        except DicomError as error:
            raise DicomError(f"{name}: {error}") from None
        except (MalformedError, zlib.error):
            raise DicomError(f"{name}: the DICOM structure is broken or truncated") from None
        return InstanceFile(
            path=path,
            instance=instance,
            transfer_syntax=str(syntax),
            size_bytes=path.stat().st_size,
            data_set_offset_bytes=offset,
        )


def goes_to_its_end(path: Path) -> bool:
    """Whether a file's data set goes on to the file's last byte, and ends there."""
    try:
        with path.open("rb") as file:
            syntax, offset = _file_meta(file, "")
            if syntax == DeflatedExplicitVRLittleEndian:
                file.seek(offset)
                return _is_whole_deflated(file)
            return sum(1 for _ in _elements(file, syntax, offset)) > 0
    except (InputError, MalformedError, zlib.error):
        return False


def _file_meta(file: BinaryIO, name: str) -> tuple[UID, int]:
    """The transfer syntax, and where the data set begins (PS3.10 section 7.1)."""
    if file.read(_PREAMBLE_BYTES)[128:] != b"DICM":
        raise UnreadableFileError(f"{name}: not a DICOM file")
    syntax = ""
    for element in elements(file, _PREAMBLE_BYTES, is_implicit=False, is_little_endian=True):
        if element.tag >> 16 != 2:
            known = UID(syntax, validation_mode=IGNORE)
            if not known.is_transfer_syntax:
                raise DicomError("no transfer syntax, or one that is not known")
            return known, element.start
        if element.tag == _TRANSFER_SYNTAX_UID:
            syntax = _text(file, element)
    raise MalformedError


def _elements(file: BinaryIO, syntax: UID, offset: int) -> Iterator[Element]:
    return elements(
        file,
        offset,
        is_implicit=syntax.is_implicit_VR,
        is_little_endian=syntax.is_little_endian,
    )


def _uids(file: BinaryIO, syntax: UID, offset: int) -> dict[int, str]:
    """The UIDs at the beginning of a data set."""
    if syntax == DeflatedExplicitVRLittleEndian:
        file.seek(offset)
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        file = BytesIO(inflater.decompress(file.read(_MOST_HEAD_BYTES), _MOST_HEAD_BYTES))
        offset = 0
    found = {}
    for element in _elements(file, syntax, offset):
        if element.tag > _SERIES_INSTANCE_UID:
            break
        if element.length <= LONGEST_UID:
            found[element.tag] = _text(file, element)
    return found


def _text(file: BinaryIO, element: Element) -> str:
    file.seek(element.value)
    return file.read(min(element.length, LONGEST_UID)).decode("ascii", "replace").rstrip("\0 ")


def _is_whole_deflated(file: BinaryIO) -> bool:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    while not inflater.eof:
        block = inflater.unconsumed_tail or file.read(_BLOCK_BYTES)
        if not block:
            return False
        inflater.decompress(block, _BLOCK_BYTES)
    return True
