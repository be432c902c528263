"""A packed MedGemma of true shapes with random weights, for whatever depends on shapes alone.

    python -m bench.random_model OUT [--size 4b|27b|tiny] [--image 896|448] [--format int4]

writes a folder that `osler` takes like any other, 2.6 GB for a 4B in int4. Its tokenizer is the
nano's, made as large as Gemma's with pieces and merges that no text needs, so that a start costs
what it does with a released model.
"""

import argparse
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from bench.linear import random_bytes
from osler.models.config import MedGemmaConfig, layer_pattern, medgemma_4b, medgemma_27b
from osler.models.hf_config import CONFIG_FILE, medgemma_json
from osler.models.medgemma import MedGemma
from osler.native.decoder_weights import decoder_parts
from osler.native.encoder_weights import EncoderTensor, encoder_tensors
from osler.native.formats import GROUPS, Matrix, has_row_scale, packed_bytes, padded_rows
from osler.native.pack_model import fused_rows
from osler.native.packed_file import PACKED_FILE, PackedWriter, write_packed
from osler.testing.models import tiny_medgemma

NANO = Path(__file__).parents[1] / "weights" / "medgemma-nano"
SIZES = ("4b", "27b", "tiny")
# Standard deviation of random bytes as values: of an int4, with its multiplier.
_SPREAD = {"int8": 74.0, "int4": 4.6 * 9.7}


def model_config(size: str, image: int) -> MedGemmaConfig:
    """The model's sizes, with the tokens of the nano's tokenizer.

    Args:
        size: one of `SIZES`.
        image: side of an image, px; 14 px a patch and 16 patches a token.
    """
    config = {"4b": medgemma_4b, "27b": medgemma_27b, "tiny": tiny_medgemma}[size]()
    vision = config.vision_config
    assert vision is not None
    if size == "tiny":
        text = replace(
            config.text_config,
            vocab_size=9_216,
            hidden_size=256,
            num_hidden_layers=2,
            layer_types=layer_pattern(2, 2),
        )
        config = replace(config, text_config=text)
    else:
        config = replace(
            config,
            vision_config=replace(vision, image_size=image),
            mm_tokens_per_image=(image // 56) ** 2,
        )
    nano = json.loads((NANO / CONFIG_FILE).read_text())
    return replace(
        config,
        image_token_id=nano["image_token_index"],
        boi_token_id=nano["boi_token_index"],
        eoi_token_id=nano["eoi_token_index"],
    )


def write_model(folder: Path, config: MedGemmaConfig, format: str, encoder: str) -> None:
    """Write a packed folder.

    Args:
        folder: made where it is missing.
        config: the model's sizes.
        format: of the decoder's matrices, "int4", "int8" or "bf16".
        encoder: of the vision tower's, "int8" or "bf16".
    """
    folder.mkdir(parents=True, exist_ok=True)
    with torch.device("meta"):
        state = MedGemma(config).state_dict()
    about = {"family": "medgemma", "made_by": "bench", "decoder": format, "encoder": encoder}
    with write_packed(folder / PACKED_FILE, about) as writer:
        for part in decoder_parts(config.text_config):
            shapes = [state[name].shape for name in part.sources]
            if part.is_matrix:
                rows = fused_rows([shape[0] for shape in shapes])
                _matrix(writer, part.name, rows, shapes[0][1], format, GROUPS[format])
            else:
                writer.values(part.name, np.zeros(shapes[0], np.float32))
        vision = {
            name: tensor for name, tensor in state.items() if not name.startswith("language_model.")
        }
        assert config.vision_config is not None
        for tensor in encoder_tensors(vision, heads=config.vision_config.num_attention_heads):
            _encoder_tensor(writer, tensor, encoder)
    for name, content in medgemma_json(config, "bfloat16").items():
        (folder / name).write_text(json.dumps(content))
    _processor(folder, config)


def _encoder_tensor(writer: PackedWriter, tensor: EncoderTensor, format: str) -> None:
    shape = tuple(tensor.values.shape)
    if tensor.kind != "plain":
        chosen = format if tensor.kind == "layer" else "bf16"
        _matrix(writer, tensor.name, shape[0], shape[1], chosen, 0)
    else:
        is_scale = "norm" in tensor.name and tensor.name.endswith("weight")
        writer.values(tensor.name, np.full(shape, float(is_scale), np.float32))


def _matrix(writer: PackedWriter, name: str, rows: int, cols: int, format: str, group: int) -> None:
    data = random_bytes(format, packed_bytes(format, rows, cols))
    scale = None
    if has_row_scale(format):
        scale = np.full(padded_rows(rows), cols**-0.5 / _SPREAD[format], np.float32)
    matrix = Matrix(format=format, rows=rows, cols=cols, group=group, data=data, row_scale=scale)
    writer.matrix(name, format, rows, cols, group, [matrix])


def _processor(folder: Path, config: MedGemmaConfig) -> None:
    """The nano's tokenizer and preparation of images, for this model's sizes."""
    assert config.vision_config is not None
    side = config.vision_config.image_size
    for name in ("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"):
        shutil.copyfile(NANO / name, folder / name)
    for name in ("preprocessor_config.json", "processor_config.json"):
        content = json.loads((NANO / name).read_text())
        content["image_seq_length"] = config.mm_tokens_per_image
        if "size" in content:
            content["size"] = {"height": side, "width": side}
        (folder / name).write_text(json.dumps(content))
    content = json.loads((NANO / "tokenizer.json").read_text())
    vocab, merges = content["model"]["vocab"], content["model"]["merges"]
    # Pairs of pieces that no text has: each begins with the letter that stands for a space, twice.
    pieces = [piece for piece in vocab if piece.startswith("▁") and len(piece) > 3]
    pairs = ((first, second) for first in pieces for second in pieces)
    while len(vocab) < config.text_config.vocab_size:
        first, second = next(pairs)
        if first + second not in vocab:
            vocab[first + second] = len(vocab)
            merges.append([first, second])
    (folder / "tokenizer.json").write_text(json.dumps(content, ensure_ascii=False))


def main() -> None:
    """Write one."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", choices=SIZES, default="4b")
    parser.add_argument("--image", type=int, default=896)
    parser.add_argument("--format", choices=("int4", "int8", "bf16"), default="int4")
    parser.add_argument("--encoder", choices=("int8", "bf16"), default="int8")
    given = parser.parse_args()
    write_model(given.out, model_config(given.size, given.image), given.format, given.encoder)
    size_bytes = (given.out / PACKED_FILE).stat().st_size
    sys.stdout.write(json.dumps({"out": str(given.out), "bytes": size_bytes}) + "\n")


if __name__ == "__main__":
    main()
