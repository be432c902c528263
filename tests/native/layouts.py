"""What csrc/linear.h says, once more in numpy: the layouts, the conversion of activations.

Shape suffixes: T tokens, C columns (inputs), R rows (outputs), B row blocks, U units of columns.
"""

import numpy as np
from numpy.typing import NDArray

from osler.native.formats import Matrix


def weights(matrix: Matrix) -> NDArray[np.float64]:
    """The weights (R, C) that a packed matrix stands for."""
    blocks = -(-matrix.rows // 16)
    if matrix.format == "bf16":
        words = matrix.data.view(np.uint16).reshape(blocks, -1, 16, 2).astype(np.uint32) << 16
        weight = words.view(np.float32).astype(np.float64).swapaxes(1, 2).reshape(16 * blocks, -1)
    elif matrix.format == "int8":
        quads = matrix.data.view(np.int8).reshape(blocks, -1, 16, 4)
        weight = quads.astype(np.float64).swapaxes(1, 2).reshape(16 * blocks, -1)
    elif matrix.format == "int4":
        units = matrix.data.reshape(blocks, -1, 2112)
        groups = _nibbles(units[..., :2048].reshape(blocks, -1, 256))
        stored = units[..., 2048:].reshape(blocks, -1, 8)
        multipliers = np.concatenate([stored & 15, stored >> 4], axis=-1) + 1
        weight = _in_rows(groups * multipliers[..., np.newaxis])
    else:
        units = matrix.data.reshape(blocks, -1, 544 if matrix.format == "q8_0" else 288)
        scale = np.ascontiguousarray(units[..., -32:]).view(np.float16).astype(np.float64)
        if matrix.format == "q8_0":
            lines = np.ascontiguousarray(units[..., :-32]).view(np.int8)
            quads = lines.reshape(*units.shape[:2], 8, 16, 4).swapaxes(2, 3)
            groups = quads.astype(np.float64).reshape(*units.shape[:2], 16, 32)
        else:
            groups = _nibbles(units[..., :-32])
        weight = _in_rows(groups * scale[..., np.newaxis])
    if matrix.row_scale is not None:
        weight = weight * matrix.row_scale[:, np.newaxis]
    return weight[: matrix.rows, : matrix.cols]


def _nibbles(data: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(B, groups, 256) bytes to values (B, groups, 16 rows, 32 columns)."""
    lines = data.reshape(*data.shape[:2], 4, 16, 4)
    both = np.stack([lines & 15, lines >> 4], axis=-2)  # (B, groups, 4 lines, 16, 2, 4)
    return np.moveaxis(both, 2, 3).reshape(*data.shape[:2], 16, 32).astype(np.float64) - 8


def _in_rows(groups: NDArray[np.float64]) -> NDArray[np.float64]:
    """(B, groups, 16, 32) to (16 B, columns)."""
    return groups.swapaxes(1, 2).reshape(16 * len(groups), -1)


def activations(matrix: Matrix, x_TC: NDArray[np.float32]) -> NDArray[np.float64]:
    """What a matrix multiplies in the place of x: rounded, and scaled back."""
    if matrix.format == "bf16":
        bits = x_TC.view(np.uint32).astype(np.uint64)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16 << 16
        return rounded.astype(np.uint32).view(np.float32).astype(np.float64)
    group = matrix.group or matrix.cols
    out = np.zeros(x_TC.shape)
    for start in range(0, matrix.cols, group):
        part = x_TC[:, start : start + group]
        scale = np.abs(part).max(axis=1, keepdims=True) / np.float32(127)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            values = np.rint(part * (np.float32(1) / scale))
        values[scale[:, 0] < 2.0**-107] = 0
        out[:, start : start + group] = values * scale.astype(np.float64)
    return out


def product(
    matrix: Matrix,
    x_TC: NDArray[np.float32],
    kind: str,
    bias_R: NDArray[np.float32] | None,
    y_TR: NDArray[np.float32],
) -> NDArray[np.float64]:
    """A linear layer as csrc/linear.h defines it, summed in double precision."""
    value = activations(matrix, x_TC) @ weights(matrix).T
    if bias_R is not None:
        value = value + bias_R
    if kind == "store":
        return value
    if kind == "add":
        return y_TR + value
    if kind == "gelu":
        return _gelu(value)
    pairs = value.reshape(len(value), -1, 2, 16)
    return (_gelu(pairs[:, :, 0]) * pairs[:, :, 1]).reshape(len(value), -1)


def _gelu(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
