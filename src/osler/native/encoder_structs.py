"""The encoder of csrc/encoder.h as ctypes see it."""

import ctypes

import numpy as np
from numpy.typing import NDArray

from osler.native.encoder_weights import EncoderWeights
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


class StructMaker:
    """Makes structures out of named tensors, and keeps what they point to.

    Attributes:
        kept: arrays and structures that must live as long as the structures made.
    """

    def __init__(self, weights: EncoderWeights) -> None:
        self._weights = weights
        self.kept: list[object] = []

    def matrix(self, name: str) -> MatrixStruct:
        """A matrix."""
        struct = MatrixStruct.of(self._weights.matrix(name))
        self.kept.append(struct.matrix)
        return struct

    def values(self, name: str) -> int:
        """The address of plain values."""
        values: NDArray[np.float32] = np.ascontiguousarray(self._weights.values(name), np.float32)
        self.kept.append(values)
        return values.ctypes.data

    def dense(self, name: str, *, bias: bool = True) -> DenseStruct:
        """A linear layer."""
        return DenseStruct(
            self.matrix(f"{name}.weight"), self.values(f"{name}.bias") if bias else None
        )

    def norm(self, name: str) -> NormStruct:
        """A layer norm."""
        return NormStruct(self.values(f"{name}.weight"), self.values(f"{name}.bias"))

    def layers(self, name: str, count: int) -> "ctypes.Array[LayerStruct]":
        """The layers of a tower."""
        layers = (LayerStruct * count)(
            *(
                LayerStruct(
                    self.norm(f"{layer}.layer_norm1"),
                    self.norm(f"{layer}.layer_norm2"),
                    self.dense(f"{layer}.self_attn.qkv_proj"),
                    self.dense(f"{layer}.self_attn.out_proj"),
                    self.dense(f"{layer}.mlp.fc1"),
                    self.dense(f"{layer}.mlp.fc2"),
                )
                for layer in (f"{name}.{i}" for i in range(count))
            )
        )
        self.kept.append(layers)
        return layers
