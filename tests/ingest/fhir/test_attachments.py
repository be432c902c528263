"""What is read of attachments, and what is refused with its reason."""

from typing import Any

import pytest

from osler.ingest.fhir import attachments
from osler.ingest.fhir.records import Attachment
from osler.testing.fhir import as_read, attachment

HTML = b"<html><head><title>x</title></head><body><h1>BP</h1><table><tr><td>a<td>b &lt; c</table>"


def read(value: dict[str, Any]) -> Attachment:
    return attachments.attachment(as_read(value), lambda _: None)


@pytest.mark.parametrize(
    ("raw", "kind", "text"),
    [
        (b"Line 1\r\n\r\n\r\n  Line\t 2  ", "text/plain", "Line 1\n\nLine 2"),
        ("Fièvre".encode("latin-1"), "text/plain; charset=ISO-8859-1", "Fièvre"),
        ("\ufeffFièvre".encode(), "text/plain", "Fièvre"),
        (HTML, "text/html", "BP\n\n| a | b < c"),
        (b"<div>A<br/>B<script>alert(1)</script></div>", "application/xhtml+xml", "A\nB"),
        (b"A<!-- b <p>c</p> -->D &#" + b"9" * 5000 + b";", "text/html", "AD &#" + "9" * 5000 + ";"),
        (b"<head><title>x<body>Words < 5 <3", "text/html", "Words < 5 <3"),
        (b"Ring\x07 \x1b[31m", "text/plain", "Ring\ufffd \ufffd[31m"),
        (b"no type", "", "no type"),
    ],
)
def test_texts(raw: bytes, kind: str, text: str) -> None:
    found = read(attachment(raw, kind))
    assert (found.refused, found.text) == ("", text)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (attachment(b"{\\rtf1 x}", "application/rtf"), "RTF is not read"),
        (attachment(b"{\\rtf1 x}", "text/plain"), "RTF is not read"),
        (attachment(b"%PDF-1.7", "application/pdf"), "PDF is not read"),
        (attachment(b"\x89PNG", "image/png"), "its format is not read"),
        (attachment(b"\xff\xfe", "text/plain"), "its characters are not those that it declares"),
        (attachment(b"x", "text/plain; charset=zlib"), "its characters"),
        ({"contentType": "text/plain", "data": "%%%"}, "its base64 is broken"),
        ({"contentType": "text/plain", "data": "é"}, "its base64 is broken"),
        ({"contentType": "text/plain", "data": ""}, "it has no content"),
        ({"data": 5}, "it has no content"),
        ({"url": "https://elsewhere.example/1"}, "its content is elsewhere"),
    ],
)
def test_refusals(value: dict[str, Any], reason: str) -> None:
    found = read(value)
    assert found.text == ""
    assert found.refused.startswith(reason)


def test_a_text_without_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attachments, "MAX_NOTE", 10)
    assert read(attachment("a" * 50)).text == "aaaaaaaaaa … (50 characters in all)"


@pytest.mark.parametrize(
    "piece", ["<!--", "<a ", "<![", "</", "<a b='", "&#", "<script>", "<x", "a"]
)
def test_html_without_end_takes_no_time_without_end(piece: str) -> None:
    """With the standard library's parser, some of these take hours."""
    attachments.text_of_html(piece * (300_000 // len(piece)))
