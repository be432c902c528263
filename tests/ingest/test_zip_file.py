"""Zip files that want more than to be read: each is refused with its reason."""

import struct
import zipfile
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from osler.errors import InputError, UnreadableFileError, UnsupportedError
from osler.ingest import zip_file
from osler.ingest.scan import scan
from osler.ingest.zip_file import inflate, list_members
from osler.testing.dicom import make_dicom

FILM = make_dicom(np.arange(400, dtype=np.uint16).reshape(20, 20))


def packed(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def test_members_are_where_they_are_said_to_be() -> None:
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        data = packed({"b/film.dcm": FILM, "a.txt": b"text", "b/": b""}, method)
        text, film = list_members(data, "x.zip")
        assert (text.name, film.name) == ("a.txt", "b/film.dcm")
        there = data[film.offset : film.offset + film.size_bytes]
        if film.inflated_bytes is None:
            assert there == FILM
        else:
            assert inflate(there, film.inflated_bytes, "film.dcm", whole=True) == FILM


@pytest.mark.parametrize(
    "name", ["../film.dcm", "a/../../film.dcm", "/etc/passwd", "..\\x", "C:\\x"]
)
def test_a_member_that_leads_out(name: str, tmp_path: Path) -> None:
    path = tmp_path / "slip.zip"
    path.write_bytes(packed({"a.dcm": FILM, name: FILM}))
    with pytest.raises(UnreadableFileError, match=r"slip\.zip: .* leads out of it$"):
        scan(path)
    assert [each.name for each in tmp_path.iterdir()] == ["slip.zip"]


@pytest.mark.parametrize("name", [b"\0.dcm", b"././."])
def test_a_member_without_a_name(name: bytes) -> None:
    with pytest.raises(UnreadableFileError, match=r"^x\.zip: the zip file is damaged"):
        list_members(packed({"a.dcm": FILM}).replace(b"a.dcm", name), "x.zip")


def test_a_bomb_of_many_members(monkeypatch: pytest.MonkeyPatch) -> None:
    data = packed({f"{number}": bytes(1_000_000) for number in range(20)})
    assert len(data) < 40_000
    monkeypatch.setattr(zip_file, "MAX_UNPACKED_BYTES", 10_000_000)
    with pytest.raises(UnsupportedError, match="unpacks to more than the 10,000,000 bytes"):
        list_members(data, "bomb.zip")
    monkeypatch.setattr(zip_file, "MAX_FILES", 19)
    with pytest.raises(UnsupportedError, match="20 files are more than 19"):
        list_members(data, "bomb.zip")


def test_a_bomb_of_members_that_share_their_bytes() -> None:
    data = bytearray(packed({"a": FILM, "b": FILM}))
    first = data.index(b"PK\1\2")
    second = data.index(b"PK\1\2", first + 1)
    data[second + 42 : second + 46] = data[first + 42 : first + 46]  # where its header stands
    name = data.index(b"b", second + 46)
    data[name : name + 1] = b"a"  # or its name would contradict that header
    with pytest.raises(UnreadableFileError, match=r"overlap|damaged"):
        list_members(bytes(data), "bomb.zip")


@pytest.mark.parametrize("lie", [-1, 1])
def test_a_member_of_another_length_than_is_said(lie: int) -> None:
    deflated = zlib.compress(FILM, wbits=-15)
    with pytest.raises(UnreadableFileError, match="another length"):
        inflate(deflated, len(FILM) + lie, "film.dcm", whole=True)


def test_a_member_that_is_too_long_or_damaged() -> None:
    with pytest.raises(UnsupportedError, match="film: 2,147,483,648 bytes"):
        inflate(b"", 1 << 31, "film", whole=True)
    with pytest.raises(UnreadableFileError, match="film: damaged"):
        inflate(b"\xff" * 50, 1000, "film", whole=True)


def test_the_beginning_of_a_member_is_enough_to_know_it() -> None:
    head = inflate(zlib.compress(FILM, wbits=-15)[:200], len(FILM), "film", whole=False)
    assert FILM.startswith(head)
    assert head


def test_encrypted_and_packed_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    data = bytearray(packed({"a": FILM}))
    directory = data.index(b"PK\1\2")
    data[directory + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(UnsupportedError, match=r"x\.zip: the zip file is encrypted"):
        scan(path)
    path.write_bytes(packed({"a": FILM}, zipfile.ZIP_LZMA))
    with pytest.raises(UnsupportedError, match="by a method that is not read"):
        scan(path)


def test_a_truncated_zip(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(packed({"a": FILM})[:-40])
    with pytest.raises(UnreadableFileError, match=r"x\.zip: the zip file is damaged or truncated"):
        scan(path)


def test_a_zip_in_a_zip_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(packed({"film.dcm": FILM, "more.zip": packed({"film.dcm": FILM})}))
    assert sum(scan(path).left_out.values()) == 1


@settings(
    max_examples=200, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
@given(st.data())
def test_damage_is_an_error_of_ours(data: st.DataObject) -> None:
    damaged = bytearray(packed({"a.dcm": FILM, "b.dcm": FILM[:300]}))
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        members = list_members(bytes(damaged), "x.zip")
    except InputError as error:
        message = str(error)
        assert message.startswith("x.zip: ")
        return
    for member in members:
        assert member.offset + member.size_bytes <= len(damaged)
        assert not set(member.name.split("/")) & {"", ".."}


def test_a_zip64_that_claims_the_world() -> None:
    data = packed({"a": b"x"}, zipfile.ZIP_STORED)
    end = data.index(b"PK\5\6")
    claims = data[: end + 16] + struct.pack("<I", 1 << 31) + data[end + 20 :]
    with pytest.raises(UnreadableFileError, match="damaged"):
        list_members(claims, "x.zip")
