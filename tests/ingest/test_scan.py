"""Folders, zips and DICOMDIRs to series whose slices are in their order in space."""

import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pydicom
import pytest
import SimpleITK
from pydicom import Dataset, dcmwrite, uid
from pydicom.dataset import FileMetaDataset

from osler.errors import DicomError, UnreadableFileError, UnsupportedError
from osler.ingest import read_image
from osler.ingest.scan import read_frames, scan, value_range
from osler.testing.dicom import LOSSLESS_SYNTAXES, make_dicom
from osler.testing.series import (
    AXIAL,
    CORONAL,
    SAGITTAL,
    Slice,
    make_enhanced,
    make_frames,
    make_series,
    slices,
)
from tests.ingest.series_files import (
    all_series,
    kinds,
    only_series,
    pose_of,
    values_of,
    write_all,
    zipped,
)

S = 0.5**0.5
OBLIQUE = ((S, 0.0, S), (0.0, 1.0, 0.0))  # turned by 45 degrees: two axes change as much
TURNED = ((-1.0, 0.0, 0.0), (0.0, -1.0, 0.0))  # lying on the belly

# Whether `slices`, which go along row x column, are in the order of reading.
ORIENTATIONS = {
    "axial": (AXIAL, False),  # from feet to head
    "coronal": (CORONAL, True),  # from front to back
    "sagittal": (SAGITTAL, False),  # from left to right
    "prone": (TURNED, False),
}


def in_reading_order(cut: list[Slice], orientation_name: str) -> list[Slice]:
    return cut if ORIENTATIONS[orientation_name][1] else cut[::-1]


@pytest.mark.parametrize("name", ORIENTATIONS)
@pytest.mark.parametrize("reverse", [False, True])
def test_slices_follow_their_normal(name: str, reverse: bool, tmp_path: Path) -> None:
    orientation, _ = ORIENTATIONS[name]
    cut = slices(12, orientation=orientation)
    given = cut[::-1] if reverse else cut
    # What the scanner counted says nothing of the place.
    numbers = [7, 1, 12, 3, 5, 9, 2, 11, 4, 8, 10, 6]
    objects = make_series(given, orientation=orientation, instance_numbers=numbers)
    series = only_series(write_all(tmp_path / "study", objects))
    assert (series.kind, len(series.frames)) == ("volume", 12)
    assert series.plane == {"prone": "axial"}.get(name, name)
    assert series.spacing_mm == pytest.approx(2)
    expected = np.stack([one.hu for one in in_reading_order(cut, name)])
    np.testing.assert_array_equal(values_of(series), expected)


def test_an_oblique_series_is_sorted_along_its_normal_and_said_to_be_oblique(
    tmp_path: Path,
) -> None:
    cut = slices(9, orientation=OBLIQUE)
    folder = write_all(tmp_path / "study", make_series(cut, orientation=OBLIQUE))
    series = only_series(folder)
    assert series.is_oblique
    places = [float(np.dot(pose_of(f).position_mm, (-S, 0, S))) for f in series.frames]
    assert len(set(np.sign(np.diff(places)))) == 1
    assert series.spacing_mm == pytest.approx(2)


@pytest.mark.parametrize("shear_mm", [0.0, 0.7])
def test_gantry_tilt(shear_mm: float, tmp_path: Path) -> None:
    cut = slices(10, shear_mm=shear_mm)
    series = only_series(write_all(tmp_path / "study", make_series(cut)))
    assert kinds(series) == (["gantry_tilt"] if shear_mm else [])
    if shear_mm:
        assert "19.3 degrees" in series.findings[0].text  # atan(0.7 / 2)
    np.testing.assert_array_equal(values_of(series), np.stack([one.hu for one in cut[::-1]]))


def test_missing_slices(tmp_path: Path) -> None:
    cut = slices(20)
    left = cut[:4] + cut[5:11] + cut[13:]
    series = only_series(write_all(tmp_path / "study", make_series(left)))
    assert kinds(series) == ["missing_slices"]
    assert series.findings[0].text == "3 slices are missing, in 2 gaps"
    assert series.spacing_mm == pytest.approx(2)


def test_uneven_spacing(tmp_path: Path) -> None:
    cut = slices(8)
    moved = [
        Slice(one.hu, (one.position_mm[0], one.position_mm[1], one.position_mm[2] + 0.5 * (n == 3)))
        for n, one in enumerate(cut)
    ]
    series = only_series(write_all(tmp_path / "study", make_series(moved)))
    assert kinds(series) == ["uneven_spacing"]


