"""`osler deidentify` from paths to a new folder."""

import hashlib
import json
import stat
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread

import osler.privacy.run
from osler.cli import main
from osler.errors import OslerError
from osler.privacy.profile import Profile
from osler.testing.dicom import make_dicom
from osler.testing.fhir import PATIENT, lab

PIXELS = (np.arange(32 * 32, dtype=np.uint16) % 251).reshape(32, 32)


def made(number: int, **attributes: Any) -> bytes:
    header: dict[str, Any] = {
        "PatientName": "Quillfeather^Zeb",
        "PatientID": "Q-4471",
        "StudyInstanceUID": "1.2.3.4",
        "SeriesInstanceUID": "1.2.3.5",
        "SOPInstanceUID": f"1.2.3.{number}",
    }
    return make_dicom(PIXELS, **{**header, **attributes})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "Quillfeather_Zeb"
    folder.mkdir()
    (folder / "a.dcm").write_bytes(made(10))
    with zipfile.ZipFile(folder / "disc.zip", "w", zipfile.ZIP_DEFLATED) as disc:
        disc.writestr("IMAGES/b", made(11))
    entries = [{"resource": each} for each in (PATIENT, lab("1", "2024-03-11", 9))]
    bundle = {"resourceType": "Bundle", "entry": entries}
    (folder / "record.json").write_text(json.dumps(bundle))
    (folder / "letter.txt").write_text("Quillfeather and Nemo Nobody were both well.")
    return folder


def run(folder: Path, out: Path, *options: str) -> int:
    return main(["deidentify", str(folder), "--out", str(out), "--keep-pixels", *options])


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_folder_of_all_kinds(folder: Path, tmp_path: Path) -> None:
    before, out = contents(folder), tmp_path / "clean"
    assert run(folder, out) == 0
    assert contents(folder) == before
    images = list(out.rglob("*.dcm"))
    assert len(images) == 2
    assert len({path.parent for path in images}) == 1  # one patient, study and series
    assert {path.stem for path in images} == {str(dcmread(path).SOPInstanceUID) for path in images}
    assert len(list(out.glob("fhir/*.json"))) == 1
    (letter,) = out.glob("text/*.txt")
    assert letter.read_text() == "[NAME] and [NAME] were both well."
    for path in [*out.rglob("*"), *tmp_path.iterdir()]:
        assert not path.name.startswith(".")


def test_the_report_holds_nothing_that_stood_in_a_file(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "clean"
    run(folder, out)
    report = json.loads((out / "report.json").read_text())
    assert [file["kind"] for file in report["files"]] == ["dicom", "dicom", "text", "fhir"]
    assert report["totals"]["replaced"]["PatientName (0010,0010)"] == 2
    assert report["profile"][0]["code"] == "113100"
    whole = (out / "report.json").read_text() + (out / "report.txt").read_text()
    for value in ("Quillfeather", "Zeb", "Q-4471", "Nobody", "a.dcm", "disc", "1.2.3.4"):
        assert value not in whole


def test_a_key_maps_alike_in_every_run(folder: Path, tmp_path: Path) -> None:
    key = tmp_path / "key.hex"
    runs = []
    for number in range(2):
        out = tmp_path / f"clean-{number}"
        assert run(folder, out, "--key", str(key)) == 0
        runs.append(contents(out))
    assert runs[0] == runs[1]
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    other = tmp_path / "clean-2"
    run(folder, other)
    assert not set(contents(other)) & {name for name in runs[0] if name.endswith(".dcm")}


def test_bad_files_are_named_and_the_others_written(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "broken.dcm").write_bytes(made(12)[:-500])
    (folder / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(20))
    (folder / "scan.pdf").write_bytes(b"%PDF-1.4")
    (folder / "empty.txt").write_bytes(b"")
    (folder / "list.csv").write_text("Quillfeather,Zeb,1957-03-14")
    (folder / "letters.dcm").write_text("DICM")
    (folder / "DICOMDIR").write_bytes(_dicomdir())
    out = tmp_path / "clean"
    assert run(folder, out) == 1
    said = capsys.readouterr().err
    for name, reason in [
        ("broken.dcm", "truncated"),
        ("photo.png", "a picture"),
        ("scan.pdf", "a PDF"),
        ("empty.txt", "empty"),
        ("list.csv", "a table"),
        ("letters.dcm", "not what its name says"),
    ]:
        (line,) = [line for line in said.splitlines() if name in line]
        assert reason in line
    assert said.splitlines()[-1] == "osler: 6 of 10 files were refused and not written"
    report = json.loads((out / "report.json").read_text())
    assert len(report["files"]) == 4
    assert len(report["refused"]) == 6
    assert [one["reason"][:10] for one in report["left_out"]] == ["a DICOMDIR"]
    assert "broken" not in (out / "report.txt").read_text()


def _dicomdir() -> bytes:
    from pydicom import Dataset, uid

    record = Dataset()
    record.DirectoryRecordType, record.PatientName = "PATIENT", "Quillfeather"
    return make_dicom(
        PIXELS, SOPClassUID=uid.MediaStorageDirectoryStorage, DirectoryRecordSequence=[record]
    )


def test_two_files_of_one_instance(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "copy.dcm").write_bytes(made(10))
    assert run(folder, tmp_path / "clean") == 1
    assert "copy" in capsys.readouterr().err


def test_a_folder_with_something_in_it_is_left_alone(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "clean"
    out.mkdir()
    (out / "mine").write_text("mine")
    assert run(folder, out) == 1
    assert [path.name for path in out.iterdir()] == ["mine"]


def test_an_empty_folder_is_taken(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "clean"
    out.mkdir()
    assert run(folder, out) == 0


def test_nothing_is_there_if_nothing_was_clean(tmp_path: Path) -> None:
    (tmp_path / "scan.pdf").write_bytes(b"%PDF-1.4")
    assert run(tmp_path / "scan.pdf", tmp_path / "clean") == 1
    assert not (tmp_path / "clean").exists()


def test_nothing_is_there_after_an_interruption(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(osler.privacy.run, "write_report", interrupted)
    assert run(folder, tmp_path / "clean") == 130
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_wrong_usage(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "clean"
    with pytest.raises(SystemExit) as ended:
        run(folder, out, "--key", str(out / "key.hex"))
    assert ended.value.code == 2
    assert "--key must not be inside --out" in capsys.readouterr().err
    assert run(folder / "nowhere", out) == 1
    assert "no such file or folder" in capsys.readouterr().err


def test_no_folder_to_write_into(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(OslerError, match="no folder"):
        osler.privacy.run.deidentify(
            [folder], tmp_path / "x" / "y", key=bytes(32), profile=Profile(clean_pixels=False)
        )


def test_json_is_for_programs(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(folder, tmp_path / "clean", "--json", "--retain-dates", "modified") == 0
    report = json.loads(capsys.readouterr().out)
    assert "113107" in [one["code"] for one in report["profile"]]
