"""Reads GGUF files, versions 2 and 3: metadata as Python values, tensors mapped from the file.

Every length and place is compared with the file's size before anything of that size is made: such
files come from anywhere.

Source: the GGUF specification (ggml, docs/gguf.md).
"""

import math
import mmap
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from osler.errors import CheckpointError, CorruptFileError
from osler.native.blocks import BLOCK_BYTES, Blocks

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_MAX_KEY_BYTES = 2**16
_MAX_DIMS = 4
_DEFAULT_ALIGNMENT = 32

_STRING, _ARRAY = 8, 9
# Value types of one size, as numpy names them.
_SCALARS: Final = {
    0: "<u1",
    1: "<i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    7: "?",
    10: "<u8",
    11: "<i8",
    12: "<f8",
}
_PLAIN = {0: torch.float32, 1: torch.float16, 30: torch.bfloat16}
_BLOCKS = {2: "q4_0", 8: "q8_0", 14: "q6_k"}
# Only for messages.
_OTHER_TYPES = {
    3: "Q4_1",
    6: "Q5_0",
    7: "Q5_1",
    9: "Q8_1",
    10: "Q2_K",
    11: "Q3_K",
    12: "Q4_K",
    13: "Q5_K",
    15: "Q8_K",
    16: "IQ2_XXS",
    17: "IQ2_XS",
    18: "IQ3_XXS",
    19: "IQ1_S",
    20: "IQ4_NL",
    21: "IQ3_S",
    22: "IQ2_S",
    23: "IQ4_XS",
    28: "F64",
    29: "IQ1_M",
    34: "TQ1_0",
    35: "TQ2_0",
    39: "MXFP4",
}


@dataclass(frozen=True, kw_only=True)
class GgufTensor:
    """One tensor as the file describes it.

    Attributes:
        name: in the file.
        shape: rows first, as torch has it.
        type: ggml's number.
        offset: from the beginning of the file.
    """

    name: str
    shape: tuple[int, ...]
    type: int
    offset: int

    @property
    def type_name(self) -> str:
        """What ggml calls its type."""
        if self.type in _PLAIN:
            return {0: "F32", 1: "F16", 30: "BF16"}[self.type]
        return _BLOCKS.get(self.type, _OTHER_TYPES.get(self.type, f"type {self.type}")).upper()

    @property
    def bytes(self) -> int | None:
        """Of its data; None of a type that is not read, or where rows are no whole blocks."""
        if self.type in _PLAIN:
            return math.prod(self.shape) * _PLAIN[self.type].itemsize
        if self.type not in _BLOCKS or not self.shape:
            return None
        weights, size_bytes = BLOCK_BYTES[_BLOCKS[self.type]]
        if self.shape[-1] % weights:
            return None
        return math.prod(self.shape) // weights * size_bytes


class GgufFile:
    """An open GGUF file.

    Attributes:
        path: where it lies.
        metadata: key to int, float, bool, str, list of str, or array of numbers.
        tensors: name to description.
    """

    def __init__(self, path: Path) -> None:
        """Open, and check all but the weights' values.

        Raises:
            CorruptFileError: no such file, or one that is foreign, truncated or damaged.
            CheckpointError: a version that is not read.
        """
        self.path = path
        try:
            with path.open("rb") as file:
                size_bytes = os.fstat(file.fileno()).st_size
                # Of a private mapping, because torch warns of memory that is read-only.
                self._bytes = mmap.mmap(file.fileno(), max(size_bytes, 1), access=mmap.ACCESS_COPY)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "empty"
            raise CorruptFileError(f"{path}: {reason}") from error
        cursor = _Cursor(self._bytes, path)
        self.metadata, infos = _read_header(cursor)
        self.tensors = _placed(cursor, self.metadata, infos)

    def source(self, name: str) -> Tensor | Blocks:
        """A tensor, mapped from the file.

        Raises:
            CheckpointError: there is none of that name, or it is of a type that is not read.
        """
        tensor = self.tensors.get(name)
        if tensor is None:
            raise CheckpointError(f"{self.path}: holds no {name}")
        size_bytes = tensor.bytes
        if size_bytes is None:
            raise CheckpointError(
                f"{self.path}: {name} is {tensor.type_name}; Osler reads "
                "F32, F16, BF16, Q8_0, Q6_K and Q4_0"
            )
        data = torch.frombuffer(
            self._bytes, dtype=torch.uint8, count=size_bytes, offset=tensor.offset
        )
        if tensor.type in _PLAIN:
            return data.view(_PLAIN[tensor.type]).view(tensor.shape)
        if len(tensor.shape) != 2:
            raise CheckpointError(f"{self.path}: {name} is no matrix, and in blocks")
        rows, cols = tensor.shape
        return Blocks(format=_BLOCKS[tensor.type], cols=cols, bytes_RB=data.view(rows, -1))


