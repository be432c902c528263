"""Whole slides: the same pixels as other readers give, nothing of labels, errors in one line."""

import importlib
import io
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import openslide
import pydicom
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image as Picture
from PIL import ImageCms
from pydicom import Dataset
from pydicom.uid import (
    JPEG2000,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
)

from osler.errors import InputError, UnreadableFileError, UnsupportedError
from osler.ingest import read_image
from osler.ingest.facts import Box, SlideFacts
from osler.ingest.scan import scan
from osler.ingest.series import Series
from osler.ingest.slide.describe import describe_slide
from osler.ingest.slide.patches import PatchRef, read_patches
from osler.testing.mirax import write_mrxs
from osler.testing.slides import TILE_PX, pyramid, tissue, write_dicom, write_svs, write_tiff

Pixels = NDArray[np.uint8]
HEIGHT, WIDTH = 910, 1300
BASE = tissue(HEIGHT, WIDTH)
LEVELS = pyramid(BASE, 3)
INSIDE: Box = (200.0, 200.0, 600.0, 600.0)  # crosses tiles and the edge of the tissue
OVER_THE_EDGE: Box = (1100.0, 710.0, 400.0, 400.0)


def only(path: Path) -> Series:
    (series,) = [series for study in scan(path).studies for series in study.series]
    return series


def slide_of(series: Series) -> SlideFacts:
    assert series.file.slide is not None
    return series.file.slide


def read(path: Path, box: Box, side_px: int) -> Pixels:
    whole = only(path).frames[0]
    if whole.file.slide is None:  # damaged until it is a picture, and not read as a slide
        raise UnreadableFileError(f"{path.name}: no slide")
    (image,) = read_patches([PatchRef(whole.part, 0, whole.file, box, (0, 0))], side_px)
    assert image.values.dtype == np.uint8
    return image.values.astype(np.uint8)


def crop(picture: Pixels, box: Box) -> Pixels:
    left, top, width, height = (int(side) for side in box)
    return picture[top : top + height, left : left + width]


LOSSLESS: dict[str, Callable[[Path], Path]] = {
    "tiff": lambda path: write_tiff(path / "a.tif", LEVELS),
    "dicom, full": lambda path: write_dicom(path / "s", LEVELS),
    "dicom, sparse": lambda path: write_dicom(path / "s", LEVELS, organization="TILED_SPARSE"),
    "dicom, jpeg 2000": lambda path: write_dicom(path / "s", LEVELS[:2], syntax=JPEG2000Lossless),
}


@pytest.mark.parametrize("kind", LOSSLESS)
def test_lossless_slides_give_their_pixels(kind: str, tmp_path: Path) -> None:
    path = LOSSLESS[kind](tmp_path)
    series = only(path)
    assert (series.kind, series.modality) == ("slide", "SM")
    assert (series.file.rows, series.file.columns) == (HEIGHT, WIDTH)
    assert slide_of(series).mpp == pytest.approx((0.5, 0.5))
    np.testing.assert_array_equal(read(path, INSIDE, 600), crop(BASE, INSIDE))
    # Half of it is the second level, of which nothing is computed.
    expected = LEVELS[1][100:400, 100:400]
    np.testing.assert_array_equal(read(path, INSIDE, 300), expected)


