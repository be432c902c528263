"""Crops: how many, where, and when none; against the reference."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

from osler.preprocess.image_settings import ImageSettings
from osler.preprocess.pan_and_scan import crops

REFERENCE = Gemma3ImageProcessorPil()


def numbered(height: int, width: int) -> np.ndarray:
    """Every pixel tells its place."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows % 256, columns % 256, rows // 256 * 16 + columns // 256], axis=2).astype(
        np.uint8
    )


def same_as_reference(height: int, width: int, rules: ImageSettings) -> int:
    rgb = numbered(height, width)
    ours = crops(rgb, rules)
    theirs = REFERENCE.pan_and_scan(
        np.moveaxis(rgb, 2, 0),
        rules.pan_and_scan_min_crop_size,
        rules.pan_and_scan_max_num_crops,
        rules.pan_and_scan_min_ratio_to_activate,
    )
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(np.moveaxis(one, 2, 0), other)
    return len(ours)


@pytest.mark.parametrize(
    ("height", "width", "count"),
    [
        (600, 600, 0),
        (600, 719, 0),
        (600, 720, 2),  # exactly 1.2
        (720, 600, 2),
        (300, 1000, 3),
        (300, 1050, 4),  # 3.5 rounds up
        (1050, 300, 4),
        (300, 3000, 4),  # no more than four
        (300, 511, 2),
        (256, 511, 2),
        (255, 2000, 0),  # too low for a crop
        (200, 300, 0),
        (1, 5, 0),
    ],
)
def test_number_of_crops(height, width, count):
    assert same_as_reference(height, width, ImageSettings()) == count


@settings(max_examples=50, deadline=None)
@given(
    height=st.integers(1, 400),
    width=st.integers(1, 400),
    min_crop=st.integers(1, 80),
    most=st.integers(1, 6),
    ratio=st.floats(1.0, 3.0),
)
def test_crops_are_those_of_the_reference(height, width, min_crop, most, ratio):
    rules = ImageSettings(
        pan_and_scan_min_crop_size=min_crop,
        pan_and_scan_max_num_crops=most,
        pan_and_scan_min_ratio_to_activate=ratio,
    )
    same_as_reference(height, width, rules)


def test_crops_cover_the_image():
    rgb = numbered(301, 1111)
    np.testing.assert_array_equal(np.concatenate(crops(rgb, ImageSettings()), axis=1), rgb)
