"""Files into an archive, as they are."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from osler.archive.archive import Archive, Progress, silent
from osler.archive.child import read_instance
from osler.archive.instance import InstanceFile
from osler.errors import ArchiveError, UnreadableFileError

_DIRECTORY = "DICOMDIR"  # of a disc: it lists instances, and is none


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """What a push has done.

    Attributes:
        instances: how many the archive holds now.
        studies: the UIDs of their studies.
    """

    instances: int
    studies: tuple[str, ...]


def gather(paths: Iterable[Path]) -> list[InstanceFile]:
    """The DICOM files among files and folders, each instance once.

    Files in folders that are no DICOM files are passed over; one that is named must be one.

    Raises:
        UnreadableFileError: a path that is not there, or is no DICOM file.
        DicomError: a DICOM file that is broken.
    """
    found: dict[str, InstanceFile] = {}
    for path in paths:
        for file in _of_folder(path) if path.is_dir() else [_of_file(path)]:
            found.setdefault(file.instance.sop_uid, file)
    if not found:
        raise UnreadableFileError("there is no DICOM file to send")
    return list(found.values())


def push(archive: Archive, files: Iterable[InstanceFile], *, progress: Progress = silent) -> Pushed:
    """Store files in an archive; those that it has already count as stored.

    Args:
        archive: where to.
        files: of `gather`.
        progress: called with how many of the files are done, and of how many.

    Raises:
        ArchiveError: the archive fails, or refuses some of the files; all others are then stored.
    """
    sending = list(files)
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        progress(done, len(sending))

    refused = archive.send(sending, count)
    if refused:
        others = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
        raise ArchiveError(f"{archive.address}: refuses {refused[0].path}{others}")
    studies = dict.fromkeys(file.instance.study_uid for file in sending)
    return Pushed(instances=len(sending), studies=tuple(studies))


def _of_file(path: Path) -> InstanceFile:
    if not path.is_file():
        raise UnreadableFileError(f"{path}: there is no such file")
    return read_instance(path)


def _of_folder(folder: Path) -> Iterator[InstanceFile]:
    for path in sorted(folder.rglob("*")):
        if path.name == _DIRECTORY:
            continue
        # The files of an InstanceStore that are not whole yet have names with a dot.
        if path.is_file() and not any(
            part.startswith(".") for part in path.relative_to(folder).parts
        ):
            try:
                yield read_instance(path)
            except UnreadableFileError:
                continue
