"""Padding and stretching to the model's square."""

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL.Image import Resampling

from osler.errors import PromptError, UnsupportedError
from osler.preprocess.squaring import MAX_SIDE_PX, square
from tests.preprocess.conftest import noise

FILTERS = [Resampling.BILINEAR, Resampling.BICUBIC, Resampling.NEAREST]


def by_definition(rgb: np.ndarray, side_px: int, resample: Resampling) -> np.ndarray:
    """The whole padded square, then one resize."""
    height, width = rgb.shape[:2]
    longest = max(height, width)
    padded = np.zeros((longest, longest, 3), dtype=np.uint8)
    top, left = (longest - height) // 2, (longest - width) // 2
    padded[top : top + height, left : left + width] = rgb
    return np.asarray(PIL.Image.fromarray(padded).resize((side_px, side_px), resample))


@settings(max_examples=50, deadline=None)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    side_px=st.integers(1, 60),
    resample=st.sampled_from(FILTERS),
)
def test_padding_in_strips_is_padding_at_once(height, width, side_px, resample):
    rgb = np.asarray(noise(height, width))
    ours = square(rgb, squaring="pad", side_px=side_px, resample=resample)
    np.testing.assert_array_equal(ours, by_definition(rgb, side_px, resample))


@pytest.mark.parametrize(("height", "width"), [(2500, 3), (3, 2500), (1025, 1024)])
def test_padding_of_more_rows_than_are_done_at_once(height, width):
    rgb = np.asarray(noise(height, width))
    ours = square(rgb, squaring="pad", side_px=32, resample=Resampling.BILINEAR)
    np.testing.assert_array_equal(ours, by_definition(rgb, 32, Resampling.BILINEAR))


# The cases of the released serving code: zeros, half on each side, an odd one behind.
@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((1, 2), [[1, 1], [0, 0]]),
        ((2, 1), [[1, 0], [1, 0]]),
        ((1, 3), [[0, 0, 0], [1, 1, 1], [0, 0, 0]]),
        ((3, 1), [[0, 1, 0], [0, 1, 0], [0, 1, 0]]),
        ((1, 1), [[1]]),
    ],
)
def test_padding_is_black_and_centred(shape, expected):
    padded = square(
        np.ones((*shape, 3), dtype=np.uint8),
        squaring="pad",
        side_px=len(expected),
        resample=Resampling.NEAREST,
    )
    assert padded[:, :, 2].tolist() == expected


def test_stretching_leaves_no_border():
    white = np.full((10, 40, 3), 255, dtype=np.uint8)
    stretched = square(white, squaring="stretch", side_px=16, resample=Resampling.BILINEAR)
    assert (stretched == 255).all()


def test_shrinking_averages():
    stripes = np.tile(np.array([0, 255], dtype=np.uint8), (64, 32))[:, :, np.newaxis]
    rgb = np.repeat(stripes, 3, axis=2)
    shrunk = square(rgb, squaring="pad", side_px=8, resample=Resampling.BILINEAR)
    assert abs(shrunk.astype(int) - 127).max() <= 20


def test_another_squaring_is_refused():
    with pytest.raises(PromptError, match="squaring is 'crop'"):
        square(
            np.zeros((2, 2, 3), dtype=np.uint8),
            squaring="crop",  # type: ignore[arg-type]  # the error is the test
            side_px=4,
            resample=Resampling.BILINEAR,
        )


def test_a_thread_of_an_image_is_refused_before_it_fills_the_memory():
    thread = np.zeros((1, MAX_SIDE_PX + 1, 3), dtype=np.uint8)
    with pytest.raises(UnsupportedError, match="65536 x 1"):
        square(thread, squaring="pad", side_px=896, resample=Resampling.BILINEAR)
