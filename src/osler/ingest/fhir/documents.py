"""Bytes to FHIR resources that are found but not yet read: bundles, NDJSON, single resources.

Only the few fields that say what a resource is and whose are decoded here. The rest stays bytes,
so that what is not wanted (claims are half of many bundles) costs almost nothing.
"""

import gzip
import io
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import msgspec
from msgspec.structs import replace

from osler.errors import UnreadableFileError, UnsupportedError
from osler.ingest.fhir.fields import (
    MALFORMED,
    Json,
    child,
    name_of,
    object_of,
    plain,
    reference,
    string,
)
from osler.ingest.fhir.limits import (
    MAX_DOCUMENT_BYTES,
    MAX_EXPORT_BYTES,
    MAX_FILES,
    MAX_NESTED_BUNDLES,
)
from osler.ingest.file_part import printable

_VERSION = re.compile(r"[0-9]{1,15}")
ENDINGS = (".json", ".ndjson", ".jsonl", ".xml")
_GZIP = b"\x1f\x8b"
_STEP_BYTES = 1 << 20
_BOM = b"\xef\xbb\xbf"


class Found(msgspec.Struct, frozen=True, gc=False):
    """A resource as it lies there.

    Attributes:
        raw: its JSON.
        type: "Observation"; "" where it has none.
        id: its logical id; "" where it has none.
        source: what an answer cites, "Observation/123"; without an id, by `full_url`.
        full_url: what other entries of its bundle may call it by.
        subject: the reference to its patient; "" where it has none.
        version: when it was written and its number, to tell the newer of two.
    """

    raw: msgspec.Raw
    type: str = ""
    id: str = ""
    source: str = ""
    full_url: str = ""
    subject: str = ""
    version: tuple[str, int] = ("", 0)

    def called(self, full_url: str) -> "Found":
        """The same under another name."""
        return replace(self, full_url=full_url, source=_source(self.type, self.id, full_url))


class _Entry(msgspec.Struct):
    resource: msgspec.Raw = msgspec.Raw()
    fullUrl: Any = None


class _Bundle(msgspec.Struct):
    entry: list[_Entry] = []


_bundle = msgspec.json.Decoder(_Bundle)


class Documents:
    """The resources of some files, which can be gone through more than once.

    Args:
        paths: files, or folders of a bulk export (`*.ndjson`, `*.json`, also gzipped).
        names: what to call each in messages; as it is written where there is none.

    Raises:
        UnreadableFileError: a folder without such files.
        UnsupportedError: a folder with too many.
    """

    def __init__(
        self, paths: Sequence[str | os.PathLike[str]], names: Sequence[str] | None = None
    ) -> None:
        called = [str(path) for path in paths] if names is None else names
        self._files = [
            file
            for path, name in zip(paths, called, strict=True)
            for file in _files(Path(path), name)
        ]

    def __iter__(self) -> Iterator[Found]:
        """Go through all resources, in the order of the files.

        Raises:
            UnreadableFileError: a file that is not there, damaged, empty, or no FHIR.
            UnsupportedError: one that is larger than what is read.
        """
        total_bytes = 0
        for path, name in self._files:
            with _opened(path, name) as file:
                for value in _values(file, name):
                    total_bytes += len(value)
                    if total_bytes > MAX_EXPORT_BYTES:
                        raise UnsupportedError(f"{name}: with it the export is too large")
                    yield from _resources(msgspec.Raw(value), name)


def resources_of_bytes(data: bytes, name: str) -> list[Found]:
    """The resources of a file that is in memory; see `Documents`."""
    with _named(name):
        values = _values(_plain(io.BytesIO(data)), name)
        return [found for value in values for found in _resources(msgspec.Raw(value), name)]


