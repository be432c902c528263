"""Pseudonyms are the same by the same key, and the key is its owner's alone."""

import stat
from pathlib import Path

import pytest

from osler.errors import InputError
from osler.privacy.key_file import new_key, read_or_make_key
from osler.privacy.pseudonyms import Pseudonyms


def everything(pseudonyms: Pseudonyms) -> tuple[object, ...]:
    return (
        pseudonyms.uid("1.2.3"),
        pseudonyms.resource_id("1"),
        pseudonyms.patient("1"),
        pseudonyms.identifier("1"),
        pseudonyms.person("Jane Doe"),
        pseudonyms.shift_days("1"),
        pseudonyms.fingerprint,
    )


def test_the_same_key_gives_the_same() -> None:
    assert everything(Pseudonyms(b"k")) == everything(Pseudonyms(b"k"))


def test_another_key_gives_others() -> None:
    pairs = zip(everything(Pseudonyms(b"k")), everything(Pseudonyms(b"l")), strict=True)
    assert all(one != other for one, other in pairs)


def test_uids_are_uids() -> None:
    new = Pseudonyms(b"k").uid("1.2.840.1")
    assert new.startswith("2.25.")
    assert len(new) <= 64
    assert Pseudonyms(b"k").uid("1.2.840.1\0") == new  # padding is no part of it


def test_days_are_of_the_past_and_differ() -> None:
    shifts = {Pseudonyms(b"k").shift_days(str(number)) for number in range(50)}
    assert len(shifts) > 40
    assert all(-3 * 366 <= days < 0 for days in shifts)


def test_a_key_is_made_once_and_for_its_owner(tmp_path: Path) -> None:
    file = tmp_path / "key.hex"
    key = read_or_make_key(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert read_or_make_key(file) == key
    assert key not in (new_key(), bytes(32))
    assert list(tmp_path.iterdir()) == [file]


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "key.hex"
    read_or_make_key(file)
    file.chmod(0o644)
    with pytest.raises(InputError, match="chmod 600"):
        read_or_make_key(file)


@pytest.mark.parametrize("text", ["", "not hex", "ab" * 8])
def test_what_is_no_key_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "key.hex"
    file.write_text(text)
    file.chmod(0o600)
    with pytest.raises(InputError, match="not a key"):
        read_or_make_key(file)


def test_a_key_in_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        read_or_make_key(tmp_path / "nowhere" / "key.hex")
