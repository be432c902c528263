"""Logical ids and what refers to them, mapped alike so that no reference breaks."""

import re

from osler.privacy.pseudonyms import Pseudonyms

# In the place of whatever server a record came from.
BASE = "http://deidentified.invalid/fhir/"
_RESTFUL = re.compile(
    r"(?P<base>https?://[^?#]*/)?(?P<type>[A-Z][A-Za-z]{1,39})/(?P<id>[A-Za-z0-9\-.]{1,64})"
    r"(?:/_history/(?P<version>\d{1,9}))?(?:#(?P<part>[A-Za-z0-9\-.]{1,64}))?"
)
_CONDITIONAL = re.compile(
    r"(?P<base>https?://[^?#]*/)?(?P<type>[A-Z][A-Za-z]{1,39})\?identifier=(?P<system>[^|&]*)\|(?P<value>[^&]*)"
)
_OID = re.compile(r"[0-2](?:\.\d{1,64}){3,}")
# Systems that all the world shares; others tell where somebody was treated.
_PUBLIC = (
    "http://hl7.org/",
    "http://terminology.hl7.org/",
    "urn:ietf:rfc:",
    "urn:dicom:uid",
    "http://loinc.org",
    "http://snomed.info",
)


def new_reference(reference: str, pseudonyms: Pseudonyms) -> str:
    """What a reference, a fullUrl or the URL of a request becomes.

    >>> p = Pseudonyms(b"k")
    >>> new_reference("urn:uuid:1", p).removeprefix("urn:uuid:") == p.resource_id("1")
    True
    >>> new_reference("http://h/Patient/1", p) == BASE + new_reference("Patient/1", p)
    True
    """
    if reference.startswith("#"):
        return f"#{pseudonyms.resource_id(reference[1:])}"
    if reference.startswith("urn:uuid:"):
        return f"urn:uuid:{pseudonyms.resource_id(reference.removeprefix('urn:uuid:'))}"
    if reference.startswith("urn:oid:"):
        return f"urn:oid:{pseudonyms.uid(reference.removeprefix('urn:oid:'))}"
    if match := _RESTFUL.fullmatch(reference):
        new = (
            f"{BASE if match['base'] else ''}{match['type']}/{pseudonyms.resource_id(match['id'])}"
        )
        if match["version"]:
            new += f"/_history/{match['version']}"
        return f"{new}#{pseudonyms.resource_id(match['part'])}" if match["part"] else new
    if match := _CONDITIONAL.fullmatch(reference):
        system = new_system(match["system"], pseudonyms)
        value = new_identifier_value(match["value"], pseudonyms)
        return f"{BASE if match['base'] else ''}{match['type']}?identifier={system}|{value}"
    return f"urn:uuid:{pseudonyms.resource_id(reference)}"


def new_system(system: str, pseudonyms: Pseudonyms) -> str:
    """The namespace of an identifier, unless all the world shares it, as a pseudonym."""
    if not system or system.startswith(_PUBLIC):
        return system
    return f"urn:uuid:{pseudonyms.resource_id(system)}"


def new_identifier_value(value: str, pseudonyms: Pseudonyms) -> str:
    """What stands for an identifier's value; UIDs stay UIDs, and the same as in DICOM."""
    uid = value.removeprefix("urn:oid:")
    if _OID.fullmatch(uid):
        return value[: len(value) - len(uid)] + pseudonyms.uid(uid)
    if value.startswith("urn:uuid:"):
        return f"urn:uuid:{pseudonyms.resource_id(value.removeprefix('urn:uuid:'))}"
    return pseudonyms.identifier(value)
