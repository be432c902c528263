"""NIfTI: values and places as SimpleITK and nibabel say, and nothing hostile gets through."""

import gzip
import itertools
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from osler.errors import InputError, UnreadableFileError, UnsupportedError
from osler.ingest import nifti
from osler.ingest.decode import decode_frames, describe
from osler.ingest.scan import read_frames, scan
from tests.ingest.series_files import kinds, only_series, pose_of, values_of

RNG = np.random.default_rng(0)
VALUES = RNG.integers(-100, 900, (5, 6, 7)).astype(np.int16)

# All 48 ways in which the voxels' axes can lie along the patient's.
AXES = [
    (order, signs)
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def affine(order: tuple[int, ...], signs: tuple[int, ...], voxel_mm: tuple[float, ...]):
    matrix = np.eye(4)
    matrix[:3, :3] = 0
    for axis, (world, sign) in enumerate(zip(order, signs, strict=True)):
        matrix[world, axis] = sign * voxel_mm[axis]
    matrix[:3, 3] = (12.5, -30.0, 7.25)
    tilt = np.deg2rad(8)  # a head is never straight
    turn = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    matrix[:3, :3] = turn @ matrix[:3, :3]
    return matrix


def written(path: Path, values: np.ndarray, matrix: np.ndarray, kind=nibabel.Nifti1Image) -> Path:
    image = kind(values, matrix)
    image.set_qform(matrix, code=1)
    image.set_sform(matrix, code=1)
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize(("order", "signs"), AXES)
def test_every_pixel_lies_where_simpleitk_says(order, signs, tmp_path: Path) -> None:
    path = written(tmp_path / "x.nii.gz", VALUES, affine(order, signs, (1.0, 1.1, 2.5)))
    judge = SimpleITK.ReadImage(str(path))
    series = only_series(path)
    assert series.file.pixel_spacing_mm is not None
    down_mm, along_mm = series.file.pixel_spacing_mm
    for frame, values in zip(series.frames, values_of(series), strict=True):
        pose = pose_of(frame)
        for row, column in ((0, 0), (0, values.shape[1] - 1), (values.shape[0] - 1, 2)):
            point = (
                np.array(pose.position_mm)
                + np.array(pose.row) * along_mm * column
                + np.array(pose.column) * down_mm * row
            )
            index = judge.TransformPhysicalPointToIndex(point.tolist())
            found = judge.TransformIndexToPhysicalPoint(index)
            np.testing.assert_allclose(found, point, atol=1e-3)
            assert judge.GetPixel(index) == values[row, column]


@pytest.mark.parametrize(
    ("voxel_mm", "plane"),
    [
        ((1.0, 1.0, 1.0), "axial"),
        ((0.5, 0.5, 5.0), "axial"),
        ((4.0, 1.0, 1.0), "sagittal"),
        ((1.0, 4.0, 1.0), "coronal"),
    ],
)
def test_a_volume_is_cut_across_its_thickest_voxels_and_lies_as_it_is_read(
    voxel_mm, plane: str, tmp_path: Path
) -> None:
    values = VALUES.astype(np.float32)
    path = written(tmp_path / "x.nii", values, affine((0, 1, 2), (1, 1, 1), voxel_mm))
    series = only_series(path)
    assert (series.plane, series.modality) == (plane, None)
    assert series.spacing_mm == pytest.approx(max(voxel_mm), rel=0.02)
    # RAS counts towards the patient's right, front and head; all three are read the other way.
    places = {"axial": (2, 1, 0), "coronal": (1, 2, 0), "sagittal": (0, 2, 1)}[plane]
    expected = values[::-1, ::-1, ::-1].transpose(places)
    np.testing.assert_array_equal(values_of(series), expected)


def test_the_second_version_and_scaled_values(tmp_path: Path) -> None:
    image = nibabel.Nifti2Image(VALUES, np.diag([2.0, 2, 2, 1]))
    image.header.set_slope_inter(0.5, -1024)
    image.header.set_data_dtype(np.int16)
    path = tmp_path / "x.nii"
    nibabel.save(image, path)
    series = only_series(path)
    expected = nibabel.Nifti2Image.from_filename(path).get_fdata()
    assert values_of(series).min() == pytest.approx(expected.min(), abs=0.01)
    assert values_of(series).max() == pytest.approx(expected.max(), abs=0.01)
    assert series.modality == "CT"  # as low as air
    assert kinds(series) == ["modality_guessed"]


def test_the_first_of_several_volumes(tmp_path: Path) -> None:
    values = np.stack([VALUES, VALUES + 1], axis=-1)
    path = written(tmp_path / "x.nii.gz", values, np.eye(4))
    series = only_series(path)
    assert kinds(series) == ["repeated_volumes", "modality_guessed"]
    assert set(values_of(series).ravel()) == set(VALUES.ravel())


def test_what_is_no_number_is_as_low_as_the_lowest(tmp_path: Path) -> None:
    values = VALUES.astype(np.float32)
    values[2, 2, 2] = np.nan
    path = written(tmp_path / "x.nii", values, np.eye(4))
    read = values_of(only_series(path))
    assert np.isfinite(read).all()
    assert (read == np.nanmin(values)).sum() == (values == np.nanmin(values)).sum() + 1


def test_a_folder_takes_it_too(tmp_path: Path) -> None:
    written(tmp_path / "x.nii.gz", VALUES, np.eye(4))
    (image, *_) = read_frames(scan(tmp_path).studies[0].series[0].frames)
    assert (image.source, image.decoder) == ("x.nii.gz", "nibabel")


def test_what_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    colours = np.zeros((3, 3, 3), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    with pytest.raises(UnsupportedError, match=r"x\.nii: a NIfTI file of colours"):
        scan(written(tmp_path / "x.nii", colours, np.eye(4)))
    with pytest.raises(UnsupportedError, match="with 5 axes"):
        scan(written(tmp_path / "x.nii", np.zeros((2, 2, 2, 2, 2), np.int16), np.eye(4)))
    (tmp_path / "x.nii.gz").write_bytes(gzip.compress(b"Dear colleague,"))
    with pytest.raises(UnreadableFileError, match="something else than NIfTI"):
        scan(tmp_path / "x.nii.gz")
    whole = written(tmp_path / "x.nii.gz", VALUES, np.eye(4)).read_bytes()
    (tmp_path / "x.nii.gz").write_bytes(whole[:-30])
    with pytest.raises(UnreadableFileError, match="truncated"):
        scan(tmp_path / "x.nii.gz")
    monkeypatch.setattr(nifti, "inflated_bytes", lambda packed_bytes: 500)
    with pytest.raises(UnsupportedError, match="inflates to more than the 500 bytes"):
        describe(whole, "x.nii.gz", whole=True)


SMALL = nibabel.Nifti1Image(VALUES, np.eye(4)).to_bytes()


def test_a_size_that_the_file_does_not_have() -> None:
    claims = bytearray(SMALL)
    claims[42:48] = np.array([30_000, 30_000, 30_000], "<i2").tobytes()
    with pytest.raises(UnsupportedError, match="more voxels than are read"):
        describe(bytes(claims), "x.nii", whole=True)
    claims[42:48] = np.array([300, 300, 300], "<i2").tobytes()
    with pytest.raises(UnreadableFileError, match="damaged or truncated"):
        describe(bytes(claims), "x.nii", whole=True)


@settings(
    max_examples=200, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
@given(st.data())
def test_damage_is_an_error_of_ours(data: st.DataObject) -> None:
    damaged = bytearray(SMALL)
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(0, 351))] = data.draw(st.integers(0, 255))
    try:
        facts = describe(bytes(damaged), "x.nii", whole=True)
        if facts is not None and facts.kind == "nifti":
            list(decode_frames(bytes(damaged), "x.nii", [0]))
    except InputError as error:
        message = str(error)
        assert message.startswith("x.nii: ")
