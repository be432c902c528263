"""The door: files go to a child process, and come back as a timeline or one line of reason."""

import gzip
import re
from pathlib import Path

import pytest

from osler.errors import RecordError, UnreadableFileError
from osler.ingest.fhir import read, timeline
from osler.ingest.fhir.documents import resources_of_bytes
from osler.ingest.fhir.read import patients_in, read_record, read_record_bytes
from osler.ingest.fhir.timeline import choose_patient, timeline_of
from osler.ingest.worker_pool import WorkerPool
from osler.testing.ccda import CCDA
from osler.testing.fhir import PATIENT, attachment, bundle, coded, lab, ndjson, note, resource

RECORD = (
    PATIENT,
    lab("o1", "2020-03-01T10:15:00-05:00", 9.1, interpretation=[coded("Low", "L")]),
    note("n1", "2020-03-02", attachment("Dear colleague,\nrest.")),
    resource("Condition", "c1", code=coded("Anemia"), onsetDateTime="2020"),
    {"resourceType": "Claim", "id": "x"},
)


def test_a_file_reads_as_its_bytes_do(tmp_path: Path) -> None:
    path = tmp_path / "anna.json.gz"
    path.write_bytes(gzip.compress(bundle(*RECORD)))
    found = resources_of_bytes(bundle(*RECORD), "x")
    expected = timeline_of(found, choose_patient(found, None))
    assert read_record(path) == expected
    assert read_record_bytes(bundle(*RECORD), "x") == expected
    assert len(expected.events) == 3


def test_a_folder_of_many_patients(tmp_path: Path) -> None:
    other = PATIENT | {"id": "p2"}
    theirs = lab("o2", "2020-01-01", 2) | {"subject": {"reference": "Patient/p2"}}
    (tmp_path / "Patient.ndjson").write_bytes(ndjson(PATIENT, other))
    (tmp_path / "Observation.ndjson").write_bytes(ndjson(RECORD[1], theirs))
    assert patients_in(tmp_path) == {"Patient/p1": 1, "Patient/p2": 1}
    found = read_record(tmp_path, patient="p2")
    assert [one.source for one in found.events] == ["Observation/o2"]
    with pytest.raises(RecordError, match=f"^{re.escape(str(tmp_path))}: holds 2 patients"):
        read_record(tmp_path)


def test_a_document(tmp_path: Path) -> None:
    (tmp_path / "d.xml").write_bytes(CCDA)
    assert read_record(tmp_path / "d.xml").patient is not None


def test_no_bytes_are_an_empty_file() -> None:
    with pytest.raises(UnreadableFileError, match=r"^x: the file is empty$"):
        read_record_bytes(b"", "x")


def test_errors_come_back_by_their_class(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_bytes(b"{")
    with pytest.raises(UnreadableFileError, match=r"/bad\.json: not JSON"):
        read_record(tmp_path / "bad.json")
    with pytest.raises(UnreadableFileError, match=r"/none\.json: cannot be read"):
        read_record(tmp_path / "none.json")


def test_what_takes_too_long_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    workers = WorkerPool(1, timeout_s=0.001)
    monkeypatch.setattr(read, "_workers", workers)
    with pytest.raises(UnreadableFileError, match=r"^x: decoding was stopped: took longer"):
        read_record_bytes(bundle(*RECORD), "x")


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        ("MAX_PATIENTS", "holds more than 1 patients"),
        ("MAX_RESOURCES", "holds more than 1 resources"),
    ],
)
def test_what_has_no_end_is_refused_by_name(
    limit: str, reason: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(timeline, limit, 1)
    header = read._where(tmp_path)
    (tmp_path / "x.ndjson").write_bytes(ndjson(*RECORD, PATIENT | {"id": "p2"}))
    with pytest.raises(RecordError, match=f"^{re.escape(str(tmp_path))}: {reason}"):
        read.read_for({**header, "patient": "p1"}, b"")
