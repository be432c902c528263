"""Files to resources: bundles, lines, folders, gzip, and all that is none of them."""

import gzip
import json
import os
from pathlib import Path

import pytest

from osler.errors import UnreadableFileError, UnsupportedError
from osler.ingest.fhir import documents, files
from osler.ingest.fhir.documents import Documents, resources_of_bytes
from osler.testing.fhir import PATIENT, bundle, lab, ndjson, zipped

HB = lab("o1", "2020-01-01", 9.1)


def sources(data: bytes) -> list[str]:
    return [found.source for found in resources_of_bytes(data, "x.json")]


BOTH = ["Patient/p1", "Observation/o1"]


@pytest.mark.parametrize(
    "data",
    [
        bundle(PATIENT, HB),
        json.dumps(json.loads(bundle(PATIENT, HB)), indent=2).encode(),
        b"\xef\xbb\xbf" + bundle(PATIENT, HB),
        ndjson(PATIENT, HB),
        ndjson(PATIENT) + b"\n \r\n" + ndjson(HB).rstrip(),
        bundle(PATIENT) + b"\n" + bundle(HB),  # pages of a server
        gzip.compress(bundle(PATIENT, HB)),
        gzip.compress(ndjson(PATIENT)) + gzip.compress(ndjson(HB)),
        bundle(PATIENT, json.loads(bundle(HB))),  # a bundle within
        zipped(
            {"b/2.json.gz": gzip.compress(bundle(HB)), "a": b"x", "b/1.ndjson": ndjson(PATIENT)}
        ),
    ],
)
def test_forms_of_a_file(data: bytes) -> None:
    assert sources(data) == BOTH


def test_a_lone_resource() -> None:
    assert sources(json.dumps(HB, indent=1).encode()) == ["Observation/o1"]


def test_sources_of_entries_without_an_id() -> None:
    nameless = {key: value for key, value in HB.items() if key != "id"}
    entry = {"fullUrl": "urn:uuid:5b8d", "resource": nameless}
    deleted = {"request": {"method": "DELETE", "url": "Patient/1"}}
    data = json.dumps({"resourceType": "Bundle", "entry": [entry, deleted]}).encode()
    assert sources(data) == ["Observation/5b8d"]


def test_a_folder_of_a_bulk_export(tmp_path: Path) -> None:
    (tmp_path / "Patient.000.ndjson").write_bytes(ndjson(PATIENT))
    (tmp_path / "Observation.ndjson.gz").write_bytes(gzip.compress(ndjson(HB)))
    (tmp_path / "log.txt").write_text("not this")
    found = Documents([tmp_path])
    for _ in range(2):  # as often as one likes
        assert sorted(one.source for one in found) == sorted(BOTH)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b" \n ", "the file is empty"),
        (b"Jane Doe", "neither FHIR in JSON nor a C-CDA document"),
        (bundle(PATIENT)[:-1], "not JSON, or truncated"),
        (ndjson(PATIENT) + b'{"resourceType": "Obs', "not JSON, or truncated"),
        (b"[1]", "a list in JSON"),
        (b'{"resourceType": "Bundle", "entry": 5}', "no such object"),
        (b'{"resourceType": "Bundle", "entry": [[]]}', "no such object"),
        (b'{"resourceType": "Bundle", "entry": [{"resource": [1]}]}', "no such object"),
        (b"[" * 200_000, "a list in JSON"),
        (b'{"resourceType": "\xff\xfe"}', "text that is not UTF-8"),
        (b'{"a": ' * 200_000, "nested too deeply"),
        (gzip.compress(bundle(PATIENT))[:-9], "the gzip file is damaged"),
        (b"\x1f\x8b" + bytes(20), "the gzip file is damaged"),
        (b"PK\3\4" + bytes(20), "the zip file is damaged"),
        (zipped({"a.json": bundle(PATIENT)})[:-30], "the zip file is damaged"),
        (zipped({"a.txt": b"Jane Doe"}), r"no \.json, \.ndjson or \.xml file in this zip"),
    ],
)
def test_what_is_no_fhir_names_the_file_and_quotes_nothing(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableFileError, match=f"^x.json: .*{reason}") as error:
        sources(data)
    assert "Doe" not in str(error.value)
    assert "\n" not in str(error.value)


def test_bundles_in_bundles_have_an_end() -> None:
    data = bundle(PATIENT)
    for _ in range(20):
        data = bundle(json.loads(data))
    with pytest.raises(UnsupportedError, match="bundles within bundles"):
        sources(data)


def test_what_is_too_large_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_DOCUMENT_BYTES", 5000)
    bomb = gzip.compress(b'{"a": "' + b"a" * 5_000_000 + b'"}')
    assert len(bomb) < 10_000
    for data in (bomb, gzip.compress(ndjson(PATIENT) + b" " * 6000), b"{" + b"\n" * 6000):
        with pytest.raises(UnsupportedError, match="more than the 5,000 bytes"):
            sources(data)


def test_an_export_has_a_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.ndjson").write_bytes(ndjson(PATIENT))
    monkeypatch.setattr(documents, "MAX_EXPORT_BYTES", 2 * len(ndjson(PATIENT)) + 1)
    with pytest.raises(UnsupportedError, match="the export is too large"):
        list(Documents([tmp_path]))
    monkeypatch.setattr(files, "MAX_FILES", 2)
    with pytest.raises(UnsupportedError, match="more than 2 files"):
        Documents([tmp_path])


def test_a_zip_of_records_names_the_member_and_has_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnreadableFileError, match=r"^x\.json/\.\./b\.json: not JSON"):
        sources(zipped({"a.json": bundle(PATIENT), "../b.json": b"{"}))
    encrypted = bytearray(zipped({"a.json": b""}))
    encrypted[encrypted.index(b"PK\1\2") + 8] |= 1
    with pytest.raises(UnsupportedError, match="the zip file is encrypted"):
        sources(bytes(encrypted))
    packed = bytearray(zipped({"a.json": b""}))
    packed[packed.index(b"PK\1\2") + 10] = 12
    with pytest.raises(UnsupportedError, match="packed by a method that is not read"):
        sources(bytes(packed))
    monkeypatch.setattr(files, "MAX_FILES", 1)
    with pytest.raises(UnsupportedError, match="more than 1 files"):
        sources(zipped({"a.json": b"", "b.json": b""}))


def test_lines_of_nothing_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_MOST_BLANK_LINES", 100)
    with pytest.raises(UnreadableFileError, match="blank lines without end"):
        sources(gzip.compress(ndjson(PATIENT) + b"\n" * 1000))


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.json")
    with pytest.raises(UnreadableFileError, match=r"x\.json: not a regular file"):
        Documents([tmp_path / "x.json"])


def test_folders_and_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFileError, match=r"no \.json, \.ndjson or \.xml file"):
        Documents([tmp_path])
    with pytest.raises(UnreadableFileError, match=r"a\.json: cannot be read \(No such file"):
        list(Documents([tmp_path / "a.json"]))
