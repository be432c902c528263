"""A client of FHIR servers: search page by page, a patient's everything, what is new since a day.

It talks to the one address that it was given, and to the token service that this names. It follows
no redirection, and no next page to another machine: a token would go with the request.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx2
import msgspec

from osler.archive.address import WebAddress
from osler.archive.retry import retried
from osler.archive.settings import LinkSettings
from osler.archive.smart_token import BackendClient, TokenSource
from osler.archive.web_errors import on_the_way, refusal
from osler.errors import ArchiveError, InputError, RecordError

_PAGE = 200
_MOST_PAGES = 10_000
_MOST_PAGE_BYTES = 64 << 20
_MOST_BYTES = 256 << 20
_JSON = "application/fhir+json"
_ID = re.compile(r"[A-Za-z0-9.-]{1,64}")
# What servers answer that have no such operation or no such search.
_NOT_THERE = (400, 404, 405, 422, 501)

# What a record is searched for where the server does not give everything at once.
RECORD_TYPES = """
    Encounter Condition AllergyIntolerance MedicationRequest MedicationStatement
    MedicationAdministration MedicationDispense Observation DiagnosticReport DocumentReference
    Procedure Immunization ImagingStudy CarePlan Goal ServiceRequest FamilyMemberHistory Composition
""".split()


class _Link(msgspec.Struct):
    relation: str = ""
    url: str = ""


class _Page(msgspec.Struct):
    """What is read of a page here; the resources in it are for others to read."""

    resourceType: str
    link: list[_Link] = []


class _NotThereError(ArchiveError):
    """The server has no such operation, search or resource."""


class FhirServer:
    """A FHIR R4 server.

    Args:
        address: the only place that is talked to; "/Patient" follows it.
        settings: patience, a token that is known already, certificates.
        client: gets tokens by SMART Backend Services, in the place of `settings.token`.
        transport: in the place of the network, for tests.

    Attributes:
        unsearched: types of resources that the server did not search for.
    """

    def __init__(
        self,
        address: WebAddress,
        settings: LinkSettings,
        *,
        client: BackendClient | None = None,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        self.address = address
        self.unsearched: list[str] = []
        self._settings = settings
        self._http = httpx2.Client(
            timeout=settings.timeout_s,
            verify=True if settings.tls is None else settings.tls,
            follow_redirects=False,
            trust_env=False,
            transport=transport,
        )
        self._tokens = TokenSource(address.base, client, self._http) if client else None

    def close(self) -> None:
        """End the connections."""
        self._http.close()

    def search(self, kind: str, params: Sequence[tuple[str, str]]) -> Iterator[bytes]:
        """Search for resources of a type.

        Args:
            kind: "Observation".
            params: names and values of the search, as ("patient", "1").

        Yields:
            Each page, a bundle of one line of JSON.

        Raises:
            ArchiveError: the server refuses, or sends what is no such bundle.
        """
        yield from self._pages(kind, [*params, ("_count", str(_PAGE))])

    def record(self, patient: str, since: str | None = None) -> list[bytes]:
        """All that the server has of a patient.

        Args:
            patient: the Patient's id.
            since: only what was written since then: a date or an instant with its zone.

        Returns:
            Bundles and resources, each one line of JSON.

        Raises:
            InputError: an id or a date that FHIR does not have.
            RecordError: no such patient.
            ArchiveError: the server refuses, or sends what is no FHIR.
        """
        path, instant = f"Patient/{_checked(patient)}", since and _instant(since)
        try:
            everything = [("_count", str(_PAGE)), *([("_since", instant)] if instant else [])]
            return list(self._pages(f"{path}/$everything", everything))
        except _NotThereError:
            pass
        try:
            found = [self._fetch(f"{self.address.base}/{path}", [])]
        except _NotThereError:
            raise RecordError(f"{self.address}: no patient of that id") from None
        for kind in RECORD_TYPES:
            params = [("patient", patient)]
            if kind.startswith("Medication"):
                params.append(("_include", f"{kind}:medication"))
            if instant:
                params.append(("_lastUpdated", f"ge{instant}"))
            try:
                found += self.search(kind, params)
            except _NotThereError:
                self.unsearched.append(kind)
        return found

    def _pages(self, path: str, params: Sequence[tuple[str, str]]) -> Iterator[bytes]:
        url, seen, total_bytes = f"{self.address.base}/{path}", set[str](), 0
        while True:
            data = self._fetch(url, params)
            total_bytes += len(data)
            if total_bytes > _MOST_BYTES or len(seen) > _MOST_PAGES:
                raise ArchiveError(f"{self.address}: answers with more than is read")
            yield data
            links = self._decoded(data).link
            following = next((link.url for link in links if link.relation == "next"), "")
            if not following:
                return
            # The link holds all parameters.
            url, params = urljoin(f"{self.address.base}/", following), ()
            if url in seen or _origin(url) != _origin(self.address.base):
                raise ArchiveError(f"{self.address}: its next page is elsewhere, or was there")
            seen.add(url)

    def _fetch(self, url: str, params: Sequence[tuple[str, str]]) -> bytes:
        return retried(lambda: self._asked(url, params), self._settings)

    def _asked(self, url: str, params: Sequence[tuple[str, str]]) -> bytes:
        """One answer, its JSON on one line."""
        with on_the_way(self.address):
            token = self._tokens.token() if self._tokens else self._settings.token
            headers = {"accept": _JSON}
            if token is not None:
                headers["authorization"] = f"Bearer {token}"
            # An empty list of parameters would take those off that the address has.
            query: Any = list(params) or None
            with self._http.stream("GET", url, params=query, headers=headers) as response:
                if response.status_code != 200:
                    there = response.status_code not in _NOT_THERE
                    kind = ArchiveError if there else _NotThereError
                    raise refusal(self.address, response, token, kind)
                return self._body(response)

    def _body(self, response: httpx2.Response) -> bytes:
        data = bytearray()
        for block in response.iter_bytes():
            data += block
            if len(data) > _MOST_PAGE_BYTES:
                raise ArchiveError(f"{self.address}: sends a page that is far too long")
        self._decoded(bytes(data))
        return msgspec.json.format(bytes(data), indent=-1)

    def _decoded(self, data: bytes) -> _Page:
        try:
            return msgspec.json.decode(data, type=_Page)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise ArchiveError(f"{self.address}: sends no FHIR; is it a FHIR server?") from None


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.rpartition("@")[2].casefold()


def _checked(patient: str) -> str:
    """A Patient's id as it may stand in an address (FHIR R4, datatypes, id)."""
    if not _ID.fullmatch(patient):
        raise InputError("a patient's id has letters, digits, '-' and '.', 64 at most")
    return patient


def _instant(since: str) -> str:
    """A date or a time as FHIR's instant, in UTC where no zone is given."""
    try:
        found = datetime.fromisoformat(since)
    except ValueError:
        reason = "since: give a date, as 2024-01-31, or a time with its zone"
        raise InputError(reason) from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).isoformat()
