"""Pixel values against the image processors of `transformers`, to the last bit."""

import numpy as np
import pytest
from PIL.Image import Resampling
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from osler.preprocess.image_settings import ImageSettings
from osler.preprocess.pixels import PixelMaker
from osler.preprocess.sources import as_image
from tests.preprocess.conftest import noise

TOLERANCE = 1e-6
SIZES = [
    (56, 56),
    (300, 500),
    (500, 300),
    (1, 1),
    (1, 200),
    (200, 1),
    (7, 5),
    (57, 55),
    (611, 640),
]
UNEVEN = {"image_mean": (0.485, 0.456, 0.406), "image_std": (0.229, 0.224, 0.225)}


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("scale", [{}, UNEVEN])
def test_gemma_pixels(height, width, scale):
    picture = noise(height, width)
    reference = Gemma3ImageProcessorPil(
        size={"height": 56, "width": 56},
        **({"image_mean": [0.5] * 3, "image_std": [0.5] * 3} | scale),
    )
    theirs = reference(picture, return_tensors="np")["pixel_values"]
    maker = PixelMaker(ImageSettings(side_px=56, **scale), "1")
    ours = maker.pixels(maker.squares(as_image(picture), squaring="stretch", pan_and_scan=False))
    assert ours.dtype == np.float32
    assert ours.shape == (1, 3, 56, 56)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("resample", [Resampling.BILINEAR, Resampling.BICUBIC])
def test_siglip_pixels(height, width, resample):
    picture = noise(height, width)
    reference = SiglipImageProcessorPil(
        size={"height": 64, "width": 64}, resample=resample, image_mean=[0.5] * 3
    )
    theirs = reference(picture, return_tensors="np")["pixel_values"]
    maker = PixelMaker(ImageSettings(side_px=64, resample=resample), "1")
    ours = maker.pixels(maker.squares(as_image(picture), squaring="stretch", pan_and_scan=False))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE)


def test_an_image_that_is_padded_already_is_the_same_either_way():
    padded = np.zeros((90, 90, 3), dtype=np.uint8)
    padded[20:70] = np.asarray(noise(50, 90))
    reference = Gemma3ImageProcessorPil(size={"height": 56, "width": 56})
    theirs = reference(padded, return_tensors="np")["pixel_values"]
    maker = PixelMaker(ImageSettings(side_px=56), "1")
    image = as_image(noise(50, 90))
    ours = maker.pixels(maker.squares(image, squaring="pad", pan_and_scan=False))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(("height", "width"), [(300, 1000), (700, 300), (260, 261), (256, 600)])
def test_pan_and_scan_pixels(height, width):
    picture = noise(height, width)
    reference = Gemma3ImageProcessorPil(
        size={"height": 56, "width": 56},
        do_pan_and_scan=True,
        pan_and_scan_min_crop_size=256,
        pan_and_scan_max_num_crops=4,
        pan_and_scan_min_ratio_to_activate=1.2,
    )
    result = reference(picture, return_tensors="np")
    maker = PixelMaker(ImageSettings(side_px=56), "1")
    squares = maker.squares(as_image(picture), squaring="stretch", pan_and_scan=True)
    assert len(squares) == 1 + int(result["num_crops"][0])
    np.testing.assert_allclose(
        maker.pixels(squares), result["pixel_values"], rtol=0, atol=TOLERANCE
    )


def test_black_and_white_are_minus_one_and_one():
    maker = PixelMaker(ImageSettings(side_px=2), "1")
    black, white = np.zeros((2, 2, 3), dtype=np.uint8), np.full((2, 2, 3), 255, dtype=np.uint8)
    pixels = maker.pixels([black, white])
    assert (pixels[0] == -1).all()
    assert (pixels[1] == 1).all()


def test_no_images_give_no_pixels_of_the_right_shape():
    assert PixelMaker(ImageSettings(side_px=5), "1").pixels([]).shape == (0, 3, 5, 5)
