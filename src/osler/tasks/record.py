"""A patient's record: fetched from a server, counted in tokens, joined with its images."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from osler.archive.address import WebAddress, archive_address
from osler.archive.fhir_server import FhirServer
from osler.archive.settings import LinkSettings
from osler.archive.smart_token import BackendClient
from osler.errors import InputError
from osler.ingest.fhir.read import read_record_bytes
from osler.ingest.fhir.records import ImagingStudy, Timeline
from osler.ingest.series import Study
from osler.preprocess.tokenizer import Tokenizer
from osler.tasks.locate import PROCESSOR_FILES, locate


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A record from a server.

    Attributes:
        timeline: the record.
        unsearched: types of resources that the server does not search for.
    """

    timeline: Timeline
    unsearched: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class JoinedStudy:
    """An imaging study of the record whose images are at hand.

    Attributes:
        source: "ImagingStudy/1".
        study_uid: DICOM Study Instance UID.
        files: that hold its images, by the names that messages have for them.
    """

    source: str
    study_uid: str
    files: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ImageJoin:
    """Which images belong to which studies of a record.

    Attributes:
        joined: those that are at hand, in the record's order.
        missing: sources of imaging studies of which nothing is at hand.
        others: studies at hand of which the record says nothing.
    """

    joined: tuple[JoinedStudy, ...]
    missing: tuple[str, ...]
    others: int


def fetch_record(
    url: str,
    patient: str,
    *,
    since: str | None = None,
    token: str | None = None,
    client: BackendClient | None = None,
) -> Fetched:
    """Get a patient's record from a FHIR server.

    Args:
        url: the server's base, as "https://fhir.example/r4".
        patient: the Patient's id.
        since: only what was written since then.
        token: a token that is known already.
        client: who asks for one by SMART Backend Services.

    Raises:
        InputError: an address, id, date or key that is none.
        RecordError: no such patient.
        ArchiveError: the server is out of reach, refuses, or sends what is no FHIR.
    """
    address = _web_address(url)
    server = FhirServer(address, LinkSettings(token=token), client=client)
    try:
        pages = server.record(patient, since)
    finally:
        server.close()
    return Fetched(
        timeline=read_record_bytes(b"\n".join(pages), str(address), patient=patient),
        unsearched=tuple(server.unsearched),
    )


def warning_of(url: str) -> str | None:
    """What a user must know before a record is fetched from there; None where there is nothing.

    Raises:
        InputError: no address of a server.
    """
    address = _web_address(url)
    if address.is_here or address.base.startswith("https:"):
        return None
    return f"{address} is another machine and not encrypted: all on the way can read the record"


def _web_address(url: str) -> WebAddress:
    address = archive_address(url)
    if not isinstance(address, WebAddress):
        raise InputError(f"{address}: a FHIR server has an http(s) address")
    return address


def token_counter(name: str | os.PathLike[str] = "nano") -> Callable[[str], int]:
    """How many tokens of a model's a text has.

    Args:
        name: as `osler.load` takes it; the weights are not read.

    Raises:
        ModelNotFoundError: no model by that name.
    """
    tokenizer = Tokenizer.from_folder(locate(name, "medgemma", PROCESSOR_FILES))
    return lambda text: len(tokenizer.spell(text))


def join_images(timeline: Timeline, studies: Iterable[Study]) -> ImageJoin:
    """Find the images of a record's imaging studies, by Study Instance UID.

    Args:
        timeline: the record.
        studies: that are at hand.
    """
    files: dict[str, dict[str, None]] = {}
    for study in studies:
        for series in study.series:
            names = files.setdefault(series.file.study, {})
            names.update(dict.fromkeys(frame.part.name for frame in series.frames))
    events = [event for event in timeline.events if isinstance(event, ImagingStudy)]
    joined = tuple(
        JoinedStudy(
            source=event.source, study_uid=event.study_uid, files=tuple(files[event.study_uid])
        )
        for event in events
        if event.study_uid and event.study_uid in files
    )
    found = {study.source for study in joined}
    return ImageJoin(
        joined=joined,
        missing=tuple(event.source for event in events if event.source not in found),
        others=len(files.keys() - {study.study_uid for study in joined}),
    )


def said_of_join(join: ImageJoin) -> list[str]:
    """Which images are at hand and which are not, a line each."""
    said = [f"{study.source}: {_counted(len(study.files), 'file')}" for study in join.joined]
    if join.missing:
        said.append(f"imaging studies of the record without images: {len(join.missing):,}")
    if join.others:
        said.append(f"studies at hand that the record does not have: {join.others:,}")
    return said


def said_of_record(timeline: Timeline) -> list[str]:
    """How much of a record is on its timeline, and what is not, by type and reason."""
    taken = sum(timeline.taken.values())
    left = sum(kind.count for kind in timeline.left_out)
    said = [f"{taken:,} of {_counted(taken + left, 'resource')} are on the timeline"]
    said += [f"left out: {kind.count:,} {kind.type}, {kind.reason}" for kind in timeline.left_out]
    said += [f"noticed: {what}, {count:,} times" for what, count in timeline.problems.items()]
    return said


def _counted(number: int, thing: str) -> str:
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"
