"""The door: files of one patient or of many to one patient's timeline, read in a child process."""

import atexit
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from osler.errors import RecordError
from osler.ingest.fhir.documents import Documents, Found, resources_of_bytes
from osler.ingest.fhir.fields import forget
from osler.ingest.fhir.limits import RECORD_TIMEOUT_S
from osler.ingest.fhir.records import Timeline
from osler.ingest.fhir.timeline import choose_patient, patients_of, timeline_of
from osler.ingest.file_part import printable
from osler.ingest.wire import receive_payload
from osler.ingest.worker_pool import WorkerPool

_T = TypeVar("_T")

_KEPT_BYTES = 16 << 20  # of files; it may be twenty times as much when it is decompressed
# One at a time: an export may take all the memory that a worker is given.
_workers = WorkerPool(1, timeout_s=RECORD_TIMEOUT_S)
atexit.register(_workers.close)
os.register_at_fork(after_in_child=_workers.forget)


def read_record(*paths: str | os.PathLike[str], patient: str | None = None) -> Timeline:
    """Read one patient's record from files or folders of files.

    Args:
        *paths: FHIR R4 bundles or resources in JSON, NDJSON, C-CDA documents, any of them gzipped;
            or folders or zips of such files, as bulk exports are.
        patient: the id of whom to read; needed where there are several.

    Raises:
        UnreadableFileError: not there, empty, damaged, not FHIR, or it took too long.
        UnsupportedError: too large, FHIR in XML, or C-CDA without the library for it.
        RecordError: no resource, no such patient, or several and none was chosen.
    """
    return _ask({**_where(*paths), "patient": patient}, b"", Timeline)


def read_record_bytes(data: bytes, source: str, *, patient: str | None = None) -> Timeline:
    """As `read_record`, of a file that is in memory; `source` is its name."""
    return _ask({"source": source, "paths": [], "names": [], "patient": patient}, data, Timeline)


def patients_in(path: str | os.PathLike[str]) -> dict[str, int]:
    """The patients of a file or folder: "Patient/1", with how many resources are about each.

    Raises:
        InputError: as `read_record`.
    """
    return _ask({**_where(path), "list": True}, b"", dict[str, int])


def _where(*paths: str | os.PathLike[str]) -> dict[str, Any]:
    """What to read, and how much it is, by which the child process gets its memory."""
    size_bytes = 0
    for path in map(Path, paths):
        try:
            files = path.iterdir() if path.is_dir() else [path]
            size_bytes += sum(file.stat().st_size for file in files if file.is_file())
        except OSError:  # the child process will say so
            continue
    names = [printable(os.fspath(path)) for path in paths]
    return {
        "source": ", ".join(names),
        "paths": list(map(os.path.abspath, paths)),
        "names": names,
        "size_bytes": size_bytes,
    }


def _ask(header: Mapping[str, Any], data: bytes, kind: type[_T]) -> _T:
    (answer,) = _workers.ask({"task": "record", **header}, data, receive_payload)
    return msgspec.msgpack.decode(answer, type=kind)


def read_for(header: Mapping[str, Any], data: bytes) -> bytes:
    """What the child process does: read what the functions above ask for.

    Raises:
        InputError: as these.
    """
    source: str = header["source"]
    try:
        found: Iterable[Found] = Documents(header["paths"], header["names"])
        if not header["paths"]:
            found = resources_of_bytes(data, source)
        elif header["size_bytes"] <= _KEPT_BYTES:
            found = list(found)  # they need not be parsed twice
        if header.get("list"):
            return msgspec.msgpack.encode(patients_of(found)[0])
        timeline = timeline_of(found, choose_patient(found, header["patient"]))
        return msgspec.msgpack.encode(timeline)
    except RecordError as error:
        raise RecordError(f"{source}: {error}") from None
    finally:
        forget()