def test_a_place_with_two_slices_gives_the_one_that_came_first(tmp_path: Path) -> None:
    cut = slices(6)
    again = [Slice(cut[2].hu + np.int16(5), cut[2].position_mm)]
    objects = [
        *make_series(again, instance_numbers=[99], uid_root="2.25.4"),
        *make_series(cut),
    ]
    series = only_series(write_all(tmp_path / "study", objects))
    assert kinds(series) == ["duplicate_slices"]
    np.testing.assert_array_equal(values_of(series), np.stack([one.hu for one in cut[::-1]]))


def test_the_same_object_twice_is_one(tmp_path: Path) -> None:
    objects = make_series(slices(6))
    found = scan(write_all(tmp_path / "study", [*objects, objects[3]]))
    (series,) = found.studies[0].series
    assert (len(series.frames), kinds(series)) == (6, [])
    assert found.left_out == {"a copy of another file": 1}


def test_several_times_are_not_taken_for_one_volume(tmp_path: Path) -> None:
    cut = slices(6)
    later = [Slice(one.hu + np.int16(1), one.position_mm) for one in cut]
    objects = [
        *make_series(later, AcquisitionNumber=2, uid_root="2.25.4"),
        *make_series(cut, AcquisitionNumber=1),
    ]
    series = only_series(write_all(tmp_path / "study", objects))
    assert kinds(series) == ["repeated_volumes"]
    np.testing.assert_array_equal(values_of(series), np.stack([one.hu for one in cut[::-1]]))


def test_scouts_and_other_directions_stand_apart(tmp_path: Path) -> None:
    side = slices(1, orientation=SAGITTAL)
    objects = [
        *make_series(slices(8)),
        *make_series(slices(6, orientation=CORONAL), orientation=CORONAL, uid_root="2.25.4"),
        *make_series(side, orientation=SAGITTAL, uid_root="2.25.5"),
        *make_series(
            side,
            orientation=SAGITTAL,
            uid_root="2.25.6",
            ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
        ),
    ]
    found = all_series(write_all(tmp_path / "study", objects))
    assert [(one.kind, one.plane, len(one.frames)) for one in found] == [
        ("volume", "axial", 8),
        ("volume", "coronal", 6),
        ("images", "sagittal", 1),
        ("images", None, 1),
    ]
    assert [one.is_localizer for one in found] == [False, False, False, True]
    assert kinds(found[0]) == ["mixed_orientations"]
    assert kinds(found[1]) == ["mixed_orientations", "not_axial"]
    assert kinds(found[2]) == ["mixed_orientations", "not_axial"]


@pytest.mark.parametrize(
    ("count", "spacing_mm", "attributes", "expected"),
    [
        (4, 2.0, {}, ["few_slices"]),
        (6, 7.5, {}, ["thick_slices"]),
        (1, 2.0, {"SliceThickness": 8}, ["thick_slices"]),
        (6, 2.0, {"SliceThickness": 8}, ["thick_slices"]),
        (6, 2.0, {"BurnedInAnnotation": "YES"}, ["burned_in_text"]),
        (6, 2.0, {"Modality": "PT"}, ["no_suv"]),
        (6, 2.0, {"Modality": "OT"}, ["burned_in_text"]),
        (6, 2.0, {"Modality": "OT", "BurnedInAnnotation": "NO"}, []),
    ],
)
def test_what_is_odd(
    count: int,
    spacing_mm: float,
    attributes: dict[str, Any],
    expected: list[str],
    tmp_path: Path,
) -> None:
    cut = slices(count, spacing_mm=spacing_mm)
    assert kinds(only_series(write_all(tmp_path / "study", make_series(cut, **attributes)))) == (
        expected
    )


def test_without_places_slices_are_single_images_and_said_to_be(tmp_path: Path) -> None:
    objects = make_series(slices(12), ImagePositionPatient=[])
    series = only_series(write_all(tmp_path / "study", objects))
    assert (series.kind, kinds(series)) == ("images", ["no_positions"])
    numbers = [frame.facts.order[-1] for frame in series.frames]
    assert numbers == sorted(numbers)


def test_what_a_pet_is_shown_in_where_it_has_no_uptake_values(tmp_path: Path) -> None:
    for units, said in (("BQML", "shown in Bq/ml"), ("CNTS", "counts"), ("", "unknown units")):
        objects = make_series(slices(6), Modality="PT", Units=units)
        (finding,) = only_series(write_all(tmp_path / f"pet{units}", objects)).findings
        assert finding.text.endswith(said)


