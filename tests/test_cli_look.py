"""`osler look` and volumes on the command line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture
from pydicom import uid

import osler
from osler.cli import main
from osler.testing.dicom import make_dicom
from osler.testing.series import CORONAL, make_series, slices
from tests.tasks.test_content import photograph


@pytest.fixture
def study(tmp_path: Path) -> Path:
    folder = tmp_path / "Doe_Jane"
    folder.mkdir()
    film = np.zeros((40, 40), np.uint16)
    film[8:32, 8:32] = 900
    radiograph: dict[str, Any] = {
        "Modality": "DX",
        "SOPClassUID": uid.DigitalXRayImageStorageForPresentation,
    }
    objects = [
        *make_series(
            slices(12, side_px=64, spacing_mm=20), BodyPartExamined="CHEST", ContrastBolusAgent="x"
        ),
        *make_series(
            slices(6, orientation=CORONAL),
            orientation=CORONAL,
            Modality="MR",
            SeriesInstanceUID="2.25.7",
            SeriesNumber=2,
            uid_root="2.25.8",
        ),
        make_dicom(film, ImageLaterality="L", SOPInstanceUID="2.25.9", **radiograph),
        make_dicom(film.max() - film, SOPInstanceUID="2.25.10", **radiograph),
    ]
    for number, data in enumerate(objects):
        (folder / f"{number:02}.dcm").write_bytes(data)
    (folder / "readme.txt").write_text("Dear colleague,")
    return folder


def test_the_table(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["look", str(study), "--max-slices", "10"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line for line in lines if line[:1].isdigit()}
    assert set(rows) == {"1", "2", "3", "4"}
    for expected in ("CT CHEST", "axial", "yes", "10 of 12 slices", "64 x 64", "6.25 x 6.25 x 20"):
        assert expected in rows["1"]
    assert "coronal" in rows["2"]
    assert " L " in rows["3"]
    text = "\n".join(lines)
    assert "thick slices, of 20.0 mm" in text
    assert "black and white are perhaps the wrong way round" in text
    assert text.count("wrong way round") == 1
    assert "left out: 1 x neither DICOM" in text
    assert "Doe" not in text


def test_images_that_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, sheet = tmp_path / "study", tmp_path / "sheet.png"
    folder.mkdir()
    for number, side in enumerate((20, 40)):
        mammogram = make_dicom(
            np.eye(side, dtype=np.uint16),
            Modality="MG",
            ViewPosition=("CC", "MLO")[number],
            ImageLaterality="RL"[number],
            SOPInstanceUID=f"2.25.{number}",
            StudyInstanceUID="2.25.100",
            SeriesInstanceUID="2.25.101",
        )
        (folder / f"{number}.dcm").write_bytes(mammogram)
    assert main(["look", str(folder), "--sheet", str(sheet)]) == 0
    row = capsys.readouterr().out.splitlines()[1]
    for expected in ("CC/MLO", "R/L", "up to 40 x 40"):
        assert expected in row
    with Picture.open(sheet) as picture:
        with_sizes = picture.height
    (folder / "1.dcm").unlink()
    assert main(["look", str(folder), "--sheet", str(sheet)]) == 0
    assert "up to" not in capsys.readouterr().out
    with Picture.open(sheet) as picture:
        assert picture.height < with_sizes  # no sizes under the pictures


def test_the_record(study: Path, medgemma_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--json", "--model", str(medgemma_folder)]
    assert main(["look", str(study), *arguments]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["kind"] for one in found["series"]] == ["volume", "volume", "images", "images"]
    assert found["series"][0]["findings"] == [
        {"kind": "thick_slices", "text": "thick slices, of 20.0 mm"}
    ]
    assert found["series"][0]["spacing_mm"] == pytest.approx(20)
    # What it says a question costs is what it costs: but for "?", which is one token.
    stream = osler.load(medgemma_folder).stream("?", [study], max_new_tokens=1)
    assert found["tokens"] == len(stream.prompt.ids)
    stream.close()


def test_the_sheet(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = tmp_path / "sheet.png"
    assert main(["look", str(study), "--sheet", str(sheet)]) == 0
    assert f"wrote {sheet}" in capsys.readouterr().err
    with Picture.open(sheet) as picture:
        seen = np.asarray(picture)
        assert picture.info == {}
    assert seen.shape[1] > 1000
    # CT is in colours, everything else grey: three channels that differ, in the first strip only.
    is_colour = (np.ptp(seen.astype(int), axis=2) > 60).any(axis=1)
    assert is_colour[: len(seen) // 4].any()


def test_what_cannot_be_decoded_does_not_keep_the_rest_from_being_seen(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("03.dcm", "18.dcm"):  # a slice of the CT, and a radiograph
        (study / name).write_bytes((study / name).read_bytes()[:-50])
    sheet = tmp_path / "sheet.png"
    assert main(["look", str(study), "--sheet", str(sheet)]) == 0
    assert "! damaged, or of a coding that is not read" in capsys.readouterr().out
    with Picture.open(sheet) as picture:
        strip = np.asarray(picture)[-180:, :160]
    assert strip.std() > 5  # the radiograph that can be read is there
    assert main(["ask", str(study), "?"]) == 1
    assert ".dcm: " in capsys.readouterr().err


def test_a_photograph_is_drawn_without_what_the_camera_wrote(tmp_path: Path) -> None:
    path, sheet, seen = (tmp_path / name for name in ("skin.jpg", "sheet.png", "seen.png"))
    path.write_bytes(photograph())
    assert main(["look", str(path), "--sheet", str(sheet)]) == 0
    assert main(["show", str(path), "--out", str(seen)]) == 0
    for written in (sheet, seen):
        data = written.read_bytes()
        assert not any(word in data for word in (b"SECRET", b"SERIAL", b"Exif", b"eXIf", b"tEXt"))


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (["look"], "PATH"),
        (["look", "x", "--sheet", "sheet.jpg"], "must end in .png"),
        (["look", "x", "--max-slices", "0"], "must be at least 1"),
        (["ask", "x", "?", "--max-slices", "many"], "--max-slices"),
    ],
)
def test_wrong_usage(argv: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2
    assert reason in capsys.readouterr().err


def test_nothing_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["look", str(tmp_path / "gone")]) == 1
    assert "no such file" in capsys.readouterr().err
    assert main(["look", str(tmp_path), "--sheet", str(tmp_path / "no" / "sheet.png")]) == 1
    assert "there is no folder" in capsys.readouterr().err


def test_asking_about_a_study(
    study: Path, medgemma_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model", str(medgemma_folder), "--max-new-tokens", "2", "--max-slices", "4"]
    assert main(["ask", str(study), "What is shown?", *arguments, "--json"]) == 0
    streams = capsys.readouterr()
    assert len(json.loads(streams.out)["input_sha256"]) == 2 + 2 + 1 + 1
    assert "osler: note: CT, axial, with contrast: 2 of 12 are seen" in streams.err


def test_showing_a_volume(
    study: Path, medgemma_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "seen.png"
    arguments = ["--out", str(out), "--model", str(medgemma_folder), "--max-slices", "4"]
    assert main(["show", str(study), *arguments]) == 0
    names = sorted(map(str, tmp_path.glob("seen-*.png")))
    assert len(names) == 6
    assert capsys.readouterr().err.endswith(f"wrote {names[0]} to {names[-1]}, 6 pictures\n")
