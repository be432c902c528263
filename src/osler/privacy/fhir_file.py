"""A FHIR file as a whole: a bundle, a resource, or lines of them."""

import gzip
import io
import zlib
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import msgspec

from osler.errors import UnreadableFileError, UnsupportedError
from osler.ingest.limits import MAX_FILE_BYTES
from osler.privacy.actions import Actions
from osler.privacy.fhir_people import People, patient_of, people_in
from osler.privacy.fhir_references import new_reference
from osler.privacy.fhir_resources import ResourceCleaner
from osler.privacy.free_text import TextCleaner
from osler.privacy.profile import Profile
from osler.privacy.pseudonyms import Pseudonyms

Json = dict[str, Any]

_GZIP, _BOM = b"\x1f\x8b", b"\xef\xbb\xbf"
_DEEPEST_BUNDLE = 3
# That the subject's data are pseudonyms, as FHIR's security labels say it.
_LABEL = {
    "system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue",
    "code": "PSEUDED",
    "display": "pseudonymized",
}


def survey_fhir(data: bytes) -> People:
    """Who is in a file; all files of a run are surveyed before any is cleaned.

    Raises:
        UnreadableFileError: damaged, or no FHIR in JSON.
        UnsupportedError: more than is read.
    """
    return people_in(
        resource for value in _values(data)[0] for resource in _resources(value, depth=0)
    )


def clean_fhir(
    data: bytes, people: People, profile: Profile, pseudonyms: Pseudonyms, actions: Actions
) -> tuple[bytes, bool]:
    """De-identify a FHIR file.

    Args:
        data: the file.
        people: who is in the files of the run.
        profile: what is asked for.
        pseudonyms: of the key.
        actions: where to say what was done.

    Returns:
        The new file, and whether it is of lines.

    Raises:
        As `survey_fhir`.
    """
    values, are_lines = _values(data)
    cleaner = _FileCleaner(people, profile, pseudonyms, actions)
    cleaned = [msgspec.json.encode(cleaner.clean(value)) for value in values]
    return b"".join(line + b"\n" for line in cleaned), are_lines


class _FileCleaner:
    def __init__(
        self, people: People, profile: Profile, pseudonyms: Pseudonyms, actions: Actions
    ) -> None:
        self._people, self._profile = people, profile
        self._pseudonyms, self._actions = pseudonyms, actions
        self._of_patient = lru_cache(maxsize=64)(self._cleaner)

    def clean(self, resource: Json, default: str = "", depth: int = 0) -> Json:
        if resource.get("resourceType") != "Bundle":
            cleaned = self._of_patient(patient_of(resource) or default).clean(resource)
            return _labelled(cleaned)
        if depth > _DEEPEST_BUNDLE:
            raise UnsupportedError("bundles within bundles within bundles")
        own = {patient_of(each) for each in _resources(resource, depth)} - {""}
        only = own.pop() if len(own) == 1 else default
        entries = resource.get("entry")
        rest = {key: value for key, value in resource.items() if key != "entry"}
        bundle = self._of_patient(only).clean(rest)
        if isinstance(entries, list):
            bundle["entry"] = [
                self._entry(entry, only, depth) for entry in entries if isinstance(entry, dict)
            ]
        return _labelled(bundle)

    def _entry(self, entry: Json, only: str, depth: int) -> Json:
        new: Json = {}
        if isinstance(entry.get("fullUrl"), str):
            new["fullUrl"] = new_reference(entry["fullUrl"], self._pseudonyms)
        if isinstance(entry.get("resource"), dict):
            new["resource"] = self.clean(entry["resource"], only, depth + 1)
        request = entry.get("request")
        if isinstance(request, dict) and isinstance(request.get("url"), str):
            method, url = str(request.get("method") or "POST"), request["url"]
            is_type = url.isalpha()  # as "POST Patient" has it
            new["request"] = {
                "method": method if method.isalpha() else "POST",
                "url": url if is_type else new_reference(url, self._pseudonyms),
            }
        return new

    def _cleaner(self, patient: str) -> ResourceCleaner:
        person = self._people.patients.get(patient)
        identity = person.identity if person else patient
        text = TextCleaner(
            known=self._people.known_of(patient),
            retain_dates=self._profile.retain_dates,
            shift_days=self._pseudonyms.shift_days(identity),
        )
        return ResourceCleaner(self._profile, self._pseudonyms, identity, text, self._actions)


def _labelled(resource: Json) -> Json:
    meta = resource.get("meta")
    meta = dict(meta) if isinstance(meta, dict) else {}
    security = meta.get("security")
    meta["security"] = [*(security if isinstance(security, list) else []), _LABEL]
    kind = {"resourceType": resource.get("resourceType"), "id": resource.get("id"), "meta": meta}
    return {
        key: value for key, value in (kind | resource | {"meta": meta}).items() if value is not None
    }


def _resources(value: Json, depth: int) -> Iterator[Json]:
    """The resource, or those of the bundle that it is, with what they contain."""
    if depth > _DEEPEST_BUNDLE:
        raise UnsupportedError("bundles within bundles within bundles")
    if value.get("resourceType") == "Bundle":
        for entry in _list(value.get("entry")):
            resource = entry.get("resource") if isinstance(entry, dict) else None
            if isinstance(resource, dict):
                yield from _resources(resource, depth + 1)
        return
    yield value
    yield from (each for each in _list(value.get("contained")) if isinstance(each, dict))


def _values(data: bytes) -> tuple[list[Json], bool]:
    """The JSON values of a file, and whether each is a line."""
    if data.startswith(_GZIP):
        data = _inflated(data)
    data = data.removeprefix(_BOM).strip()
    lines = [line for line in data.split(b"\n") if line.strip()] if b"\n" in data else [data]
    are_lines = len(lines) > 1 and lines[0].rstrip().endswith(b"}") and _is_json(lines[0])
    values = [_decoded(part) for part in (lines if are_lines else [data])]
    if not all(isinstance(value, dict) and value.get("resourceType") for value in values):
        raise UnreadableFileError("JSON that is no FHIR resource")
    return values, are_lines


def _inflated(data: bytes) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            plain = file.read(MAX_FILE_BYTES + 1)
    except (OSError, EOFError, zlib.error):
        raise UnreadableFileError("the gzip file is damaged or truncated") from None
    if len(plain) > MAX_FILE_BYTES:
        raise UnsupportedError(f"unpacks to more than the {MAX_FILE_BYTES:,} bytes that are read")
    return plain


def _is_json(line: bytes) -> bool:
    try:
        msgspec.json.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _decoded(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except RecursionError:
        raise UnreadableFileError("nested too deeply") from None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise UnreadableFileError("not JSON, or truncated") from None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
