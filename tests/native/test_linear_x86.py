"""The x86 kernels compute what the portable ones do: all formats, out kinds, and tails."""

import functools

import numpy as np
import pytest

from osler.native.formats import FORMATS, Matrix
from tests.native.kernel_tables import Table, random_matrix, table

# Tokens: each count of the kernels for few, and tiles of 12 and 16 with all kinds of remainders.
TOKENS = [*range(1, 20), 24, 25, 31, 32, 33, 47, 48, 64, 65, 70]
# Rows and columns: no tails; tails in both; odd numbers of row blocks; several groups; more row
# blocks than any kernel takes together.
SHAPES = [(64, 512), (77, 300), (33, 1152), (5, 7), (48, 1000), (147, 320)]


def _table(name: str) -> Table:
    found = table(name)
    if found is None:
        pytest.skip(f"no {name} kernels here")
    return found


@pytest.fixture(params=["avx2", "avxvnni", "avx512vnni", "avx512", "amx"])
def kernels(request) -> Table:
    return _table(request.param)


@pytest.fixture
def portable() -> Table:
    return _table("portable")


def _assert_close(y, expected, format):
    # Sums of int8 products are exact; only the order in which groups are added differs.
    tolerance = 1e-4 if format == "bf16" else 1e-5
    scale = np.abs(expected).max(initial=1e-20)
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(y / scale, expected / scale, rtol=0, atol=tolerance)


