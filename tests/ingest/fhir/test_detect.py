"""Records among other files."""

import gzip
from pathlib import Path

import pytest

from osler.errors import UnreadableFileError
from osler.ingest.fhir.detect import is_meant_as_record, is_record
from osler.testing.ccda import CCDA
from osler.testing.fhir import PATIENT, bundle, ndjson

SIDECAR = b'{"EchoTime": 0.03, "Modality": "MR"}'  # of BIDS, beside a volume


@pytest.mark.parametrize(
    ("name", "data", "meant", "found"),
    [
        ("a.json", bundle(PATIENT), True, True),
        ("a.json", b"\xef\xbb\xbf\n " + bundle(PATIENT), True, True),
        ("a", bundle(PATIENT), True, False),
        ("a.ndjson", ndjson(PATIENT), True, True),
        ("a.xml", CCDA, True, True),
        ("a.json.gz", gzip.compress(bundle(PATIENT)), True, True),
        ("a.nii.gz", gzip.compress(bytes(400)), False, False),
        ("a.json", SIDECAR, True, False),
        ("a.html", b"<html>", True, False),
        ("a.dcm", bytes(128) + b"DICM" + b'"resourceType"', False, False),
    ],
)
def test_by_the_beginning(name: str, data: bytes, meant: bool, found: bool, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    assert (is_meant_as_record(path), is_record(path)) == (meant, found)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFileError, match="no such file"):
        is_meant_as_record(tmp_path / "gone.json")
    empty = tmp_path / "empty.json"
    empty.touch()
    assert not is_record(empty)
