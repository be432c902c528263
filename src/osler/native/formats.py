"""The formats of weights that csrc/linear.h describes, and a matrix in one of them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Name in files to `osl_format`.
FORMATS = {"bf16": 0, "int8": 1, "int4": 2, "q8_0": 3, "q4_0": 4}
PLAIN = "f32"  # row after row, as numpy has it; no kernel multiplies it

ROW_BLOCK = 16
# Columns of a packed matrix come in multiples of the first; so many, of 16 rows, take the second.
_UNITS = {
    "bf16": (32, 1024),
    "int8": (64, 1024),
    "int4": (256, 2112),
    "q8_0": (32, 544),
    "q4_0": (32, 288),
}
# Columns that share an activation scale; int8 may also take all columns together.
GROUPS = {"bf16": 0, "int8": 256, "int4": 256, "q8_0": 32, "q4_0": 32}


@dataclass(frozen=True, kw_only=True, eq=False)
class Matrix:
    """Packed weights, or a slice of whole row blocks.

    Attributes:
        format: one of `FORMATS`.
        rows: outputs, before padding.
        cols: inputs, before padding.
        group: columns that share an activation scale; 0 for bf16 and for all columns.
        data: uint8, as csrc/linear.h lays it out.
        row_scale: float32, one a row, padded rows too; None where the format has none.
    """

    format: str
    rows: int
    cols: int
    group: int
    data: NDArray[np.uint8]
    row_scale: NDArray[np.float32] | None = None


def has_row_scale(format: str) -> bool:
    """Whether a format's matrices come with a scale for each row."""
    return format in ("int8", "int4")


def padded_rows(rows: int) -> int:
    """Rows of the packed form.

    >>> padded_rows(17)
    32
    """
    return -(-rows // ROW_BLOCK) * ROW_BLOCK


def packed_bytes(format: str, rows: int, cols: int) -> int:
    """Bytes of the data of a matrix, or of a plain tensor.

    Raises:
        ValueError: no such format.

    >>> packed_bytes("int4", 16, 257)
    4224
    """
    if format == PLAIN:
        return 4 * rows * cols
    if format not in _UNITS:
        raise ValueError(f"{format!r} is not one of {', '.join(FORMATS)}")
    columns, size_bytes = _UNITS[format]
    return padded_rows(rows) // ROW_BLOCK * -(-cols // columns) * size_bytes
