"""C-CDA documents to FHIR bundles, by the `ccda-to-fhir` library, behind a guard of our own.

The library takes numbers through binary fractions, so "9.10" comes out as 9.1.
"""

import hashlib
import logging
import re
import uuid
from importlib.util import find_spec
from typing import Any
from xml.etree.ElementTree import Element, ParseError, TreeBuilder, tostring

import msgspec

from osler.errors import RecordError, UnreadableFileError, UnsupportedError
from osler.ingest.fhir.limits import MAX_XML_DEPTH

_ROOT = "{urn:hl7-org:v3}ClinicalDocument"
_FHIR = "{http://hl7.org/fhir}"
_UUID = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def bundle_of_ccda(data: bytes, name: str) -> bytes:
    """Convert a C-CDA document.

    Args:
        data: XML.
        name: the file's, for messages.

    Returns:
        The JSON of a FHIR bundle. Entries of the document that the library does not convert are in
        it under a type of their own, "C-CDA" with their template, so that they are counted.

    Raises:
        UnreadableFileError: not XML, or with a DTD or entities, or nested too deeply.
        UnsupportedError: XML of another kind, or the libraries are not installed.
        RecordError: a document that the library refuses.
    """
    if find_spec("ccda_to_fhir") is None or find_spec("defusedxml") is None:
        raise UnsupportedError(f"{name}: reading C-CDA needs pip install 'osler[ccda]'")
    root = _parse(data, name)
    if root.tag != _ROOT:
        kind = "FHIR in XML is not read, JSON is" if root.tag.startswith(_FHIR) else "no C-CDA"
        raise UnsupportedError(f"{name}: {kind}")
    # It logs what it reads, to standard error.
    log = logging.getLogger("ccda_to_fhir")
    log.propagate = False
    log.addHandler(logging.NullHandler())
    from ccda_to_fhir import convert_document
    from ccda_to_fhir.ccda.parser import CDAParserError
    from ccda_to_fhir.exceptions import CCDAConversionError

    try:
        converted = convert_document(tostring(root, encoding="unicode"))
    except (CDAParserError, CCDAConversionError, ValueError) as error:  # pydantic's is a ValueError
        # Their messages quote the document.
        reason = type(error).__name__
        raise RecordError(f"{name}: not converted from C-CDA ({reason})") from None
    entries: list[dict[str, Any]] = [
        *converted["bundle"]["entry"],
        *_not_converted(converted["metadata"]),
    ]
    bundle = msgspec.json.encode({"resourceType": "Bundle", "entry": entries})
    return _with_stable_ids(bundle, entries, hashlib.sha256(data).hexdigest())


def _parse(data: bytes, name: str) -> Element:
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import XMLParser

    parser = XMLParser(target=_ShallowTree(), forbid_dtd=True)
    try:
        parser.feed(data)
        root: Element = parser.close()
    except (DefusedXmlException, RecursionError):
        reason = f"XML with a DTD, with entities, or more than {MAX_XML_DEPTH} deep"
        raise UnreadableFileError(f"{name}: {reason}") from None
    except (ParseError, ValueError):  # ValueError: an encoding that is none
        raise UnreadableFileError(f"{name}: XML that is damaged or truncated") from None
    return root


class _ShallowTree(TreeBuilder):
    """Refuses depths that recursion over the tree would not survive."""

    def __init__(self) -> None:
        super().__init__()
        self._depth = 0

    def start(self, tag: str, attrs: dict[str, str], /) -> Element:
        self._depth += 1
        if self._depth > MAX_XML_DEPTH:
            raise RecursionError
        return super().start(tag, attrs)

    def end(self, tag: str, /) -> Element:
        self._depth -= 1
        return super().end(tag)


def _not_converted(metadata: Any) -> list[dict[str, Any]]:
    skipped = metadata["skipped_templates"].values()
    kinds = [str(item["template_id"]) for item in skipped for _ in range(item["count"])]
    kinds += [str(item["template_id"]) for item in metadata["errors"]]
    return [{"resource": {"resourceType": f"C-CDA {kind}"}} for kind in kinds]


def _with_stable_ids(bundle: bytes, entries: list[dict[str, Any]], sha256: str) -> bytes:
    """The library draws ids at random; a citation must find the same line the next time."""
    drawn = (entry["resource"].get("id") for entry in entries)
    stable = {
        str(old).encode(): str(uuid.uuid5(uuid.NAMESPACE_OID, f"{sha256}/{number}")).encode()
        for number, old in enumerate(filter(None, drawn))
    }
    return _UUID.sub(lambda match: stable.get(match[0], match[0]), bundle)
