"""Which tensors the native decoder is made of, and of which of the model's each is made.

Names are those of `models.medgemma`, or, where several are fused into one matrix, like them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from osler.models.config import TextConfig
from osler.native.formats import Matrix

EMBEDDING = "language_model.embed_tokens.weight"
NORM = "language_model.norm.weight"

# Of a layer: the fused name and what it is made of.
_QKV = ("self_attn.qkv_proj", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"))
_GATE_UP = ("mlp.gate_up_proj", ("mlp.gate_proj", "mlp.up_proj"))
_LAYER_MATRICES = (
    _QKV,
    ("self_attn.o_proj", ("self_attn.o_proj",)),
    _GATE_UP,
    ("mlp.down_proj", ("mlp.down_proj",)),
)
_LAYER_NORMS = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
    "self_attn.q_norm",
    "self_attn.k_norm",
)

# A packed matrix, or the float32 values of a norm.
DecoderWeights = Mapping[str, Matrix | NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One tensor of the native decoder.

    Attributes:
        name: its own.
        sources: those of `models.medgemma` that it is made of: three one below the other, two in
            turns of 16 rows (OSL_GEGLU of csrc/linear.h).
        is_matrix: to be packed; else the float32 values of a norm.
    """

    name: str
    sources: tuple[str, ...]
    is_matrix: bool


def layer_name(layer: int, part: str) -> str:
    """The name of a layer's tensor.

    >>> layer_name(3, "mlp.gate_up_proj")
    'language_model.layers.3.mlp.gate_up_proj.weight'
    """
    return f"language_model.layers.{layer}.{part}.weight"


def decoder_parts(config: TextConfig) -> Iterator[Part]:
    """All tensors, in the order in which a pass reads them."""
    yield Part(name=EMBEDDING, sources=(EMBEDDING,), is_matrix=True)
    for layer in range(config.num_hidden_layers):
        for name, sources in _LAYER_MATRICES:
            names = tuple(layer_name(layer, source) for source in sources)
            yield Part(name=layer_name(layer, name), sources=names, is_matrix=True)
        for norm in _LAYER_NORMS:
            name = layer_name(layer, norm)
            yield Part(name=name, sources=(name,), is_matrix=False)
    yield Part(name=NORM, sources=(NORM,), is_matrix=False)