def _product(kernels: Table, matrix: Matrix, x, **options):
    kind = options.get("kind", "store")
    y = np.ones((len(x), matrix.rows // (2 if kind == "geglu" else 1)), np.float32)
    kernels.multiply(matrix, kernels.fill(matrix, x), y, **options)
    return y


def _x(generator, tokens, cols):
    return generator.standard_normal((tokens, cols)).astype(np.float32)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("cols", [7, 32, 256, 300, 1152])
def test_fill_gives_the_same_values(kernels, portable, format, cols):
    generator = np.random.default_rng(cols)
    matrix = random_matrix(generator, format, 16, cols)
    x = _x(generator, 5, cols)
    x[1] = 0
    x[2, ::2] = 1e-38
    x[3] = np.arange(cols) % 255 - 127.0  # 127 times scale 1: values as they are
    x[4] = (np.arange(cols) % 255 - 127) / 2  # halves are rounded to even
    x[4, ::32] = 127
    actual, expected = kernels.fill(matrix, x), portable.fill(matrix, x)
    np.testing.assert_array_equal(actual.values, expected.values)
    np.testing.assert_array_equal(actual.scale, expected.scale)
    if format != "bf16":
        np.testing.assert_array_equal(actual.sum, expected.sum)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_so(kernels, portable, format, bad):
    generator = np.random.default_rng(0)
    matrix = random_matrix(generator, format, 16, 512)
    x = _x(generator, 2, 512)
    x[1, 300] = bad
    actual, expected = kernels.fill(matrix, x), portable.fill(matrix, x)
    np.testing.assert_array_equal(actual.values, expected.values)
    np.testing.assert_array_equal(actual.scale, expected.scale)
    for tokens in (x, np.repeat(x, 10, axis=0)):
        y = _product(kernels, matrix, tokens)
        finite = np.isfinite(tokens).all(axis=1)
        assert np.isfinite(y[finite]).all()
        assert not np.isfinite(y[~finite]).any()


@functools.cache
def _case(format, rows, cols):
    """A matrix, activations, and what the portable kernels make of them."""
    generator = np.random.default_rng(rows)
    matrix = random_matrix(generator, format, rows, cols)
    x = _x(generator, max(TOKENS), cols)
    return matrix, x, _product(_table("portable"), matrix, x)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(("rows", "cols"), SHAPES)
def test_products(kernels, format, rows, cols):
    matrix, x, expected = _case(format, rows, cols)
    for tokens in TOKENS:
        _assert_close(_product(kernels, matrix, x[:tokens]), expected[:tokens], format)


@pytest.mark.parametrize("cols", [300, 512, 1152])
def test_int8_with_one_scale_for_all_columns(kernels, portable, cols):
    generator = np.random.default_rng(cols)
    matrix = random_matrix(generator, "int8", 40, cols, group=0)
    x = _x(generator, 40, cols)
    expected = _product(portable, matrix, x)
    for tokens in (1, 3, 16, 40):
        _assert_close(_product(kernels, matrix, x[:tokens]), expected[:tokens], "int8")


@pytest.mark.parametrize("format", ["int8", "int4", "q8_0", "q4_0"])
def test_the_largest_values_do_not_overflow(kernels, portable, format):
    generator = np.random.default_rng(1)
    matrix = random_matrix(generator, format, 32, 1024)
    for byte in (0x00, 0x80, 0x7F, 0xFF, 0xF0):
        units = matrix.data.reshape(-1, {"q8_0": 544, "q4_0": 288}.get(format, 64))
        units[:, : -32 if format in ("q8_0", "q4_0") else None] = byte
        for sign in (1, -1):
            x = np.full((20, 1024), sign, np.float32)
            expected = _product(portable, matrix, x)
            for tokens in (1, 2, 3, 8, 20):
                _assert_close(_product(kernels, matrix, x[:tokens]), expected[:tokens], format)


@pytest.mark.parametrize("kind", ["store", "add", "gelu", "geglu"])
@pytest.mark.parametrize("format", ["int4", "bf16"])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("rows", [64, 96, 32])
def test_out_kinds(kernels, portable, kind, format, with_bias, rows):
    generator = np.random.default_rng(rows)
    matrix = random_matrix(generator, format, rows, 300)
    # Small enough that GELU is not the identity.
    x = _x(generator, 33, 300) * (0.1 if format == "bf16" else 1e-3)
    bias = _x(generator, 1, rows)[0] if with_bias else None
    expected = _product(portable, matrix, x, kind=kind, bias_R=bias)
    for tokens in (1, 5, 12, 33):
        y = _product(kernels, matrix, x[:tokens], kind=kind, bias_R=bias)
        _assert_close(y, expected[:tokens], format)


@pytest.mark.parametrize("kind", ["store", "add", "gelu"])
def test_rows_that_do_not_fill_a_block(kernels, portable, kind):
    generator = np.random.default_rng(3)
    matrix = random_matrix(generator, "int8", 21, 64)
    bias = _x(generator, 1, 21)[0]
    for tokens in (1, 20):
        x = _x(generator, tokens, 64)
        # One column more than rows: it must be left alone.
        y, expected = np.full((2, tokens, 22), 7, np.float32)
        kernels.multiply(matrix, kernels.fill(matrix, x), y, kind=kind, bias_R=bias)
        portable.multiply(matrix, portable.fill(matrix, x), expected, kind=kind, bias_R=bias)
        _assert_close(y, expected, "int8")
        assert (y[:, 21] == 7).all()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("tokens", [1, 6, 40])
def test_slices_of_row_blocks_make_up_the_whole(kernels, format, tokens):
    generator = np.random.default_rng(4)
    matrix = random_matrix(generator, format, 7 * 16, 512)
    acts = kernels.fill(matrix, _x(generator, tokens, 512))
    whole, parts = np.zeros((2, tokens, matrix.rows), np.float32)
    kernels.multiply(matrix, acts, whole)
    for blocks in ((0, 1), (1, 4), (4, 4), (4, 7)):
        kernels.multiply(matrix, acts, parts, blocks=blocks)
    np.testing.assert_array_equal(parts, whole)


def test_gelu_is_accurate_everywhere(kernels):
    generator = np.random.default_rng(5)
    matrix = random_matrix(generator, "int8", 4096, 64)
    x = np.zeros((1, 64), np.float32)
    value = np.linspace(-12, 12, 4096, dtype=np.float32)
    value[:6] = [-1e30, -100, -20, 20, 100, 1e30]
    y = _product(kernels, matrix, x, kind="gelu", bias_R=value)[0]
    v = value.astype(np.float64)
    exact = v / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (v + 0.044715 * v**3)))
    np.testing.assert_allclose(y, exact, rtol=2e-6, atol=2e-6)
