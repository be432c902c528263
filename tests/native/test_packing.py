"""Packed weights hold what they were made of: to the format's rounding, or exactly."""

import ctypes

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from osler.native.formats import FORMATS, packed_bytes
from osler.native.packing import Packer, interleave
from tests.native.kernel_tables import random_matrix
from tests.native.layouts import weights

SIZES = {"rows": st.integers(1, 70), "cols": st.integers(1, 600), "seed": st.integers(0, 9)}
any_size = settings(max_examples=40, deadline=None, derandomize=True)


@pytest.fixture(scope="module")
def packer(native, pool) -> Packer:
    return Packer(native, pool)


def _random(rows, cols, seed):
    generator = np.random.default_rng(seed)
    weight = generator.standard_normal((rows, cols)) * generator.uniform(0.01, 3, (rows, 1))
    return weight.astype(np.float32)


def test_the_sizes_of_python_and_c_agree(native):
    call = native.function("osl_packed_bytes", ctypes.c_size_t, *[ctypes.c_int32] * 3)
    for format, number in FORMATS.items():
        for rows, cols in [(1, 1), (16, 256), (17, 257), (2560, 10240)]:
            assert call(number, rows, cols) == packed_bytes(format, rows, cols)


@any_size
@given(format=st.sampled_from(list(FORMATS)), **SIZES)
def test_unpacking_is_what_the_layout_says(packer, format, rows, cols, seed):
    matrix = random_matrix(np.random.default_rng(seed), format, rows, cols)
    actual = packer.unpack(matrix)
    np.testing.assert_array_equal(actual, weights(matrix).astype(np.float32))


@any_size
@given(**SIZES)
def test_bf16_is_exact_for_bf16(packer, rows, cols, seed):
    weight = torch.from_numpy(_random(rows, cols, seed)).bfloat16()
    expected = weight.float().numpy()
    for given_as in (weight, weight.float(), expected):
        matrix = packer.pack(given_as, "bf16")
        np.testing.assert_array_equal(packer.unpack(matrix), expected)
        np.testing.assert_array_equal(weights(matrix), expected)


@any_size
@given(**SIZES)
def test_int8_is_within_half_a_step(packer, rows, cols, seed):
    weight = _random(rows, cols, seed)
    actual = packer.unpack(packer.pack(weight, "int8"))
    step = np.abs(weight).max(axis=1, keepdims=True) / 127
    assert (np.abs(actual - weight) <= step * 0.5001).all()


@any_size
@given(**SIZES)
def test_int4_is_within_half_a_step(packer, rows, cols, seed):
    weight = _random(rows, cols, seed)
    actual = packer.unpack(packer.pack(weight, "int4"))
    largest = np.abs(weight).max(axis=1, keepdims=True)
    for start in range(0, cols, 32):
        part = weight[:, start : start + 32]
        # A group's step is a seventh of its largest, rounded up to a 112th of the row's.
        step = np.abs(part).max(axis=1, keepdims=True) / 7 + largest / 112
        assert (np.abs(actual[:, start : start + 32] - part) <= step * 0.5001).all()


@any_size
@given(**SIZES)
def test_int4_rounded_elsewhere_is_kept(packer, rows, cols, seed):
    generator = np.random.default_rng(seed)
    values = generator.integers(-8, 8, (rows, cols), np.int8)
    multipliers = generator.integers(1, 17, (rows, -(-cols // 32)), np.uint8)
    scale = generator.standard_normal(rows).astype(np.float32)
    matrix = packer.pack_int4(values, multipliers, scale)
    wide = np.repeat(multipliers, 32, axis=1)[:, :cols].astype(np.float32)
    np.testing.assert_array_equal(packer.unpack(matrix), scale[:, np.newaxis] * (wide * values))


@any_size
@given(format=st.sampled_from(["q8_0", "q4_0"]), blocks=st.integers(1, 10), **SIZES)
def test_gguf_blocks_are_kept(packer, format, blocks, rows, cols, seed):
    """Source of the reference: the definition of Q8_0 and Q4_0 in GGUF's specification."""
    del cols
    generator = np.random.default_rng(seed)
    scale = generator.standard_normal((rows, blocks, 1)).astype(np.float16)
    if format == "q8_0":
        values = generator.integers(-128, 128, (rows, blocks, 32)).astype(np.int8)
        stored = values.view(np.uint8)
    else:
        values = generator.integers(-8, 8, (rows, blocks, 32)).astype(np.int8)
        low, high = values[..., :16] + 8, values[..., 16:] + 8
        stored = (low | high << 4).astype(np.uint8)
    data = np.concatenate([scale.view(np.uint8), stored], axis=-1)
    matrix = packer.pack_gguf(data.reshape(rows, -1), format, rows, 32 * blocks)
    expected = (scale.astype(np.float32) * values).reshape(rows, -1)
    np.testing.assert_array_equal(packer.unpack(matrix), expected)
    np.testing.assert_array_equal(weights(matrix).astype(np.float32), expected)


def test_rows_may_lie_apart(packer):
    wide = torch.from_numpy(_random(40, 100, 0))
    for format in ("bf16", "int8", "int4"):
        expected = packer.unpack(packer.pack(wide[:, 10:70].contiguous(), format))
        np.testing.assert_array_equal(packer.unpack(packer.pack(wide[:, 10:70], format)), expected)
        strided = wide.numpy()[:, 10:70]
        np.testing.assert_array_equal(packer.unpack(packer.pack(strided, format)), expected)


@pytest.mark.parametrize("format", ["int8", "int4"])
def test_rows_of_zeros_and_of_what_is_not_finite(packer, format):
    weight = _random(20, 300, 0)
    weight[3] = 0
    weight[4] = 1e-38
    weight[5, 200] = np.inf
    weight[6, 1] = np.nan
    actual = packer.unpack(packer.pack(weight, format))
    np.testing.assert_array_equal(actual[3:5], 0)
    assert np.isnan(actual[5:7]).all()
    assert np.isfinite(np.delete(actual, [5, 6], axis=0)).all()


def test_what_cannot_be_packed_is_refused(packer):
    weight = _random(4, 64, 0)
    with pytest.raises(ValueError, match="no rounding to 'q8_0'"):
        packer.pack(weight, "q8_0")
    with pytest.raises(ValueError, match="side by side"):
        packer.pack(weight.T, "int8")
    with pytest.raises(ValueError, match="float64 weights"):
        packer.pack(weight.astype(np.float64), "int8")
    with pytest.raises(ValueError, match="no groups of 32"):
        packer.pack(weight, "int8", group=32)
    with pytest.raises(ValueError, match="do not make"):
        packer.pack_gguf(np.zeros(33, np.uint8), "q8_0", 1, 32)
    values, multipliers = np.zeros((4, 64), np.int8), np.ones((4, 2), np.uint8)
    scale = np.ones(4, np.float32)
    with pytest.raises(ValueError, match="-8 to 7"):
        packer.pack_int4(values + np.int8(8), multipliers, scale)
    with pytest.raises(ValueError, match="1 to 16"):
        packer.pack_int4(values, multipliers - np.uint8(1), scale)
    with pytest.raises(ValueError, match="2 multipliers"):
        packer.pack_int4(values, multipliers[:, :1], scale)


def test_gates_and_their_partners_alternate_by_blocks():
    gate, up = _random(32, 8, 0), _random(32, 8, 1)
    both = interleave(gate, up).reshape(2, 2, 16, 8)
    np.testing.assert_array_equal(both[:, 0].reshape(32, 8), gate)
    np.testing.assert_array_equal(both[:, 1].reshape(32, 8), up)
