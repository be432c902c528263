"""A tiny Gemma 3 with a vision tower and random weights, in the files that llama.cpp reads."""

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

LAYERS, HIDDEN, HEADS, KV_HEADS, HEAD_DIM, INTERMEDIATE, VOCAB = 2, 64, 2, 1, 32, 128, 512
VISION_LAYERS, VISION_HIDDEN, VISION_HEADS, PATCH_PX, SIDE_PX = 1, 64, 2, 14, 224

_TYPES = {str: 8, bool: 7, float: 6, int: 4}  # of metadata; an int is unsigned, 32 bits
_SIGNED = 5  # in lists, that is
_ALIGNMENT = 32


def write_text_model(path: Path) -> None:
    """Write the decoder, with a vocabulary of bytes and of made-up words."""
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    pieces += [f"t{number}" for number in range(len(pieces), VOCAB - 3)]
    pieces += ["<start_of_image>", "<end_of_image>", "<image_soft_token>"]
    kinds = [3, 3, 3, 2] + [6] * 256 + [1] * (VOCAB - 263) + [3] * 3
    sizes = {
        "context_length": 4096,
        "embedding_length": HIDDEN,
        "block_count": LAYERS,
        "feed_forward_length": INTERMEDIATE,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KV_HEADS,
        "attention.key_length": HEAD_DIM,
        "attention.value_length": HEAD_DIM,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "attention.sliding_window": 64,
        "rope.freq_base": 1e6,
    }
    metadata = {f"gemma3.{name}": value for name, value in sizes.items()} | {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": pieces,
        "tokenizer.ggml.scores": [-float(rank) for rank in range(VOCAB)],
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 3,
    }
    rng = np.random.default_rng(0)
    tensors = {
        "token_embd.weight": _random(rng, VOCAB, HIDDEN),
        "output_norm.weight": _ones(HIDDEN),
    }
    # Control tokens and halves of characters are no text, so words must come first.
    tensors["token_embd.weight"][[kind != 1 for kind in kinds]] *= 0.01
    for layer in range(LAYERS):
        shapes = {
            "attn_q": (HEADS * HEAD_DIM, HIDDEN),
            "attn_k": (KV_HEADS * HEAD_DIM, HIDDEN),
            "attn_v": (KV_HEADS * HEAD_DIM, HIDDEN),
            "attn_output": (HIDDEN, HEADS * HEAD_DIM),
            "ffn_gate": (INTERMEDIATE, HIDDEN),
            "ffn_up": (INTERMEDIATE, HIDDEN),
            "ffn_down": (HIDDEN, INTERMEDIATE),
        }
        norms = {"attn_q_norm": HEAD_DIM, "attn_k_norm": HEAD_DIM} | dict.fromkeys(
            ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"), HIDDEN
        )
        for name, shape in shapes.items():
            tensors[f"blk.{layer}.{name}.weight"] = _random(rng, *shape)
        for name, size in norms.items():
            tensors[f"blk.{layer}.{name}.weight"] = _ones(size)
    _write(path, "gemma3", metadata, tensors)


def write_vision_model(path: Path) -> None:
    """Write the vision tower and the projector."""
    sizes = {
        "image_size": SIDE_PX,
        "patch_size": PATCH_PX,
        "embedding_length": VISION_HIDDEN,
        "feed_forward_length": INTERMEDIATE,
        "projection_dim": HIDDEN,
        "block_count": VISION_LAYERS,
        "attention.head_count": VISION_HEADS,
        "attention.layer_norm_epsilon": 1e-6,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    metadata = {f"clip.vision.{name}": value for name, value in sizes.items()} | {
        "general.type": "mmproj",
        "clip.has_vision_encoder": True,
        "clip.projector_type": "gemma3",
        "clip.use_gelu": True,
    }
    rng = np.random.default_rng(1)
    patches = (SIDE_PX // PATCH_PX) ** 2
    tensors = {
        "v.patch_embd.weight": _random(rng, VISION_HIDDEN, 3, PATCH_PX, PATCH_PX),
        "v.patch_embd.bias": _random(rng, VISION_HIDDEN),
        "v.position_embd.weight": _random(rng, patches, VISION_HIDDEN),
        "v.post_ln.weight": _ones(VISION_HIDDEN),
        "v.post_ln.bias": _random(rng, VISION_HIDDEN),
        "mm.input_projection.weight": _random(rng, VISION_HIDDEN, HIDDEN),
        "mm.soft_emb_norm.weight": _ones(VISION_HIDDEN),
    }
    for layer in range(VISION_LAYERS):
        square = (VISION_HIDDEN, VISION_HIDDEN)
        shapes = dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_out"), square) | {
            "ffn_up": (INTERMEDIATE, VISION_HIDDEN),
            "ffn_down": (VISION_HIDDEN, INTERMEDIATE),
        }
        for name, shape in shapes.items():
            tensors[f"v.blk.{layer}.{name}.weight"] = _random(rng, *shape)
            tensors[f"v.blk.{layer}.{name}.bias"] = _random(rng, shape[0])
        for name in ("ln1", "ln2"):
            tensors[f"v.blk.{layer}.{name}.weight"] = _ones(VISION_HIDDEN)
            tensors[f"v.blk.{layer}.{name}.bias"] = _random(rng, VISION_HIDDEN)
    _write(path, "clip", metadata, tensors)


def _write(
    path: Path, architecture: str, metadata: Mapping[str, Any], tensors: Mapping[str, Array]
) -> None:
    metadata = {"general.architecture": architecture, "general.file_type": 0, **metadata}
    infos, blobs, offset = [], [], 0
    for name, values in tensors.items():
        dims = values.shape[::-1]
        head = struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, 0, offset)
        infos.append(_bytes(name) + head)
        blob = values.tobytes()
        blobs.append(blob + bytes(-len(blob) % _ALIGNMENT))
        offset += len(blobs[-1])
    pairs = [_bytes(name) + _typed(value) for name, value in metadata.items()]
    head = b"GGUF" + struct.pack("<IQQ", 3, len(infos), len(pairs)) + b"".join(pairs + infos)
    path.write_bytes(head + bytes(-len(head) % _ALIGNMENT) + b"".join(blobs))


def _typed(value: Any) -> bytes:
    if isinstance(value, list):
        kind = _SIGNED if isinstance(value[0], int) else _TYPES[type(value[0])]
        head = struct.pack("<IIQ", 9, kind, len(value))
        return head + b"".join(map(_bytes, value))
    return struct.pack("<I", _TYPES[type(value)]) + _bytes(value)


def _bytes(value: Any) -> bytes:
    if isinstance(value, str):
        return struct.pack("<Q", len(value.encode())) + value.encode()
    return struct.pack({bool: "<?", int: "<I", float: "<f"}[type(value)], value)


def _random(rng: np.random.Generator, *shape: int) -> Array:
    return rng.normal(0, 0.1, shape).astype(np.float32)


def _ones(size: int) -> Array:
    return np.ones(size, np.float32)
