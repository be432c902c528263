"""The linear layer over the pool is what csrc/linear.h says, for each table of kernels."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osler.native.formats import FORMATS
from osler.native.library import library
from osler.native.linear import OUT_KINDS, linear
from tests.native.kernel_tables import random_matrix
from tests.native.layouts import product


def _check(native, pool, format, kind, rows, cols, tokens, group=None, seed=0):
    generator = np.random.default_rng(seed)
    if kind == "geglu":
        rows = -(-rows // 32) * 32
    matrix = random_matrix(generator, format, rows, cols, group=group)
    x = generator.standard_normal((tokens, cols)).astype(np.float32)
    bias = generator.standard_normal(rows).astype(np.float32) if seed % 2 else None
    columns = rows // (2 if kind == "geglu" else 1)
    y = generator.standard_normal((tokens, columns)).astype(np.float32)
    expected = product(matrix, x, kind, bias, y)
    actual = linear(native, pool, matrix, x, kind=kind, bias_R=bias, y_TR=y)
    assert actual is y
    # Against the sums of magnitudes, for what cancels in double precision need not in float32.
    scale = np.abs(expected).max(initial=1e-6)
    np.testing.assert_allclose(actual / scale, expected / scale, rtol=0, atol=3e-5)


@pytest.mark.parametrize("kind", OUT_KINDS)
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(("rows", "cols"), [(16, 256), (33, 300), (1, 1), (80, 1152)])
@pytest.mark.parametrize("tokens", [1, 5, 40])
def test_products(native, pool, format, kind, rows, cols, tokens):
    _check(native, pool, format, kind, rows, cols, tokens, seed=rows)


@pytest.mark.parametrize("tokens", [1, 7])
def test_one_scale_for_a_whole_token(native, pool, tokens):
    _check(native, pool, "int8", "store", 40, 700, tokens, group=0)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    format=st.sampled_from(list(FORMATS)),
    kind=st.sampled_from(list(OUT_KINDS)),
    rows=st.integers(1, 100),
    cols=st.integers(1, 600),
    tokens=st.integers(1, 70),
    seed=st.integers(0, 3),
)
def test_any_shape(native, pool, format, kind, rows, cols, tokens, seed):
    _check(native, pool, format, kind, rows, cols, tokens, seed=seed)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_not_hidden(native, pool, format, bad):
    matrix = random_matrix(np.random.default_rng(0), format, 16, 64)
    x = np.ones((2, 64), np.float32)
    x[1, 40] = bad
    y = linear(native, pool, matrix, x)
    assert np.isfinite(y[0]).all()
    assert not np.isfinite(y[1]).any()


@pytest.mark.parametrize("format", [name for name in FORMATS if name != "bf16"])
def test_zeros_and_the_nearly_zero_give_zero(native, pool, format):
    matrix = random_matrix(np.random.default_rng(0), format, 16, 64)
    x = np.zeros((2, 64), np.float32)
    x[1] = 1e-38
    np.testing.assert_array_equal(linear(native, pool, matrix, x), 0)


def test_arguments_that_do_not_fit_are_refused(native, pool):
    matrix = random_matrix(np.random.default_rng(0), "int8", 48, 64)
    x = np.zeros((2, 64), np.float32)
    with pytest.raises(ValueError, match="x is float32"):
        linear(native, pool, matrix, x[:, :60])
    with pytest.raises(ValueError, match="x is float64"):
        linear(native, pool, matrix, x.astype(np.float64))
    with pytest.raises(ValueError, match="bias is"):
        linear(native, pool, matrix, x, bias_R=np.zeros(47, np.float32))
    with pytest.raises(ValueError, match="multiple of 32"):
        linear(native, pool, matrix, x, kind="geglu")


def test_the_portable_kernels_pass_too():
    loaded = library()
    assert loaded is not None
    if loaded.kernels == "portable":
        pytest.skip("they are the ones that ran")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__],
        env=os.environ | {"OSLER_NATIVE_KERNELS": "portable"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
