"""DICOM files and pictures of any origin are parsed by child processes alone."""

import json
import zlib
from hashlib import sha256
from pathlib import Path
from typing import NoReturn

import numpy as np
import PIL.Image
import pydicom.filereader
import pytest
from pydicom import uid

from osler.archive import child, head
from osler.archive.child import is_whole, read_attributes, read_instance
from osler.archive.push import gather
from osler.archive.results import attributes
from osler.archive.results.write import write_results
from osler.archive.store import InstanceStore
from osler.errors import DicomError, UnreadableFileError
from osler.ingest.worker_pool import WorkerPool
from tests.archive.studies import make_instance


@pytest.fixture
def film(tmp_path: Path) -> Path:
    path = tmp_path / "film.dcm"
    path.write_bytes(make_instance(1))
    return path


def answer_about(film: Path) -> Path:
    path = film.with_name("answer.json")
    digests = [sha256(film.read_bytes()).hexdigest()]
    said = {"text": "Clear.", "notice": "A draft.", "model": "m", "version": "1"}
    path.write_text(json.dumps({**said, "input_sha256": digests}))
    return path


def test_the_reading_process_parses_nothing(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tmp_path / "seen.png"
    PIL.Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(seen)
    answer = answer_about(film)

    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("parsed in the reading process")

    for module, name in (
        (head, "elements"),
        (zlib, "decompressobj"),
        (attributes, "dcmread"),
        (pydicom.filereader, "dcmread"),
        (pydicom.filereader, "read_partial"),
        (PIL.Image, "open"),
    ):
        monkeypatch.setattr(module, name, refuse)
    written = write_results(answer, [film], tmp_path / "out", seen=[seen])
    assert len(written.files) == 3
    (found,) = gather([film])
    store = InstanceStore(tmp_path / "store")
    with store.opened():
        assert store.place(found) == "new"
        assert store.holds(found.instance)


def test_what_takes_too_long_is_stopped(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = child._workers._command
    monkeypatch.setattr(child, "_workers", WorkerPool(1, timeout_s=0.001, command=command))
    for read in (read_instance, read_attributes):
        with pytest.raises(UnreadableFileError, match=r"film\.dcm: .*stopped: took longer"):
            read(film)
    assert not is_whole(film)
    with pytest.raises(UnreadableFileError, match=r"film\.dcm: .*stopped: took longer"):
        write_results(answer_about(film), [film], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for read in (read_instance, read_attributes):
        with pytest.raises(UnreadableFileError, match=r"gone: cannot be read \(No such file"):
            read(tmp_path / "gone")
    assert not is_whole(tmp_path / "gone")


def test_a_name_on_several_lines_stays_on_one(tmp_path: Path) -> None:
    path = tmp_path / "a\nb.dcm"
    path.write_bytes(make_instance(1, StudyInstanceUID=""))
    with pytest.raises(DicomError, match=r"/a.b\.dcm: .*UIDs are missing"):
        read_attributes(path)


def test_values_against_the_rules_are_taken_over_in_silence(film: Path, tmp_path: Path) -> None:
    film.write_bytes(
        make_instance(1).replace(b"19500101", b"1950xx01").replace(b"20240102", b"2024xx02")
    )
    (report, *_) = write_results(answer_about(film), [film], tmp_path / "out").files
    ds = pydicom.filereader.dcmread(report)
    assert ds.get_item("PatientBirthDate").value == b"1950xx01"
    assert ds.get_item("StudyDate").value == b"2024xx02"


def test_a_deflated_data_set_that_ends_early(film: Path) -> None:
    film.write_bytes(make_instance(1, syntax=uid.DeflatedExplicitVRLittleEndian)[:-20])
    with pytest.raises(DicomError, match=r"film\.dcm: .* attributes are malformed"):
        read_attributes(film)
