"""One instance: who it is, and where its file is."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from osler.errors import DicomError

_BLOCK_BYTES = 1 << 20
LONGEST_UID = 64
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")


@dataclass(frozen=True, kw_only=True, order=True)
class Instance:
    """What identifies an instance, and says of what kind it is.

    Attributes:
        sop_class_uid: "" where an archive's list does not tell.
    """

    study_uid: str
    series_uid: str
    sop_uid: str
    sop_class_uid: str = ""

    def __post_init__(self) -> None:
        """Refuse what is no UID: they become names of files."""
        for uid in (self.study_uid, self.series_uid, self.sop_uid):
            if not is_uid(uid):
                raise DicomError("an instance whose UIDs are missing or malformed")

    def is_same(self, other: "Instance") -> bool:
        """Whether two lists mean one instance."""
        mine = (self.study_uid, self.series_uid, self.sop_uid)
        return mine == (other.study_uid, other.series_uid, other.sop_uid)


@dataclass(frozen=True, kw_only=True)
class InstanceFile:
    """An instance in a file with preamble and file meta information.

    Attributes:
        size_bytes: of the whole file.
        data_set_offset_bytes: where the data set begins.
    """

    path: Path
    instance: Instance
    transfer_syntax: str
    size_bytes: int
    data_set_offset_bytes: int


def is_uid(text: str) -> bool:
    """Whether a text is a UID, and so harmless in a path (PS3.5 section 9.1)."""
    return len(text) <= LONGEST_UID and _UID.fullmatch(text) is not None


def data_set_blocks(file: InstanceFile) -> Iterator[bytes]:
    """The bytes of the data set alone."""
    with file.path.open("rb") as opened:
        opened.seek(file.data_set_offset_bytes)
        while block := opened.read(_BLOCK_BYTES):
            yield block
