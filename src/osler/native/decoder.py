"""The Gemma 3 decoder of csrc/decoder.h: packed weights, pages of keys and values, one call a pass.

Shape suffixes: D hidden_size, V vocabulary, R positions whose scores are wanted, S soft rows.
"""

import ctypes
import weakref
from array import array
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from osler.models.config import FULL, MedGemmaConfig, TextConfig
from osler.native.decoder_weights import EMBEDDING, NORM, DecoderWeights, layer_name
from osler.native.formats import FORMATS, Matrix
from osler.native.library import Library, MatrixStruct, Pool

# `osl_status` of csrc/decoder.h.
_NO_MEMORY = 1
_REFUSALS = {
    2: "a chunk without positions, or that wants more scores than it has positions",
    3: "a token id beyond the vocabulary",
    4: "a page that a chunk needs is missing or was not allocated",
    5: "an image whose tokens do not all follow one another in their chunk",
    6: "a chunk with other image tokens than image embeddings",
}


class LayerStruct(ctypes.Structure):
    """`osl_decoder_layer`."""

    _fields_ = (
        ("qkv", MatrixStruct),
        ("out", MatrixStruct),
        ("gate_up", MatrixStruct),
        ("down", MatrixStruct),
        ("input_norm", ctypes.c_void_p),
        ("post_attention_norm", ctypes.c_void_p),
        ("pre_feedforward_norm", ctypes.c_void_p),
        ("post_feedforward_norm", ctypes.c_void_p),
        ("query_norm", ctypes.c_void_p),
        ("key_norm", ctypes.c_void_p),
        ("global", ctypes.c_int32),
    )


class ModelStruct(ctypes.Structure):
    """`osl_decoder_model`."""

    _fields_ = (
        ("hidden", ctypes.c_int32),
        ("layers", ctypes.c_int32),
        ("heads", ctypes.c_int32),
        ("kv_heads", ctypes.c_int32),
        ("head_dim", ctypes.c_int32),
        ("window", ctypes.c_int32),
        ("image_token", ctypes.c_int32),
        ("image_tokens", ctypes.c_int32),
        ("kv_format", ctypes.c_int32),
        ("eps", ctypes.c_float),
        ("embedding_factor", ctypes.c_float),
        ("score_factor", ctypes.c_float),
        ("local_frequency", ctypes.c_void_p),
        ("global_frequency", ctypes.c_void_p),
        ("norm", ctypes.c_void_p),
        ("embedding", MatrixStruct),
        ("layer", ctypes.c_void_p),
    )


class ChunkStruct(ctypes.Structure):
    """`osl_chunk`: new positions of one sequence; keeps the arrays that it points to."""

    _fields_ = (
        ("start", ctypes.c_int32),
        ("count", ctypes.c_int32),
        ("pages", ctypes.c_int32),
        ("logits", ctypes.c_int32),
        ("soft_rows", ctypes.c_int32),
        ("ids", ctypes.c_void_p),
        ("global_pages", ctypes.c_void_p),
        ("local_pages", ctypes.c_void_p),
        ("soft", ctypes.c_void_p),
    )
    arrays: tuple[object, ...]
    soft_width: int

    @classmethod
    def of(
        cls,
        ids: Sequence[int],
        *,
        start: int,
        global_pages: Sequence[int],
        local_pages: Sequence[int],
        soft_SD: NDArray[np.float32] | None = None,
        logits: int = 0,
    ) -> "ChunkStruct":
        """What the decoder takes new positions as; see `inference.runner.Chunk`."""
        tokens = array("i", ids)
        pages = array("i", global_pages), array("i", local_pages)
        soft = None if soft_SD is None else np.ascontiguousarray(soft_SD, np.float32)
        struct = cls(
            start,
            len(tokens),
            min(len(pages[0]), len(pages[1])),
            logits,
            0 if soft is None else len(soft),
            tokens.buffer_info()[0],
            pages[0].buffer_info()[0],
            pages[1].buffer_info()[0],
            None if soft is None else soft.ctypes.data,
        )
        struct.arrays = (tokens, pages, soft)
        struct.soft_width = 0 if soft is None else soft.shape[1]
        return struct


