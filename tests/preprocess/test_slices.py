"""Which slices a model sees, and how bright: one range for all of a volume."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset

from osler.ingest.scan import scan
from osler.ingest.series import Series
from osler.preprocess.render import render
from osler.preprocess.slices import MAX_SLICES, evenly, read_shown, shown_of
from osler.testing.dicom import make_dicom
from osler.testing.series import Slice, make_frames, make_series, slices


def series_of(folder: Path, objects: list[bytes]) -> Series:
    for number, data in enumerate(objects):
        (folder / f"{number}.dcm").write_bytes(data)
    (study,) = scan(folder).studies
    (series,) = study.series
    return series


def test_as_many_as_there_are_or_85_that_reach_the_end():
    assert evenly(85, 85) == list(range(85))
    chosen = evenly(300, 85)
    assert (len(chosen), len(set(chosen)), chosen[-1]) == (85, 85, 299)
    assert set(np.diff([0, *chosen])) == {3, 4}
    # The formula as MedGemma 1.5's authors publish it.
    assert chosen == [int(round(i / 85 * (300 - 1))) for i in range(1, 86)]  # noqa: RUF046


def test_labels_of_slices_frames_and_images(tmp_path):
    shown = shown_of(series_of(tmp_path, make_series(slices(6))), 3)
    assert shown.labels == ["SLICE 1", "SLICE 2", "SLICE 3"]
    assert shown.frames == tuple(shown.series.frames[place] for place in evenly(6, 3))
    clip = tmp_path / "clip"
    clip.mkdir()
    frames = [np.zeros((4, 4, 3), np.uint8)] * 3
    assert shown_of(series_of(clip, [make_frames(frames, Modality="US")])).labels[2] == "FRAME 3"
    film = tmp_path / "film"
    film.mkdir()
    assert shown_of(series_of(film, [make_dicom(np.eye(4, dtype=np.uint8))])).labels == [""]


def _stripes(value: int) -> np.ndarray:
    stripes = np.full((32, 32), value, np.int16)
    stripes[:, 0] = 0
    return stripes


def brighter(count: int) -> list[Slice]:
    """A volume whose slices hold 100, 200 and so on from the feet up, with a 0."""
    cut = slices(count)
    return [Slice(_stripes(100 * (n + 1)), one.position_mm) for n, one in enumerate(cut)]


def test_mr_is_shown_over_the_range_of_the_volume_and_not_of_what_is_seen(tmp_path):
    series = series_of(tmp_path, make_series(brighter(10), Modality="MR"))
    shown = shown_of(series, 2)
    images = read_shown(shown)
    # Of 1000 at the head to 100 at the feet, the sixth (rounded to even) and the last are seen.
    assert [int(image.values.max()) for image in images] == [600, 100]
    assert {image.shown_range for image in images} == {(0.0, 1000.0)}
    levels = [render(image, medgemma_version="1.5").max() for image in images]
    assert levels == [round(255 * 0.6), round(255 * 0.1)]


def test_ct_keeps_its_windows(tmp_path):
    images = read_shown(shown_of(series_of(tmp_path, make_series(slices(6)))))
    assert {image.shown_range for image in images} == {None}
    assert render(images[2], medgemma_version="1.5")[16, 16].tolist() == [
        round(255 * (1064 / 2048)),
        round(255 * (175 / 350)),
        round(255 * (40 / 80)),
    ]


def test_pet_is_shown_up_to_an_uptake_of_ten(tmp_path):
    drug = Dataset()
    drug.RadionuclideTotalDose = 1e8
    drug.RadionuclideHalfLife = 6600
    known: dict[str, Any] = {
        "Units": "BQML",
        "CorrectedImage": ["ATTN", "DECY"],
        "DecayCorrection": "ADMIN",
        "PatientWeight": 50,
        "RadiopharmaceuticalInformationSequence": [drug],
    }
    series = series_of(tmp_path, make_series(brighter(5), Modality="PT", **known))
    (most,) = {image.shown_range for image in read_shown(shown_of(series))}
    assert most == (0.0, pytest.approx(10 * 1e8 / 50_000))


@pytest.mark.parametrize("modality", ["PT", "NM"])
def test_emission_is_shown_from_nothing_to_its_most(modality, tmp_path):
    cut = [Slice(one.hu + np.int16(7), one.position_mm) for one in brighter(5)]
    series = series_of(tmp_path, make_series(cut, Modality=modality))
    assert {image.shown_range for image in read_shown(shown_of(series))} == {(0.0, 507.0)}


def test_progress_counts_what_is_only_measured_too(tmp_path):
    series = series_of(tmp_path, make_series(brighter(10), Modality="MR"))
    done = []
    read_shown(shown_of(series, 4), progress=lambda *at: done.append(at))
    assert done == [(number, 10) for number in range(1, 11)]


def test_the_most_is_the_trained_one():
    assert MAX_SLICES * 256 == 21_760
