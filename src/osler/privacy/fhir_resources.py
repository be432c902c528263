"""One FHIR resource, element by element: what is no code, number or cleaned text does not stay."""

import re
from datetime import date
from typing import Any

from osler.errors import UnreadableFileError
from osler.privacy.actions import Actions
from osler.privacy.dates import is_fhir_date, shift_fhir
from osler.privacy.fhir_attachments import clean_content, clean_div
from osler.privacy.fhir_references import new_identifier_value, new_reference, new_system
from osler.privacy.free_text import TextCleaner
from osler.privacy.profile import OLDEST_AGE, Profile
from osler.privacy.pseudonyms import Pseudonyms

Json = dict[str, Any]
_GONE = object()

_PEOPLE = frozenset(("Patient", "Practitioner", "RelatedPerson", "Person"))
_NAMED_PLACES = frozenset(
    ("Organization", "Location", "HealthcareService", "CareTeam", "Endpoint", "InsurancePlan")
)
# Elements that are gone wherever they stand.
_REMOVED = frozenset(
    """
    photo telecom udiCarrier deviceIdentifier serialNumber lotNumber distinctIdentifier carrierHRF
    carrierAIDC altId network assigner alias position hash size signature source link
    availabilityExceptions authorString sigFormat targetFormat
""".split()
)
# Of a person, unless characteristics are retained.
_CHARACTERISTICS = frozenset(
    ("gender", "maritalStatus", "communication", "multipleBirthBoolean", "multipleBirthInteger")
)
_CHARACTERISTIC_EXTENSIONS = ("race", "ethnicity", "birthsex", "genderidentity", "sex")
_CODES = frozenset(
    """
    resourceType system code unit status use intent url profile version language gender priority
    mode currency comparator contentType valueCode criticality type versionId method
    verificationStatus clinicalStatus class kind severity operator linkId
""".split()
)
_NUMBERS_OF_PEOPLE = frozenset(("subscriberId", "accountNumber", "policyNumber", "licenseNumber"))
_INSTANTS = frozenset(("issued", "lastUpdated", "timestamp", "recorded", "effectiveInstant"))
_CONTACT_SYSTEMS = frozenset(("phone", "fax", "email", "pager", "url", "sms", "other"))
_BARE_UID = re.compile(r"(?:urn:oid:)?[0-2](?:\.\d{1,64}){3,}")
_KEY = re.compile(r"[A-Za-z][A-Za-z0-9]{0,63}")
_DEEPEST = 100


