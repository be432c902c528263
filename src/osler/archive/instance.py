"""One instance: who it is, and whether its file is whole. Pixels and names are never read."""

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from pydicom import Dataset
from pydicom.config import IGNORE
from pydicom.dataelem import RawDataElement
from pydicom.errors import BytesLengthException
from pydicom.filereader import data_element_generator, read_dataset
from pydicom.tag import BaseTag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from osler.errors import DicomError, InputError, UnreadableFileError

_PREAMBLE_BYTES = 132
_SERIES_INSTANCE_UID = 0x0020000E
# Before the series' UID stand names, dates and short texts.
_MOST_HEAD_BYTES = 1 << 20
_BLOCK_BYTES = 1 << 20
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_MALFORMED = (
    ArithmeticError,
    AttributeError,
    BytesLengthException,
    EOFError,
    KeyError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


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
    return len(text) <= 64 and _UID.fullmatch(text) is not None


def read_instance(path: Path) -> InstanceFile:
    """Read who a file is, from its beginning.

    Raises:
        UnreadableFileError: not a DICOM file (PS3.10).
        DicomError: malformed, or without the UIDs that every instance has.
    """
    with path.open("rb") as file:
        meta = _file_meta(file, path)
        offset = file.tell()
        try:
            syntax = _syntax(meta)
            head = _head(file, syntax)
            found = read_dataset(
                head, syntax.is_implicit_VR, syntax.is_little_endian, stop_when=_after_series
            )
            instance = Instance(
                study_uid=_uid(found, "StudyInstanceUID"),
                series_uid=_uid(found, "SeriesInstanceUID"),
                sop_uid=_uid(found, "SOPInstanceUID"),
                sop_class_uid=_uid(found, "SOPClassUID"),
            )
        except DicomError as error:
            raise DicomError(f"{path}: {error}") from None
        except _MALFORMED:
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
            meta = _file_meta(file, path)
            syntax = _syntax(meta)
            if syntax == DeflatedExplicitVRLittleEndian:
                return _is_whole_deflated(file)
            start = end = file.tell()
            # Values of more than a few bytes are passed over, not read.
            for element in data_element_generator(
                file, syntax.is_implicit_VR, syntax.is_little_endian, defer_size=64
            ):
                if isinstance(element, RawDataElement) and _is_cut(element):
                    return False
                end = file.tell()
            return start < end == path.stat().st_size
    except (InputError, *_MALFORMED):
        return False


def data_set_blocks(file: InstanceFile) -> Iterator[bytes]:
    """The bytes of the data set alone."""
    with file.path.open("rb") as opened:
        opened.seek(file.data_set_offset_bytes)
        while block := opened.read(_BLOCK_BYTES):
            yield block


def _file_meta(file: BinaryIO, path: Path) -> Dataset:
    if file.read(_PREAMBLE_BYTES)[128:] != b"DICM":
        raise UnreadableFileError(f"{path}: not a DICOM file")
    try:
        return read_dataset(file, False, True, stop_when=_after_file_meta)
    except _MALFORMED:
        raise DicomError(f"{path}: the file meta information is broken") from None


def _syntax(meta: Dataset) -> UID:
    return UID(_uid(meta, "TransferSyntaxUID"), validation_mode=IGNORE)


def _is_cut(element: RawDataElement) -> bool:
    return element.value is not None and len(element.value) != element.length


def _uid(ds: Dataset, keyword: str) -> str:
    """A UID as its bytes say; pydicom would warn of a wrong one, and quote it."""
    element = ds.get_item(keyword)
    value = element.value if isinstance(element, RawDataElement) else None
    return "" if value is None else value.decode("ascii", "replace").rstrip("\0 ")


def _after_file_meta(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return tag.group != 2


def _after_series(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return bool(tag > _SERIES_INSTANCE_UID)


def _head(file: BinaryIO, syntax: UID) -> BinaryIO:
    """The beginning of the data set, inflated; never more than `_MOST_HEAD_BYTES`."""
    head = file.read(_MOST_HEAD_BYTES)
    if syntax == DeflatedExplicitVRLittleEndian:
        head = zlib.decompressobj(-zlib.MAX_WBITS).decompress(head, _MOST_HEAD_BYTES)
    return BytesIO(head)


def _is_whole_deflated(file: BinaryIO) -> bool:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    while not inflater.eof:
        block = inflater.unconsumed_tail or file.read(_BLOCK_BYTES)
        if not block:
            return False
        inflater.decompress(block, _BLOCK_BYTES)
    return True
