"""One linear layer with packed weights, as the kernels compute it.

Shape suffixes: T tokens, C columns (inputs), R rows (outputs).
"""

import ctypes

import numpy as np
from numpy.typing import NDArray

from osler.native.buffers import aligned_bytes
from osler.native.formats import Matrix
from osler.native.library import Library, MatrixStruct, OutStruct, Pool

# Name to `osl_out_kind` of csrc/linear.h.
OUT_KINDS = {"store": 0, "add": 1, "gelu": 2, "geglu": 3}


def linear(
    library: Library,
    pool: Pool,
    matrix: Matrix,
    x_TC: NDArray[np.float32],
    *,
    kind: str = "store",
    bias_R: NDArray[np.float32] | None = None,
    y_TR: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Multiply activations with packed weights.

    Args:
        library: the kernels.
        pool: their threads.
        matrix: the weights.
        x_TC: float32, contiguous.
        kind: one of `OUT_KINDS`.
        bias_R: float32, one a row of the matrix.
        y_TR: where "add" adds; float32, contiguous.

    Returns:
        y_TR, or new memory where it is None; for "geglu" with half as many columns as the matrix
        has rows.

    Raises:
        ValueError: shapes, types or strides that do not fit.
    """
    tokens, columns = len(x_TC), matrix.rows // (2 if kind == "geglu" else 1)
    if y_TR is None:
        y_TR = np.zeros((tokens, columns), np.float32)
    _check("x", x_TC, (tokens, matrix.cols))
    _check("y", y_TR, (tokens, columns))
    if bias_R is not None:
        _check("bias", bias_R, (matrix.rows,))
    if kind == "geglu" and matrix.rows % 32:
        raise ValueError("pairs of row blocks have a multiple of 32 rows")
    weights = MatrixStruct.of(matrix)
    out = OutStruct(
        OUT_KINDS[kind], columns, y_TR.ctypes.data, None if bias_R is None else bias_R.ctypes.data
    )
    size = library.function("osl_acts_bytes", ctypes.c_size_t, ctypes.c_void_p, ctypes.c_int32)
    memory = aligned_bytes(size(ctypes.byref(weights), tokens))
    call = library.function(
        "osl_linear",
        None,
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_int64,
        ctypes.c_int32,
        ctypes.c_void_p,
        ctypes.c_void_p,
    )
    call(
        pool,
        ctypes.byref(weights),
        x_TC.ctypes.data,
        matrix.cols,
        tokens,
        ctypes.byref(out),
        memory.ctypes.data,
    )
    return y_TR


def _check(name: str, array: NDArray[np.float32], shape: tuple[int, ...]) -> None:
    if array.shape != shape or array.dtype != np.float32 or not array.flags.c_contiguous:
        raise ValueError(f"{name} is {array.dtype} {array.shape}, not contiguous float32 {shape}")
