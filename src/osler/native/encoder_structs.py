"""The encoder of csrc/encoder.h as ctypes see it."""

import ctypes
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from osler.models.config import EncoderSizes
from osler.native.formats import Matrix
from osler.native.library import MatrixStruct

# osl_encoder_output
ALL_TOKENS, SOFT_TOKENS, PROBE, LAST_TOKEN = range(4)


class DenseStruct(ctypes.Structure):
    """`osl_dense`."""

    _fields_ = (("w", MatrixStruct), ("bias", ctypes.c_void_p))


class NormStruct(ctypes.Structure):
    """`osl_norm`."""

    _fields_ = (("weight", ctypes.c_void_p), ("bias", ctypes.c_void_p))


class LayerStruct(ctypes.Structure):
    """`osl_encoder_layer`."""

    _fields_ = (
        ("norm1", NormStruct),
        ("norm2", NormStruct),
        ("qkv", DenseStruct),
        ("out", DenseStruct),
        ("fc1", DenseStruct),
        ("fc2", DenseStruct),
    )


class ModelStruct(ctypes.Structure):
    """`osl_encoder_model`."""

    _fields_ = (
        ("hidden_size", ctypes.c_int32),
        ("intermediate_size", ctypes.c_int32),
        ("num_hidden_layers", ctypes.c_int32),
        ("num_attention_heads", ctypes.c_int32),
        ("positions", ctypes.c_int32),
        ("layer_norm_eps", ctypes.c_float),
        ("layers", ctypes.POINTER(LayerStruct)),
        ("norm", NormStruct),
        ("image_size", ctypes.c_int32),
        ("patch_size", ctypes.c_int32),
        ("num_channels", ctypes.c_int32),
        ("embedding", DenseStruct),
        ("position", MatrixStruct),
        ("output", ctypes.c_int32),
        ("pool", ctypes.c_int32),
        ("soft_norm", ctypes.c_void_p),
        ("projection", DenseStruct),
        ("probe_keys", ctypes.c_void_p),
        ("probe_values", DenseStruct),
        ("probe_out", DenseStruct),
        ("probe_fc1", DenseStruct),
        ("probe_fc2", DenseStruct),
        ("probe_norm", NormStruct),
    )


class EncoderWeights(Protocol):
    """Where packed tensors come from: a file, or memory."""

    def matrix(self, name: str) -> Matrix:
        """A packed matrix."""

    def values(self, name: str) -> NDArray[np.float32]:
        """A plain tensor."""


class StructMaker:
    """Makes structures out of named tensors, and keeps what they point to.

    Every size is checked: what the library reads beyond an array is somebody else's memory.

    Attributes:
        kept: arrays and structures that must live as long as the structures made.
    """

    def __init__(self, weights: EncoderWeights) -> None:
        self._weights = weights
        self.kept: list[object] = []

    def matrix(self, name: str, rows: int, cols: int) -> MatrixStruct:
        """A matrix.

        Raises:
            ValueError: it has other sizes.
        """
        struct = MatrixStruct.of(self._weights.matrix(name))
        if (struct.rows, struct.cols) != (rows, cols):
            raise ValueError(f"{name} is {struct.rows} x {struct.cols}, not {rows} x {cols}")
        self.kept.append(struct.matrix)
        return struct

    def values(self, name: str, size: int) -> int:
        """The address of plain values.

        Raises:
            ValueError: there are not `size` of them.
        """
        values: NDArray[np.float32] = np.ascontiguousarray(self._weights.values(name), np.float32)
        if values.size != size:
            raise ValueError(f"{name} has {values.size} values, not {size}")
        self.kept.append(values)
        return values.ctypes.data

    def dense(self, name: str, rows: int, cols: int, *, bias: bool = True) -> DenseStruct:
        """A linear layer."""
        matrix = self.matrix(f"{name}.weight", rows, cols)
        return DenseStruct(matrix, self.values(f"{name}.bias", rows) if bias else None)

    def norm(self, name: str, size: int) -> NormStruct:
        """A layer norm."""
        return NormStruct(self.values(f"{name}.weight", size), self.values(f"{name}.bias", size))

    def tower(self, name: str, config: EncoderSizes, positions: int) -> ModelStruct:
        """A model with its layers and positions; what stands before and after them is missing."""
        hidden, wide = config.hidden_size, config.intermediate_size
        layers = (LayerStruct * config.num_hidden_layers)(
            *(
                LayerStruct(
                    self.norm(f"{layer}.layer_norm1", hidden),
                    self.norm(f"{layer}.layer_norm2", hidden),
                    self.dense(f"{layer}.self_attn.qkv_proj", 3 * hidden, hidden),
                    self.dense(f"{layer}.self_attn.out_proj", hidden, hidden),
                    self.dense(f"{layer}.mlp.fc1", wide, hidden),
                    self.dense(f"{layer}.mlp.fc2", hidden, wide),
                )
                for layer in (f"{name}.encoder.layers.{i}" for i in range(config.num_hidden_layers))
            )
        )
        self.kept.append(layers)
        position = f"{name}.embeddings.position_embedding.weight"
        return ModelStruct(
            hidden_size=hidden,
            intermediate_size=wide,
            num_hidden_layers=config.num_hidden_layers,
            num_attention_heads=config.num_attention_heads,
            positions=positions,
            layer_norm_eps=config.layer_norm_eps,
            layers=layers,
            position=self.matrix(position, positions, hidden),
        )
