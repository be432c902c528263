"""What every archive can do, whichever protocol it speaks."""

from collections.abc import Callable, Sequence
from typing import Protocol

from pydicom import Dataset

from osler.archive.address import ClassicAddress, WebAddress
from osler.archive.instance import Instance, InstanceFile
from osler.archive.query import Query
from osler.archive.store import InstanceStore

# Called with the number of instances that have just been done.
Step = Callable[[int], object]
# Called with how many are done, and of how many.
Progress = Callable[[int, int], object]


def silent(_done: int, _total: int) -> None:
    """Progress that nobody looks at."""


class Archive(Protocol):
    """One archive. Every method raises `ArchiveError`, naming the archive and the reason."""

    @property
    def address(self) -> WebAddress | ClassicAddress:
        """Where it is."""

    def check(self) -> None:
        """Ask whether it is there and speaks the protocol."""

    def studies(self, query: Query) -> list[Dataset]:
        """The studies that a query means; each has a StudyInstanceUID."""

    def instances(self, study_uid: str, query: Query) -> list[Instance]:
        """A study's instances, of the series that a query means."""

    def fetch(self, wanted: Sequence[Instance], store: InstanceStore, step: Step) -> None:
        """Bring instances into a store."""

    def send(self, files: Sequence[InstanceFile], step: Step) -> list[InstanceFile]:
        """Store files in the archive, and return those that it refuses.

        That it has a file already is no refusal.
        """
