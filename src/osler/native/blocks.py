"""Matrices whose rows are in small blocks with scales of their own, as GGUF has them.

Shapes: R rows, C columns, B bytes of a row, N blocks.

Source: ggml's block formats Q4_0, Q8_0 and Q6_K (ggml-common.h).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

# Format to the weights of a block, and its bytes.
BLOCK_BYTES = {"q4_0": (32, 18), "q8_0": (32, 34), "q6_k": (256, 210)}


@dataclass(frozen=True, kw_only=True, eq=False)
class Blocks:
    """A matrix in blocks.

    Attributes:
        format: one of `BLOCK_BYTES`.
        cols: of the matrix.
        bytes_RB: uint8, the blocks of each row.
    """

    format: str
    cols: int
    bytes_RB: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self.bytes_RB), self.cols

    def values_RC(self) -> Tensor:
        """What they stand for, float32."""
        block_NB = self.bytes_RB.reshape(-1, BLOCK_BYTES[self.format][1])
        values = {"q4_0": _q4_0, "q8_0": _q8_0, "q6_k": _q6_k}[self.format]
        return values(block_NB).reshape(self.shape)


def _half(block_N2: Tensor) -> Tensor:
    return block_N2.contiguous().view(torch.float16).float()


def _q4_0(block_NB: Tensor) -> Tensor:
    """A scale, then the first half of the columns in low nibbles and the second in high ones."""
    nibbles = block_NB[:, 2:]
    value = torch.cat([nibbles & 15, nibbles >> 4], dim=1).to(torch.int8) - 8
    return value * _half(block_NB[:, :2])


def _q8_0(block_NB: Tensor) -> Tensor:
    """A scale, then a byte a column."""
    return block_NB[:, 2:].contiguous().view(torch.int8) * _half(block_NB[:, :2])


def _q6_k(block_NB: Tensor) -> Tensor:
    """Low nibbles, upper two bits, a small scale for each 16 columns, and a scale for all.

    Each half of the block has 128 columns in four runs of 32: two share a byte for their low
    nibbles, all four one for their upper bits.
    """
    low = block_NB[:, :128].reshape(-1, 2, 2, 32)
    high = block_NB[:, 128:192].reshape(-1, 2, 1, 32)
    nibbles = torch.cat([low & 15, low >> 4], dim=2)
    upper = torch.cat([(high >> shift) & 3 for shift in (0, 2, 4, 6)], dim=2)
    value = (nibbles | (upper << 4)).to(torch.int8) - 32
    scale = block_NB[:, 192:208].contiguous().view(torch.int8) * _half(block_NB[:, 208:210])
    return value.reshape(-1, 16, 16) * scale[:, :, None]