class Decoder:
    """All layers of a decoder and its pages; one call at a time."""

    def __init__(
        self,
        config: MedGemmaConfig,
        weights: DecoderWeights,
        library: Library,
        pool: Pool,
        *,
        kv_format: str = "bf16",
    ) -> None:
        """Put a decoder together.

        Args:
            config: the model's sizes.
            weights: what `decoder_weights.decoder_parts` names; not copied.
            library: the kernels.
            pool: their threads.
            kv_format: of keys and values, "bf16" or "int8".

        Raises:
            ValueError: a tensor of another shape than the configuration's, or sizes that the
                kernels do not take.
        """
        address, number = ctypes.c_void_p, ctypes.c_int32
        new = library.function("osl_decoder_new", address, address, address)
        free = library.function("osl_decoder_free", None, address)
        self._page_bytes = library.function(
            "osl_decoder_page_bytes", ctypes.c_int64, address, number
        )
        self._allocate = library.function("osl_decoder_allocate", number, address, number, number)
        self._copy = library.function(
            "osl_decoder_copy_page", number, address, number, number, number
        )
        self._forward = library.function(
            "osl_decoder_forward", number, address, address, number, address
        )
        text = config.text_config
        self.vocabulary = text.vocab_size
        self.width = text.hidden_size
        model, kept = _model_struct(config, weights, kv_format)
        self._self = new(ctypes.byref(model), pool)
        if self._self is None:
            raise ValueError("the native decoder does not take these sizes of heads")
        # The finalizer also keeps alive what the object points to.
        finalizer = weakref.finalize(self, _free, free, self._self, (kept, weights, pool))
        finalizer.atexit = False

    def page_bytes(self) -> tuple[int, int]:
        """Bytes of one global and of one local page."""
        return self._page_bytes(self._self, 1), self._page_bytes(self._self, 0)

    def allocate(self, global_pages: int, local_pages: int) -> None:
        """Make room for so many empty pages, in place of those there were.

        Raises:
            MemoryError: there is not as much.
        """
        _check(self._allocate(self._self, global_pages, local_pages))

    def copy_page(self, source: int, target: int, *, is_global: bool) -> None:
        """Copy all that a page holds.

        Raises:
            ValueError: no such page.
        """
        _check(self._copy(self._self, is_global, source, target))

    def forward(self, chunks: Sequence[ChunkStruct]) -> NDArray[np.float32]:
        """Read the chunks in one pass.

        Args:
            chunks: of different sequences.

        Returns:
            Scores, float32 (R, V), in the chunks' order.

        Raises:
            ValueError: a chunk that does not hold together; nothing was written then.
            MemoryError: the pass needs more than there is.
        """
        wanted = sum(chunk.logits for chunk in chunks)
        scores_RV = np.empty((wanted, self.vocabulary), np.float32)
        if any(chunk.soft_width not in (0, self.width) for chunk in chunks):
            raise ValueError("image embeddings of another width than the model's")
        passed = (ChunkStruct * len(chunks))(*chunks)
        _check(self._forward(self._self, passed, len(chunks), scores_RV.ctypes.data))
        return scores_RV


def _free(free: object, address: int, kept: object) -> None:
    """Free the C object; what it points to is released after it, with the arguments."""
    del kept
    assert callable(free)
    free(address)


def _check(status: int) -> None:
    if status == _NO_MEMORY:
        raise MemoryError("the native decoder needs more memory than there is")
    if status:
        raise ValueError(_REFUSALS[status])


