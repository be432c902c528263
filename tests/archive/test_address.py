"""Addresses and settings as users write them."""

from pathlib import Path
from typing import Any

import pytest

from osler.archive.address import ClassicAddress, WebAddress, archive_address
from osler.archive.opened import open_archive
from osler.archive.query import Query
from osler.archive.settings import LinkSettings, tls_of_client
from osler.errors import InputError


def test_the_two_kinds() -> None:
    web = archive_address(" https://pacs.example:8443/dicom-web/ ")
    assert web == WebAddress(base="https://pacs.example:8443/dicom-web")
    classic = archive_address("PACS@10.0.0.5:104")
    assert classic == ClassicAddress(title="PACS", host="10.0.0.5", port=104)
    assert str(classic) == "PACS@10.0.0.5:104"
    six = archive_address("PACS@[::1]:104")
    assert isinstance(six, ClassicAddress)
    assert six.host == "::1"


@pytest.mark.parametrize(
    ("text", "is_here"),
    [
        ("A@localhost:1", True),
        ("A@127.0.0.2:1", True),
        ("A@pacs:1", False),
        ("http://[::1]:80", True),
        ("http://10.0.0.1", False),
    ],
)
def test_what_is_on_this_machine(text: str, is_here: bool) -> None:
    assert archive_address(text).is_here is is_here


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("pacs", "neither TITLE@host:port nor"),
        ("PACS@host", "neither"),
        ("PACS@host:70000", "neither"),
        ("SEVENTEENLETTERSS@host:104", "neither"),
        ("http://:80", "is no http"),
        ("http://me:secret@host", "holds no password"),
        ("http://host/x?token=secret", "more than a host and a path"),
        ("ftp://host", "neither"),
    ],
)
def test_what_is_no_address(text: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason) as error:
        archive_address(text)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"title": "A TITLE"}, "no AE title"),
        ({"title": ""}, "no AE title"),
        ({"timeout_s": 0}, "timeout"),
        ({"attempts": 0}, "at least one"),
        ({"token": "a\nb"}, "no header takes"),
    ],
)
def test_settings_that_do_not_do(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        LinkSettings(**settings)


def test_a_token_is_of_dicomweb() -> None:
    with pytest.raises(InputError, match="knows no tokens"):
        open_archive("A@localhost:1", LinkSettings(token="t"))
    assert "secret" not in repr(LinkSettings(token="secret"))


def test_certificates_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        tls_of_client(tmp_path / "ca.pem")
    (tmp_path / "ca.pem").write_text("hello")
    with pytest.raises(InputError, match=r"ca\.pem: no usable PEM"):
        tls_of_client(tmp_path / "ca.pem")


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({}, "name a study"),
        ({"Modality": "CT"}, "name a study"),
        ({"PatientID": "*"}, "all that the archive has"),
        ({"StudyDate": "-"}, "all that the archive has"),
        ({"PatientID": ""}, "PatientID is empty"),
        ({"PatientID": "A\\B"}, "not one line"),
        ({"PixelData": "1"}, "not one of"),
    ],
)
def test_questions_that_are_not_asked(keys: dict[str, str], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        Query(keys=keys)


def test_a_query_does_not_print_whom_it_is_about() -> None:
    assert "4711" not in repr(Query(keys={"PatientID": "4711"}))
