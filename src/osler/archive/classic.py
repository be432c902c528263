"""A client of classic DICOM: C-ECHO, C-FIND, C-GET or C-MOVE, and C-STORE (PS3.4 annexes B, C)."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from ssl import SSLContext

from pydicom import Dataset
from pynetdicom import StoragePresentationContexts, build_role, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at run time
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)
from pynetdicom.status import QR_GET_SERVICE_CLASS_STATUS, QR_MOVE_SERVICE_CLASS_STATUS

from osler.archive.address import ClassicAddress
from osler.archive.archive import Step
from osler.archive.association import MOST_CONTEXTS, STORED_SYNTAXES, associated, context
from osler.archive.instance import Instance, InstanceFile
from osler.archive.query import Query, agrees
from osler.archive.receiver import Keep, answer_to_store, receiving, writing_into
from osler.archive.retry import retried
from osler.archive.settings import LinkSettings
from osler.archive.store import InstanceStore, Placed
from osler.errors import ArchiveError, ArchiveUnreachableError, InputError

_PENDING = (0xFF00, 0xFF01)
# Done, with or without remarks on elements of the data set; or there already.
_STORED = (0x0000, 0xB000, 0xB006, 0xB007, 0x0111)
_UNSENT = -1
_OUT_OF_RESOURCES = 0xA7
# What one request asks for: some archives say nothing before all of it was sent.
_BATCH = 50


@dataclass(frozen=True, kw_only=True)
class MoveTarget:
    """Where an archive is to send what C-MOVE asks for: our title must be known to it.

    Attributes:
        host: the address to listen on.
        port: the one that the archive knows.
        tls: encrypts what comes.
    """

    host: str
    port: int
    tls: SSLContext | None = None


class ClassicArchive:
    """An archive that speaks classic DICOM.

    Args:
        address: its title, host and port.
        settings: patience, our title, encryption.
        move: fetch with C-MOVE, which sends to here, and not with C-GET.
    """

    def __init__(
        self, address: ClassicAddress, settings: LinkSettings, *, move: MoveTarget | None = None
    ) -> None:
        self.address = address
        self._settings = settings
        self._move = move

    def close(self) -> None:
        """Nothing is left open between two calls."""

    def check(self) -> None:
        """Ask whether it is there (C-ECHO)."""
        retried(self._echo, self._settings)

    def studies(self, query: Query) -> list[Dataset]:
        """The studies that a query means (C-FIND)."""
        wanted = (
            "StudyInstanceUID",
            "PatientID",
            "AccessionNumber",
            "StudyDate",
            "StudyDescription",
            "ModalitiesInStudy",
            "NumberOfStudyRelatedInstances",
        )
        return self._find("STUDY", query.of_studies, wanted)

    def instances(self, study_uid: str, query: Query) -> list[Instance]:
        """A study's instances, of the series that a query means (C-FIND)."""
        keys = {"StudyInstanceUID": study_uid, **query.of_series}
        found = []
        for series in self._find("SERIES", keys, ("SeriesInstanceUID", "Modality")):
            of_series = {
                "StudyInstanceUID": study_uid,
                "SeriesInstanceUID": str(series.SeriesInstanceUID),
            }
            for image in self._find("IMAGE", of_series, ("SOPInstanceUID", "SOPClassUID")):
                found.append(self._instance(of_series, image))
        return found

    def fetch(self, wanted: Sequence[Instance], store: InstanceStore, step: Step) -> None:
        """Bring instances into a store (C-GET, or C-MOVE)."""
        missing = {instance.sop_uid: instance for instance in wanted}

        def keep(file: InstanceFile) -> Placed | None:
            instance = missing.get(file.instance.sop_uid)
            if instance is None or not instance.is_same(file.instance):
                return None
            placed = store.place(file)
            if missing.pop(file.instance.sop_uid, None) is not None:
                step(1)
            return placed

        with ExitStack() as stack:
            stack.enter_context(writing_into(store))
            if self._move is not None:
                stack.enter_context(
                    receiving(
                        self._settings.title,
                        self._move.host,
                        self._move.port,
                        keep,
                        timeout_s=self._settings.timeout_s,
                        tls=self._move.tls,
                    )
                )
            retrieve = partial(self._retrieve_all, list(_batches(wanted)), missing, keep)
            retried(retrieve, self._settings, lambda: len(missing))

    def send(self, files: Sequence[InstanceFile], step: Step) -> list[InstanceFile]:
        """Store files, as they are (C-STORE), and return those that are refused."""
        refused: list[InstanceFile] = []
        for group in _groups_of_contexts(files):
            left = list(group)
            store = partial(self._store, left, refused, step)
            retried(store, self._settings, left.__len__)
        return refused

    def _echo(self) -> None:
        with associated(self.address, self._settings, [context(Verification)]) as association:
            self._status(association.send_c_echo())

    def _find(self, level: str, keys: Mapping[str, str], wanted: Sequence[str]) -> list[Dataset]:
        identifier = Dataset()
        identifier.QueryRetrieveLevel = level
        identifier.SpecificCharacterSet = "ISO_IR 192"
        for keyword in wanted:
            setattr(identifier, keyword, None)
        for keyword, value in keys.items():
            setattr(identifier, keyword, value)
        found = retried(partial(self._find_once, identifier), self._settings)
        if any(not one.get(wanted[0]) for one in found):
            raise ArchiveError(f"{self.address}: answers without a {wanted[0]}")
        return [one for one in found if agrees(one, keys)]

    def _find_once(self, identifier: Dataset) -> list[Dataset]:
        model = StudyRootQueryRetrieveInformationModelFind
        found = []
        with associated(self.address, self._settings, [context(model)]) as association:
            for status, answer in association.send_c_find(identifier, model):
                if self._status(status) in _PENDING:
                    if answer is None:
                        raise ArchiveError(f"{self.address}: answers with a malformed data set")
                    found.append(answer)
                elif status.Status != 0:
                    raise ArchiveError(
                        f"{self.address}: refuses the search (status {status.Status:04X})"
                    )
        return found

    def _instance(self, of_series: Mapping[str, str], image: Dataset) -> Instance:
        try:
            return Instance(
                study_uid=of_series["StudyInstanceUID"],
                series_uid=of_series["SeriesInstanceUID"],
                sop_uid=str(image.SOPInstanceUID),
                sop_class_uid=str(image.get("SOPClassUID") or ""),
            )
        except InputError as error:
            raise ArchiveError(f"{self.address}: lists {error}") from None

    def _retrieve_all(
        self, batches: Sequence[Sequence[Instance]], missing: Mapping[str, Instance], keep: Keep
    ) -> None:
        """Ask for what is missing, batch by batch; what does not come holds up no other."""
        statuses: dict[int, None] = {}
        for batch in batches:
            if asked := [instance for instance in batch if instance.sop_uid in missing]:
                status = self._retrieve(asked, keep)
                if any(instance.sop_uid in missing for instance in asked):
                    statuses[status] = None
        if not missing:
            return
        table = QR_GET_SERVICE_CLASS_STATUS if self._move is None else QR_MOVE_SERVICE_CLASS_STATUS
        said = "; ".join(
            f"status {status:04X} {table.get(status, ('', ''))[1]}".strip() for status in statuses
        )
        is_busy = any(status >> 8 == _OUT_OF_RESOURCES for status in statuses)
        kind = ArchiveUnreachableError if is_busy else ArchiveError
        raise kind(f"{self.address}: did not send {len(missing)} instances ({said})")

    def _retrieve(self, asked: Sequence[Instance], keep: Keep) -> int:
        """Ask for instances of one series and one SOP class."""
        identifier = Dataset()
        identifier.QueryRetrieveLevel = "IMAGE"
        identifier.StudyInstanceUID = asked[0].study_uid
        identifier.SeriesInstanceUID = asked[0].series_uid
        identifier.SOPInstanceUID = [instance.sop_uid for instance in asked]
        if self._move is None:
            return self._get(identifier, asked[0].sop_class_uid, keep)
        return self._move_here(identifier)

    def _get(self, identifier: Dataset, sop_class: str, keep: Keep) -> int:
        model = StudyRootQueryRetrieveInformationModelGet
        if sop_class:
            # One syntax each: that in which it is stored is then the one it comes in.
            stored = [context(sop_class, syntax) for syntax in STORED_SYNTAXES]
            classes = [sop_class]
        else:
            classes = [str(one.abstract_syntax) for one in StoragePresentationContexts]
            classes = classes[: MOST_CONTEXTS - 1]
            stored = [context(one, *STORED_SYNTAXES) for one in classes]
        with associated(
            self.address,
            self._settings,
            [context(model), *stored],
            negotiated=[build_role(one, scp_role=True) for one in classes],
            handlers=[(evt.EVT_C_STORE, answer_to_store, [keep])],
        ) as association:
            return self._final(association.send_c_get(identifier, model))

    def _move_here(self, identifier: Dataset) -> int:
        model = StudyRootQueryRetrieveInformationModelMove
        with associated(self.address, self._settings, [context(model)]) as association:
            return self._final(association.send_c_move(identifier, self._settings.title, model))

    def _final(self, answers: Iterator[tuple[Dataset, Dataset | None]]) -> int:
        status = 0
        for answer, _ in answers:
            status = self._status(answer)
        return status

    def _status(self, answer: Dataset) -> int:
        """The status of an answer; an empty one stands for a broken or silent connection."""
        if "Status" not in answer:
            raise ArchiveUnreachableError(f"{self.address}: broke off, or did not answer in time")
        return int(answer.Status)

    def _store(self, left: list[InstanceFile], refused: list[InstanceFile], step: Step) -> None:
        """Send what is left, and take off the list what is done."""
        kinds = {(file.instance.sop_class_uid, file.transfer_syntax) for file in left}
        proposed = [context(sop_class, syntax) for sop_class, syntax in sorted(kinds)]
        with associated(self.address, self._settings, proposed) as association:
            accepted = _accepted(association)
            while left:
                file = left[0]
                if (file.instance.sop_class_uid, file.transfer_syntax) not in accepted:
                    status = _UNSENT
                else:
                    status = self._sent(association, file)
                if status >> 8 == _OUT_OF_RESOURCES:
                    raise ArchiveUnreachableError(f"{self.address}: has no room")
                if status not in _STORED:
                    refused.append(file)
                left.pop(0)
                step(1)

    def _sent(self, association: Association, file: InstanceFile) -> int:
        try:
            return self._status(association.send_c_store(file.path))
        except (AttributeError, ValueError):  # the file meta information lacks what a request says
            return _UNSENT


def _accepted(association: Association) -> set[tuple[str, str]]:
    return {
        (str(one.abstract_syntax), str(one.transfer_syntax[0]))
        for one in association.accepted_contexts
    }


def _batches(wanted: Sequence[Instance]) -> Iterator[list[Instance]]:
    def kind(instance: Instance) -> tuple[str, str, str]:
        return instance.study_uid, instance.series_uid, instance.sop_class_uid

    for _, group in groupby(sorted(wanted, key=kind), key=kind):
        instances = list(group)
        for start in range(0, len(instances), _BATCH):
            yield instances[start : start + _BATCH]


def _groups_of_contexts(files: Sequence[InstanceFile]) -> Iterator[list[InstanceFile]]:
    """Files in such groups that the kinds of each fit into one association."""
    kinds: dict[tuple[str, str], list[InstanceFile]] = {}
    for file in files:
        kinds.setdefault((file.instance.sop_class_uid, file.transfer_syntax), []).append(file)
    groups = list(kinds.values())
    for start in range(0, len(groups), MOST_CONTEXTS):
        yield [file for group in groups[start : start + MOST_CONTEXTS] for file in group]
