"""The door to the child processes that parse DICOM files for this room."""

import atexit
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

from osler.archive.instance import Instance, InstanceFile
from osler.archive.results.attributes import Attributes
from osler.errors import InputError
from osler.ingest.file_part import printable
from osler.ingest.wire import receive_record
from osler.ingest.worker_pool import WORKERS, WorkerPool

_workers = WorkerPool(WORKERS, command=(sys.executable, "-P", "-m", "osler.archive.worker"))
atexit.register(_workers.close)
os.register_at_fork(after_in_child=_workers.forget)


def read_instance(path: Path) -> InstanceFile:
    """Read who a file is, from its beginning.

    Raises:
        UnreadableFileError: not a DICOM file (PS3.10), it cannot be read, or it takes too long.
        DicomError: malformed, or without the UIDs that every instance has.
    """
    kind = tuple[Instance, str, int, int]
    instance, syntax, size_bytes, offset_bytes = _ask("instance", path, kind)
    return InstanceFile(
        path=path,
        instance=instance,
        transfer_syntax=syntax,
        size_bytes=size_bytes,
        data_set_offset_bytes=offset_bytes,
    )


def is_whole(path: Path) -> bool:
    """Whether a file's data set goes on to the file's last byte, and ends there."""
    try:
        return bool(_ask("whole", path, bool))
    except InputError:  # it is not there, or it takes too long to say
        return False


def read_attributes(path: Path) -> tuple[Instance, Attributes]:
    """Read which instance a file is, and what results take over of it.

    Raises:
        UnreadableFileError: not a DICOM file, it cannot be read, or it takes too long.
        DicomError: without its UIDs, or malformed.
    """
    found: tuple[Instance, Attributes] = _ask("attributes", path, tuple[Instance, Attributes])
    return found


def _ask(task: str, path: Path, kind: Any) -> Any:
    header = {"task": task, "source": printable(str(path)), "path": str(path.absolute())}
    return _workers.ask(header, b"", partial(receive_record, kind=kind))[0]
