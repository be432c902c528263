"""GGUF files of our models for tests, written by the `gguf` package as llama.cpp's converter does.

Only names and the norms' 1 + weight are written out here once more; blocks are the package's.
"""

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import sentencepiece
from numpy.typing import NDArray

from osler.models.medgemma import MedGemma

BLOCK = 32
TEXT_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
VISION_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.out_proj": "attn_out",
    "mlp.fc1": "ffn_up",
    "mlp.fc2": "ffn_down",
    "layer_norm1": "ln1",
    "layer_norm2": "ln2",
}
OTHER_NAMES = {
    "language_model.embed_tokens.weight": "token_embd.weight",
    "language_model.norm.weight": "output_norm.weight",
    "vision_tower.embeddings.patch_embedding.weight": "v.patch_embd.weight",
    "vision_tower.embeddings.patch_embedding.bias": "v.patch_embd.bias",
    "vision_tower.embeddings.position_embedding.weight": "v.position_embd.weight",
    "vision_tower.post_layernorm.weight": "v.post_ln.weight",
    "vision_tower.post_layernorm.bias": "v.post_ln.bias",
    "multi_modal_projector.mm_input_projection_weight": "mm.input_projection.weight",
    "multi_modal_projector.mm_soft_emb_norm.weight": "mm.soft_emb_norm.weight",
}

Values = NDArray[np.float32]


def write_text_gguf(
    model: MedGemma,
    path: Path,
    kind: str,
    *,
    pieces: sentencepiece.SentencePieceProcessor | None = None,
    change: Callable[[gguf.GGUFWriter], object] = lambda writer: None,
) -> dict[str, Values]:
    """Write a decoder.

    Args:
        model: whose decoder.
        path: the file.
        kind: of its matrices, as "Q4_0".
        pieces: the tokenizer; None for none.
        change: called before the tensors are added, to spoil or add something.

    Returns:
        Name in `models` to what the file's values stand for.
    """
    text = model.config.text_config
    writer = gguf.GGUFWriter(path, "gemma3")
    for name, size in (
        ("context_length", text.max_position_embeddings),
        ("embedding_length", text.hidden_size),
        ("block_count", text.num_hidden_layers),
        ("feed_forward_length", text.intermediate_size),
        ("attention.head_count", text.num_attention_heads),
        ("attention.head_count_kv", text.num_key_value_heads),
        ("attention.key_length", text.head_dim),
        ("attention.value_length", text.head_dim),
        ("attention.sliding_window", text.sliding_window),
    ):
        writer.add_uint32(f"gemma3.{name}", size)
    writer.add_float32("gemma3.attention.layer_norm_rms_epsilon", text.rms_norm_eps)
    writer.add_float32("gemma3.rope.freq_base", text.rope_theta)
    writer.add_string("gemma3.rope.scaling.type", "linear")
    writer.add_float32("gemma3.rope.scaling.factor", text.rope_scaling_factor)
    if pieces is not None:
        _add_tokenizer(writer, pieces)
    change(writer)
    return _write(writer, model, "language_model.", kind)


def write_vision_gguf(model: MedGemma, path: Path, kind: str) -> dict[str, Values]:
    """Write a vision tower with its projector; arguments and result as `write_text_gguf`."""
    vision = model.config.vision_config
    assert vision is not None
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", "gemma3")
    for name, size in (
        ("image_size", vision.image_size),
        ("patch_size", vision.patch_size),
        ("embedding_length", vision.hidden_size),
        ("feed_forward_length", vision.intermediate_size),
        ("block_count", vision.num_hidden_layers),
        ("attention.head_count", vision.num_attention_heads),
        (
            "projector.scale_factor",
            vision.grid // round(model.config.mm_tokens_per_image**0.5),
        ),
    ):
        writer.add_uint32(f"clip.vision.{name}", size)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", vision.layer_norm_eps)
    return _write(writer, model, ("vision_tower.", "multi_modal_projector."), kind)


def _write(
    writer: gguf.GGUFWriter, model: MedGemma, prefixes: str | tuple[str, ...], kind: str
) -> dict[str, Values]:
    stands_for: dict[str, Values] = {}
    for name, tensor in model.state_dict().items():
        if not name.startswith(prefixes):
            continue
        values = tensor.float().numpy().copy()
        is_rms = name.startswith("language_model.") and values.ndim == 1
        if is_rms or name.endswith("mm_soft_emb_norm.weight"):
            values += 1
        chosen = gguf.GGMLQuantizationType[kind if values.ndim == 2 else "F32"]
        # Positions and the projection are never in blocks, nor what does not divide.
        whole = values.shape[-1] % BLOCK == 0 and not name.endswith(("ding.weight", "tion_weight"))
        if kind.startswith("Q") and not whole:
            chosen = gguf.GGMLQuantizationType.F32
        data = gguf.quants.quantize(values, chosen)
        stands_for[name] = gguf.quants.dequantize(data, chosen).reshape(values.shape)
        writer.add_tensor(_name(name), data, raw_dtype=chosen)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return stands_for


def _name(name: str) -> str:
    if name in OTHER_NAMES:
        return OTHER_NAMES[name]
    place, _, part = name.rpartition(".")
    layer, _, module = place.partition(".layers.")[2].partition(".")
    if name.startswith("language_model."):
        return f"blk.{layer}.{TEXT_NAMES[module]}.{part}"
    return f"v.blk.{layer}.{VISION_NAMES[module]}.{part}"


def _add_tokenizer(writer: gguf.GGUFWriter, pieces: sentencepiece.SentencePieceProcessor) -> None:
    ids = range(pieces.get_piece_size())
    writer.add_string("tokenizer.ggml.model", "llama")
    writer.add_array("tokenizer.ggml.tokens", [pieces.id_to_piece(index) for index in ids])
    writer.add_array("tokenizer.ggml.scores", [float(pieces.get_score(index)) for index in ids])
    writer.add_array("tokenizer.ggml.token_type", [_kind(pieces, index) for index in ids])
    for name, index in (("bos", 2), ("eos", 1), ("unknown", 3), ("padding", 0)):
        writer.add_uint32(f"tokenizer.ggml.{name}_token_id", index)


def _kind(pieces: sentencepiece.SentencePieceProcessor, index: int) -> int:
    if pieces.is_unknown(index):
        return 2
    if pieces.is_control(index):
        return 3
    if pieces.is_byte(index):
        return 6
    return 4 if pieces.id_to_piece(index).startswith("<") else 1
