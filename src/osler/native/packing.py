"""Weights into the layouts of csrc/linear.h and back, by C, without a second copy in memory.

Shape suffixes: R rows (outputs), C columns (inputs), G groups of 32 columns.
"""

import ctypes
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from osler.native.buffers import aligned_bytes
from osler.native.formats import (
    FORMATS,
    GROUPS,
    ROW_BLOCK,
    Matrix,
    has_row_scale,
    packed_bytes,
    padded_rows,
)
from osler.native.library import Library, MatrixStruct, Pool

if TYPE_CHECKING:  # torch takes seconds to import, and packed models need it not
    from torch import Tensor

INT4_GROUP = 32
_GGUF_BLOCK_BYTES = {"q8_0": 34, "q4_0": 18}  # of 32 columns
_FLOAT, _BF16 = 0, 1  # osl_source_type


class _SourceStruct(ctypes.Structure):
    """`osl_source` of csrc/pack.h."""

    _fields_ = (
        ("type", ctypes.c_int32),
        ("rows", ctypes.c_int32),
        ("cols", ctypes.c_int32),
        ("ld", ctypes.c_int64),
        ("values", ctypes.c_void_p),
    )


class Packer:
    """The packing calls of a library, on the threads of a pool."""

    def __init__(self, library: Library, pool: Pool) -> None:
        address, number = ctypes.c_void_p, ctypes.c_int32
        self._pool = pool
        self._pack = library.function("osl_pack", None, address, number, address, address, address)
        self._pack_int4 = library.function(
            "osl_pack_int4", None, address, number, number, address, address, address
        )
        self._pack_gguf = library.function(
            "osl_pack_gguf", None, address, number, number, number, address, address
        )
        self._unpack = library.function("osl_unpack", None, address, address, address)

    def pack(
        self, weight_RC: "NDArray[np.float32] | Tensor", format: str, *, group: int | None = None
    ) -> Matrix:
        """Round weights to a format.

        int8 takes max|w| / 127 of a row as its scale; int4 takes max|w| / 7 of a group, rounded up
        to a multiple of a 16th of the row's largest.

        Args:
            weight_RC: float32 numpy, or float32 or bfloat16 torch on the CPU; columns side by side
                in memory, rows as far apart as they like.
            format: "bf16", "int8" or "int4".
            group: of int8, columns that share an activation scale: 256, or 0 for all; None for 256.

        Raises:
            ValueError: another format, type or layout in memory.
        """
        if format not in ("bf16", "int8", "int4"):
            raise ValueError(f"no rounding to {format!r}")
        source = _source(weight_RC)
        matrix = _empty(format, source.rows, source.cols, group)
        self._pack(
            self._pool,
            FORMATS[format],
            ctypes.byref(source),
            matrix.data.ctypes.data,
            None if matrix.row_scale is None else matrix.row_scale.ctypes.data,
        )
        return matrix

    def pack_int4(
        self,
        values_RC: NDArray[np.int8],
        multipliers_RG: NDArray[np.uint8],
        row_scale_R: NDArray[np.float32],
    ) -> Matrix:
        """Lay out int4 weights that were rounded elsewhere: w = row scale * multiplier * value.

        Args:
            values_RC: int8, -8 to 7.
            multipliers_RG: uint8, 1 to 16, one for each 32 columns.
            row_scale_R: float32.

        Raises:
            ValueError: shapes or values that do not fit.
        """
        rows, cols = values_RC.shape
        groups = -(-cols // INT4_GROUP)
        if multipliers_RG.shape != (rows, groups) or row_scale_R.shape != (rows,):
            raise ValueError(f"not {groups} multipliers and one scale for each of {rows} rows")
        if values_RC.size and (values_RC.min() < -8 or values_RC.max() > 7):
            raise ValueError("int4 values are -8 to 7")
        if multipliers_RG.size and (multipliers_RG.min() < 1 or multipliers_RG.max() > 16):
            raise ValueError("multipliers are 1 to 16")
        values = np.ascontiguousarray(values_RC, np.int8)
        multipliers = np.ascontiguousarray(multipliers_RG, np.uint8)
        matrix = _empty("int4", rows, cols, None)
        assert matrix.row_scale is not None
        matrix.row_scale[:] = 0
        matrix.row_scale[:rows] = row_scale_R
        self._pack_int4(
            self._pool,
            rows,
            cols,
            values.ctypes.data,
            multipliers.ctypes.data,
            matrix.data.ctypes.data,
        )
        return matrix

    def pack_gguf(self, blocks: NDArray[np.uint8], format: str, rows: int, cols: int) -> Matrix:
        """Lay out the blocks of a GGUF tensor, without loss.

        Args:
            blocks: uint8, as in the file: row after row, each in blocks of 32 columns.
            format: "q8_0" or "q4_0".
            rows: of the tensor.
            cols: of the tensor, a multiple of 32.

        Raises:
            ValueError: another format, or not as many bytes as that takes.
        """
        if format not in _GGUF_BLOCK_BYTES:
            raise ValueError(f"{format!r} is not one of {', '.join(_GGUF_BLOCK_BYTES)}")
        expected = rows * (cols // 32) * _GGUF_BLOCK_BYTES[format]
        if cols % 32 or blocks.nbytes != expected:
            raise ValueError(f"{blocks.nbytes} bytes do not make {rows} x {cols} in {format}")
        stored = np.ascontiguousarray(blocks, np.uint8)
        matrix = _empty(format, rows, cols, None)
        self._pack_gguf(
            self._pool, FORMATS[format], rows, cols, stored.ctypes.data, matrix.data.ctypes.data
        )
        return matrix

    def unpack(self, matrix: Matrix) -> NDArray[np.float32]:
        """The weights that a matrix stands for, float32 (R, C)."""
        weight_RC = np.empty((matrix.rows, matrix.cols), np.float32)
        self._unpack(self._pool, ctypes.byref(MatrixStruct.of(matrix)), weight_RC.ctypes.data)
        return weight_RC


def interleave(gate_RC: NDArray[np.float32], up_RC: NDArray[np.float32]) -> NDArray[np.float32]:
    """The rows of two projections as OSL_GEGLU wants them: 16 of the gate, 16 of the other.

    Args:
        gate_RC: what goes through the GELU; rows are padded with zeros to a multiple of 16.
        up_RC: what it is multiplied by; of the same shape.

    Returns:
        (2 R, C), R a multiple of 16.

    >>> gate, up = np.zeros((17, 1), np.float32), np.ones((17, 1), np.float32)
    >>> interleave(gate, up)[:, 0].reshape(4, 16).sum(axis=1).tolist()
    [0.0, 16.0, 0.0, 1.0]
    """
    rows, cols = gate_RC.shape
    both = np.zeros((2, padded_rows(rows), cols), np.float32)
    both[0, :rows], both[1, :rows] = gate_RC, up_RC
    blocks = both.reshape(2, -1, ROW_BLOCK, cols).swapaxes(0, 1)
    return np.ascontiguousarray(blocks).reshape(-1, cols)


def _empty(format: str, rows: int, cols: int, group: int | None) -> Matrix:
    if group not in (None, GROUPS[format]) and (format, group) != ("int8", 0):
        raise ValueError(f"{format} has no groups of {group} columns")
    scale = None
    if has_row_scale(format):
        scale = aligned_bytes(4 * padded_rows(rows)).view(np.float32)
    return Matrix(
        format=format,
        rows=rows,
        cols=cols,
        group=GROUPS[format] if group is None else group,
        data=aligned_bytes(packed_bytes(format, rows, cols)),
        row_scale=scale,
    )


def _source(weight_RC: "NDArray[np.float32] | Tensor") -> _SourceStruct:
    if isinstance(weight_RC, np.ndarray):
        kind, address = str(weight_RC.dtype), weight_RC.ctypes.data
        strides = tuple(step // weight_RC.itemsize for step in weight_RC.strides)
    else:
        if weight_RC.device.type != "cpu":
            raise ValueError(f"weights on {weight_RC.device}, not on the CPU")
        kind, address = str(weight_RC.dtype).removeprefix("torch."), weight_RC.data_ptr()
        strides = weight_RC.stride()
    types = {"float32": _FLOAT, "bfloat16": _BF16}
    if kind not in types or len(strides) != 2:
        raise ValueError(f"{kind} weights of {len(strides)} dimensions cannot be packed")
    rows, cols = weight_RC.shape
    if (cols > 1 and strides[1] != 1) or (rows > 1 and strides[0] < cols):
        raise ValueError("the columns of a row do not lie side by side in memory")
    source = _SourceStruct(types[kind], rows, cols, strides[0], address)
    return source
