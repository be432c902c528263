"""All kinds of images that a caller may hand in."""

import numpy as np
import PIL.Image
import pytest

from osler.errors import PromptError, UnreadableFileError
from osler.ingest.image import Image
from osler.preprocess.sources import ImageFile, as_image, source_name
from tests.preprocess.conftest import noise


def test_a_path_a_picture_and_an_array_give_the_same_pixels(tmp_path):
    picture = noise(5, 7)
    path = tmp_path / "noise.png"
    picture.save(path)
    expected = np.asarray(picture)
    for source in (path, str(path), picture, expected):
        image = as_image(source)
        assert image.space == "display"
        np.testing.assert_array_equal(image.values, expected)


def test_the_bytes_of_a_file_are_that_file(tmp_path):
    path = tmp_path / "noise.png"
    noise(5, 7).save(path)
    image = as_image(ImageFile(path.read_bytes(), "the second image"))
    np.testing.assert_array_equal(image.values, as_image(path).values)
    assert image.sha256 == as_image(path).sha256
    with pytest.raises(UnreadableFileError, match=r"^the second image: neither"):
        as_image(ImageFile(b"Dear colleague,", "the second image"))


def test_the_bytes_of_a_file_are_not_shown():
    assert "colleague" not in repr(ImageFile(b"Dear colleague,"))
    assert source_name(ImageFile(b"", "the second image")) == "the second image"


def test_an_image_is_taken_as_it_is():
    image = as_image(noise(2, 2))
    assert as_image(image) is image


def test_grey_arrays_become_rgb():
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    image = as_image(grey)
    assert image.values.shape == (2, 3, 3)
    np.testing.assert_array_equal(image.values[:, :, 1], grey)


def test_deep_grey_pictures_keep_their_values():
    deep = np.array([[0, 300], [40_000, 65_535]], dtype=np.uint16)
    image = as_image(PIL.Image.fromarray(deep))
    assert image.space == "modality"
    np.testing.assert_array_equal(image.values, deep.astype(np.float32))


def test_deep_grey_that_is_not_a_number_is_refused():
    with pytest.raises(UnreadableFileError, match="not numbers"):
        as_image(PIL.Image.fromarray(np.array([[0, np.nan]], dtype=np.float32)))


def test_alpha_is_dropped():
    rgba = PIL.Image.new("RGBA", (1, 1), (10, 20, 30, 0))
    assert as_image(rgba).values.tolist() == [[[10, 20, 30]]]


def test_a_picture_is_turned_upright():
    picture = noise(2, 3)
    exif = picture.getexif()
    exif[0x0112] = 6  # its top is at the right
    picture.info["exif"] = exif.tobytes()
    np.testing.assert_array_equal(as_image(picture).values, np.rot90(np.asarray(picture), k=-1))


def test_the_digest_is_of_the_pixels():
    one, two = as_image(noise(2, 3)), as_image(noise(2, 3, seed=1))
    assert len(one.sha256) == 64
    assert one.sha256 == as_image(np.asarray(noise(2, 3))).sha256 != two.sha256


def test_a_cut_picture_is_an_error_of_one_line(tmp_path):
    path = tmp_path / "cut.png"
    noise(64, 64).save(path)
    path.write_bytes(path.read_bytes()[:4000])
    with PIL.Image.open(path) as picture, pytest.raises(UnreadableFileError, match="truncated"):
        as_image(picture)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (np.zeros((2, 2, 3), dtype=np.float32), "float32"),
        (np.zeros((2, 2, 4), dtype=np.uint8), r"\(2, 2, 4\)"),
        (np.zeros((2, 2, 3, 1), dtype=np.uint8), r"\(2, 2, 3, 1\)"),
        (np.zeros((0, 2), dtype=np.uint8), r"\(0, 2\)"),
        (b"bytes", "bytes"),
        (3, "int"),
    ],
)
def test_anything_else_is_refused(source, reason):
    with pytest.raises(PromptError, match=reason):
        as_image(source)


def test_names_show_no_folder(tmp_path):
    assert source_name(tmp_path / "chest.dcm") == source_name(f"{tmp_path}/chest.dcm")
    assert source_name(tmp_path / "chest.dcm") == "chest.dcm"
    assert source_name(noise(1, 1)) == "image"
    named = Image(
        values=np.zeros((1, 1, 3), dtype=np.uint8),
        space="display",
        source="x.png",
        sha256="",
        decoder="",
    )
    assert source_name(named) == "x.png"
