"""What joins a record with the rest: its images, a server, a model's tokens."""

from pathlib import Path

import numpy as np
import pytest

from osler.archive.smart_token import BackendClient
from osler.errors import InputError
from osler.ingest.fhir.documents import resources_of_bytes
from osler.ingest.fhir.records import Timeline
from osler.ingest.fhir.timeline import choose_patient, timeline_of
from osler.ingest.scan import scan
from osler.tasks import record
from osler.tasks.record import fetch_record, join_images, said_of_join, token_counter, warning_of
from osler.testing.dicom import make_dicom
from osler.testing.fhir import PATIENT, bundle, lab, resource

GREY = np.arange(256, dtype=np.uint16).reshape(16, 16)


def study(id: str, uid: str) -> dict[str, object]:
    return resource("ImagingStudy", id, started="2020", identifier=[{"value": f"urn:oid:{uid}"}])


def read(*resources: dict[str, object]) -> Timeline:
    found = resources_of_bytes(bundle(*resources), "x")
    return timeline_of(found, choose_patient(found, None))


def test_images_are_joined_by_study_uid(tmp_path: Path) -> None:
    for number, uid in enumerate(("1.2.1", "1.2.1", "1.2.9")):
        file = make_dicom(
            GREY,
            Modality="CR",
            StudyInstanceUID=uid,
            SeriesInstanceUID=f"{uid}.{number}",
            SOPInstanceUID=f"{uid}.{number}.1",
        )
        (tmp_path / f"{number}.dcm").write_bytes(file)
    record = read(PATIENT, study("i1", "1.2.1"), study("i2", "1.2.2"))
    found = join_images(record, scan(tmp_path).studies)
    (joined,) = found.joined
    assert (joined.source, joined.study_uid) == ("ImagingStudy/i1", "1.2.1")
    assert sorted(joined.files) == ["0.dcm", "1.dcm"]
    assert (found.missing, found.others) == (("ImagingStudy/i2",), 1)
    assert said_of_join(found) == [
        "ImagingStudy/i1: 2 files",
        "imaging studies of the record without images: 1",
        "studies at hand that the record does not have: 1",
    ]


def test_tokens_are_the_models(medgemma_folder: Path) -> None:
    count = token_counter(medgemma_folder)
    assert 1 < count("Hemoglobin 9.1 g/dL") < 19
    assert count("<start_of_turn>") > 1  # letters, as all text of a record


def test_a_record_from_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    class Server:
        unsearched = ("Goal",)

        def __init__(self, address: object, settings: object, *, client: object) -> None:
            asked.extend((str(address), client))

        def record(self, patient: str, since: str | None) -> list[bytes]:
            asked.extend((patient, since))
            return [bundle(PATIENT), bundle(lab("o1", "2020", 9), lab("o2", "2021", 9))]

        def close(self) -> None:
            asked.append("closed")

    monkeypatch.setattr(record, "FhirServer", Server)
    client = BackendClient(client_id="o", key_file=Path("key"))
    found = fetch_record("https://fhir.example/r4/", "p1", since="2020", client=client)
    assert asked == ["https://fhir.example/r4", client, "p1", "2020", "closed"]
    assert [event.source for event in found.timeline.events] == ["Observation/o1", "Observation/o2"]
    assert found.unsearched == ("Goal",)


def test_a_warning_where_others_can_read() -> None:
    for safe in ("https://fhir.example", "http://127.0.0.1:8080/fhir", "http://localhost/r4"):
        assert warning_of(safe) is None
    assert "not encrypted" in str(warning_of("http://fhir.example/r4"))
    with pytest.raises(InputError, match=r"http\(s\) address"):
        warning_of("PACS@10.0.0.5:104")