@pytest.mark.parametrize("syntax", LOSSLESS_SYNTAXES)
def test_an_enhanced_object_is_a_series(syntax: str, tmp_path: Path) -> None:
    cut = slices(7)
    path = tmp_path / "enhanced.dcm"
    path.write_bytes(make_enhanced([cut[n] for n in (3, 0, 6, 1, 5, 2, 4)], syntax=syntax))
    series = only_series(path)
    assert (series.kind, series.plane, len(series.frames)) == ("volume", "axial", 7)
    assert series.spacing_mm == pytest.approx(2)
    # Each frame has a rescaling of its own: twice the stored, and its number in the file.
    numbers = [4, 1, 7, 2, 6, 3, 5]
    expected = [cut[n].hu * 2 + numbers.index(n + 1) + 1 for n in range(7)]
    np.testing.assert_array_equal(values_of(series), np.stack(expected[::-1]))


def test_a_clip_keeps_its_frames_in_time(tmp_path: Path) -> None:
    frames = [np.full((9, 7, 3), (10 * n, 5, 200), np.uint8) for n in range(5)]
    path = tmp_path / "clip.dcm"
    path.write_bytes(make_frames(frames, Modality="US"))
    series = only_series(path)
    assert (series.kind, kinds(series)) == ("clip", ["burned_in_text"])
    np.testing.assert_array_equal(values_of(series), np.stack(frames))
    with pytest.raises(UnsupportedError, match="multi-frame with 5 frames"):
        read_image(path)


def test_a_tomogram_of_nuclear_medicine_is_a_volume(tmp_path: Path) -> None:
    cut = slices(5, spacing_mm=4)
    detector = Dataset()
    detector.ImagePositionPatient = list(cut[0].position_mm)
    detector.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    tags: dict[str, Any] = {"Modality": "NM", "DetectorInformationSequence": [detector]}
    path = tmp_path / "nm.dcm"
    image_type = ["ORIGINAL", "PRIMARY", "RECON TOMO", "EMISSION"]
    stored = [one.hu for one in cut]
    path.write_bytes(make_frames(stored, ImageType=image_type, SpacingBetweenSlices=4, **tags))
    series = only_series(path)
    assert (series.kind, series.plane, series.spacing_mm) == ("volume", "axial", 4)
    np.testing.assert_array_equal(values_of(series), np.stack(stored[::-1]))
    path.write_bytes(make_frames(stored, ImageType=["ORIGINAL", "PRIMARY", "WHOLE BODY"], **tags))
    assert only_series(path).kind == "clip"


def test_simpleitk_finds_the_same_order_and_the_same_places(tmp_path: Path) -> None:
    cut = slices(9, orientation=OBLIQUE)
    folder = write_all(tmp_path / "study", make_series(cut, orientation=OBLIQUE))
    series = only_series(folder)
    names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    ours = [str(frame.part.path) for frame in series.frames]
    assert list(names) in (ours, ours[::-1])
    judge = SimpleITK.ReadImage(names)
    for frame, values in zip(series.frames, values_of(series), strict=True):
        corner = judge.TransformPhysicalPointToIndex(pose_of(frame).position_mm)
        assert corner[:2] == (0, 0)
        judged = SimpleITK.GetArrayFromImage(judge)[corner[2]]
        np.testing.assert_array_equal(values, judged)


def test_a_real_clip_in_ybr(tmp_path: Path) -> None:
    path = Path(pydicom.__file__).parent / "data" / "test_files" / "examples_ybr_color.dcm"
    series = only_series(path)
    expected = pydicom.dcmread(path).pixel_array
    images = read_frames([series.frames[number] for number in (29, 0, 7)])
    for image, number in zip(images, (29, 0, 7), strict=True):
        np.testing.assert_array_equal(image.values, expected[number])


def test_a_zip_and_a_folder_are_the_same(tmp_path: Path) -> None:
    folder = write_all(tmp_path / "study", make_series(slices(6)))
    (folder / "readme.txt").write_text("Dear colleague,")
    (folder / "empty.dcm").write_bytes(b"")
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "film.dcm").write_bytes(make_dicom(np.eye(5, dtype=np.uint16)))
    (folder / ".hidden").write_bytes(b"x")
    (folder / "__MACOSX").mkdir()
    (folder / "__MACOSX" / "film.dcm").write_bytes(b"x")
    plain = scan(folder)
    assert plain.left_out == {
        "neither DICOM nor a PNG, JPEG, WebP or TIFF picture": 1,
        "the file is empty": 1,
    }
    assert [one.kind for study in plain.studies for one in study.series] == ["volume", "images"]
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        path = tmp_path / "study.zip"
        path.write_bytes(zipped(folder, compression=method))
        packed = scan(path)
        assert packed.left_out == plain.left_out
        for one, other in zip(all_series(path), all_series(folder), strict=True):
            np.testing.assert_array_equal(values_of(one), values_of(other))
            one_image, other_image = (read_frames(each.frames[:1])[0] for each in (one, other))
            assert (one_image.sha256, one_image.source) == (other_image.sha256, other_image.source)


