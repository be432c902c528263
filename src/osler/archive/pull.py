"""Studies of an archive into a folder; what is there already and whole is not fetched again."""

from dataclasses import dataclass
from pathlib import Path

from osler.archive.archive import Archive, Progress, silent
from osler.archive.instance import Instance
from osler.archive.query import Query
from osler.archive.store import InstanceStore
from osler.errors import ArchiveError


@dataclass(frozen=True, kw_only=True)
class Pulled:
    """What a pull has done.

    Attributes:
        folder: where the studies are, each in a folder of its UID.
        studies: their UIDs.
        fetched: instances that came now.
        kept: instances that were there before, and whole.
    """

    folder: Path
    studies: tuple[str, ...]
    fetched: int
    kept: int


def pull(archive: Archive, query: Query, folder: Path, *, progress: Progress = silent) -> Pulled:
    """Fetch all that a query means.

    Args:
        archive: from where.
        query: which studies, and which of their series.
        folder: where to; made where it is not there.
        progress: called with how many of the instances are here, and of how many.

    Returns:
        What was done.

    Raises:
        ArchiveError: nothing matches, the archive fails, or another process writes there; what has
            come by then stays, and the next pull goes on from it.
    """
    store = InstanceStore(folder)
    with store.opened():
        wanted = find_instances(archive, query)
        missing = [instance for instance in wanted if not store.holds(instance)]
        kept, fetched = len(wanted) - len(missing), 0
        progress(kept, len(wanted))

        def count(done: int) -> None:
            nonlocal fetched
            fetched += done
            progress(kept + fetched, len(wanted))

        try:
            archive.fetch(missing, store, count)
        except ArchiveError as error:
            so_far = f"{kept + fetched} of {len(wanted)} instances are here, the next pull goes on"
            raise type(error)(f"{error}; {so_far}") from None
    studies = dict.fromkeys(instance.study_uid for instance in wanted)
    return Pulled(folder=folder, studies=tuple(studies), fetched=fetched, kept=kept)


def find_instances(archive: Archive, query: Query) -> list[Instance]:
    """All instances that a query means, each once.

    Raises:
        ArchiveError: there are none, or the archive fails.
    """
    found: dict[str, Instance] = {}
    for study in archive.studies(query):
        for instance in archive.instances(str(study.StudyInstanceUID), query):
            found.setdefault(instance.sop_uid, instance)
    if not found:
        raise ArchiveError(f"{archive.address}: has nothing that matches")
    return list(found.values())
