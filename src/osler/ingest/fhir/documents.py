"""Bytes to FHIR resources that are found but not yet read: bundles, NDJSON, single resources.

Only the few fields that say what a resource is and whose are decoded here. The rest stays bytes,
so that what is not wanted (claims are half of many bundles) costs almost nothing.
"""

import io
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from osler.errors import UnreadableFileError, UnsupportedError
from osler.ingest.fhir.fields import (
    MALFORMED,
    Json,
    child,
    id_of,
    name_of,
    object_of,
    plain,
    reference,
    string,
)
from osler.ingest.fhir.files import files_under, opened, values
from osler.ingest.fhir.limits import MAX_EXPORT_BYTES, MAX_NESTED_BUNDLES

_VERSION = re.compile(r"[0-9]{1,15}")
_NO_VERSION = ("", 0)


class Found(msgspec.Struct, frozen=True, gc=False):
    """A resource as it lies there.

    Attributes:
        raw: its JSON.
        fields: of it; none of text that is not UTF-8.
        type: "Observation"; "" where it has none.
        id: its logical id; "" where it has none.
        source: what an answer cites, "Observation/123"; without an id, by `full_url`.
        full_url: what other entries of its bundle may call it by.
        subject: the reference to its patient; "" where it has none.
        version: when it was written and its number, to tell the newer of two.
    """

    raw: msgspec.Raw
    fields: Json = msgspec.field(default_factory=dict)
    type: str = ""
    id: str = ""
    source: str = ""
    full_url: str = ""
    subject: str = ""
    version: tuple[str, int] = ("", 0)

    def called(self, full_url: str) -> "Found":
        """The same, which has no id, by the name that its bundle has for it."""
        return replace(self, full_url=full_url, source=f"{self.type}/{_last_part(full_url)}")


class _Entry(msgspec.Struct):
    resource: msgspec.Raw = msgspec.Raw()
    fullUrl: Any = None


class _Bundle(msgspec.Struct):
    entry: list[_Entry] = []


_bundle = msgspec.json.Decoder(_Bundle)


class Documents:
    """The resources of some files, which can be gone through more than once.

    Args:
        paths: files, or folders or zips of a bulk export (`*.ndjson`, `*.json`, also gzipped).
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
            for file in files_under(Path(path), name)
        ]

    def __iter__(self) -> Iterator[Found]:
        """Go through all resources, in the order of the files.

        Raises:
            UnreadableFileError: a file that is not there, damaged, empty, or no FHIR.
            UnsupportedError: one that is larger than what is read.
        """
        total_bytes = 0
        for path, whole_name in self._files:
            with opened(path, whole_name) as file:
                for value, name in values(file, whole_name):
                    total_bytes += len(value)
                    if total_bytes > MAX_EXPORT_BYTES:
                        raise UnsupportedError(f"{name}: with it the export is too large")
                    yield from _resources(msgspec.Raw(value), name)


def resources_of_bytes(data: bytes, name: str) -> list[Found]:
    """The resources of a file that is in memory; see `Documents`."""
    return [
        found
        for value, called in values(io.BytesIO(data), name)
        for found in _resources(msgspec.Raw(value), called)
    ]


def _resources(raw: msgspec.Raw, name: str) -> list[Found]:
    """The resource, or those of the bundle that it is."""
    try:
        found = _found(raw)
        return _in_bundle(raw, name) if found.type == "Bundle" else [found]
    except MALFORMED as error:
        raise _refused(error, name) from None


def _in_bundle(bundle: msgspec.Raw, name: str, depth: int = 0) -> list[Found]:
    if depth == MAX_NESTED_BUNDLES:
        raise UnsupportedError(f"{name}: bundles within bundles, more than {depth} deep")
    found: list[Found] = []
    for entry in _bundle.decode(bundle).entry:
        if entry.resource:
            try:
                one = _found(entry.resource, entry.fullUrl)
            except UnicodeDecodeError:  # the others may be sound
                one = Found(entry.resource)
            if one.type == "Bundle":
                found += _in_bundle(entry.resource, name, depth + 1)
            else:
                found.append(one)
    return found


def _found(raw: msgspec.Raw, url: object = None) -> Found:
    fields = object_of(raw)
    if not (kind := name_of(fields, "resourceType")):
        return Found(raw)
    logical_id = id_of(fields)
    full_url = url if isinstance(url, str) else ""
    return Found(
        raw,
        fields,
        kind,
        logical_id,
        f"{kind}/{logical_id or _last_part(full_url)}",
        full_url,
        reference(fields, "subject") or reference(fields, "patient"),
        _version(child(fields, "meta")) if "meta" in fields else _NO_VERSION,
    )


def _last_part(url: str) -> str:
    return url.rpartition("/")[2].rpartition(":")[2]


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
