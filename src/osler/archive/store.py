"""A folder of instances: STUDY/SERIES/INSTANCE.dcm, each name a UID, each file whole."""

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Literal

from osler.archive.child import is_whole, read_instance
from osler.archive.instance import Instance, InstanceFile, data_set_blocks
from osler.errors import ArchiveError

_PARTS = ".parts"
_LOCK = "lock"

Placed = Literal["new", "kept", "conflict"]


class InstanceStore:
    """A folder that one process writes to at a time.

    Files are written in its folder ".parts" and renamed when they are whole, so that no half
    file ever bears an instance's name. Only their owner may read them.

    Args:
        folder: made where it is not there yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.parts = folder / _PARTS

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Keep other processes out, and remove what a killed one has left half done.

        Raises:
            ArchiveError: another process writes there.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise ArchiveError(f"{self.folder}: a file, not a folder")
        self.parts.mkdir(parents=True, exist_ok=True)
        with (self.parts / _LOCK).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ArchiveError(f"{self.folder}: another osler writes there") from None
            self.remove_parts()
            try:
                yield
            finally:
                self.remove_parts()

    def remove_parts(self, older_than_s: float = 0.0) -> None:
        """Remove files that nobody has gone on writing for so long."""
        latest = time.time() - older_than_s
        for part in self.parts.iterdir():
            if part.name != _LOCK and part.stat().st_mtime <= latest:
                part.unlink(missing_ok=True)

    @contextmanager
    def new_part(self) -> Iterator[Path]:
        """An empty file to write to, which is gone afterwards unless it was placed."""
        handle, name = tempfile.mkstemp(dir=self.parts)
        os.close(handle)
        part = Path(name)
        try:
            yield part
        finally:
            part.unlink(missing_ok=True)

    def path(self, instance: Instance) -> Path:
        """Where an instance is, or will be."""
        return self.folder / instance.study_uid / instance.series_uid / f"{instance.sop_uid}.dcm"

    def holds(self, instance: Instance) -> bool:
        """Whether an instance is there, and whole."""
        path = self.path(instance)
        return path.is_file() and is_whole(path)

    def place(self, part: InstanceFile) -> Placed:
        """Give a written file its name; what is there already and whole stays.

        Returns:
            "new" where it took the place; "kept" where that instance was there; "conflict" where
            another data set bears its UID, which then stays.
        """
        path = self.path(part.instance)
        if self.holds(part.instance):
            is_other = _is_other(part, path)
            part.path.unlink()
            return "conflict" if is_other else "kept"
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.path.open("rb") as file:
            os.fsync(file.fileno())  # or the name may outlast a power cut, and the content not
        part.path.replace(path)
        return "new"


def _is_other(part: InstanceFile, path: Path) -> bool:
    """Whether two files of one UID differ in more than what carried them.

    The file meta information is the carrier's; and data sets of unlike transfer syntaxes are not
    compared, as one instance may come in several.
    """
    held = read_instance(path)
    if held.transfer_syntax != part.transfer_syntax:
        return False
    blocks = zip_longest(data_set_blocks(part), data_set_blocks(held))
    return any(one != other for one, other in blocks)
