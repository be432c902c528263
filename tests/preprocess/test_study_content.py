"""What is said between images: prior before current, labels behind slices, never a date."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from osler.ingest.scan import scan
from osler.ingest.series import Study
from osler.preprocess.study_content import add_text, content_of, exhibits, several_patients
from osler.testing.dicom import make_dicom
from osler.testing.series import CORONAL, make_series, slices


def film(study: str, date: str = "", patient: str = "1", **attributes: Any) -> bytes:
    return make_dicom(
        np.eye(4, dtype=np.uint8),
        StudyInstanceUID=f"2.25.{study}",
        SeriesInstanceUID=f"2.25.{study}.1",
        SOPInstanceUID=f"2.25.{study}.1.1",
        StudyDate=date,
        PatientID=patient,
        Modality="DX",
        **attributes,
    )


def studies_of(tmp_path: Path, *objects: bytes) -> list[Study]:
    found: list[Study] = []
    for number, data in enumerate(objects):
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(data)
        found += scan(path).studies
    return found


def said(studies: list[Study], max_slices: int = 85) -> list[str]:
    """The content, with the name of its file for each image."""
    content = content_of(exhibits(studies, max_slices), lambda shown: shown.frames)
    return [
        item["text"] if item["type"] == "text" else item["image"].part.path.name for item in content
    ]


def test_prior_comes_before_current(tmp_path):
    studies = studies_of(tmp_path, film("1", "20240301"), film("2", "20190105"))
    assert said(studies) == ["Prior study:", "1.dcm", "Current study:", "0.dcm"]


def test_several_priors_are_numbered_from_the_oldest(tmp_path):
    dates = ("20240301", "20190105", "20220202")
    studies = studies_of(tmp_path, *(film(str(n), date) for n, date in enumerate(dates, start=1)))
    assert said(studies) == [
        *("Prior study 1 of 2:", "1.dcm", "Prior study 2 of 2:", "2.dcm"),
        *("Current study:", "0.dcm"),
    ]
    assert not any(date in text for date in dates for text in said(studies))


def test_the_hour_counts_where_all_have_it(tmp_path):
    morning, evening = (
        film(str(n), "20240301", StudyTime=time) for n, time in enumerate(("200000", "080000"), 1)
    )
    assert said(studies_of(tmp_path, morning, evening))[1::2] == ["1.dcm", "0.dcm"]
    assert said(studies_of(tmp_path, morning, film("3", "20240301"))) == ["0.dcm", "1.dcm"]


@pytest.mark.parametrize(
    "other",
    [
        film("2", ""),  # no date
        film("2", "20190105", patient="2"),  # somebody else
        film("2", "20190105", patient=""),  # perhaps somebody else
        film("2", "20240301"),  # the same day
    ],
)
def test_what_cannot_be_told_apart_stays_as_it_was_given(other, tmp_path):
    studies = studies_of(tmp_path, film("1", "20240301"), other)
    assert said(studies) == ["0.dcm", "1.dcm"]


def test_several_patients_are_noticed(tmp_path):
    studies = studies_of(tmp_path, film("1"), film("2", patient="2"), film("3", patient=""))
    assert several_patients(studies)
    assert not several_patients([studies[0], studies[2]])


def volumes(tmp_path: Path) -> list[Study]:
    folder = tmp_path / "study"
    folder.mkdir()
    objects = [
        *make_series(slices(10), ContrastBolusAgent="x"),
        *make_series(
            slices(8, orientation=CORONAL),
            orientation=CORONAL,
            Modality="MR",
            SeriesInstanceUID="2.25.7",
            SeriesNumber=2,
            uid_root="2.25.8",
        ),
        *make_series(
            slices(1),
            ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
            SeriesInstanceUID="2.25.9",
            uid_root="2.25.10",
        ),
    ]
    for number, data in enumerate(objects):
        (folder / f"{number:02}.dcm").write_bytes(data)
    return list(scan(folder).studies)


def test_volumes_share_the_slices_and_scouts_are_left_out(tmp_path):
    texts = [text for text in said(volumes(tmp_path), 6) if not text.endswith(".dcm")]
    assert texts == [
        *("CT, axial, with contrast:", "SLICE 1", "SLICE 2", "SLICE 3\n\nMRI, coronal:"),
        *("SLICE 1", "SLICE 2", "SLICE 3"),
    ]


def test_what_a_short_volume_leaves_goes_to_the_long(tmp_path):
    studies = volumes(tmp_path)
    for most, expected in ((17, [9, 8]), (10, [5, 5]), (1, [1, 1]), (85, [10, 8])):
        assert [len(one.shown.frames) for one in exhibits(studies, most)] == expected


def test_a_screen_beside_a_volume_is_left_out(tmp_path):
    (study,) = volumes(tmp_path)
    screens = studies_of(tmp_path, film("5", "", ""))
    assert screens[0].series[0].file.is_capture
    chosen = exhibits([study, *screens])
    assert [exhibit.shown.series.kind for exhibit in chosen] == ["volume", "volume"]
    assert len(exhibits(screens)) == 1


def test_a_volume_alone_is_said_to_be_what_it_is(tmp_path):
    (study,) = volumes(tmp_path)
    alone = Study(series=study.series[:1])
    heading = "CT, axial, with contrast:"
    assert said([alone], 2) == [heading, "05.dcm", "SLICE 1", "00.dcm", "SLICE 2"]


def test_studies_bear_the_names_that_a_record_has_for_them(tmp_path):
    studies = studies_of(tmp_path, film("1", "20240301"), film("2", "20190105"))
    chosen = exhibits(studies, names={"2.25.1": "ImagingStudy/7"})
    assert [exhibit.heading for exhibit in chosen] == [
        "Prior study:",
        "Current study [ImagingStudy/7]:",
    ]
    (alone,) = exhibits(studies[:1], names={"2.25.1": "ImagingStudy/7"})
    assert alone.heading == "Study [ImagingStudy/7]:"


def test_scouts_are_better_than_nothing(tmp_path):
    (study,) = volumes(tmp_path)
    (scout,) = (series for series in study.series if series.is_localizer)
    assert said([Study(series=(scout,))]) == ["18.dcm"]


def test_texts_do_not_run_into_each_other():
    content = [{"type": "image", "image": 1}]
    for text in ("SLICE 1", "", "What is shown?"):
        add_text(content, text)
    assert content[1:] == [{"type": "text", "text": "SLICE 1\n\nWhat is shown?"}]
