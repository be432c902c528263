"""Attachments to text: plain text and HTML are read, all else is refused with its reason."""

import binascii
import codecs
import re
from base64 import b64decode
from collections.abc import Callable
from html import unescape

from osler.ingest.fhir.fields import Json, child, plain, printable, string
from osler.ingest.fhir.limits import MAX_NOTE
from osler.ingest.fhir.records import Attachment

_BREAKS = frozenset(
    "address article br div dl h1 h2 h3 h4 h5 h6 hr li ol p pre table tr ul".split()
)
_SILENT = frozenset(("script", "style", "head", "template"))
_CELLS = frozenset(("td", "th"))
_REFUSED = {
    "application/rtf": "RTF is not read",
    "text/rtf": "RTF is not read",
    "application/pdf": "PDF is not read",
    "application/xml": "XML is not read here; hand a C-CDA document in as a file",
    "text/xml": "XML is not read here; hand a C-CDA document in as a file",
}
_CHARSET = re.compile(r"charset\s*=\s*\"?([\w.:-]+)", re.IGNORECASE)
_SPACES = re.compile(r"[^\S\n]+")
# A tag, with its name; words; or a bracket that opens nothing. None looks beyond the next bracket,
# and the possessive "+" keeps them from looking twice.
_MARKUP = re.compile(r"<(/?[A-Za-z][A-Za-z0-9]*+)[^<>]*+>|<[!?][^<>]*+>|[^<]++|<")


def attachment(value: Json, binary: Callable[[str], Json | None]) -> Attachment:
    """Read a FHIR Attachment.

    Args:
        value: the Attachment.
        binary: finds a Binary resource of the same record by what refers to it.

    Source: FHIR R4, datatypes, Attachment.
    """
    declared = string(value, "contentType")
    data = plain(value, "data")
    if data is None and (url := string(value, "url")):
        resource = binary(url)
        if resource is None:
            return Attachment("", declared, "its content is elsewhere and not in this record")
        declared = declared or string(resource, "contentType")
        data = plain(resource, "data")
    if not data:
        return Attachment("", declared, "it has no content")
    return _read(data, declared)


def narrative(resource: Json) -> str:
    """The text of a resource's or a section's narrative, or "" where it has none.

    Source: FHIR R4, datatypes, Narrative.
    """
    div = plain(child(resource, "text"), "div")
    return "" if div is None else tidy(text_of_html(div))


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
    name = _CHARSET.search(parameters)
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
        if not line.isprintable() or "  " in line:
            line = printable(_SPACES.sub(" ", line))
        line = line.strip()
        if line or (lines and lines[-1]):
            lines.append(line)
    whole = "\n".join(lines).strip()
    if len(whole) > MAX_NOTE:
        return f"{whole[:MAX_NOTE]} … ({len(whole):,} characters in all)"
    return whole


def text_of_html(html: str) -> str:
    """The words of HTML, a line for each block, cells of a table side by side.

    The time that it takes grows with the length and no faster, whatever the HTML; of the standard
    library's parser that is not so.

    >>> text_of_html("<p>BP<br/>120/80</p><script>x</script><td>a</td><td>b &lt; c</td>").split()
    ['BP', '120/80', '|', 'a', '|', 'b', '<', 'c']
    """
    pieces: list[str] = []
    silent = ""  # the element whose words are not shown
    for match in _MARKUP.finditer(_without_comments(html)):
        name = (match[1] or "").lower()
        if silent:
            silent = "" if name in (f"/{silent}", "body") else silent
        elif name in _SILENT:
            silent = name
        elif name.strip("/") in _BREAKS:
            pieces.append("\n")
        elif name in _CELLS:
            pieces.append(" | ")
        elif not name and not match[0].startswith(("<!", "<?")):
            # Line breaks inside HTML text are blanks.
            pieces.append(_SPACES.sub(" ", match[0].replace("\n", " ")))
    try:
        return unescape("".join(pieces))
    except ValueError:  # a character by a number of thousands of digits
        return "".join(pieces)


def _without_comments(html: str) -> str:
    before, *comments = html.split("<!--")
    return before + "".join(comment.partition("-->")[2] for comment in comments)