def _files(path: Path, name: str) -> list[tuple[Path, str]]:
    """A file, or those of a folder, each with what to call it."""
    if not path.is_dir():
        return [(path, name)]
    found = []
    for file in sorted(path.iterdir()):
        if file.name.removesuffix(".gz").endswith(ENDINGS) and file.is_file():
            found.append((file, os.path.join(name, printable(file.name))))
        if len(found) > MAX_FILES:
            raise UnsupportedError(f"{name}: more than {MAX_FILES:,} files")
    if not found:
        raise UnreadableFileError(f"{name}: no .json, .ndjson or .xml file in this folder")
    return found


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Say of which file it was that could not be read."""
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise UnreadableFileError(f"{name}: the gzip file is damaged or truncated") from None
    except OSError as error:
        raise UnreadableFileError(f"{name}: cannot be read ({error.strerror})") from None


@contextmanager
def _opened(path: Path, name: str) -> Iterator[IO[bytes]]:
    with _named(name), path.open("rb") as file:
        yield _plain(file)


def _plain(file: IO[bytes]) -> IO[bytes]:
    """The file, decompressed as it is read if it is gzip."""
    is_gzip = file.read(2) == _GZIP
    file.seek(0)
    if not is_gzip:
        return file
    # In larger steps than its own of 8 KiB.
    return cast(IO[bytes], io.BufferedReader(gzip.GzipFile(fileobj=file), _STEP_BYTES))


def _values(file: IO[bytes], name: str) -> Iterator[bytes]:
    """The JSON values of a file: its lines if the first is one, else the whole file is one."""
    first = _bounded(file.readline(MAX_DOCUMENT_BYTES + 1), name).removeprefix(_BOM)
    if first.lstrip().startswith(b"<"):
        from osler.ingest.fhir.ccda import bundle_of_ccda

        yield bundle_of_ccda(_whole(file, first, name), name)
        return
    if not _is_json(first):
        whole = _whole(file, first, name)
        if not whole.strip():
            raise UnreadableFileError(f"{name}: the file is empty")
        yield whole
        return
    yield first
    while line := _bounded(file.readline(MAX_DOCUMENT_BYTES + 1), name):
        if not line.isspace():
            yield line


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


def _resources(raw: msgspec.Raw, name: str) -> Iterator[Found]:
    """The resource, or those of the bundle that it is."""
    try:
        found = _found(raw)
    except MALFORMED as error:
        raise _refused(error, name) from None
    if found.type == "Bundle":
        yield from _entries(raw, name)
    else:
        yield found


def _entries(bundle: msgspec.Raw, name: str, depth: int = 0) -> Iterator[Found]:
    if depth == MAX_NESTED_BUNDLES:
        raise UnsupportedError(f"{name}: bundles within bundles, more than {depth} deep")
    try:
        entries = _bundle.decode(bundle).entry
        for entry in entries:
            if entry.resource:
                found = _found_in_bundle(entry)
                if found.type == "Bundle":
                    yield from _entries(entry.resource, name, depth + 1)
                else:
                    yield found
    except MALFORMED as error:
        raise _refused(error, name) from None


def _found_in_bundle(entry: _Entry) -> Found:
    try:
        return _found(entry.resource, entry.fullUrl)
    except UnicodeDecodeError:  # the others may be sound
        return Found(entry.resource)


def _found(raw: msgspec.Raw, url: object = None) -> Found:
    fields = object_of(raw)
    if not (kind := name_of(fields, "resourceType")):
        return Found(raw)
    logical_id = name_of(fields, "id")
    full_url = url if isinstance(url, str) else ""
    return Found(
        raw,
        kind,
        logical_id,
        _source(kind, logical_id, full_url),
        full_url,
        reference(fields, "subject") or reference(fields, "patient"),
        _version(child(fields, "meta")) if "meta" in fields else ("", 0),
    )


def _source(kind: str, logical_id: str, full_url: str) -> str:
    return f"{kind}/{logical_id or full_url.rpartition('/')[2].rpartition(':')[2]}"


def _version(meta: Json) -> tuple[str, int]:
    number = plain(meta, "versionId") or ""
    return string(meta, "lastUpdated"), int(number) if _VERSION.fullmatch(number) else 0


def _refused(error: Exception, name: str) -> UnreadableFileError:
    match error:
        case RecursionError():
            reason = "nested too deeply"
        case msgspec.ValidationError():
            reason = "a resource or bundle is no such object"
        case UnicodeDecodeError():
            reason = "text that is not UTF-8"
        case _:  # msgspec says what and where, and quotes nothing
            reason = f"not JSON, or truncated ({error})"
    return UnreadableFileError(f"{name}: {reason}")