class _Cursor:
    """Reads little-endian values one after the other, never beyond the end."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self.data = data
        self.path = path
        self.place = 0

    def take(self, size_bytes: int) -> bytes:
        end = self.place + size_bytes
        if size_bytes < 0 or end > len(self.data):
            raise CorruptFileError(f"{self.path}: truncated, or damaged")
        taken = self.data[self.place : end]
        self.place = end
        return taken

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "little")

    def u64(self) -> int:
        return int.from_bytes(self.take(8), "little")

    def string(self, most_bytes: int | None = None) -> str:
        size_bytes = self.u64()
        if most_bytes is not None and size_bytes > most_bytes:
            raise CorruptFileError(f"{self.path}: damaged (a name of {size_bytes:,} bytes)")
        # Vocabularies hold pieces that are no UTF-8 by themselves.
        return self.take(size_bytes).decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        if kind in _SCALARS:
            form = np.dtype(_SCALARS[kind])
            return np.frombuffer(self.take(form.itemsize), form)[0].item()
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY:
            raise CorruptFileError(f"{self.path}: damaged (a value of the unknown type {kind})")
        kind, count = self.u32(), self.u64()
        if kind in _SCALARS:
            form = np.dtype(_SCALARS[kind])
            return np.frombuffer(self.take(count * form.itemsize), form)
        if kind != _STRING:
            raise CorruptFileError(f"{self.path}: an array of arrays, which no model has")
        self.must_have_room(count, 8)
        return [self.string() for _ in range(count)]

    def must_have_room(self, count: int, least_bytes: int) -> None:
        """Refuse a number of things that the rest of the file cannot hold."""
        if count * least_bytes > len(self.data) - self.place:
            raise CorruptFileError(f"{self.path}: truncated, or damaged")


def _read_header(cursor: _Cursor) -> tuple[dict[str, Any], list[GgufTensor]]:
    """Metadata and tensors, whose offsets are still those of the file's data section."""
    path = cursor.path
    if (magic := cursor.take(4)) != _MAGIC:
        pointer = magic == b"vers"
        reason = "a Git LFS pointer; the weights were not downloaded" if pointer else "not GGUF"
        raise CorruptFileError(f"{path}: {reason}")
    version = cursor.u32()
    if version not in _VERSIONS:
        swapped = struct.unpack("<I", struct.pack(">I", version))[0] in _VERSIONS
        said = "big-endian" if swapped else f"version {version} of GGUF"
        raise CheckpointError(f"{path}: {said}; Osler reads versions 2 and 3, little-endian")
    tensors, pairs = cursor.u64(), cursor.u64()
    cursor.must_have_room(pairs, 13)  # a key's length, a type, one byte
    metadata: dict[str, Any] = {}
    for _ in range(pairs):
        key = cursor.string(_MAX_KEY_BYTES)
        if key in metadata:
            raise CorruptFileError(f"{path}: damaged ({key!r} twice)")
        metadata[key] = cursor.value(cursor.u32())
    cursor.must_have_room(tensors, 24)  # a name's length, dimensions, type, offset
    return metadata, [_info(cursor) for _ in range(tensors)]


def _info(cursor: _Cursor) -> GgufTensor:
    name = cursor.string(_MAX_KEY_BYTES)
    dims = cursor.u32()
    if dims > _MAX_DIMS:
        raise CorruptFileError(f"{cursor.path}: damaged ({name!r} has {dims} dimensions)")
    shape = tuple(cursor.u64() for _ in range(dims))
    return GgufTensor(name=name, shape=shape[::-1], type=cursor.u32(), offset=cursor.u64())


def _placed(
    cursor: _Cursor, metadata: Mapping[str, Any], infos: list[GgufTensor]
) -> dict[str, GgufTensor]:
    """The tensors with their places in the file, which do not overlap and lie within it."""
    path = cursor.path
    alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or not 0 < alignment <= 2**20 or alignment % 8:
        raise CorruptFileError(f"{path}: damaged (an alignment of {str(alignment)[:20]})")
    start = -(-cursor.place // alignment) * alignment
    placed: dict[str, GgufTensor] = {}
    for info in infos:
        if info.name in placed:
            raise CorruptFileError(f"{path}: damaged ({info.name!r} twice)")
        placed[info.name] = GgufTensor(
            name=info.name, shape=info.shape, type=info.type, offset=start + info.offset
        )
    end = 0
    for tensor in sorted(placed.values(), key=lambda tensor: tensor.offset):
        if tensor.offset < end or tensor.offset % 8:
            raise CorruptFileError(f"{path}: damaged (place of {tensor.name!r})")
        end = tensor.offset + (tensor.bytes or 0)
        if end > len(cursor.data):
            raise CorruptFileError(f"{path}: truncated; {tensor.name!r} reaches beyond its end")
    return placed
