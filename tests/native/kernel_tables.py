"""The tables of kernels one by one, called as osl_linear calls the chosen one; random weights.

Shape suffixes: T tokens, C columns (inputs), R rows (outputs).
"""

import ctypes
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from osler.native.buffers import aligned_bytes
from osler.native.formats import FORMATS, GROUPS, Matrix, has_row_scale, packed_bytes, padded_rows
from osler.native.library import MatrixStruct, OutStruct, library
from osler.native.linear import OUT_KINDS


class ActsStruct(ctypes.Structure):
    """`osl_acts` of csrc/linear.h."""

    _fields_ = (
        ("format", ctypes.c_int32),
        ("tokens", ctypes.c_int32),
        ("cols", ctypes.c_int32),
        ("group", ctypes.c_int32),
        ("stride", ctypes.c_int64),
        ("values", ctypes.c_void_p),
        ("scale", ctypes.c_void_p),
        ("sum", ctypes.c_void_p),
    )


_FILL = ctypes.CFUNCTYPE(
    None,
    ctypes.POINTER(ActsStruct),
    ctypes.c_void_p,
    ctypes.c_int64,
    ctypes.c_int32,
    ctypes.c_int32,
)
_MULTIPLY = ctypes.CFUNCTYPE(
    None,
    ctypes.POINTER(MatrixStruct),
    ctypes.POINTER(ActsStruct),
    ctypes.POINTER(OutStruct),
    ctypes.c_int32,
    ctypes.c_int32,
)


class _TableStruct(ctypes.Structure):
    """`osl_kernels` of csrc/kernels.h."""

    _fields_ = (("name", ctypes.c_char_p), ("fill", _FILL), ("multiply", _MULTIPLY * 5))


@dataclass
class Activations:
    """Converted activations; the arrays are what `struct` points to."""

    values: NDArray[np.generic]
    scale: NDArray[np.float32]
    sum: NDArray[np.int32]
    struct: ActsStruct


class Table:
    """One table of kernels."""

    def __init__(self, struct: _TableStruct) -> None:
        self._struct = struct

    def fill(self, matrix: Matrix, x_TC: NDArray[np.float32]) -> Activations:
        """Convert activations for a matrix; all that is not written stays 85."""
        tokens, cols = x_TC.shape
        group = matrix.group or matrix.cols
        groups = 0 if matrix.format == "bf16" else -(-cols // group)
        unit = 256 if matrix.format == "int4" else 64
        stride = -(-cols // unit) * unit
        room = aligned_bytes(tokens * stride * 2)
        room[:] = 85
        values: NDArray[np.generic] = room.view(np.uint16 if matrix.format == "bf16" else np.int8)
        values = values[: tokens * stride].reshape(tokens, stride)
        scale = np.full((tokens, groups), 85, np.float32)
        sums = np.full((tokens, groups * (8 if matrix.format == "int4" else 1)), 85, np.int32)
        struct = ActsStruct(
            FORMATS[matrix.format],
            tokens,
            cols,
            0 if matrix.format == "bf16" else group,
            stride,
            values.ctypes.data,
            scale.ctypes.data,
            sums.ctypes.data,
        )
        self._struct.fill(struct, x_TC.ctypes.data, cols, 0, tokens)
        return Activations(values, scale, sums, struct)

    def multiply(
        self,
        matrix: Matrix,
        acts: Activations,
        y_TR: NDArray[np.float32],
        *,
        kind: str = "store",
        bias_R: NDArray[np.float32] | None = None,
        blocks: tuple[int, int] | None = None,
    ) -> None:
        """Multiply some row blocks, or all, with activations."""
        bias = None if bias_R is None else bias_R.ctypes.data
        out = OutStruct(OUT_KINDS[kind], y_TR.shape[1], y_TR.ctypes.data, bias)
        first, last = blocks or (0, padded_rows(matrix.rows) // 16)
        call = self._struct.multiply[FORMATS[matrix.format]]
        call(MatrixStruct.of(matrix), acts.struct, out, first, last)


def table(name: str) -> Table | None:
    """A table by its name, or None where this processor has it not."""
    loaded = library()
    if loaded is None:
        return None
    named = loaded.function("osl_kernels_named", ctypes.POINTER(_TableStruct), ctypes.c_char_p)
    struct = named(name.encode())
    return Table(struct.contents) if struct else None


def random_matrix(
    generator: np.random.Generator, format: str, rows: int, cols: int, *, group: int | None = None
) -> Matrix:
    """Random weights; all values that the format can hold, padding is zero."""
    data = aligned_bytes(packed_bytes(format, rows, cols))
    if format == "bf16":
        values = generator.standard_normal(data.size // 2).astype(np.float32)
        data[:] = (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
    else:
        data[:] = generator.integers(0, 256, data.size, np.uint8)
    if format in ("q8_0", "q4_0"):
        units = data.reshape(-1, 544 if format == "q8_0" else 288)
        scale = generator.uniform(0.5, 2, (len(units), 16)).astype(np.float16)
        units[:, -32:] = scale.view(np.uint8)
    row_scale = None
    if has_row_scale(format):
        row_scale = generator.uniform(0.5, 2, padded_rows(rows)).astype(np.float32)
    return Matrix(
        format=format,
        rows=rows,
        cols=cols,
        group=GROUPS[format] if group is None else group,
        data=data,
        row_scale=row_scale,
    )
