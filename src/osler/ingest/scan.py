"""The room's door for all that is more than one image: paths to studies, and series to images."""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from osler.errors import InputError, UnreadableFileError, UnsupportedError
from osler.ingest.facts import FileFacts
from osler.ingest.file_part import FilePart, printable
from osler.ingest.image import Image
from osler.ingest.limits import HEAD_BYTES, MAX_FILES, SHORT_HEAD_BYTES
from osler.ingest.series import Study, studies_of
from osler.ingest.slide.recognise import is_mrxs, may_be_slide
from osler.ingest.stack import FrameRef
from osler.ingest.wire import receive_image, receive_record
from osler.ingest.worker_pool import WORKERS, decoding_workers
from osler.ingest.zip_file import ZipMember, is_zip

T = TypeVar("T")
Progress = Callable[[int, int], object]  # done, of how many


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What was found under one path.

    Attributes:
        studies: in the order of their dates.
        left_out: why files have no images, and how many for each reason.
    """

    studies: tuple[Study, ...]
    left_out: dict[str, int]


def scan(path: str | os.PathLike[str], *, progress: Progress | None = None) -> Scan:
    """Find out what a path holds, without decoding it.

    Args:
        path: a DICOM object of one or more frames, a picture, a NIfTI file (.nii, .nii.gz), a
            whole slide, a zip or a folder of these, or a DICOMDIR.
        progress: called with the files looked at so far and their number.

    Raises:
        UnreadableFileError: not there, not permitted, damaged, or nothing in it that is an image.
        DicomError: a DICOM object that is malformed or has no pixels.
        UnsupportedError: a kind that is not read.
    """
    name = printable(os.fspath(path))
    path = Path(path)
    if path.is_dir():
        found = scan_files(files_in(path), progress=progress)
        return require_images(found, f"{name}: no images in this folder")
    part = FilePart(path, name)
    head = part.read(HEAD_BYTES)
    if is_zip(head):
        found = scan_files(_members(part), progress=progress)
        return require_images(found, f"{name}: no images in this zip file")
    facts = _describe(part)
    if facts.kind == "dicomdir":
        found = scan_files(_listed(path, facts), progress=progress)
        return require_images(found, f"{name}: no images that the DICOMDIR lists")
    members = [(part, facts), *_rest_of_slide(path, facts)]
    return Scan(studies=tuple(studies_of(members)), left_out={})


def files_in(folder: str | os.PathLike[str]) -> list[FilePart]:
    """All files of a folder and of those in it, in the order of their names; hidden ones not.

    Raises:
        UnreadableFileError: not permitted.
        UnsupportedError: too many.
    """
    given = printable(os.fspath(folder))
    found: list[FilePart] = []

    def refuse(error: OSError) -> None:
        raise UnreadableFileError(f"{given}: cannot be read ({error.strerror})") from None

    for place, folders, files in os.walk(folder, onerror=refuse):
        slides = {file[: -len(".mrxs")] for file in files if is_mrxs(file)}
        folders[:] = [each for each in folders if not _is_hidden(each) and each not in slides]
        for file in files:
            path = Path(place, file)
            if not _is_hidden(file):
                found.append(FilePart(path, printable(str(path.relative_to(folder)))))
        if len(found) > MAX_FILES:
            raise UnsupportedError(f"{given}: more than the {MAX_FILES:,} files that are read")
    return sorted(found, key=lambda part: part.name)


def require_images(found: Scan, if_none: str) -> Scan:
    """What was found, if there is any image in it.

    Raises:
        UnreadableFileError: there is none; the message begins with `if_none`.
    """
    if not found.studies:
        most = max(found.left_out, key=found.left_out.__getitem__, default="")
        raise UnreadableFileError("; ".join(filter(None, (if_none, most))))
    return found


def scan_files(parts: Sequence[FilePart], *, progress: Progress | None = None) -> Scan:
    """Find out what some files hold, which may be nothing.

    Args:
        parts: files, or members of a zip.
        progress: called with the files looked at so far and their number.
    """
    left_out: Counter[str] = Counter()
    found: list[tuple[FilePart, FileFacts]] = []
    seen: set[str] = set()
    with ThreadPoolExecutor(WORKERS) as threads:
        for done, (part, facts) in enumerate(
            zip(parts, threads.map(_facts_or_error, parts), strict=True), start=1
        ):
            if progress is not None:
                progress(done, len(parts))
            if isinstance(facts, InputError):
                left_out[str(facts).removeprefix(f"{part.name}: ")] += 1
            elif facts.kind == "dicomdir":
                continue  # an index of what is found anyway
            elif facts.instance and facts.instance in seen:
                left_out["a copy of another file"] += 1
            else:
                seen.add(facts.instance)
                found.append((part, facts))
    return Scan(studies=tuple(studies_of(found)), left_out=dict(left_out))


def read_frames(frames: Sequence[FrameRef], *, progress: Progress | None = None) -> list[Image]:
    """Decode frames, those of one file together and several files at once.

    Args:
        frames: of one or more files.
        progress: called with the frames read so far and their number.

    Returns:
        One image a frame, in their order.

    Raises:
        InputError: a file that is damaged, or of a kind that is not read.
    """
    return _of_frames(frames, _images, progress)


def value_range(
    frames: Sequence[FrameRef], *, progress: Progress | None = None
) -> tuple[float, float]:
    """The smallest and the largest value of frames, whose pixels stay in the workers.

    Raises:
        InputError: as `read_frames`.
    """
    ranges = _of_frames(frames, _ranges, progress)
    return min(low for low, _ in ranges), max(high for _, high in ranges)


def _facts_or_error(part: FilePart) -> FileFacts | InputError:
    try:
        return _describe(part)
    except InputError as error:
        return error


def _members(part: FilePart) -> list[FilePart]:
    header = {"task": "list", "source": part.name}
    (members,) = decoding_workers.ask(
        header, part.read(), partial(receive_record, kind=list[ZipMember])
    )
    return [
        FilePart(
            part.path,
            printable(member.name),
            offset=member.offset,
            size_bytes=member.size_bytes,
            inflated_bytes=member.inflated_bytes,
        )
        for member in members
        if not any(_is_hidden(step) for step in member.name.split("/"))
    ]


def _listed(path: Path, facts: FileFacts) -> list[FilePart]:
    """A DICOMDIR's files; some copies of discs have their names in small letters."""
    parts = []
    for member in facts.members:
        exact, small = path.parent / member, path.parent / member.lower()
        file = small if small.exists() and not exact.exists() else exact
        parts.append(FilePart(file, printable(member)))
    return parts


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _describe(part: FilePart) -> FileFacts:
    """By its beginning where that says enough, as only then little is read of a long series."""
    data = part.read(SHORT_HEAD_BYTES)
    if may_be_slide(part.name, data) and (slide := _slide(part)) is not None:
        return slide
    part.check_size()
    if len(data) == SHORT_HEAD_BYTES:
        facts = _by_head(part, data) or _by_head(part, part.read(HEAD_BYTES))
        if facts is not None:
            return facts
        data = part.read()
    receive = partial(receive_record, kind=FileFacts)
    described: FileFacts
    (described,) = decoding_workers.ask(_header("describe", part), data, receive)
    return described