def _model_struct(
    config: MedGemmaConfig, weights: DecoderWeights, kv_format: str
) -> tuple[ModelStruct, list[object]]:
    """The C description, and what it points to besides the weights."""
    if kv_format not in ("bf16", "int8"):
        raise ValueError(f"keys and values are bf16 or int8, not {kv_format!r}")
    text = config.text_config
    layers = (LayerStruct * text.num_hidden_layers)()
    for index, kind in enumerate(text.layer_types):
        layers[index] = _layer_struct(text, weights, index, is_global=kind == FULL)
    local = _frequencies(text, text.rope_local_base_freq, 1.0)
    global_ = _frequencies(text, text.rope_theta, text.rope_scaling_factor)
    model = ModelStruct(
        text.hidden_size,
        text.num_hidden_layers,
        text.num_attention_heads,
        text.num_key_value_heads,
        text.head_dim,
        text.sliding_window,
        config.image_token_id,
        config.mm_tokens_per_image,
        FORMATS[kv_format],
        text.rms_norm_eps,
        _rounded_to_bf16(text.hidden_size**0.5),
        text.query_pre_attn_scalar**-0.5,
        local.ctypes.data,
        global_.ctypes.data,
        _norm(weights, NORM, text.hidden_size),
        _matrix(weights, EMBEDDING, text.vocab_size, text.hidden_size),
        ctypes.addressof(layers),
    )
    return model, [local, global_, layers]


def _layer_struct(
    text: TextConfig, weights: DecoderWeights, layer: int, *, is_global: bool
) -> LayerStruct:
    hidden, dim = text.hidden_size, text.head_dim
    queries, keys = text.num_attention_heads * dim, text.num_key_value_heads * dim
    gate = -(-text.intermediate_size // 16) * 16

    def matrix(part: str, rows: int, cols: int) -> MatrixStruct:
        return _matrix(weights, layer_name(layer, part), rows, cols)

    def norm(part: str, size: int) -> int:
        return _norm(weights, layer_name(layer, part), size)

    return LayerStruct(
        matrix("self_attn.qkv_proj", queries + 2 * keys, hidden),
        matrix("self_attn.o_proj", hidden, queries),
        matrix("mlp.gate_up_proj", 2 * gate, hidden),
        matrix("mlp.down_proj", hidden, text.intermediate_size),
        norm("input_layernorm", hidden),
        norm("post_attention_layernorm", hidden),
        norm("pre_feedforward_layernorm", hidden),
        norm("post_feedforward_layernorm", hidden),
        norm("self_attn.q_norm", dim),
        norm("self_attn.k_norm", dim),
        is_global,
    )


def _matrix(weights: DecoderWeights, name: str, rows: int, cols: int) -> MatrixStruct:
    matrix = weights[name]
    if not isinstance(matrix, Matrix) or (matrix.rows, matrix.cols) != (rows, cols):
        raise ValueError(f"{name} is no packed matrix of {rows} x {cols}")
    return MatrixStruct.of(matrix)


def _norm(weights: DecoderWeights, name: str, size: int) -> int:
    values = weights[name]
    if (
        isinstance(values, Matrix)
        or values.size != size
        or values.dtype != np.float32
        or not values.flags.c_contiguous
    ):
        raise ValueError(f"{name} is no float32 array of {size} values")
    return values.ctypes.data


def _frequencies(text: TextConfig, theta: float, factor: float) -> NDArray[np.float32]:
    """Of the rotary embedding, as `gemma3.rotary` has them: float32 (head_dim / 2,)."""
    exponent = np.arange(0, text.head_dim, 2, dtype=np.float32) / np.float32(text.head_dim)
    turns = np.float32(1.0) / (np.float32(theta) ** exponent)
    return np.asarray(turns / np.float32(factor), np.float32)


def _rounded_to_bf16(value: float) -> float:
    """The nearest bf16: every released checkpoint is in it, and its embeddings are scaled so.

    >>> _rounded_to_bf16(2560**0.5)
    50.5
    """
    bits = int(np.float32(value).view(np.uint32))
    bits += 0x7FFF + ((bits >> 16) & 1)
    return float(np.uint32(bits & 0xFFFF0000).view(np.float32))
