"""The kernels that make pixels, beside numpy and Pillow, to the last bit."""

from typing import get_args

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL.Image import Resampling

from osler.native.library import Library
from osler.native.pixels import Filter, levels_between, looked_up, square_into

WAYS = get_args(Filter)


def by_pillow(levels_HW: np.ndarray, side_px: int, way: str) -> np.ndarray:
    height, width = levels_HW.shape
    longest = max(height, width)
    padded = np.zeros((longest, longest), np.uint8)
    top, left = (longest - height) // 2, (longest - width) // 2
    padded[top : top + height, left : left + width] = levels_HW
    filter_ = Resampling[way.upper()]
    return np.asarray(PIL.Image.fromarray(padded).resize((side_px, side_px), filter_))


def squared(native: Library, levels_HW: np.ndarray, side_px: int, way: Filter) -> np.ndarray:
    out_SS = np.empty((side_px, side_px), np.uint8)
    square_into(native, levels_HW, way, out_SS)
    return out_SS


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (height, width), np.uint8)


@settings(max_examples=150, deadline=None)
@given(
    height=st.integers(1, 150),
    width=st.integers(1, 150),
    side_px=st.integers(1, 150),
    way=st.sampled_from(WAYS),
)
def test_any_size_as_pillow_has_it(native, height, width, side_px, way):
    levels = noise(height, width)
    expected = by_pillow(levels, side_px, way)
    np.testing.assert_array_equal(squared(native, levels, side_px, way), expected)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [(512, 512), (1955, 1841), (2500, 3), (3, 2500), (448, 448)])
@pytest.mark.parametrize("side_px", [224, 448, 896])
def test_sizes_in_use_as_pillow_has_them(native: Library, size, side_px, way) -> None:
    levels = noise(*size)
    expected = by_pillow(levels, side_px, way)
    np.testing.assert_array_equal(squared(native, levels, side_px, way), expected)


@pytest.mark.parametrize("way", WAYS)
def test_full_contrast_neither_wraps_nor_leaves_the_range(native: Library, way) -> None:
    levels = np.where(noise(90, 70) < 128, 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(squared(native, levels, 200, way), by_pillow(levels, 200, way))


def test_pixels_that_lie_apart(native: Library) -> None:
    rgb = np.stack([noise(40, 30), noise(40, 30)[::-1], noise(40, 30)[:, ::-1]], axis=-1)
    for levels in (rgb[:, :, 1], rgb[::-1, ::2, 2], rgb.transpose(1, 0, 2)[:, :, 0]):
        expected = by_pillow(levels, 50, "bilinear")
        np.testing.assert_array_equal(squared(native, levels, 50, "bilinear"), expected)


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize(("low", "high"), [(-1024, 1024), (-135, 215), (0, 80), (-0.1, 3071.7)])
def test_levels_as_numpy_has_them(native: Library, low, high, inverted) -> None:
    whole = np.arange(-3000, 3001, dtype=np.float32)
    values = np.concatenate([whole, np.random.default_rng(0).normal(50, 200, 9999)])
    values = values.astype(np.float32)
    unit = (np.clip(values, low, high) - np.float32(low)) / np.float32(high - low)
    expected = np.rint((1 - unit if inverted else unit) * 255).astype(np.uint8)
    found = np.empty(values.shape, np.uint8)
    levels_between(native, values, low, high, found, inverted=inverted)
    np.testing.assert_array_equal(found, expected)


def test_looking_up(native: Library) -> None:
    table = np.random.default_rng(0).normal(size=256).astype(np.float32)
    rgb = np.stack([noise(16, 16)] * 3, axis=-1)
    for levels in (rgb[:, :, 2], noise(16, 16)):
        out = np.empty((16, 16), np.float32)
        looked_up(native, levels, table, out)
        np.testing.assert_array_equal(out, table[levels])