def _by_head(part: FilePart, head: bytes) -> FileFacts | None:
    header = {**_header("describe", part), "whole": False}
    receive = partial(receive_record, kind=FileFacts | None)
    facts: FileFacts | None
    (facts,) = decoding_workers.ask(header, head, receive)
    return facts


def _slide(part: FilePart) -> FileFacts | None:
    """What a slide says of itself; it may be larger than what is handed to a worker as bytes."""
    if part.size_bytes is not None:
        if is_mrxs(part.name):
            raise UnsupportedError(f"{part.name}: a whole slide in a zip file; unpack it first")
        return None
    path = os.path.abspath(part.path)
    receive = partial(receive_record, kind=FileFacts | None)
    header = {"task": "slide", "source": part.name, "path": path}
    facts: FileFacts | None
    (facts,) = decoding_workers.ask(header, b"", receive)
    if facts is None or facts.slide is None:
        return None
    return replace(facts, slide=replace(facts.slide, files=((path,),)))


def _rest_of_slide(path: Path, facts: FileFacts) -> list[tuple[FilePart, FileFacts]]:
    """The other levels of a DICOM slide, which are files beside it."""
    if facts.slide is None or not facts.series:
        return []
    parts = [FilePart(file, printable(file.name)) for file in sorted(path.parent.iterdir())]
    found = [(part, _facts_or_error(part)) for part in parts if part.path.is_file()]
    return [
        (part, other)
        for part, other in found
        if isinstance(other, FileFacts)
        and other.slide is not None
        and other.series == facts.series
        and other.instance != facts.instance
    ]


def _header(task: str, part: FilePart) -> dict[str, object]:
    return {
        "task": task,
        "source": part.name,
        "inflated_bytes": part.inflated_bytes,
        "whole": True,
    }


def _images(part: FilePart, numbers: list[int]) -> list[Image]:
    header = {**_header("frames", part), "frames": numbers}
    return decoding_workers.ask(header, part.read(), receive_image, replies=len(numbers))


def _ranges(part: FilePart, numbers: list[int]) -> list[tuple[float, float]]:
    header = {**_header("ranges", part), "frames": numbers}
    receive = partial(receive_record, kind=tuple[float, float])
    return decoding_workers.ask(header, part.read(), receive, replies=len(numbers))


def _of_frames(
    frames: Sequence[FrameRef],
    read: Callable[[FilePart, list[int]], list[T]],
    progress: Progress | None,
) -> list[T]:
    places: dict[FilePart, list[int]] = defaultdict(list)
    for place, frame in enumerate(frames):
        places[frame.part].append(place)

    def of_file(part: FilePart) -> list[T]:
        return read(part, [frames[place].number for place in places[part]])

    found: dict[int, T] = {}
    with ThreadPoolExecutor(WORKERS) as threads:
        for part, results in zip(places, threads.map(of_file, places), strict=True):
            found.update(zip(places[part], results, strict=True))
            if progress is not None:
                progress(len(found), len(frames))
    return [found[place] for place in range(len(frames))]
