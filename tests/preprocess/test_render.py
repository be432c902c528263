"""Modality values to display values, each rule from its source."""

import numpy as np
import pytest

from osler.errors import PromptError
from osler.ingest.image import Image, Voi
from osler.preprocess.render import render


def image(values, **fields) -> Image:
    return Image(
        values=np.atleast_2d(np.array(values, dtype=np.float32)),
        space="modality",
        source="test",
        sha256="",
        decoder="numpy",
        **fields,
    )


def grey(values, **fields) -> list[int]:
    rgb = render(image(values, **fields), medgemma_version="1.5")
    assert rgb.dtype == np.uint8
    assert rgb.shape[2] == 3
    assert (rgb == rgb[:, :, :1]).all()
    return rgb[0, :, 0].tolist()


@pytest.mark.parametrize(
    ("version", "hu", "rgb"),
    [
        ("1.5", -1024, (0, 0, 0)),
        ("1.5", -3000, (0, 0, 0)),
        ("1.5", 1024, (255, 255, 255)),
        ("1.5", 3000, (255, 255, 255)),
        ("1.5", 0, (128, 98, 0)),  # 127.5 to the even 128; 135 / 350 of 255 is 98.4
        ("1.5", 40, (132, 128, 128)),
        ("1", -1225, (0, 0, 0)),
        ("1", -100, (128, 26, 0)),
        ("1", 40, (143, 128, 128)),
    ],
)
def test_ct_becomes_three_windows(version, hu, rgb):
    shown = render(image([hu], modality="CT"), medgemma_version=version)
    assert tuple(shown[0, 0].tolist()) == rgb


def test_hounsfield_units_mean_the_same_under_monochrome1():
    plain = render(image([-500, 40, 300], modality="CT"), medgemma_version="1")
    other = render(image([-500, 40, 300], modality="CT", monochrome1=True), medgemma_version="1")
    np.testing.assert_array_equal(plain, other)


@pytest.mark.parametrize("modality", ["CR", "DX", "MR"])
def test_radiographs_and_mr_ignore_their_window(modality):
    voi = Voi(window_centers=(2000.0,), window_widths=(10.0,))
    assert grey([100, 2100, 4100], modality=modality, voi=voi) == [0, 128, 255]


def test_negative_values_do_not_wrap():
    assert grey([-32768, 0, 32767], modality="CR") == [0, 128, 255]


def test_sixteen_bits_keep_their_order():
    levels = grey(np.linspace(0, 65535, 256), modality="CR")
    assert levels == sorted(levels)
    assert len(set(levels)) == 256


def test_monochrome1_is_inverted():
    assert grey([0, 1, 4], modality="CR", monochrome1=True) == [255, 191, 0]
    voi = Voi(window_centers=(2.5,), window_widths=(5.0,))
    assert grey([0, 4], modality="US", voi=voi, monochrome1=True) == [255, 0]


def test_an_image_of_one_value_is_black():
    assert grey([7, 7, 7], modality="CR") == [0, 0, 0]


def test_a_picture_of_deep_grey_has_its_full_range():
    assert grey([1000, 2000, 3000]) == [0, 128, 255]


# PS3.3 C.11.2.1.2.1: "Window Center 2048, Window Width 4096 selects the range 0 to 4095", and a
# width of 1 makes every value below the center 0 and the rest white.
@pytest.mark.parametrize(
    ("center", "width", "values", "levels"),
    [
        (2048, 4096, [-1, 0, 2047.5, 4095, 9999], [0, 0, 128, 255, 255]),
        (2048, 1, [2047, 2047.5, 2048, 2049], [0, 0, 255, 255]),
        (0, 100, [-50, -0.5, 49], [0, 128, 255]),
    ],
)
def test_linear_window(center, width, values, levels):
    voi = Voi(window_centers=(center,), window_widths=(width,))
    assert grey(values, modality="MG", voi=voi) == levels


def test_linear_exact_window():
    voi = Voi(window_centers=(2048.0,), window_widths=(4096.0,), function="LINEAR_EXACT")
    assert grey([0, 2048, 4096], modality="MG", voi=voi) == [0, 128, 255]
    narrow = Voi(window_centers=(0.5,), window_widths=(0.5,), function="LINEAR_EXACT")
    assert grey([0.25, 0.5, 0.75], modality="MG", voi=narrow) == [0, 128, 255]


def test_sigmoid_window():
    voi = Voi(window_centers=(100.0,), window_widths=(50.0,), function="SIGMOID")
    expected = [round(255 / (1 + np.exp(-4 * (x - 100) / 50))) for x in (75, 100, 125)]
    assert grey([75, 100, 125, -1e9, 1e9], modality="US", voi=voi) == [*expected, 0, 255]


def test_the_first_window_that_shows_something_is_used():
    several = Voi(window_centers=(50.5, 500.0), window_widths=(101.0, 11.0))
    assert grey([0, 50, 100, 500], modality="US", voi=several) == [0, 128, 255, 255]
    broken = Voi(window_centers=(5.0, 50.5), window_widths=(0.0, 101.0))
    assert grey([0, 50, 100, 500], modality="US", voi=broken) == [0, 128, 255, 255]
    useless = Voi(window_centers=(5.0,), window_widths=(-3.0,))
    assert grey([0, 5, 10], modality="US", voi=useless) == [0, 128, 255]


def test_lookup_table_goes_before_windows_and_holds_beyond_its_ends():
    voi = Voi(
        window_centers=(5.0,),
        window_widths=(10.0,),
        lut=np.array([0, 100, 4095], dtype=np.int64),
        lut_first=-1,
        lut_bits=12,
    )
    assert grey([-9, -1, 0, 1, 7], modality="MG", voi=voi) == [0, 0, 6, 255, 255]


def test_colour_is_left_as_it_is():
    rgb = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    display = Image(values=rgb, space="display", source="t", sha256="", decoder="numpy")
    np.testing.assert_array_equal(render(display, medgemma_version="1"), rgb)


def test_an_unknown_version_is_refused():
    with pytest.raises(PromptError):
        render(image([0], modality="CT"), medgemma_version="3")
