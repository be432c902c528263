"""C-CDA documents to FHIR bundles, by the `ccda-to-fhir` library, behind a guard of our own.

The library takes numbers through binary fractions, so "9.10" comes out as 9.1.
"""

import hashlib
import logging
import re
import uuid
from typing import Any
from xml.etree.ElementTree import Element, ParseError, TreeBuilder, tostring

import msgspec

from osler.errors import UnreadableFileError, UnsupportedError
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
        UnsupportedError: XML of another kind, a document that the library refuses, or the libraries
            are not installed.
    """
    root = _parse(data, name)
    if root.tag != _ROOT:
        kind = "FHIR in XML is not read, JSON is" if root.tag.startswith(_FHIR) else "no C-CDA"
        raise UnsupportedError(f"{name}: {kind}")
    try:
        from ccda_to_fhir import convert_document
        from ccda_to_fhir.ccda.parser import CDAParserError
        from ccda_to_fhir.exceptions import CCDAConversionError
    except ImportError:
        raise _missing(name) from None

    try:
        with _Failures() as failures:
            converted = convert_document(tostring(root, encoding="unicode"))
    except (CDAParserError, CCDAConversionError, ValueError) as error:  # pydantic's is a ValueError
        # Their messages quote the document.
        reason = type(error).__name__
        raise UnsupportedError(f"{name}: not converted from C-CDA ({reason})") from None
    entries: list[dict[str, Any]] = [
        *converted["bundle"]["entry"],
        *_not_converted(converted["metadata"]["skipped_templates"], failures.count),
    ]
    bundle = msgspec.json.encode({"resourceType": "Bundle", "entry": entries})
    return _with_stable_ids(bundle, entries, hashlib.sha256(data).hexdigest())


def _parse(data: bytes, name: str) -> Element:
    try:
        from defusedxml import DefusedXmlException
        from defusedxml.ElementTree import XMLParser
    except ImportError:
        raise _missing(name) from None
    parser = XMLParser(target=_ShallowTree(), forbid_dtd=True)
    try:
        parser.feed(data)
        root: Element = parser.close()
    except (DefusedXmlException, RecursionError):
        reason = f"XML with a DTD, with entities, or more than {MAX_XML_DEPTH} deep"
        raise UnreadableFileError(f"{name}: {reason}") from None
    except (ParseError, ValueError, LookupError):  # the latter two: an encoding that is none
        raise UnreadableFileError(f"{name}: XML that is damaged or truncated") from None
    return root


def _missing(name: str) -> UnsupportedError:
    return UnsupportedError(f"{name}: reading XML needs pip install 'osler[ccda]'")


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


class _Failures(logging.Handler):
    """Counts what the library could not convert.

    It tells so, and quotes the document, on standard output only; nothing of that gets out here.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __enter__(self) -> "_Failures":
        self._disabled = logging.root.manager.disable
        logging.disable(logging.NOTSET)
        logging.getLogger("ccda_to_fhir")  # above those that are yet to be made
        for name, logger in logging.root.manager.loggerDict.items():
            if name.startswith("ccda_to_fhir") and isinstance(logger, logging.Logger):
                logger.handlers, logger.propagate = [self], False
        return self

    def __exit__(self, *exception: object) -> None:
        logging.disable(self._disabled)

    def emit(self, record: logging.LogRecord) -> None:
        """Count a failure; hints and remarks are none."""
        if record.levelno >= logging.ERROR or record.exc_info:
            self.count += 1


def _not_converted(skipped: dict[str, Any], failures: int) -> list[dict[str, Any]]:
    """A resource for each, of a type that no timeline has."""
    kinds = [f"C-CDA {name}" for name, item in skipped.items() for _ in range(item["count"])]
    kinds += ["C-CDA part that failed"] * failures
    return [{"resource": {"resourceType": kind}} for kind in kinds]


def _with_stable_ids(bundle: bytes, entries: list[dict[str, Any]], sha256: str) -> bytes:
    """The library draws ids at random; a citation must find the same line the next time."""
    drawn = (entry["resource"].get("id") for entry in entries)
    stable = {
        str(old).encode(): str(uuid.uuid5(uuid.NAMESPACE_OID, f"{sha256}/{number}")).encode()
        for number, old in enumerate(filter(None, drawn))
    }
    return _UUID.sub(lambda match: stable.get(match[0], match[0]), bundle)
