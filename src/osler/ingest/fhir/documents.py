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
from typing import IO, Any, TypeVar, cast

import msgspec

from osler.errors import UnreadableFileError, UnsupportedError
from osler.ingest.fhir.fields import clean, reference, string
from osler.ingest.fhir.limits import (
    MAX_DOCUMENT_BYTES,
    MAX_EXPORT_BYTES,
    MAX_FILES,
    MAX_NESTED_BUNDLES,
)
from osler.ingest.file_part import printable

_T = TypeVar("_T")
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
        full_url: what other entries of its bundle may call it by.
        subject: the reference to its patient; "" where it has none.
        version: when it was written and its number, to tell the newer of two.
    """

    raw: msgspec.Raw
    type: str = ""
    id: str = ""
    full_url: str = ""
    subject: str = ""
    version: tuple[str, int] = ("", 0)

    @property
    def source(self) -> str:
        """What an answer cites: "Observation/123"."""
        if self.id:
            return f"{self.type}/{self.id}"
        return f"{self.type}/{self.full_url.rpartition('/')[2].rpartition(':')[2]}"


class _Envelope(msgspec.Struct):
    """What is decoded of every resource; its kinds are checked afterwards."""

    resourceType: Any = None
    id: Any = None
    meta: Any = None
    subject: Any = None
    patient: Any = None


class _Entry(msgspec.Struct):
    resource: msgspec.Raw = msgspec.Raw()
    fullUrl: Any = None


class _Bundle(msgspec.Struct):
    entry: list[_Entry] = []


_envelope = msgspec.json.Decoder(_Envelope)
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
        _envelope.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _resources(raw: msgspec.Raw, name: str, full_url: str = "", depth: int = 0) -> Iterator[Found]:
    """The resource, or those of the bundle that it is."""
    found = _found(raw, name, full_url)
    if found.type != "Bundle":
        yield found
        return
    if depth == MAX_NESTED_BUNDLES:
        raise UnsupportedError(f"{name}: bundles within bundles, more than {depth} deep")
    for entry in _decoded(_bundle, raw, name).entry:
        if entry.resource:
            url = entry.fullUrl if isinstance(entry.fullUrl, str) else ""
            yield from _resources(entry.resource, name, url, depth + 1)


def _found(raw: msgspec.Raw, name: str, full_url: str) -> Found:
    envelope = _decoded(_envelope, raw, name)
    if not isinstance(envelope.resourceType, str):
        return Found(raw)
    meta = envelope.meta if isinstance(envelope.meta, dict) else {}
    number = meta.get("versionId")
    return Found(
        raw,
        type=clean(envelope.resourceType, limit=64),
        id=clean(envelope.id, limit=64) if isinstance(envelope.id, str) else "",
        full_url=full_url,
        subject=_reference(envelope.subject) or _reference(envelope.patient),
        version=(
            string(meta, "lastUpdated"),
            int(number) if isinstance(number, str) and _VERSION.fullmatch(number) else 0,
        ),
    )


def _decoded(decoder: msgspec.json.Decoder[_T], raw: msgspec.Raw, name: str) -> _T:
    try:
        return decoder.decode(raw)
    except RecursionError:
        raise UnreadableFileError(f"{name}: nested too deeply") from None
    except msgspec.ValidationError:
        raise UnreadableFileError(f"{name}: a resource or bundle is no such object") from None
    except UnicodeDecodeError:
        raise UnreadableFileError(f"{name}: text that is not UTF-8") from None
    except msgspec.DecodeError as error:
        # msgspec says what and where, and quotes nothing.
        raise UnreadableFileError(f"{name}: not JSON, or truncated ({error})") from None


def _reference(value: object) -> str:
    return reference(value) if isinstance(value, dict) else ""
