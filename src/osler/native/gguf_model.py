"""A Gemma 3 out of GGUF files: its sizes, and its tensors under the names of `models`.

Two things differ from a checkpoint: norms are stored as 1 + weight, and llama.cpp takes for granted
what a checkpoint says (every sixth layer is global, local layers turn with base 10,000, an image is
pooled 4 x 4).
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from osler.errors import CheckpointError
from osler.models.config import MedGemmaConfig, TextConfig, VisionConfig, layer_pattern
from osler.models.medgemma import MedGemma
from osler.native.blocks import Blocks
from osler.native.gguf import GgufFile
from osler.native.pack_model import Source

_TEXT_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "post_feedforward_layernorm": "post_ffw_norm",
}
_TEXT = {
    "language_model.embed_tokens.weight": "token_embd.weight",
    "language_model.norm.weight": "output_norm.weight",
}
_VISION_LAYER = {
    "layer_norm1": "ln1",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.out_proj": "attn_out",
    "layer_norm2": "ln2",
    "mlp.fc1": "ffn_up",
    "mlp.fc2": "ffn_down",
}
_VISION = {
    "vision_tower.embeddings.patch_embedding.weight": "v.patch_embd.weight",
    "vision_tower.embeddings.patch_embedding.bias": "v.patch_embd.bias",
    "vision_tower.embeddings.position_embedding.weight": "v.position_embd.weight",
    "vision_tower.post_layernorm.weight": "v.post_ln.weight",
    "vision_tower.post_layernorm.bias": "v.post_ln.bias",
    "multi_modal_projector.mm_input_projection_weight": "mm.input_projection.weight",
    "multi_modal_projector.mm_soft_emb_norm.weight": "mm.soft_emb_norm.weight",
}
# The 27B, whose scores llama.cpp scales by another size than the head's.
_LAYERS_27B = 62
_MOST = 2**24  # of any size, number or id


class GgufModel:
    """A model from one or two GGUF files.

    Attributes:
        text: the file of the decoder.
        config: sizes and special tokens.
        shapes: of all tensors, by their names in `models`.
    """

    def __init__(self, text: Path, mmproj: Path | None = None) -> None:
        """Open the files, and compare their tensors with their metadata.

        Raises:
            CheckpointError: a file that is damaged, of another model, or with tensors of a type or
                shape that is not read.
        """
        self.text = GgufFile(text)
        _must_be(self.text, "general.architecture", "gemma3", default=None)
        vision = None
        if mmproj is not None:
            vision = GgufFile(mmproj)
            _must_be(vision, "general.architecture", "clip", default=None)
            _must_be(vision, "clip.projector_type", "gemma3", default=None)
            _must_be(vision, "clip.has_vision_encoder", True, default=True)
        self.config = _config(self.text, vision)
        self._places = _text_places(self.text, self.config.text_config.num_hidden_layers)
        if vision is not None and self.config.vision_config is not None:
            self._places |= _vision_places(vision, self.config.vision_config)
        try:
            self.shapes = _shapes(self.config)
        except ValueError as error:
            raise CheckpointError(f"{text}: {error}") from error
        self._check()

    def read(self, name: str) -> Source:
        """A tensor by its name in `models`, mapped from its file where it needs no change."""
        file, place = self._places[name]
        source = file.source(place)
        if isinstance(source, Blocks) or not _is_rms_norm(name):
            return source
        return source.float() - 1

    def _check(self) -> None:
        for name, shape in self.shapes.items():
            file, place = self._places[name]
            source = file.source(place)
            if tuple(source.shape) != shape:
                raise CheckpointError(
                    f"{file.path}: {place} is {list(source.shape)}, not {list(shape)}"
                )
        if "output.weight" in self.text.tensors:
            raise CheckpointError(f"{self.text.path}: has a head of its own; Osler ties the two")


def token_id(metadata: Mapping[str, Any], piece: str) -> int | None:
    """The id of a piece of the vocabulary, if it has it."""
    tokens = metadata.get("tokenizer.ggml.tokens")
    return tokens.index(piece) if isinstance(tokens, list) and piece in tokens else None


def _config(text: GgufFile, vision: GgufFile | None) -> MedGemmaConfig:
    metadata = text.metadata
    defaults = {"image": 262_144, "boi": 255_999, "eoi": 256_000}
    pieces = {"image": "<image_soft_token>", "boi": "<start_of_image>", "eoi": "<end_of_image>"}
    found = {name: token_id(metadata, piece) for name, piece in pieces.items()}
    image = {name: found[name] if found[name] is not None else defaults[name] for name in pieces}
    end_of_turn = token_id(metadata, "<end_of_turn>")
    eos = _whole(text, "tokenizer.ggml.eos_token_id", 1, least=0)
    names = (str(metadata.get("general.name", "")), text.path.name)
    try:
        vision_config = None if vision is None else _vision_config(vision)
        pooled = 256
        if vision is not None and vision_config is not None:
            scale = _whole(vision, "clip.vision.projector.scale_factor", 4)
            pooled = (vision_config.grid // scale) ** 2
        return MedGemmaConfig(
            text_config=_text_config(text),
            vision_config=vision_config,
            mm_tokens_per_image=pooled,
            image_token_id=image["image"] or 0,
            boi_token_id=image["boi"] or 0,
            eoi_token_id=image["eoi"] or 0,
            bos_token_id=_whole(text, "tokenizer.ggml.bos_token_id", 2, least=0),
            pad_token_id=_whole(text, "tokenizer.ggml.padding_token_id", 0, least=0),
            eos_token_ids=tuple(dict.fromkeys([eos, 106 if end_of_turn is None else end_of_turn])),
            medgemma_version="1.5" if any("1.5" in name for name in names) else "1",
        )
    except ValueError as error:
        raise CheckpointError(f"{text.path}: {error}") from error


def _text_config(file: GgufFile) -> TextConfig:
    def whole(name: str, default: int | None = None) -> int:
        return _whole(file, f"gemma3.{name}", default)

    def number(name: str, default: float | None = None) -> float:
        return _number(file, f"gemma3.{name}", default)

    layers, heads = _layers(file, "gemma3.block_count"), whole("attention.head_count")
    hidden, head_dim = whole("embedding_length"), whole("attention.key_length", 256)
    _must_be(file, "gemma3.attention.value_length", head_dim, default=head_dim)
    _must_be(file, "gemma3.final_logit_softcapping", 0.0, default=0.0)
    kind = file.metadata.get("gemma3.rope.scaling.type", "none")
    if kind not in ("none", "linear"):
        raise CheckpointError(f"{file.path}: rope scaling {kind!r}; Osler has 'linear'")
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise CheckpointError(f"{file.path}: holds no matrix token_embd.weight")
    return TextConfig(
        hidden_size=hidden,
        intermediate_size=whole("feed_forward_length"),
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=whole("attention.head_count_kv"),
        head_dim=head_dim,
        query_pre_attn_scalar=hidden / heads if layers == _LAYERS_27B else head_dim,
        vocab_size=embedding.shape[0],
        sliding_window=whole("attention.sliding_window"),
        layer_types=layer_pattern(layers, whole("attention.sliding_window_pattern", 6)),
        max_position_embeddings=whole("context_length"),
        rms_norm_eps=number("attention.layer_norm_rms_epsilon"),
        rope_theta=number("rope.freq_base", 1e6),
        rope_local_base_freq=number("rope.freq_base_swa", 1e4),
        rope_scaling_factor=number("rope.scaling.factor", 1.0) if kind == "linear" else 1.0,
    )


def _vision_config(file: GgufFile) -> VisionConfig:
    def whole(name: str) -> int:
        return _whole(file, f"clip.vision.{name}", None)

    return VisionConfig(
        hidden_size=whole("embedding_length"),
        intermediate_size=whole("feed_forward_length"),
        num_hidden_layers=_layers(file, "clip.vision.block_count"),
        num_attention_heads=whole("attention.head_count"),
        image_size=whole("image_size"),
        patch_size=whole("patch_size"),
        layer_norm_eps=_number(file, "clip.vision.attention.layer_norm_epsilon", 1e-6),
    )


def _shapes(config: MedGemmaConfig) -> dict[str, tuple[int, ...]]:
    try:
        with torch.device("meta"):
            model = MedGemma(config)
    except RuntimeError:
        raise ValueError("sizes out of range") from None
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _text_places(file: GgufFile, layers: int) -> dict[str, tuple[GgufFile, str]]:
    places = {ours: (file, theirs) for ours, theirs in _TEXT.items()}
    for layer in range(layers):
        for ours, theirs in _TEXT_LAYER.items():
            name = f"language_model.layers.{layer}.{ours}.weight"
            places[name] = (file, f"blk.{layer}.{theirs}.weight")
    return places


def _vision_places(file: GgufFile, config: VisionConfig) -> dict[str, tuple[GgufFile, str]]:
    places = {ours: (file, theirs) for ours, theirs in _VISION.items()}
    names = dict(_VISION_LAYER)
    first = file.tensors.get("v.blk.0.ffn_up.weight")
    if first is not None and first.shape == (config.hidden_size, config.intermediate_size):
        # Older files call the first matrix of the two the lower one.
        names["mlp.fc1"], names["mlp.fc2"] = names["mlp.fc2"], names["mlp.fc1"]
    for layer in range(config.num_hidden_layers):
        for ours, theirs in names.items():
            for part in ("weight", "bias"):
                name = f"vision_tower.encoder.layers.{layer}.{ours}.{part}"
                places[name] = (file, f"v.blk.{layer}.{theirs}.{part}")
    return places


def _is_rms_norm(name: str) -> bool:
    if name.startswith("language_model."):
        return name.removesuffix(".weight").endswith("norm")
    return name == "multi_modal_projector.mm_soft_emb_norm.weight"


def _must_be(file: GgufFile, key: str, wanted: object, *, default: object) -> None:
    found = file.metadata.get(key, default)
    if found != wanted:
        raise CheckpointError(f"{file.path}: {key} is {str(found)[:40]!r}, not {wanted!r}")


def _layers(file: GgufFile, key: str) -> int:
    layers = _whole(file, key, None)
    if layers > len(file.tensors):
        raise CheckpointError(f"{file.path}: {key} is {layers:,}, with fewer tensors than that")
    return layers


def _whole(file: GgufFile, key: str, default: int | None, *, least: int = 1) -> int:
    value = file.metadata.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= _MOST:
        raise CheckpointError(f"{file.path}: {key} is {str(value)[:40]}, no size")
    return value


def _number(file: GgufFile, key: str, default: float | None) -> float:
    value = file.metadata.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise CheckpointError(f"{file.path}: {key} is {str(value)[:40]}, no number")
    if not (math.isfinite(value) and value > 0):
        raise CheckpointError(f"{file.path}: {key} is {value}, not above 0")
    return value
