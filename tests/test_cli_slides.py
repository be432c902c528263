"""Whole slides on the command line: looked at, shown, asked about, embedded."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

import osler
from osler.cli import main
from osler.preprocess.slides import SlideView
from osler.tasks.show import seen
from osler.testing.slides import pyramid, tissue, write_dicom, write_svs, write_tiff

LEVELS = pyramid(tissue(1900, 2600), 3)
AT_20X = ["--magnification", "20"]


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_svs(tmp_path_factory.mktemp("slides") / "a.svs", LEVELS)


def test_the_table(slide: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["look", str(slide), *AT_20X, "--max-patches", "2"]) == 0
    row = capsys.readouterr().out.splitlines()[1]
    for expected in ("SM", "20x of 20x", "2 of 4 patches", "2600 x 1900", "0.0005 x 0.0005"):
        assert expected in row


def test_the_cost_is_what_a_question_costs(
    slide: Path, medgemma_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--json", "--model", str(medgemma_folder), *AT_20X]
    assert main(["look", str(slide), *arguments]) == 0
    found = json.loads(capsys.readouterr().out)
    (series,) = found["series"]
    assert (series["kind"], series["magnification"]) == ("slide", 20)
    assert (series["frames"], series["shown"]) == (4, 4)
    model = osler.load(medgemma_folder)
    stream = model.stream("?", [slide], slides=SlideView(magnification=20), max_new_tokens=1)
    assert found["tokens"] == len(stream.prompt.ids)
    stream.close()


def test_the_sheet_has_the_map(slide: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    assert main(["look", str(slide), *AT_20X, "--sheet", str(sheet)]) == 0
    picture = np.asarray(Picture.open(sheet)).astype(int)
    is_stain = np.abs(picture - (201, 118, 176)).max(axis=2) < 30
    assert is_stain[100:500, 50:600].mean() > 0.1  # of the map, above the patches
    is_line = (picture == (0, 110, 60)).all(axis=2)
    assert is_line.any()


def test_a_folder_with_one_slide_that_says_too_little(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tiff(tmp_path / "a.tif", LEVELS)
    write_tiff(tmp_path / "b.tif", LEVELS, mpp=None)
    assert main(["look", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "left out: 1 x b.tif: a slide that does not say how large its pixels are" in out
    assert main(["look", str(tmp_path / "b.tif")]) == 1
    assert "--mpp MICROMETRES" in capsys.readouterr().err
    assert main(["look", str(tmp_path / "b.tif"), "--mpp", "0.5"]) == 0


def test_showing_a_slide(slide: Path, medgemma_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "seen.png"
    arguments = ["--out", str(out), "--model", str(medgemma_folder), *AT_20X]
    assert main(["show", str(slide), *arguments]) == 0
    assert len(list(tmp_path.glob("seen-*.png"))) == 4
    expected = seen(slide, medgemma_folder, slides=SlideView(magnification=20))
    assert expected.map is not None
    np.testing.assert_array_equal(np.asarray(Picture.open(out)), expected.map)
    for number, square in enumerate(expected.squares, start=1):
        got = np.asarray(Picture.open(out.with_stem(f"seen-{number}")))
        np.testing.assert_array_equal(got, square)


def test_asking(medgemma_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_dicom(tmp_path / "slide", LEVELS)
    arguments = [
        "--model",
        str(medgemma_folder),
        "--max-new-tokens",
        "3",
        "--max-patches",
        "1",
        *AT_20X,
    ]
    assert main(["ask", str(folder), "What is it?", *arguments, "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["new_tokens"] <= 3
    assert "osler: note: left out: 2 x a picture of a slide's label" in said.err
    assert "patches at 20x: 1 of 4 are seen" in said.err


def test_a_slide_stands_where_its_patches_point(
    slide: Path, picture: Path, medsiglip_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "rows.npy"
    arguments = ["--out", str(out), "--model", str(medsiglip_folder), *AT_20X]
    assert main(["embed", str(picture), str(slide), *arguments]) == 0
    rows = np.load(out)
    encoder = osler.load_encoder(medsiglip_folder)
    nano = seen(slide, slides=SlideView(magnification=20))
    assert len(nano.squares) == 4
    np.testing.assert_allclose(rows[:1], encoder.embed_images([picture]), atol=1e-6)
    assert np.linalg.norm(rows, axis=1) == pytest.approx([1, 1])
    (result,) = encoder.classify([slide], ["tumour", "normal"])
    assert sum(result.probabilities.values()) == pytest.approx(1)
