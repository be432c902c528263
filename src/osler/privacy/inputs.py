"""Paths to the files under them, those in zips with them."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from osler.errors import InputError, UnreadableFileError, UnsupportedError
from osler.ingest.file_part import FilePart, printable
from osler.ingest.limits import MAX_FILES
from osler.ingest.wire import receive_record
from osler.ingest.worker_pool import decoding_workers
from osler.ingest.zip_file import ZipMember, is_zip

_FIRST_BYTES = 8


def files_under(paths: Sequence[str | os.PathLike[str]]) -> list[FilePart | InputError]:
    """All files of some paths, or why there are none, in the order of the paths and their names.

    Hidden files are left out, as are those that systems put beside others.

    Raises:
        UnreadableFileError: a path that is not there, or nothing under any of them.
        UnsupportedError: more than `MAX_FILES`.
    """
    found: list[FilePart | InputError] = []
    for given in paths:
        path, name = Path(given), printable(os.fspath(given))
        if not path.exists():
            raise UnreadableFileError(f"{name}: no such file or folder")
        for file in _files_in(path) if path.is_dir() else [path]:
            found += _parts_of(file, printable(str(file)))
            if len(found) > MAX_FILES:
                raise UnsupportedError(f"{name}: more than the {MAX_FILES:,} files that are read")
    if not found:
        raise UnreadableFileError("no files there")
    return found


def _files_in(folder: Path) -> list[Path]:
    files: list[Path] = []
    for place, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = [each for each in folders if not _is_hidden(each)]
        files += (Path(place, name) for name in names if not _is_hidden(name))
    return sorted(files)


def _refuse(error: OSError) -> None:
    name = printable(str(error.filename))
    raise UnreadableFileError(f"{name}: cannot be read ({error.strerror})") from None


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in ("__MACOSX", "Thumbs.db")


def _parts_of(path: Path, name: str) -> list[FilePart | InputError]:
    part = FilePart(path, name)
    try:
        if not is_zip(part.read(_FIRST_BYTES)):
            return [part]
        receive = partial(receive_record, kind=list[ZipMember])
        (members,) = decoding_workers.ask({"task": "list", "source": name}, part.read(), receive)
    except InputError as error:
        return [error]
    return [
        FilePart(
            path,
            printable(f"{name}:{member.name}"),
            offset=member.offset,
            size_bytes=member.size_bytes,
            inflated_bytes=member.inflated_bytes,
        )
        for member in members
        if not any(map(_is_hidden, member.name.split("/")))
    ]
