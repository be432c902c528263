"""A client of DICOMweb: QIDO-RS finds, WADO-RS fetches, STOW-RS stores (PS3.18 chapter 10).

It talks to the one address that it was given: redirections are not followed, proxies and passwords
of the environment are not used. Files go through as they are; nothing decodes or rewrites them.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import httpx2
from pydicom import Dataset

from osler.archive.address import WebAddress
from osler.archive.archive import Step
from osler.archive.child import read_instance
from osler.archive.instance import Instance, InstanceFile
from osler.archive.multipart import DICOM, BrokenBodyError, FilesBody, write_only_part
from osler.archive.query import Query, agrees
from osler.archive.retry import retried
from osler.archive.settings import LinkSettings
from osler.archive.store import InstanceStore
from osler.archive.web_errors import on_the_way, refusal
from osler.errors import ArchiveError, ArchiveUnreachableError, InputError

_PAGE = 1000
_MOST_LIST_BYTES = 64 << 20
_JSON = "application/dicom+json"
# As it is stored, whatever its transfer syntax (PS3.18 8.7.3.5.2).
_AS_STORED = f'multipart/related; type="{DICOM}"; transfer-syntax=*'
# What one request carries: enough to hide the way there and back, little enough to try again.
_BATCH_FILES = 50
_BATCH_BYTES = 32 << 20

_REFERENCED_SEQUENCE, _REFERENCED_UID = "00081199", "00081155"


class WebArchive:
    """An archive that speaks DICOMweb.

    Args:
        address: the only place that is talked to.
        settings: patience, token, certificates.
        transport: in the place of the network, for tests.
    """

    def __init__(
        self,
        address: WebAddress,
        settings: LinkSettings,
        *,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        self.address = address
        self._settings = settings
        headers = {} if settings.token is None else {"authorization": f"Bearer {settings.token}"}
        self._client = httpx2.Client(
            headers=headers,
            timeout=settings.timeout_s,
            verify=True if settings.tls is None else settings.tls,
            follow_redirects=False,
            trust_env=False,
            transport=transport,
        )

    def close(self) -> None:
        """End the connections."""
        self._client.close()

    def check(self) -> None:
        """Ask for one study, whichever."""
        self._page("/studies", {"limit": "1"})

    def studies(self, query: Query) -> list[Dataset]:
        """The studies that a query means."""
        keys = query.of_studies
        counts = ("StudyDescription", "NumberOfStudyRelatedInstances")
        found = self._listed("/studies", keys, "StudyInstanceUID", counts)
        return [study for study in found if agrees(study, keys)]

    def instances(self, study_uid: str, query: Query) -> list[Instance]:
        """A study's instances, of the series that a query means."""
        path, keys = f"/studies/{study_uid}/series", query.of_series
        found = []
        for series in self._listed(path, keys, "SeriesInstanceUID"):
            if agrees(series, keys):
                found += self._of_series(study_uid, str(series.SeriesInstanceUID))
        return found

    def fetch(self, wanted: Sequence[Instance], store: InstanceStore, step: Step) -> None:
        """Bring instances into a store, byte by byte as they are stored."""
        for instance in wanted:
            retried(partial(self._fetch_one, instance, store), self._settings)
            step(1)

    def send(self, files: Sequence[InstanceFile], step: Step) -> list[InstanceFile]:
        """Store files, some at a time, and return those that are refused."""
        refused = []
        for batch in _batches(files):
            refused += retried(partial(self._send_batch, batch), self._settings)
            step(len(batch))
        return refused

    def _of_series(self, study_uid: str, series_uid: str) -> list[Instance]:
        path = f"/studies/{study_uid}/series/{series_uid}/instances"
        return [
            self._instance(study_uid, series_uid, found)
            for found in self._listed(path, {}, "SOPInstanceUID")
        ]

    def _instance(self, study_uid: str, series_uid: str, found: Dataset) -> Instance:
        try:
            return Instance(
                study_uid=study_uid,
                series_uid=series_uid,
                sop_uid=str(found.SOPInstanceUID),
                sop_class_uid=str(found.get("SOPClassUID", "")),
            )
        except InputError as error:
            raise ArchiveError(f"{self.address}: lists {error}") from None

    def _listed(
        self, path: str, keys: Mapping[str, str], uid: str, more: Sequence[str] = ()
    ) -> list[Dataset]:
        """All answers, page by page, each once."""
        answers: dict[str, Dataset] = {}
        offset = 0
        while True:
            params = {**keys, "limit": str(_PAGE), "offset": str(offset)}
            if more:
                params["includefield"] = ",".join(more)
            page = self._page(path, params)
            before = len(answers)
            for found in page:
                if uid not in found:
                    raise ArchiveError(f"{self.address}: answers without a {uid}")
                answers.setdefault(str(found[uid].value), found)
            offset += len(page)
            # Some servers give less than a page at a time, others know no pages and repeat
            # themselves; an answer without anything new is the end for both.
            if len(answers) == before:
                return list(answers.values())

    def _page(self, path: str, params: Mapping[str, str]) -> list[Dataset]:
        def ask() -> Any:
            headers = {"accept": _JSON}
            with self._request("GET", path, params=params, headers=headers) as response:
                return [] if response.status_code == 204 else self._json(response)

        answer = retried(ask, self._settings)
        if not isinstance(answer, list):
            raise self._no_dicomweb()
        try:
            return [Dataset.from_json(one) for one in answer]
        except (ValueError, TypeError, KeyError, AttributeError):
            raise self._no_dicomweb() from None

    def _fetch_one(self, instance: Instance, store: InstanceStore) -> None:
        path = (
            f"/studies/{instance.study_uid}/series/{instance.series_uid}"
            f"/instances/{instance.sop_uid}"
        )
        headers = {"accept": _AS_STORED, "accept-encoding": "identity"}
        with store.new_part() as part:
            with self._request("GET", path, headers=headers) as response, part.open("wb") as file:
                kind = response.headers.get("content-type", "")
                try:
                    write_only_part(kind, response.iter_bytes(), file)
                except BrokenBodyError:
                    raise self._no_file() from None
            try:
                written = read_instance(part)
            except InputError:
                raise self._no_file() from None
            if not written.instance.is_same(instance):
                raise ArchiveError(f"{self.address}: sends another instance than it was asked for")
            store.place(written)

    def _send_batch(self, files: Sequence[InstanceFile]) -> list[InstanceFile]:
        body = FilesBody(files)
        headers = {
            "accept": _JSON,
            "content-type": body.content_type,
            "content-length": str(body.size_bytes),
        }
        with self._request(
            "POST", "/studies", allowed=(200, 202, 409), content=body, headers=headers
        ) as response:
            answer = self._json(response)
        stored = _stored_uids(answer)
        return [file for file in files if file.instance.sop_uid not in stored]

    @contextmanager
    def _request(
        self, method: str, path: str, *, allowed: Sequence[int] = (200, 204), **rest: Any
    ) -> Iterator[httpx2.Response]:
        """Ask, and say in one line what went wrong on the way."""
        with (
            on_the_way(self.address),
            self._client.stream(method, self.address.base + path, **rest) as response,
        ):
            if response.status_code not in allowed:
                raise refusal(self.address, response, self._settings.token)
            yield response

    def _json(self, response: httpx2.Response) -> Any:
        data = bytearray()
        for block in response.iter_bytes():
            data += block
            if len(data) > _MOST_LIST_BYTES:
                raise ArchiveError(f"{self.address}: answers with a list that is far too long")
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            raise self._no_dicomweb() from None

    def _no_file(self) -> ArchiveError:
        reason = "sends something else than a DICOM file, or half of one"
        return ArchiveUnreachableError(f"{self.address}: {reason}")

    def _no_dicomweb(self) -> ArchiveError:
        reason = "answers with no DICOM JSON; is it a DICOMweb service?"
        return ArchiveError(f"{self.address}: {reason}")


def _batches(files: Sequence[InstanceFile]) -> Iterator[list[InstanceFile]]:
    batch: list[InstanceFile] = []
    size_bytes = 0
    for file in files:
        if batch and (len(batch) == _BATCH_FILES or size_bytes + file.size_bytes > _BATCH_BYTES):
            yield batch
            batch, size_bytes = [], 0
        batch.append(file)
        size_bytes += file.size_bytes
    if batch:
        yield batch


def _stored_uids(answer: Any) -> set[str]:
    """The instances that a store's answer says it holds now (PS3.18 table I.2-1)."""
    try:
        items = answer.get(_REFERENCED_SEQUENCE, {}).get("Value", [])
        return {item[_REFERENCED_UID]["Value"][0] for item in items}
    except (AttributeError, KeyError, IndexError, TypeError):
        return set()
