"""The encoder's attention, each way to compute it by itself, against float64.

Shapes: P positions, H head size.
"""

import ctypes

import numpy as np
import pytest
from numpy.typing import NDArray

from osler.native.buffers import aligned_bytes
from osler.native.library import Library

ADDRESS, SIZE, INDEX = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int32


class HeadsStruct(ctypes.Structure):
    """`osl_heads`."""

    _fields_ = (
        *((name, INDEX) for name in ("positions", "head_dim", "keys", "dim", "value_dim")),
        *((f"{name}_bytes", SIZE) for name in ("query", "key", "value", "scratch")),
    )


class HeadStruct(ctypes.Structure):
    """`osl_head`."""

    _fields_ = (("queries", ADDRESS), ("keys", ADDRESS), ("values", ADDRESS))


class TableStruct(ctypes.Structure):
    """`osl_attention`."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("tile", INDEX),
        ("step", INDEX),
        ("layout", ctypes.CFUNCTYPE(HeadsStruct, INDEX, INDEX)),
        (
            "pack",
            ctypes.CFUNCTYPE(None, *[ADDRESS] * 5, ctypes.c_int64, INDEX, INDEX),
        ),
        (
            "attend",
            ctypes.CFUNCTYPE(None, *[ADDRESS] * 3, ctypes.c_int64, INDEX, INDEX, ADDRESS),
        ),
    )


NAMES = ("portable", "avx2", "avx512", "amx")
# Of the largest value: bf16 operands and float32 ones.
TOLERANCE = {"portable": 1e-5, "avx2": 1e-5, "avx512": 2**-6, "amx": 2**-6}
# Less and more than a tile of 12 or 32 queries, blocks of 128 and 256 keys, 16 to 96 dimensions.
SIZES = [(1, 8), (3, 7), (16, 16), (37, 20), (50, 128), (128, 72), (140, 112), (300, 80), (600, 72)]


@pytest.fixture(params=NAMES)
def table(request: pytest.FixtureRequest, native: Library) -> TableStruct:
    named = native.function("osl_attention_named", ctypes.POINTER(TableStruct), ctypes.c_char_p)
    found = named(request.param.encode())
    if not found:
        pytest.skip(f"this processor has no {request.param}")
    made: TableStruct = found.contents
    assert made.name.decode() == request.param
    return made


def attended(
    table: TableStruct, qkv_P3H: NDArray[np.float32], ragged: int, tile: int | None = None
) -> NDArray[np.float32]:
    """One head's output, packed `ragged` positions at a time; what stands around it is checked."""
    tile = tile or table.tile
    positions, _, head_dim = qkv_P3H.shape
    heads = table.layout(positions, head_dim)
    rooms = [aligned_bytes(size + 64) for size in (heads.query_bytes, heads.key_bytes)]
    rooms += [aligned_bytes(size + 64) for size in (heads.value_bytes, heads.scratch_bytes)]
    sizes = (heads.query_bytes, heads.key_bytes, heads.value_bytes, heads.scratch_bytes)
    for room, size in zip(rooms, sizes, strict=True):
        room[:size], room[size:] = 0, 77
    head = HeadStruct(*(room.ctypes.data for room in rooms[:3]))
    both = ctypes.byref(heads), ctypes.byref(head)
    for first in range(0, positions, ragged):
        last = min(first + ragged, positions)
        parts = [qkv_P3H[first:, part].ctypes.data for part in range(3)]
        table.pack(*both, *parts, 3 * head_dim, first, last)
    out = np.full((positions + 1, head_dim + 3), 99, np.float32)
    for first in range(0, positions, tile):
        last = min(first + tile, positions)
        table.attend(*both, out.ctypes.data, head_dim + 3, first, last, rooms[3].ctypes.data)
    assert all((room[size:] == 77).all() for room, size in zip(rooms, sizes, strict=True))
    assert (out[positions:] == 99).all()
    assert (out[:, head_dim:] == 99).all()
    return out[:positions, :head_dim]


def definition(qkv_P3H: NDArray[np.float32]) -> NDArray[np.float64]:
    q_PH, k_PH, v_PH = qkv_P3H.astype(np.float64).swapaxes(0, 1)
    scores_PP = q_PH @ k_PH.T / np.sqrt(q_PH.shape[1])
    weights_PP = np.exp(scores_PP - scores_PP.max(axis=1, keepdims=True))
    out_PH: NDArray[np.float64] = weights_PP @ v_PH / weights_PP.sum(axis=1, keepdims=True)
    return out_PH


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_attention_equals_the_definition(table: TableStruct, size: tuple[int, int]) -> None:
    positions, head_dim = size
    shape = (positions, 3, head_dim)
    qkv = np.random.default_rng(0).uniform(-1.5, 1.5, shape).astype(np.float32)
    expected = definition(qkv)
    off = np.abs(attended(table, qkv, ragged=23) - expected).max() / np.abs(expected).max()
    assert off <= TOLERANCE[table.name.decode()]


def test_smaller_tiles_give_the_same(table: TableStruct) -> None:
    qkv = np.random.default_rng(3).uniform(-1, 1, (150, 3, 72)).astype(np.float32)
    whole = attended(table, qkv, ragged=150)
    np.testing.assert_array_equal(attended(table, qkv, ragged=16, tile=table.step), whole)


@pytest.mark.parametrize("slope", [1.0, -1.0])
def test_scores_that_rise_or_fall_by_hundreds(table: TableStruct, slope: float) -> None:
    """Far beyond what powers of two can hold relative to the first block of keys.

    Queries and keys are whole numbers, which bf16 holds; two keys share the largest score.
    """
    positions, head_dim = 512, 16
    qkv = np.random.default_rng(1).uniform(-1, 1, (positions, 3, head_dim)).astype(np.float32)
    qkv[:, :2] = 0
    qkv[:, 0, 0] = 32 * slope
    qkv[:, 1, 0] = np.arange(positions) // 2
    off = np.abs(attended(table, qkv, ragged=512) - definition(qkv)).max()
    assert off <= 2**-7


def test_a_query_that_is_no_number_spoils_no_other(table: TableStruct) -> None:
    qkv = np.random.default_rng(2).uniform(-1, 1, (100, 3, 24)).astype(np.float32)
    clean = attended(table, qkv, ragged=100)
    qkv[7, 0, 3] = np.nan
    out = attended(table, qkv, ragged=100)
    assert np.isnan(out[7]).all()
    np.testing.assert_array_equal(np.delete(out, 7, axis=0), np.delete(clean, 7, axis=0))
