"""An archive of classic DICOM in a hundred lines: it keeps instances in memory, and can break."""

from collections.abc import Iterator
from io import BytesIO
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.uid import AllTransferSyntaxes
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.events import Event
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at run time
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)

_LEVELS = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}
_NOT_KEYS = {"QueryRetrieveLevel", "SpecificCharacterSet"}


class TinyClassicArchive:
    """On loopback, in threads of its own.

    Attributes:
        files: by SOP instance UID.
        asked: the SOP instance UIDs of every retrieval.
        destinations: of C-MOVE, title to port.
        breaks_after: after so many instances an association is aborted; None for never.
        search_status: what every search ends with.
    """

    title = "TINY"

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[list[str]] = []
        self.destinations: dict[str, int] = {}
        self.breaks_after: int | None = None
        self.search_status = 0
        self._entity = AE(ae_title=self.title)
        for model in (
            Verification,
            StudyRootQueryRetrieveInformationModelFind,
            StudyRootQueryRetrieveInformationModelGet,
            StudyRootQueryRetrieveInformationModelMove,
        ):
            self._entity.add_supported_context(model)
        for storage in AllStoragePresentationContexts:
            assert storage.abstract_syntax is not None
            self._entity.add_supported_context(
                storage.abstract_syntax, list(AllTransferSyntaxes), scu_role=True, scp_role=True
            )
            if len(self._entity.requested_contexts) < 100:
                self._entity.add_requested_context(storage.abstract_syntax)

    def __enter__(self) -> "TinyClassicArchive":
        handlers: list[Any] = [
            (evt.EVT_C_FIND, self._find),
            (evt.EVT_C_GET, self._get),
            (evt.EVT_C_MOVE, self._move),
            (evt.EVT_C_STORE, self._store),
        ]
        server = self._entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        assert server is not None
        self.address = f"{self.title}@127.0.0.1:{server.server_address[1]}"
        return self

    def __exit__(self, *exception: object) -> None:
        self._entity.shutdown()

    def add(self, data: bytes) -> None:
        self.files[str(dcmread(BytesIO(data), stop_before_pixels=True).SOPInstanceUID)] = data

    def _find(self, event: Event) -> Iterator[tuple[int, Dataset | None]]:
        if self.search_status:
            yield self.search_status, None
            return
        wanted = event.identifier
        seen = set()
        for data in self.files.values():
            held = dcmread(BytesIO(data), stop_before_pixels=True)
            uid = held[_LEVELS[wanted.QueryRetrieveLevel]].value
            keys = [
                element.keyword for element in wanted if element.value and element.tag.group > 8
            ]
            if uid in seen or any(wanted[key].value != held.get(key) for key in keys):
                continue
            seen.add(uid)
            answer = Dataset()
            for element in wanted:
                if element.keyword in held:
                    answer.add(held[element.keyword])
            yield 0xFF00, answer

    def _get(self, event: Event) -> Iterator[Any]:
        found = self._retrieved(event)
        yield len(found)
        for number, data in enumerate(found):
            if number == self.breaks_after:
                self.breaks_after = None
                event.assoc.abort()
                return
            yield 0xFF00, dcmread(BytesIO(data))

    def _move(self, event: Event) -> Iterator[Any]:
        port = self.destinations.get(str(event.move_destination))
        if port is None:
            yield None, None
            return
        yield "127.0.0.1", port
        found = self._retrieved(event)
        yield len(found)
        for data in found:
            yield 0xFF00, dcmread(BytesIO(data))

    def _retrieved(self, event: Event) -> list[bytes]:
        uids = event.identifier.SOPInstanceUID
        self.asked.append([uids] if isinstance(uids, str) else list(uids))
        return [self.files[uid] for uid in self.asked[-1] if uid in self.files]

    def _store(self, event: Event) -> int:
        self.add(event.dataset_path.read_bytes())
        event.dataset_path.unlink()
        return 0
