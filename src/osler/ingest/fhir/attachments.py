"""Attachments to text: plain text and HTML are read, all else is refused with its reason."""

import binascii
import codecs
import re
from base64 import b64decode
from collections.abc import Callable
from html.parser import HTMLParser

from osler.ingest.fhir.fields import Json, child, printable, string
from osler.ingest.fhir.limits import MAX_NOTE
from osler.ingest.fhir.records import Attachment

_BREAKS = frozenset(
    "address article br div dl h1 h2 h3 h4 h5 h6 hr li ol p pre table tr ul".split()
)
_SILENT = frozenset(("script", "style", "head", "template"))
_REFUSED = {
    "application/rtf": "RTF is not read",
    "text/rtf": "RTF is not read",
    "application/pdf": "PDF is not read",
    "application/xml": "XML is not read here; hand a C-CDA document in as a file",
    "text/xml": "XML is not read here; hand a C-CDA document in as a file",
}
_SPACES = re.compile(r"[^\S\n]+")


def attachment(value: Json, binary: Callable[[str], Json | None]) -> Attachment:
    """Read a FHIR Attachment.

    Args:
        value: the Attachment.
        binary: finds a Binary resource of the same record by what refers to it.

    Source: FHIR R4, datatypes, Attachment.
    """
    declared = string(value, "contentType")
    data = value.get("data")
    if not isinstance(data, str) and (url := string(value, "url")):
        resource = binary(url)
        if resource is None:
            return Attachment("", declared, "its content is elsewhere and not in this record")
        declared = declared or string(resource, "contentType")
        data = resource.get("data")
    if not isinstance(data, str) or not data:
        return Attachment("", declared, "it has no content")
    return _read(data, declared)


def narrative(resource: Json) -> str:
    """The text of a resource's or a section's narrative, or "" where it has none.

    Source: FHIR R4, datatypes, Narrative.
    """
    div = child(resource, "text").get("div")
    return tidy(text_of_html(div)) if isinstance(div, str) else ""


def _read(data: str, declared: str) -> Attachment:
    kind, _, parameters = declared.partition(";")
    kind = kind.strip().lower()
    try:
        raw = b64decode("".join(data.split()), validate=True)
    except (binascii.Error, ValueError):
        return Attachment("", declared, "its base64 is broken")
    if raw.startswith(b"{\\rtf"):
        return Attachment("", declared, _REFUSED["text/rtf"])
    if kind in _REFUSED:
        return Attachment("", declared, _REFUSED[kind])
    if kind not in ("text/plain", "text/html", "application/xhtml+xml", "text/markdown", ""):
        return Attachment("", declared, "its format is not read")
    text = _decode(raw, parameters)
    if text is None:
        return Attachment("", declared, "its characters are not those that it declares")
    if "html" in kind:
        text = text_of_html(text)
    return Attachment(tidy(text), declared)


def _decode(raw: bytes, parameters: str) -> str | None:
    name = re.search(r"charset\s*=\s*\"?([\w.:-]+)", parameters, re.IGNORECASE)
    try:
        # "text encodings" only: others, as zlib, would decompress without a bound.
        encoding = codecs.lookup(name[1] if name else "utf-8-sig").name
        return str(raw, encoding)
    except (LookupError, UnicodeError):
        return None


def tidy(text: str) -> str:
    """Lines without control characters or runs of blanks and blank lines, cut at `MAX_NOTE`."""
    lines: list[str] = []
    for line in text.splitlines():
        line = printable(_SPACES.sub(" ", line)).strip()
        if line or (lines and lines[-1]):
            lines.append(line)
    whole = "\n".join(lines).strip()
    if len(whole) > MAX_NOTE:
        return f"{whole[:MAX_NOTE]} … ({len(whole):,} characters in all)"
    return whole


def text_of_html(html: str) -> str:
    """The words of HTML, a line for each block, cells of a table side by side.

    >>> text_of_html("<p>BP<br/>120/80</p><script>x</script><td>a</td><td>b &lt; c</td>").split()
    ['BP', '120/80', '|', 'a', '|', 'b', '<', 'c']
    """
    reader = _Words()
    reader.feed(html)
    reader.close()
    return "".join(reader.pieces)


class _Words(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self._silent = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag in _SILENT:
            self._silent += 1
        if tag in _BREAKS:
            self.pieces.append("\n")
        elif tag in ("td", "th"):
            self.pieces.append(" | ")

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        if tag in _BREAKS:
            self.pieces.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag in _SILENT:
            self._silent = max(self._silent - 1, 0)
        if tag in _BREAKS:
            self.pieces.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            # Line breaks inside HTML text are blanks.
            self.pieces.append(_SPACES.sub(" ", data.replace("\n", " ")))