def _dicomdir(path: Path, files: list[list[str]]) -> None:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = uid.MediaStorageDirectoryStorage
    ds.file_meta.MediaStorageSOPInstanceUID = uid.UID("2.25.9")
    ds.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    records = []
    for parts in files:
        record = Dataset()
        record.DirectoryRecordType = "IMAGE"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            record.ReferencedFileID = parts
        records.append(record)
    ds.DirectoryRecordSequence = records
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # hostile names are wanted here
        dcmwrite(path, ds, enforce_file_format=True)


def test_a_dicomdir_leads_to_its_files(tmp_path: Path) -> None:
    (tmp_path / "IMAGES").mkdir()
    cut = slices(5)
    files = []
    for number, data in enumerate(make_series(cut)):
        name = f"IM{number}"
        (tmp_path / "IMAGES" / name).write_bytes(data)
        files.append(["IMAGES", name])
    (tmp_path / "IMAGES" / "UNLISTED").write_bytes(make_series(slices(1), uid_root="2.25.7")[0])
    _dicomdir(tmp_path / "DICOMDIR", [*files, ["IMAGES", "GONE"]])
    found = scan(tmp_path / "DICOMDIR")
    assert found.left_out == {"no such file": 1}
    (series,) = found.studies[0].series
    np.testing.assert_array_equal(values_of(series), np.stack([one.hu for one in cut[::-1]]))


def test_a_disc_that_has_lost_its_capitals(tmp_path: Path) -> None:
    (tmp_path / "im1").write_bytes(make_series(slices(1))[0])
    _dicomdir(tmp_path / "dicomdir", [["IM1"]])
    assert len(only_series(tmp_path / "dicomdir").frames) == 1


def test_a_dicomdir_leads_nowhere_else(tmp_path: Path) -> None:
    folder = tmp_path / "disc"
    folder.mkdir()
    (tmp_path / "SECRET").write_bytes(make_series(slices(1))[0])
    for parts in (["..", "SECRET"], ["/etc", "passwd"], ["a/../../SECRET"]):
        _dicomdir(folder / "DICOMDIR", [parts])
        with pytest.raises(DicomError, match="outside of its folder"):
            scan(folder / "DICOMDIR")


def test_pictures_are_one_series_in_the_order_of_their_names(tmp_path: Path) -> None:
    for number in (3, 1, 2):
        PIL.Image.new("RGB", (4, 3), (number, 0, 0)).save(tmp_path / f"{number}.png")
    series = only_series(tmp_path)
    assert (series.kind, series.modality, kinds(series)) == ("images", None, [])
    assert values_of(series)[:, 0, 0, 0].tolist() == [1, 2, 3]


def test_nothing_to_see(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UnreadableFileError, match=r"empty: no images in this folder$"):
        scan(tmp_path / "empty")
    (tmp_path / "empty" / "a.txt").write_text("text")
    with pytest.raises(UnreadableFileError, match="no images in this folder; neither DICOM"):
        scan(tmp_path / "empty")
    with pytest.raises(UnreadableFileError, match=r"gone: no such file"):
        scan(tmp_path / "gone")
    report = tmp_path / "report.dcm"
    report.write_bytes(make_dicom(np.eye(3, dtype=np.uint8), Modality="SR"))
    with pytest.raises(UnsupportedError, match=r"report\.dcm: a DICOM object of modality SR"):
        scan(report)


def test_ranges_are_those_of_the_values(tmp_path: Path) -> None:
    series = only_series(write_all(tmp_path / "study", make_series(slices(9))))
    values = values_of(series)
    done: list[tuple[int, int]] = []
    progress = lambda *at: done.append(at)  # noqa: E731
    assert value_range(series.frames, progress=progress) == (values.min(), values.max())
    assert done == [(n, 9) for n in range(1, 10)]


def test_a_damaged_slice_is_named(tmp_path: Path) -> None:
    objects = make_series(slices(5))
    objects[2] = objects[2][:-100]
    folder = write_all(tmp_path / "study", objects)
    with pytest.raises(DicomError, match=r"\.dcm: "):
        read_frames(only_series(folder).frames)


def test_studies_are_in_the_order_of_their_dates(tmp_path: Path) -> None:
    dates = ["20240301", "20190105", "20221231"]
    for number, date in enumerate(dates):
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(
            make_dicom(
                np.eye(4, dtype=np.uint8),
                SOPInstanceUID=f"2.25.{number}",
                StudyInstanceUID=f"2.25.{number}",
                StudyDate=date,
            )
        )
    found = scan(tmp_path)
    assert [study.moment for study in found.studies] == sorted(dates)
    assert not any(date in repr(found) for date in dates)
