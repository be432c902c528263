"""Who a file is, whether it is whole, and the folder where files are."""

import os
import time
import zlib
from pathlib import Path

import pytest
from pydicom import uid

from osler.archive.child import is_whole, read_instance
from osler.archive.instance import Instance
from osler.archive.store import InstanceStore
from osler.errors import ArchiveError, DicomError, UnreadableFileError
from tests.archive.studies import STUDY, SYNTAXES, data_set, make_instance


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_file_is_known_by_its_beginning(tmp_path: Path, syntax: str) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(make_instance(1, syntax=syntax))
    file = read_instance(path)
    assert file.instance == Instance(
        study_uid=STUDY,
        series_uid=f"{STUDY}.1",
        sop_uid=f"{STUDY}.1.1",
        sop_class_uid=uid.CTImageStorage,
    )
    assert file.transfer_syntax == syntax
    assert path.read_bytes().endswith(data_set(file))
    assert file.size_bytes == file.data_set_offset_bytes + len(data_set(file))


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_cut_file_is_not_whole(tmp_path: Path, syntax: str) -> None:
    path = tmp_path / "a.dcm"
    data = make_instance(1, syntax=syntax)
    path.write_bytes(data)
    assert is_whole(path)
    for size in (0, 100, 200, len(data) // 2, len(data) - 60, len(data) - 2, len(data) - 1):
        path.write_bytes(data[:size])
        assert not is_whole(path), size
    path.write_bytes(data + b"more")
    assert not is_whole(path) or syntax == uid.DeflatedExplicitVRLittleEndian


def test_what_is_no_instance(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(b"hello" * 100)
    with pytest.raises(UnreadableFileError, match=r"a\.dcm: not a DICOM file"):
        read_instance(path)
    path.write_bytes(make_instance(1)[:150])
    with pytest.raises(DicomError, match=r"a\.dcm"):
        read_instance(path)
    path.write_bytes(make_instance(1, StudyInstanceUID=""))
    with pytest.raises(DicomError, match="UIDs are missing or malformed"):
        read_instance(path)


@pytest.mark.parametrize("wrong", ["../../etc", "1.2/3", "", ".", "1..2", "1" * 65, "1.2\x00"])
def test_uids_that_would_be_other_paths(wrong: str) -> None:
    with pytest.raises(DicomError, match="UIDs are missing or malformed"):
        Instance(study_uid="1.2", series_uid="1.3", sop_uid=wrong)


def test_a_deflated_bomb_is_not_inflated(tmp_path: Path) -> None:
    syntax = uid.DeflatedExplicitVRLittleEndian
    head = make_instance(1, syntax=syntax)
    path = tmp_path / "a.dcm"
    path.write_bytes(head)
    offset = read_instance(path).data_set_offset_bytes
    plain = zlib.decompress(head[offset:], -zlib.MAX_WBITS)
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    bomb = deflater.compress(plain)
    for _ in range(100):
        bomb += deflater.compress(bytes(1 << 20))
    path.write_bytes(head[:offset] + bomb + deflater.flush())
    assert read_instance(path).instance.study_uid == STUDY


def place(store: InstanceStore, data: bytes) -> str:
    with store.new_part() as part:
        part.write_bytes(data)
        return store.place(read_instance(part))


def test_a_store_keeps_the_first(tmp_path: Path) -> None:
    store = InstanceStore(tmp_path / "store")
    data = make_instance(1)
    with store.opened():
        assert place(store, data) == "new"
        assert place(store, data) == "kept"
        assert place(store, make_instance(1, PatientName="Somebody^Else")) == "conflict"
        # One instance in another transfer syntax is the same one.
        assert place(store, make_instance(1, syntax=uid.ImplicitVRLittleEndian)) == "kept"
    path = tmp_path / "store" / STUDY / f"{STUDY}.1" / f"{STUDY}.1.1.dcm"
    assert path.read_bytes() == data
    assert path.stat().st_mode & 0o077 == 0
    assert [part.name for part in store.parts.iterdir()] == ["lock"]


def test_a_damaged_file_is_replaced(tmp_path: Path) -> None:
    store = InstanceStore(tmp_path)
    data = make_instance(1)
    with store.opened():
        place(store, data)
        path = store.path(
            Instance(study_uid=STUDY, series_uid=f"{STUDY}.1", sop_uid=f"{STUDY}.1.1")
        )
        path.write_bytes(data[:-10])
        assert place(store, data) == "new"
        assert path.read_bytes() == data


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with (
        InstanceStore(tmp_path).opened(),
        pytest.raises(ArchiveError, match="another osler writes there"),
        InstanceStore(tmp_path).opened(),
    ):
        pass
    (tmp_path / "file").touch()
    with (
        pytest.raises(ArchiveError, match="a file, not a folder"),
        InstanceStore(tmp_path / "file").opened(),
    ):
        pass


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    store = InstanceStore(tmp_path)
    store.parts.mkdir(parents=True)
    (store.parts / "half").write_bytes(b"x")
    with store.opened():
        assert not (store.parts / "half").exists()
        for name, age_s in (("old", 100), ("young", 1)):
            (store.parts / name).touch()
            then = time.time() - age_s
            os.utime(store.parts / name, (then, then))
        store.remove_parts(older_than_s=50)
        assert {part.name for part in store.parts.iterdir()} == {"lock", "young"}
