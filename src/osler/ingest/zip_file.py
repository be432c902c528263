"""What a zip file holds, and a member inflated, within bounds; runs in the decoding worker.

The reading process never unpacks to disk: it learns where each member's bytes stand, and hands
those to a worker.
"""

import struct
import zipfile
import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import PurePosixPath

from osler.errors import UnreadableFileError, UnsupportedError
from osler.ingest.limits import MAX_FILE_BYTES, MAX_FILES, MAX_UNPACKED_BYTES

_LOCAL_HEADER = struct.Struct("<4s22xHH")
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 1


@dataclass(frozen=True, kw_only=True)
class ZipMember:
    """Where one member's bytes stand.

    Attributes:
        name: its path in the zip.
        offset: of its bytes in the file.
        size_bytes: as they stand there.
        inflated_bytes: what they become; None where they are stored as they are.
    """

    name: str
    offset: int
    size_bytes: int
    inflated_bytes: int | None


def is_zip(data: bytes) -> bool:
    """Whether bytes begin like a zip file with members.

    >>> is_zip(b"PK\\x03\\x04...")
    True
    """
    return data.startswith(b"PK\3\4")


def list_members(data: bytes, source: str) -> list[ZipMember]:
    """The members of a zip file in the order of their names, folders left out.

    Raises:
        UnreadableFileError: damaged, or a name that leads out of the zip.
        UnsupportedError: encrypted, packed by another method, or unpacking to more than is read.

    Source: APPNOTE.TXT sections 4.3 and 4.4.
    """
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            entries = [one for one in archive.infolist() if not one.filename.endswith("/")]
        if len(entries) > MAX_FILES:
            raise UnsupportedError(f"{source}: {len(entries):,} files are more than {MAX_FILES:,}")
        if sum(entry.file_size for entry in entries) > MAX_UNPACKED_BYTES:
            raise UnsupportedError(
                f"{source}: unpacks to more than the {MAX_UNPACKED_BYTES:,} bytes that are read"
            )
        members = [_member(data, entry, source) for entry in entries]
    except (zipfile.BadZipFile, struct.error, ValueError, EOFError, NotImplementedError):
        raise UnreadableFileError(f"{source}: the zip file is damaged or truncated") from None
    _check_apart(members, source)
    return sorted(members, key=lambda member: member.name)


def _member(data: bytes, entry: zipfile.ZipInfo, source: str) -> ZipMember:
    path = PurePosixPath(entry.filename.replace("\\", "/"))
    if not path.parts:
        raise zipfile.BadZipFile
    if path.is_absolute() or ".." in path.parts or path.parts[0].endswith(":"):
        raise UnreadableFileError(f"{source}: the zip file has a member that leads out of it")
    if entry.flag_bits & _ENCRYPTED:
        raise UnsupportedError(f"{source}: the zip file is encrypted")
    if entry.compress_type not in _METHODS:
        raise UnsupportedError(f"{source}: the zip file is packed by a method that is not read")
    signature, name_bytes, extra_bytes = _LOCAL_HEADER.unpack_from(data, entry.header_offset)
    offset = entry.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes
    if signature != b"PK\3\4" or offset + entry.compress_size > len(data):
        raise zipfile.BadZipFile
    deflated = entry.compress_type == zipfile.ZIP_DEFLATED
    if not deflated and entry.compress_size != entry.file_size:
        raise zipfile.BadZipFile
    return ZipMember(
        name=str(path),
        offset=offset,
        size_bytes=entry.compress_size,
        inflated_bytes=entry.file_size if deflated else None,
    )


def _check_apart(members: list[ZipMember], source: str) -> None:
    """Refuse members that share bytes, by which a small file becomes any number of large ones."""
    end = 0
    for member in sorted(members, key=lambda member: member.offset):
        if member.offset < end:
            raise UnreadableFileError(f"{source}: the zip file's members overlap")
        end = member.offset + member.size_bytes


def inflate(deflated: bytes, inflated_bytes: int, source: str, *, whole: bool) -> bytes:
    """Undo a member's compression.

    Args:
        deflated: the member's bytes, or the first of them.
        inflated_bytes: how many they are said to become.
        source: for messages.
        whole: False where `deflated` is only the beginning.

    Raises:
        UnsupportedError: more than is read.
        UnreadableFileError: damaged, or another length than is said.
    """
    if inflated_bytes > MAX_FILE_BYTES:
        raise UnsupportedError(
            f"{source}: {inflated_bytes:,} bytes are more than the {MAX_FILE_BYTES:,} that are read"
        )
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        data = inflater.decompress(deflated, inflated_bytes + 1)
    except zlib.error:
        raise UnreadableFileError(f"{source}: damaged in its zip file") from None
    if len(data) > inflated_bytes or (whole and len(data) != inflated_bytes):
        raise UnreadableFileError(f"{source}: another length than its zip file says")
    return data
