"""Files of records to the JSON values in them, whatever they are packed in, a little at a time."""

import gzip
import io
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from osler.errors import UnreadableFileError, UnsupportedError
from osler.ingest.fhir.fields import MALFORMED, object_of
from osler.ingest.fhir.limits import MAX_DOCUMENT_BYTES, MAX_FILES
from osler.ingest.file_part import printable

ENDINGS = (".json", ".ndjson", ".jsonl", ".xml")
_GZIP, _ZIP = b"\x1f\x8b", b"PK"
_STEP_BYTES = 1 << 20
_BOM = b"\xef\xbb\xbf"
_ENCRYPTED = 1
_MOST_BLANK_LINES = 1_000_000
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_DAMAGED_ZIP = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError),
    *(NotImplementedError, OverflowError, ValueError),
)


def files_under(path: Path, name: str) -> list[tuple[Path, str]]:
    """A file, or those of a folder, each with what to call it.

    Raises:
        UnreadableFileError: a folder without files of records, or what is neither file nor folder.
        UnsupportedError: a folder with too many.
    """
    if not path.is_dir():
        if path.exists() and not path.is_file():  # a pipe may keep its reader waiting
            raise UnreadableFileError(f"{name}: not a regular file")
        return [(path, name)]
    found = []
    for file in sorted(path.iterdir()):
        if _is_meant(file.name) and file.is_file():
            found.append((file, os.path.join(name, printable(file.name))))
        if len(found) > MAX_FILES:
            raise UnsupportedError(f"{name}: more than {MAX_FILES:,} files")
    if not found:
        raise UnreadableFileError(f"{name}: no .json, .ndjson or .xml file in this folder")
    return found


@contextmanager
def opened(path: Path, name: str) -> Iterator[IO[bytes]]:
    """Open a file.

    Raises:
        UnreadableFileError: it is not there, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise UnreadableFileError(f"{name}: cannot be read ({error.strerror})") from None


def values(file: IO[bytes], name: str) -> Iterator[tuple[bytes, str]]:
    """The JSON values of a file, each with what to call the file: of a zip's, its member.

    Raises:
        UnreadableFileError: damaged, empty, or no JSON.
        UnsupportedError: a value that is too long, XML that is not read, an encrypted zip.
    """
    if not _begins(file, _ZIP):
        yield from _of_plain_or_gzip(file, name)
        return
    try:
        with zipfile.ZipFile(file) as archive:
            for member in _members(archive, name):
                called = f"{name}/{printable(member.filename)}"
                with archive.open(member) as part:
                    yield from _of_plain_or_gzip(part, called)
    except _DAMAGED_ZIP:
        raise UnreadableFileError(f"{name}: the zip file is damaged or truncated") from None


def _members(archive: zipfile.ZipFile, name: str) -> list[zipfile.ZipInfo]:
    """Those that are meant as records; nothing is unpacked to disk, whatever they are called."""
    found = [one for one in archive.infolist() if _is_meant(one.filename)]
    if not found:
        raise UnreadableFileError(f"{name}: no .json, .ndjson or .xml file in this zip file")
    if len(found) > MAX_FILES:
        raise UnsupportedError(f"{name}: more than {MAX_FILES:,} files")
    if any(one.flag_bits & _ENCRYPTED for one in found):
        raise UnsupportedError(f"{name}: the zip file is encrypted")
    if any(one.compress_type not in _METHODS for one in found):
        raise UnsupportedError(f"{name}: the zip file is packed by a method that is not read")
    return sorted(found, key=lambda one: one.filename)


def _is_meant(name: str) -> bool:
    return name.removesuffix(".gz").endswith(ENDINGS)


def _begins(file: IO[bytes], mark: bytes) -> bool:
    begins = file.read(len(mark)) == mark
    file.seek(0)
    return begins


def _of_plain_or_gzip(file: IO[bytes], name: str) -> Iterator[tuple[bytes, str]]:
    if not _begins(file, _GZIP):
        yield from _of_plain(file, name)
        return
    # In larger steps than its own of 8 KiB.
    plain = cast(IO[bytes], io.BufferedReader(gzip.GzipFile(fileobj=file), _STEP_BYTES))
    try:
        yield from _of_plain(plain, name)
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise UnreadableFileError(f"{name}: the gzip file is damaged or truncated") from None


def _of_plain(file: IO[bytes], name: str) -> Iterator[tuple[bytes, str]]:
    """The lines of a file if the first is a JSON object, else the whole file is one."""
    first = _bounded(file.readline(MAX_DOCUMENT_BYTES + 1), name).removeprefix(_BOM)
    start = first.lstrip()[:1]
    if start == b"<":
        from osler.ingest.fhir.ccda import bundle_of_ccda

        yield bundle_of_ccda(_whole(file, first, name), name), name
        return
    if start == b"[":
        raise UnreadableFileError(f"{name}: a list in JSON, which is no FHIR resource or bundle")
    if start not in (b"{", b""):
        raise UnreadableFileError(f"{name}: neither FHIR in JSON nor a C-CDA document")
    if not _is_json(first):
        whole = _whole(file, first, name)
        if not whole.strip():
            raise UnreadableFileError(f"{name}: the file is empty")
        yield whole, name
        return
    yield first, name
    blank = 0
    while line := _bounded(file.readline(MAX_DOCUMENT_BYTES + 1), name):
        if not line.isspace():
            yield line, name
        elif (blank := blank + 1) > _MOST_BLANK_LINES:  # a small gzip file may hold any number
            raise UnreadableFileError(f"{name}: blank lines without end")


def _whole(file: IO[bytes], first: bytes, name: str) -> bytes:
    return _bounded(first + file.read(MAX_DOCUMENT_BYTES + 1 - len(first)), name)


def _bounded(data: bytes, name: str) -> bytes:
    if len(data) > MAX_DOCUMENT_BYTES:
        limit = f"{MAX_DOCUMENT_BYTES:,}"
        raise UnsupportedError(f"{name}: a document or line of more than the {limit} bytes read")
    return data


def _is_json(line: bytes) -> bool:
    try:
        object_of(line)
    except MALFORMED:
        return False
    return True
