"""The room's door: files under some paths to clean ones in a new folder, and a report."""

import atexit
import hashlib
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import msgspec

from osler.errors import InputError, OslerError
from osler.ingest.file_part import FilePart
from osler.ingest.wire import receive_payload
from osler.ingest.worker_pool import WORKERS, WorkerPool
from osler.privacy.fhir_people import People
from osler.privacy.inputs import files_under
from osler.privacy.parcel import pack, unpack
from osler.privacy.profile import Profile
from osler.privacy.pseudonyms import Pseudonyms
from osler.privacy.records import Asked, Told
from osler.privacy.report import CleanFile, LeftOut, Refusal, Report, write_report

Progress = Callable[[int, int], object]  # done, of how many

_TIMEOUT_S = 600.0  # a long clip is read frame by frame
_COMMAND = (sys.executable, "-P", "-m", "osler.privacy.worker")
_NO_DICOMDIR = "a DICOMDIR, which lists files by names that they no longer have"
_ENDINGS = {"text": "txt", "fhir": "json"}


def deidentify(
    paths: Sequence[str | os.PathLike[str]],
    out: Path,
    *,
    key: bytes,
    profile: Profile,
    progress: Progress | None = None,
) -> Report:
    """Write files without whom they are about; the originals stay as they are.

    Args:
        paths: DICOM objects, FHIR in JSON or NDJSON, plain texts; folders and zips of them.
        out: a folder that is not there yet, or is empty. It appears when all is done.
        key: what the pseudonyms are drawn from.
        profile: what is asked for.
        progress: called with the files done so far and their number.

    Returns:
        What was done to each file, and which were refused and why.

    Raises:
        InputError: a path that is not there, or no file under any.
        OslerError: `out` has something in it, or cannot be written.
    """
    _check_out(out)
    parts = files_under(paths)
    with _staged(out) as stage:
        run = _Run(parts, stage, key, profile, progress)
        report = run.report()
        if report.files:
            write_report(report, stage)
        return report


class _Run:
    """One run over some files.

    DICOM objects are cleaned as they are met. Records and texts are cleaned when all is known of
    who is in any of the files.
    """

    def __init__(
        self,
        parts: Sequence[FilePart | InputError],
        stage: Path,
        key: bytes,
        profile: Profile,
        progress: Progress | None,
    ) -> None:
        self._parts, self._stage, self._profile = parts, stage, profile
        self._key, self._progress = key, progress
        self._done = 0
        self._instances: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def report(self) -> Report:
        found: dict[int, Told | InputError] = {}
        people = People()
        with ThreadPoolExecutor(WORKERS) as threads:
            numbers = range(len(self._parts))
            for number, told in zip(numbers, threads.map(self._look, numbers), strict=True):
                found[number] = told
                if isinstance(told, Told):
                    people.add(told.people)
                    if told.kind not in _ENDINGS:
                        self._count()
                else:
                    self._count()
            later = [
                number
                for number, told in found.items()
                if isinstance(told, Told) and told.kind in _ENDINGS
            ]
            cleaned = threads.map(lambda number: self._clean(number, people), later)
            for number, told in zip(later, cleaned, strict=True):
                found[number] = told
                self._count()
        return Report(
            profile=self._profile,
            key_fingerprint=Pseudonyms(self._key).fingerprint,
            files=[
                CleanFile(
                    input=number + 1, kind=told.kind, output=told.place[-1], actions=told.actions
                )
                for number, told in found.items()
                if isinstance(told, Told) and told.place
            ],
            left_out=[
                LeftOut(input=number + 1, reason=_NO_DICOMDIR)
                for number, told in found.items()
                if isinstance(told, Told) and not told.place
            ],
            refused=[
                Refusal.of(number + 1, self._parts[number], told)
                for number, told in found.items()
                if isinstance(told, InputError)
            ],
        )

    def _count(self) -> None:
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, len(self._parts))

    def _look(self, number: int) -> Told | InputError:
        part = self._parts[number]
        if isinstance(part, InputError):
            return part
        try:
            told, data = self._ask(part, None)
            if told.kind == "dicom":
                patient, study, series, instance = told.place
                self._refuse_copies(part, instance, data)
                self._write(told, f"{patient}/{study}/{series}/{instance}.dcm", data)
            return told
        except InputError as error:
            return error

    def _clean(self, number: int, people: People) -> Told | InputError:
        part = self._parts[number]
        assert isinstance(part, FilePart)
        try:
            told, data = self._ask(part, people)
        except InputError as error:
            return error
        ending = "ndjson" if told.are_lines else _ENDINGS[told.kind]
        self._write(told, f"{told.kind}/{told.kind}-{number + 1:05}.{ending}", data)
        return told

    def _ask(self, part: FilePart, people: People | None) -> tuple[Told, bytes]:
        asked = Asked(
            key=self._key.hex(),
            retain_dates=self._profile.retain_dates,
            retain_characteristics=self._profile.retain_characteristics,
            clean_pixels=self._profile.clean_pixels,
            people=people,
        )
        header = {"source": part.name, "inflated_bytes": part.inflated_bytes}
        ((told, data),) = _workers.ask(header, pack(asked, part.read()), _receive)
        return told, data

    def _refuse_copies(self, part: FilePart, instance: str, data: bytes) -> None:
        with self._lock:
            if instance in self._instances:
                same = self._instances[instance] == _digest(data)
                what = "a copy of another file" if same else "another file has its SOP Instance UID"
                raise InputError(f"{part.name}: {what}")
            self._instances[instance] = _digest(data)

    def _write(self, told: Told, place: str, data: bytes) -> None:
        path = self._stage / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        told.place = (*told.place, place)


def _receive(pipe: int) -> tuple[Told, bytes]:
    record, data = unpack(receive_payload(pipe))
    return msgspec.json.decode(record, type=Told), data


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _check_out(out: Path) -> None:
    if not out.parent.is_dir():
        raise OslerError(f"{out}: there is no folder {out.parent}")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise OslerError(f"{out}: there already, and not an empty folder")


@contextmanager
def _staged(out: Path) -> Iterator[Path]:
    """A folder beside the one that is wanted, which takes its name when all is written."""
    stage = out.with_name(f".{out.name}.{os.getpid()}")
    stage.mkdir()
    try:
        yield stage
        if any(stage.iterdir()):
            stage.replace(out)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


_workers = WorkerPool(WORKERS, timeout_s=_TIMEOUT_S, command=_COMMAND)
atexit.register(_workers.close)
os.register_at_fork(after_in_child=_workers.forget)
