"""The room's door for all that is more than one image: paths to studies, and series to images."""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from osler.errors import InputError, UnreadableFileError, UnsupportedError
from osler.ingest.facts import FileFacts
from osler.ingest.file_part import FilePart, printable
from osler.ingest.image import Image
from osler.ingest.limits import HEAD_BYTES, MAX_FILES
from osler.ingest.series import Study, studies_of
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
        path: a DICOM object of one or more frames, a picture, a NIfTI file (.nii, .nii.gz), a zip
            or a folder of these, or a DICOMDIR.
        progress: called with the files looked at so far and their number.

    Raises:
        UnreadableFileError: not there, not permitted, damaged, or nothing in it that is an image.
        DicomError: a DICOM object that is malformed or has no pixels.
        UnsupportedError: a kind that is not read.
    """
    name = printable(os.fspath(path))
    path = Path(path)
    if path.is_dir():
        return _several(_files_in(path, name), f"{name}: no images in this folder", progress)
    part = FilePart(path, printable(path.name))
    # Its name as it was given, until it has been read.
    head = FilePart(path, name).read(HEAD_BYTES)
    if is_zip(head):
        return _several(_members(part), f"{name}: no images in this zip file", progress)
    facts = _describe(part)
    if facts.kind == "dicomdir":
        return _several(
            _listed(path, facts), f"{name}: no images that the DICOMDIR lists", progress
        )
    return Scan(studies=tuple(studies_of([(part, facts)])), left_out={})


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


def _several(parts: Sequence[FilePart], if_empty: str, progress: Progress | None) -> Scan:
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
    if not found:
        why = f"; {left_out.most_common(1)[0][0]}" if left_out else ""
        raise UnreadableFileError(if_empty + why)
    return Scan(studies=tuple(studies_of(found)), left_out=dict(left_out))


def _facts_or_error(part: FilePart) -> FileFacts | InputError:
    try:
        return _describe(part)
    except InputError as error:
        return error


def _files_in(folder: Path, name: str) -> list[FilePart]:
    found: list[FilePart] = []

    def refuse(error: OSError) -> None:
        raise UnreadableFileError(f"{name}: cannot be read ({error.strerror})") from None

    for place, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [each for each in folders if not _is_hidden(each)]
        for file in files:
            path = Path(place, file)
            if not _is_hidden(file):
                found.append(FilePart(path, printable(str(path.relative_to(folder)))))
        if len(found) > MAX_FILES:
            raise UnsupportedError(f"{name}: more than the {MAX_FILES:,} files that are read")
    return sorted(found, key=lambda part: part.name)


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
    head = part.read(HEAD_BYTES)
    facts: FileFacts | None = None
    if len(head) == HEAD_BYTES:
        header = {**_header("describe", part), "whole": False}
        receive = partial(receive_record, kind=FileFacts | None)
        (facts,) = decoding_workers.ask(header, head, receive)
    if facts is None:
        data = part.read() if len(head) == HEAD_BYTES else head
        receive = partial(receive_record, kind=FileFacts)
        (facts,) = decoding_workers.ask(_header("describe", part), data, receive)
        assert facts is not None  # `receive_record` has seen to that
    return facts


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
