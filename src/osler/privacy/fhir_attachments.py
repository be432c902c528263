"""What is attached to a record: texts are cleaned, all else is taken out."""

import binascii
import codecs
import re
from base64 import b64decode, b64encode
from html import escape
from typing import Any

from osler.ingest.fhir.attachments import text_of_html
from osler.privacy.free_text import TextCleaner

Json = dict[str, Any]

_PLAIN = frozenset(("text/plain", "text/markdown", ""))
_HTML = frozenset(("text/html", "application/xhtml+xml"))


def clean_content(value: Json, text: TextCleaner) -> tuple[Json, str]:
    """The data of an Attachment or Binary, cleaned where it is text.

    Returns:
        "contentType" and "data", or the type alone; and what was done: "cleaned", "removed" or "".
    """
    declared = str(value.get("contentType") or "")
    kind, _, parameters = declared.partition(";")
    kind = kind.strip().lower()
    kept = {"contentType": kind if re.fullmatch(r"[\w.+\-]+/[\w.+\-]+", kind) else "text/plain"}
    data = value.get("data")
    if not isinstance(data, str):
        return kept, ""
    words = _decoded(data, parameters)
    if words is None or kind not in _PLAIN | _HTML or words.lstrip().startswith(("{\\rtf", "%PDF")):
        return kept, "removed"
    if kind in _HTML:
        words = text_of_html(words)
    cleaned = text.clean(words)[0]
    if kind in _HTML:
        cleaned = f"<pre>{escape(cleaned)}</pre>"
    return {**kept, "data": b64encode(cleaned.encode()).decode()}, "cleaned"


def clean_div(div: str, text: TextCleaner) -> str:
    """The words of a narrative without its markup, in which names may be split or spelled out."""
    words = text.clean(text_of_html(div))[0]
    lines = "<br/>".join(escape(line.strip()) for line in words.splitlines() if line.strip())
    return f'<div xmlns="http://www.w3.org/1999/xhtml"><p>{lines}</p></div>'


def _decoded(data: str, parameters: str) -> str | None:
    try:
        raw = b64decode("".join(data.split()), validate=True)
    except (binascii.Error, ValueError):
        return None
    name = re.search(r"charset\s*=\s*\"?([\w.:-]+)", parameters, re.IGNORECASE)
    try:
        encoding = codecs.lookup(name[1] if name else "utf-8-sig").name
        return str(raw, encoding)
    except (LookupError, UnicodeError):
        return str(raw, "latin-1") if name is None and b"\0" not in raw else None
