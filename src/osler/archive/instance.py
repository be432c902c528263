"""One instance: who it is, and whether its file is whole. Pixels and names are never read."""

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from pydicom.config import IGNORE
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from osler.archive.elements import Element, MalformedError, elements
from osler.errors import DicomError, InputError, UnreadableFileError

_PREAMBLE_BYTES = 132
_TRANSFER_SYNTAX_UID = 0x00020010
_SOP_CLASS_UID, _SOP_INSTANCE_UID = 0x00080016, 0x00080018
_STUDY_INSTANCE_UID, _SERIES_INSTANCE_UID = 0x0020000D, 0x0020000E
# Of a deflated data set, to find its UIDs in.
_MOST_HEAD_BYTES = 4 << 20
_BLOCK_BYTES = 1 << 20
_LONGEST_UID = 64
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")


@dataclass(frozen=True, kw_only=True, order=True)
class Instance:
    """What identifies an instance, and says of what kind it is.

    Attributes:
        sop_class_uid: "" where an archive's list does not tell.
    """

    study_uid: str
    series_uid: str
    sop_uid: str
    sop_class_uid: str = ""

    def __post_init__(self) -> None:
        """Refuse what is no UID: they become names of files."""
        for uid in (self.study_uid, self.series_uid, self.sop_uid):
            if not is_uid(uid):
                raise DicomError("an instance whose UIDs are missing or malformed")

    def is_same(self, other: "Instance") -> bool:
        """Whether two lists mean one instance."""
        mine = (self.study_uid, self.series_uid, self.sop_uid)
        return mine == (other.study_uid, other.series_uid, other.sop_uid)


@dataclass(frozen=True, kw_only=True)
class InstanceFile:
    """An instance in a file with preamble and file meta information.

    Attributes:
        size_bytes: of the whole file.
        data_set_offset_bytes: where the data set begins.
    """

    path: Path
    instance: Instance
    transfer_syntax: str
    size_bytes: int
    data_set_offset_bytes: int


def is_uid(text: str) -> bool:
    """Whether a text is a UID, and so harmless in a path (PS3.5 section 9.1)."""
    return len(text) <= _LONGEST_UID and _UID.fullmatch(text) is not None


def read_instance(path: Path) -> InstanceFile:
    """Read who a file is, from its beginning.

    Raises:
        UnreadableFileError: not a DICOM file (PS3.10).
        DicomError: malformed, or without the UIDs that every instance has.
    """
    with path.open("rb") as file:
        try:
            syntax, offset = _file_meta(file, path)
            found = _uids(file, syntax, offset)
            instance = Instance(
                study_uid=found.get(_STUDY_INSTANCE_UID, ""),
                series_uid=found.get(_SERIES_INSTANCE_UID, ""),
                sop_uid=found.get(_SOP_INSTANCE_UID, ""),
                sop_class_uid=found.get(_SOP_CLASS_UID, ""),
            )
        except DicomError as error:
            raise DicomError(f"{path}: {error}") from None
        except (MalformedError, zlib.error):
            raise DicomError(f"{path}: the DICOM structure is broken or truncated") from None
        return InstanceFile(
            path=path,
            instance=instance,
            transfer_syntax=str(syntax),
            size_bytes=path.stat().st_size,
            data_set_offset_bytes=offset,
        )


def is_whole(path: Path) -> bool:
    """Whether a file's data set goes on to the file's last byte, and ends there."""
    try:
        with path.open("rb") as file:
            syntax, offset = _file_meta(file, path)
            if syntax == DeflatedExplicitVRLittleEndian:
                file.seek(offset)
                return _is_whole_deflated(file)
            return sum(1 for _ in _elements(file, syntax, offset)) > 0
    except (InputError, MalformedError, zlib.error):
        return False


def data_set_blocks(file: InstanceFile) -> Iterator[bytes]:
    """The bytes of the data set alone."""
    with file.path.open("rb") as opened:
        opened.seek(file.data_set_offset_bytes)
        while block := opened.read(_BLOCK_BYTES):
            yield block


def _file_meta(file: BinaryIO, path: Path) -> tuple[UID, int]:
    """The transfer syntax, and where the data set begins (PS3.10 section 7.1)."""
    if file.read(_PREAMBLE_BYTES)[128:] != b"DICM":
        raise UnreadableFileError(f"{path}: not a DICOM file")
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
        if element.length <= _LONGEST_UID:
            found[element.tag] = _text(file, element)
    return found


def _text(file: BinaryIO, element: Element) -> str:
    file.seek(element.value)
    return file.read(min(element.length, _LONGEST_UID)).decode("ascii", "replace").rstrip("\0 ")


def _is_whole_deflated(file: BinaryIO) -> bool:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    while not inflater.eof:
        block = inflater.unconsumed_tail or file.read(_BLOCK_BYTES)
        if not block:
            return False
        inflater.decompress(block, _BLOCK_BYTES)
    return True