def test_between_levels_a_finer_one_is_reduced(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", LEVELS)
    expected = np.asarray(
        Picture.fromarray(crop(BASE, INSIDE)).resize((400, 400), Picture.Resampling.HAMMING)
    )
    np.testing.assert_array_equal(read(path, INSIDE, 400), expected)


def test_what_lies_beyond_a_slide_is_white(tmp_path: Path) -> None:
    got = read(write_tiff(tmp_path / "a.tif", LEVELS), OVER_THE_EDGE, 400)
    assert (got[200:] == 255).all()
    assert (got[:, 200:] == 255).all()
    np.testing.assert_array_equal(got[:200, :200], BASE[710:, 1100:])


def test_large_regions_are_read_in_blocks(tmp_path: Path) -> None:
    base = tissue(900, 5000)
    path = write_tiff(tmp_path / "a.tif", [base])
    got = read(path, (0.0, 0.0, 5000.0, 900.0), 50)
    expected = np.asarray(Picture.fromarray(base).resize((50, 50), Picture.Resampling.HAMMING))
    # A block knows nothing of its neighbours, and edges are a little softer than in one go.
    difference = np.abs(got.astype(int) - expected.astype(int))
    assert difference.max() <= 25
    assert difference.mean() < 1


def test_jpeg_in_svs_as_tifffile_reads_it(tmp_path: Path) -> None:
    path = write_svs(tmp_path / "a.svs", LEVELS)
    second = tifffile.imread(path, key=0)
    got = read(path, INSIDE, 600).astype(int)
    difference = np.abs(got - crop(second, INSIDE).astype(int))
    assert difference.max() <= 2  # two decoders of lossy data


@pytest.mark.parametrize(
    ("syntax", "organization"), [(JPEGBaseline8Bit, "TILED_FULL"), (JPEG2000, "TILED_SPARSE")]
)
def test_lossy_dicom_as_openslide_and_pydicom_read_it(
    syntax: str, organization: Literal["TILED_FULL", "TILED_SPARSE"], tmp_path: Path
) -> None:
    folder = write_dicom(tmp_path / "s", LEVELS[:1], syntax=syntax, organization=organization)
    got = read(folder, INSIDE, 600).astype(int)
    with openslide.OpenSlide(folder / "level-0.dcm") as second:
        region = second.read_region((200, 200), 0, (600, 600)).convert("RGB")
    assert np.abs(got - np.asarray(region).astype(int)).max() <= 2
    ds = pydicom.dcmread(folder / "level-0.dcm")
    left, top, number = TILE_PX, 0, 1
    if organization == "TILED_SPARSE":
        place = ds.PerFrameFunctionalGroupsSequence[number].PlanePositionSlideSequence[0]
        left = place.ColumnPositionInTotalImagePixelMatrix - 1
        top = place.RowPositionInTotalImagePixelMatrix - 1
    tile = read(folder, (left, top, TILE_PX, TILE_PX), TILE_PX).astype(int)
    assert np.abs(tile - ds.pixel_array[number].astype(int)).max() <= 2
    assert np.abs(tile - BASE[top : top + TILE_PX, left : left + TILE_PX].astype(int)).mean() < 3


def test_tiles_that_a_sparse_slide_lacks_are_glass(tmp_path: Path) -> None:
    folder = write_dicom(tmp_path / "s", LEVELS, organization="TILED_SPARSE", has_holes=True)
    frames = pydicom.dcmread(folder / "level-0.dcm", stop_before_pixels=True).NumberOfFrames
    assert frames < 4 * 6
    got = read(folder, (900.0, 0.0, 400.0, 400.0), 400)
    assert (got[:, 200:] == 255).all()


def test_a_level_stands_for_its_pyramid(tmp_path: Path) -> None:
    folder = write_dicom(tmp_path / "s", LEVELS)
    write_dicom(tmp_path / "s" / "other", LEVELS[:1])
    for name in ("level-0.dcm", "level-2.dcm"):
        files = slide_of(only(folder / name)).files
        assert [[Path(file).name for file in level] for level in files] == [
            ["level-0.dcm"],
            ["level-1.dcm"],
            ["level-2.dcm"],
        ]


# --- colours -----------------------------------------------------------------------------------


def _swapped() -> bytes:
    """A profile in which green is red and blue green; made of sRGB's by changing names of tags."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = int.from_bytes(profile[128:132], "big")
    at = {bytes(profile[132 + 12 * n : 136 + 12 * n]): 132 + 12 * n for n in range(count)}
    for new, old in ((b"rXYZ", b"gXYZ"), (b"gXYZ", b"bXYZ"), (b"bXYZ", b"rXYZ")):
        profile[at[old] : at[old] + 4] = new
    return bytes(profile).replace(b"s\0R\0G\0B", b"o\0t\0h\0r")


def test_the_profile_of_dicom_colours_is_followed(tmp_path: Path) -> None:
    optical_path = Dataset()
    optical_path.OpticalPathIdentifier, optical_path.ICCProfile = "0", _swapped()
    folder = write_dicom(tmp_path / "s", LEVELS[:1], OpticalPathSequence=[optical_path])
    got = read(folder, INSIDE, 600)
    swapped = ImageCms.profileToProfile(
        Picture.fromarray(crop(BASE, INSIDE)),
        ImageCms.ImageCmsProfile(io.BytesIO(_swapped())),
        ImageCms.createProfile("sRGB"),
        outputMode="RGB",
    )
    np.testing.assert_array_equal(got, np.asarray(swapped))
    assert np.abs(got.astype(int) - crop(BASE, INSIDE)).max() > 40


# --- names -------------------------------------------------------------------------------------


def test_labels_are_never_read(tmp_path: Path) -> None:
    folder = write_dicom(tmp_path / "s", LEVELS)
    for name in ("label.dcm", "overview.dcm"):
        for reader in (read_image, scan):
            with pytest.raises(UnsupportedError, match=rf"{name}: a picture of a slide's label"):
                reader(folder / name)
    found = scan(folder)
    assert list(found.left_out.values()) == [2]
    assert "label" in next(iter(found.left_out))
    (whole,) = found.studies[0].series[0].frames
    assert whole.file.slide is not None
    read_from = {Path(file).name for level in whole.file.slide.files for file in level}
    assert read_from == {"level-0.dcm", "level-1.dcm", "level-2.dcm"}


def test_a_level_that_shows_the_label_is_refused(tmp_path: Path) -> None:
    folder = write_dicom(tmp_path / "s", LEVELS[:1], SpecimenLabelInImage="YES")
    with pytest.raises(UnsupportedError, match="never read"):
        scan(folder / "level-0.dcm")


def test_a_tiled_label_is_no_level_of_a_tiff(tmp_path: Path) -> None:
    label = np.zeros((300, 280, 3), np.uint8)
    path = write_tiff(tmp_path / "a.tif", [BASE, label])
    assert read(path, (0.0, 0.0, 1300.0, 910.0), 200).min() > 90


def test_nothing_of_the_patient_is_told(tmp_path: Path) -> None:
    folder = write_dicom(tmp_path / "s", LEVELS[:1])
    svs = write_svs(tmp_path / "a.svs", LEVELS, told="AppMag = 20|MPP = 0.5|User = planted")
    for path in (folder, svs):
        assert "planted" not in repr(only(path)).lower()


def test_a_mirax_slide_is_one_slide_and_its_label_is_not_looked_at(tmp_path: Path) -> None:
    levels = pyramid(tissue(1024, 1536), 3)
    path = write_mrxs(tmp_path / "a.mrxs", levels)
    found = scan(tmp_path)
    assert found.left_out == {}  # not a word of the files of its data
    (series,) = found.studies[0].series
    assert slide_of(series).mpp == (0.5, 0.5)
    assert "PLANTED" not in repr(series)
    np.testing.assert_array_equal(read(path, INSIDE, 600), crop(levels[0], INSIDE))
    np.testing.assert_array_equal(read(path, INSIDE, 300), levels[1][100:400, 100:400])
    path.write_bytes(b"not even a JPEG")
    np.testing.assert_array_equal(read(path, INSIDE, 600), crop(levels[0], INSIDE))


def test_the_picture_that_stands_for_a_mirax_slide_shows_its_label(tmp_path: Path) -> None:
    path = tmp_path / "a.mrxs"
    Picture.new("RGB", (20, 20)).save(path, "JPEG")
    with pytest.raises(UnreadableFileError, match=r"a\.mrxs: damaged, or its folder is not beside"):
        scan(path)
    with pytest.raises(UnsupportedError, match=r"a\.mrxs: a whole slide, which is not one image"):
        read_image(path)


# --- what is not a slide, or not a good one ------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "mpp", "power"),
    [
        ("AppMag = 40|MPP = 0.2520", (0.252, 0.252), 40),
        ("AppMag = 40", None, 40),
        ("Rack = 1", None, None),
        ("MPP = nonsense", None, None),
        ("MPP = 250000", None, None),
    ],
)
def test_what_a_scanner_says_of_its_pixels(
    told: str, mpp: tuple[float, float] | None, power: float | None, tmp_path: Path
) -> None:
    slide = slide_of(only(write_svs(tmp_path / "a.svs", LEVELS, told=told)))
    assert slide.mpp == (None if mpp is None else pytest.approx(mpp))
    assert slide.objective_power == power


def test_the_resolution_of_a_screen_says_nothing_of_a_microscope(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", LEVELS, mpp=25_400 / 72)
    assert slide_of(only(path)).mpp is None


def test_ome_xml_says_how_large_pixels_are(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    told = {"axes": "YXS", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}
    tifffile.imwrite(path, BASE, tile=(256, 256), photometric="rgb", metadata=told)
    assert slide_of(only(path)).mpp == (0.25, 0.25)


def test_small_tiffs_and_those_without_tiles_are_pictures(tmp_path: Path) -> None:
    small, strips = tmp_path / "small.tif", tmp_path / "strips.tif"
    tifffile.imwrite(small, BASE[:700, :890], tile=(256, 256), photometric="rgb")
    tifffile.imwrite(strips, BASE, photometric="rgb")
    for path in (small, strips):
        assert only(path).kind == "images"


def test_without_the_extra_the_error_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    folder = write_dicom(tmp_path / "s", LEVELS[:1])
    for path in (write_svs(tmp_path / "a.svs", LEVELS), folder / "level-0.dcm"):
        with pytest.raises(
            UnsupportedError, match=rf"{path.name}: .* pip install 'osler\[slides\]'"
        ):
            describe_slide(str(path), path.name)


def test_a_slide_may_be_longer_than_what_is_handed_over(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", LEVELS)
    os.truncate(path, (1 << 30) + 1)  # sparse: no disk is needed
    np.testing.assert_array_equal(read(path, INSIDE, 600), crop(BASE, INSIDE))
    picture = tmp_path / "a.png"
    Picture.fromarray(BASE).save(picture)
    os.truncate(picture, (1 << 30) + 1)
    with pytest.raises(UnsupportedError, match="bytes are more than"):
        scan(picture)


def test_a_slide_in_a_zip_is_refused_in_words(tmp_path: Path) -> None:
    import zipfile

    folder = write_dicom(tmp_path / "s", LEVELS[:1])
    path = tmp_path / "s.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(folder / "level-0.dcm", "level-0.dcm")
    with pytest.raises(UnreadableFileError, match=r"no images in this zip file; a whole slide"):
        scan(path)


@pytest.mark.parametrize("kind", ["svs", "tiff", "dicom"])
def test_damage_is_an_error_in_one_line(kind: str, tmp_path: Path) -> None:
    chance = random.Random(7)
    if kind == "dicom":
        path = write_dicom(tmp_path / "s", LEVELS[:1], syntax=JPEGBaseline8Bit) / "level-0.dcm"
    elif kind == "svs":
        path = write_svs(tmp_path / "a.svs", LEVELS)
    else:
        path = write_tiff(tmp_path / "a.tif", LEVELS)
    whole = path.read_bytes()
    said = []
    for trial in range(24):
        data = bytearray(whole[: chance.randrange(len(whole))] if trial % 2 else whole)
        for _ in range(chance.randrange(1, 60)):
            data[chance.randrange(min(len(data), 4000 if trial % 3 else len(data)))] ^= 0xFF
        path.write_bytes(data)
        try:
            read(path, INSIDE, 64)
        except InputError as error:
            said.append(str(error))
    assert len(said) > 6
    for line in said:
        assert path.name in line
        assert "\n" not in line
        assert "Planted" not in line


def test_a_data_set_without_its_preamble_is_no_slide(tmp_path: Path) -> None:
    levels = [tissue(300, 300)]
    path = write_dicom(tmp_path, levels) / "level-0.dcm"
    assert describe_slide(str(path), "x") is not None
    path.write_bytes(path.read_bytes()[132:])
    assert describe_slide(str(path), "x") is None