class ResourceCleaner:
    """Cleans the resources of one patient.

    Args:
        profile: what is asked for.
        pseudonyms: of the key.
        identity: whom the resources are about.
        text: cleans what text stays.
        actions: where to say what was done.
    """

    def __init__(
        self,
        profile: Profile,
        pseudonyms: Pseudonyms,
        identity: str,
        text: TextCleaner,
        actions: Actions,
    ) -> None:
        self._profile = profile
        self._pseudonyms = pseudonyms
        self._patient = pseudonyms.patient(identity)
        self._text = text
        self._actions = actions

    def clean(self, resource: Json, depth: int = 0) -> Json:
        """The resource without whom it is about.

        Raises:
            UnreadableFileError: nested beyond all measure.
        """
        kind = str(resource.get("resourceType") or "")
        narrative = resource.get("text")
        if isinstance(narrative, dict) and "div" in narrative:
            resource = {key: value for key, value in resource.items() if key != "text"}
            self._actions.note("removed", "narrative")
        cleaned = self._object(resource, kind, "", depth)
        if kind == "Binary":
            cleaned |= self._content(resource)
        return cleaned

    def _object(self, value: Json, kind: str, path: str, depth: int) -> Json:
        """Clean the members of an object, one by one."""
        if depth > _DEEPEST:
            raise UnreadableFileError(f"nested more than {_DEEPEST} deep")
        cleaned = {}
        is_coding = "system" in value and "code" in value
        for key, member in value.items():
            new = _GONE
            if is_coding and key == "display" and isinstance(member, str):
                new = self._words("code", member)  # a terminology's words, not somebody's
            elif _KEY.fullmatch(key):
                new = self._member(key, member, kind, path, depth)
            else:  # "_birthDate" and the like: extensions of a primitive
                self._actions.note("removed", "extensions of primitive elements")
            if new is not _GONE and new != [] and new != {}:
                cleaned[key] = new
        return cleaned

    def _member(self, key: str, value: Any, kind: str, path: str, depth: int) -> Any:
        if self._is_removed(key, kind, path):
            return self._gone(f"{key} of a person" if kind in _PEOPLE else key)
        if isinstance(value, list):
            each = (self._member(key, one, kind, path, depth + 1) for one in value)
            return [one for one in each if one is not _GONE and one not in ({}, [])]
        if isinstance(value, dict):
            return self._complex(key, value, kind, path, depth)
        if isinstance(value, str):
            return self._string(key, value, kind, path)
        return value

    def _is_removed(self, key: str, kind: str, path: str) -> bool:
        if key in _REMOVED:
            # A search parameter's or an imaging object's "source" is an object, and cleaned as one.
            return not (key == "link" and kind == "Patient")
        if kind not in _PEOPLE:
            return False
        return key in _CHARACTERISTICS and not self._profile.retain_characteristics

    def _gone(self, place: str) -> object:
        self._actions.note("removed", place)
        return _GONE

    def _complex(self, key: str, value: Json, kind: str, path: str, depth: int) -> Any:
        if "resourceType" in value:
            return self.clean(value, depth + 1)
        if key in ("extension", "modifierExtension") and not self._may_stay(value, kind):
            return self._gone("extension")
        if "div" in value:
            return self._narrative(value)
        if _is_name(value) or (key == "name" and kind in _PEOPLE):
            return self._name(value, kind, path)
        if {"line", "city", "postalCode", "district"} & value.keys():
            self._actions.note("replaced", "Address")
            return {"country": value["country"]} if _is_short_code(value.get("country")) else _GONE
        if isinstance(value.get("value"), str) and "url" not in value:
            if value.get("system") in _CONTACT_SYSTEMS:
                return self._gone("ContactPoint")
            return self._identifier(value, kind, depth)
        if "contentType" in value or (key in ("attachment", "content") and "data" in value):
            return self._attachment(value, kind, depth)
        if "reference" in value and isinstance(value["reference"], str):
            return self._reference(value, kind, depth)
        if key in ("who", "author", "performer", "actor") and "display" in value:
            value = {inner: each for inner, each in value.items() if inner != "display"}
            self._actions.note("removed", "display of a reference")
        return self._object(value, kind, f"{path}.{key}", depth + 1)

    def _may_stay(self, extension: Json, kind: str) -> bool:
        if "geolocation" in str(extension.get("url")).lower():
            return False
        if kind not in _PEOPLE:
            return True
        name = str(extension.get("url") or "").rpartition("/")[2].lower()
        if "url" in extension and "/" not in str(extension["url"]):
            return True  # a part of one that stays
        is_characteristic = any(word in name for word in _CHARACTERISTIC_EXTENSIONS)
        return is_characteristic and self._profile.retain_characteristics

    def _narrative(self, value: Json) -> Json:
        self._actions.note("cleaned", "narrative of a section")
        return {"status": "generated", "div": clean_div(str(value["div"]), self._text)}

    def _name(self, value: Json, kind: str, path: str) -> Json:
        self._actions.note("replaced", "HumanName")
        parts = [*_list(value.get("given")), value.get("family"), value.get("text")]
        whole = " ".join(part for part in parts if isinstance(part, str))
        is_own = kind == "Patient" and not path
        family = self._patient if is_own else self._pseudonyms.person(whole)
        return {"family": family}

    def _identifier(self, value: Json, kind: str, depth: int) -> Json:
        self._actions.note("replaced", "Identifier")
        rest = {key: each for key, each in value.items() if key in ("use", "type", "period")}
        new = self._object(rest, kind, ".identifier", depth + 1)
        if isinstance(value.get("system"), str):
            new["system"] = new_system(value["system"], self._pseudonyms)
        return {**new, "value": new_identifier_value(value["value"], self._pseudonyms)}

    def _attachment(self, value: Json, kind: str, depth: int) -> Json:
        wanted = ("title", "creation", "language")
        rest = {key: each for key, each in value.items() if key in wanted}
        new = self._object(rest, kind, ".attachment", depth + 1) | self._content(value)
        url = value.get("url")
        if isinstance(url, str) and "Binary/" in url:
            new["url"] = new_reference(url, self._pseudonyms)
        elif url is not None:
            self._actions.note("removed", "URL of an attachment")
        return new

    def _content(self, value: Json) -> Json:
        content, done = clean_content(value, self._text)
        if done:
            self._actions.note(done, "content of an attachment")
        return content

    def _reference(self, value: Json, kind: str, depth: int) -> Json:
        rest = {key: each for key, each in value.items() if key in ("type", "identifier")}
        new = self._object(rest, kind, ".reference", depth + 1)
        self._actions.note("replaced", "Reference")
        return {"reference": new_reference(value["reference"], self._pseudonyms), **new}

    def _string(self, key: str, value: str, kind: str, path: str) -> Any:
        if key == "id":
            self._actions.note("replaced", "id")
            return self._pseudonyms.resource_id(value)
        if key in ("fullUrl", "reference", "location") or (
            key == "url" and path.endswith(".request")
        ):
            self._actions.note("replaced", "Reference")
            return new_reference(value, self._pseudonyms)
        if key == "birthDate":
            return self._birth_date(value)
        if key in _NUMBERS_OF_PEOPLE:
            self._actions.note("replaced", "Identifier")
            return self._pseudonyms.identifier(value)
        if key == "name" and (kind in _NAMED_PLACES or kind in _PEOPLE) and path.count(".") < 2:
            self._actions.note("replaced", "name of a place or an organization")
            return self._pseudonyms.person(value)
        if _BARE_UID.fullmatch(value) and key not in _CODES:
            self._actions.note("new UID", "UID")
            return new_identifier_value(value, self._pseudonyms)
        if is_fhir_date(value) and key not in _CODES:
            return self._date(key, value)
        return self._words(key, value)

    def _words(self, key: str, value: str) -> str:
        if key in _CODES:
            # A part of a code would be nonsense.
            new = "" if self._text.known.holds(value) and not _is_public(value) else value
        else:
            new = self._text.clean(value)[0]
        if new == value:
            return value
        self._actions.note("cleaned", "text")
        return new or "ANON"

    def _date(self, key: str, value: str) -> Any:
        if self._profile.retain_dates == "full":
            return value
        if self._profile.retain_dates == "none":
            if key in _INSTANTS:
                return self._gone("instant")
            self._actions.note("replaced", "date (its year stays)")
            return value[:4]
        moved = shift_fhir(value, self._text.shift_days)
        if moved is None:
            return self._gone("date")
        self._actions.note("shifted", "date")
        return moved

    def _birth_date(self, value: str) -> Any:
        year = value[:4]
        is_old = not year.isdigit() or date.today().year - int(year) > OLDEST_AGE
        if is_old or not self._profile.retain_characteristics:
            return self._gone("birthDate")
        return self._date("birthDate", value) if is_fhir_date(value) else year


def _is_name(value: Json) -> bool:
    return isinstance(value.get("family"), str) or isinstance(value.get("given"), list)


def _is_short_code(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[A-Z]{2,3}", value) is not None


def _is_public(value: str) -> bool:
    return value.startswith(("http://hl7.org/", "http://terminology.hl7.org/", "http://loinc.org"))


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
