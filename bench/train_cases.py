"""What the training benches train: models of two sizes and the same few batches for everybody.

A case is a folder: `medgemma` and `medsiglip` in Hugging Face form, and `batches.safetensors` with
the batches of every phase, which `bench/peer_train.py` reads without Osler.

Shapes: S batches, B rows, L positions, N images, C channels, P image side, T learnt positions,
K teacher's tokens.
"""

import math
import shutil
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from osler.models.checkpoint import load_medgemma, load_medsiglip, save_medgemma, save_medsiglip
from osler.models.config import (
    MedGemmaConfig,
    MedSiglipConfig,
    SiglipTextConfig,
    TextConfig,
    VisionConfig,
    medgemma_nano,
)
from osler.models.medgemma import MedGemma
from osler.models.medsiglip import MedSiglip
from osler.tasks.checkpoint_extras import carry_over, notice
from osler.tasks.locate import locate

# `tiny` only shows that everything runs.
SIZES = ("nano", "base", "tiny")
BATCHES = "batches.safetensors"
# Two batches in turn: a loss that falls, so that equal curves mean equal gradients.
_BATCHES = 2
_KEPT = 256
_FIRST_WORD = 300

_WIDTH_DEPTH = {"base": (768, 12), "tiny": (192, 1)}
# By size: rows and tokens of text; rows and text tokens of talk about images; pairs.
_TEXT = {"nano": (16, 256), "base": (4, 256), "tiny": (2, 64)}
_TALK = {"nano": (40, 55), "base": (8, 55), "tiny": (2, 55)}
_PAIRS = {"nano": 64, "base": 16, "tiny": 2}


def other_medgemma(width: int, layers: int) -> MedGemmaConfig:
    """Of the nano's tokens and image size; 768 wide and 12 deep about 130 M parameters."""
    text = TextConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 192,
        head_dim=64,
        query_pre_attn_scalar=64,
        vocab_size=8192,
        sliding_window=256,
        max_position_embeddings=8192,
    )
    return replace(medgemma_nano(), text_config=text, vision_config=_vision(width, layers))


def other_medsiglip(width: int, layers: int) -> MedSiglipConfig:
    """Likewise; 768 wide and 12 deep about 80 M parameters."""
    vision = _vision(width, layers)
    text = SiglipTextConfig(
        hidden_size=vision.hidden_size,
        intermediate_size=vision.intermediate_size,
        num_hidden_layers=layers,
        num_attention_heads=vision.num_attention_heads,
        vocab_size=8192,
        projection_size=vision.hidden_size,
    )
    return MedSiglipConfig(text_config=text, vision_config=vision)


def _vision(width: int, layers: int) -> VisionConfig:
    return VisionConfig(
        hidden_size=2 * width // 3,
        intermediate_size=8 * width // 3,
        num_hidden_layers=layers,
        num_attention_heads=width // 96,
        image_size=224,
        patch_size=16,
    )


def write_case(folder: Path, size: str) -> None:
    """Write a case, unless it is there."""
    if (folder / BATCHES).exists():
        return
    torch.manual_seed(0)
    decoder_like, encoder_like = locate("nano", "medgemma"), locate("nano", "medsiglip")
    if size == "nano":
        decoder = load_medgemma(decoder_like, dtype=torch.float32)
        encoder = load_medsiglip(encoder_like, dtype=torch.float32)
    else:
        width, layers = _WIDTH_DEPTH[size]
        decoder = MedGemma(other_medgemma(width, layers))
        encoder = MedSiglip(other_medsiglip(width, layers))
        _randomise(decoder)
        _randomise(encoder)
        nn.init.constant_(encoder.logit_scale, math.log(10.0))
        nn.init.constant_(encoder.logit_bias, -4.0)
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    save_medgemma(decoder, partial / "medgemma")
    carry_over(decoder_like, partial / "medgemma", notice(decoder_like))
    save_medsiglip(encoder, partial / "medsiglip")
    carry_over(encoder_like, partial / "medsiglip", notice(encoder_like))
    save_file(_batches(size, decoder.config, encoder.config), partial / BATCHES)
    partial.replace(folder)


def _batches(size: str, decoder: MedGemmaConfig, encoder: MedSiglipConfig) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)

    def words(*shape: int) -> Tensor:
        # Few of them, and each seldom far from the last, so that there is something to learn.
        steps = torch.randint(0, 4, shape, generator=generator)
        return _FIRST_WORD + steps.cumsum(dim=-1) % 1000

    def images(count: int) -> Tensor:
        side = decoder.vision_config.image_size if decoder.vision_config else 0
        pixels = torch.rand(_BATCHES, count, 3, side, side, generator=generator) * 2 - 1
        return pixels.bfloat16().float()

    rows, length = _TEXT[size]
    talks, told = _TALK[size]
    pairs = _PAIRS[size]
    text = words(_BATCHES, rows, length + 1)
    text[..., 0] = decoder.bos_token_id
    soft = torch.full((decoder.mm_tokens_per_image,), decoder.image_token_id)
    image = torch.cat(
        [
            torch.tensor([decoder.bos_token_id, decoder.boi_token_id]),
            soft,
            torch.tensor([decoder.eoi_token_id]),
        ]
    )
    talk = torch.cat([image.expand(_BATCHES, talks, -1), words(_BATCHES, talks, told)], dim=-1)
    talk_learn = torch.zeros_like(talk, dtype=torch.bool)
    talk_learn[..., -told // 2 :] = True
    learnt = _BATCHES * rows * length
    taught_ids = torch.stack(
        [
            torch.randperm(decoder.text_config.vocab_size, generator=generator)[:_KEPT]
            for _ in range(_BATCHES * rows)
        ]
    ).repeat_interleave(length, dim=0)
    return {
        "text.ids": text,
        "talk.ids": talk,
        "talk.learn": talk_learn,
        "talk.pixels": images(talks),
        "pairs.ids": words(_BATCHES, pairs, encoder.text_config.max_position_embeddings),
        "pairs.pixels": images(pairs),
        "taught.ids": taught_ids.view(_BATCHES, rows * length, _KEPT),
        "taught.logits": torch.randn(learnt, _KEPT, generator=generator)
        .mul(3)
        .view(_BATCHES, rows * length, _KEPT),
        "prompts.ids": words(8, 48),
    }


def _randomise(model: nn.Module) -> None:
    """Weights under which scores differ, so that equal losses say something."""
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2:
            if "norm" in name and name.endswith("weight") and isinstance(model, MedSiglip):
                nn.init.ones_(parameter)
            else:
                nn.init.zeros_(parameter)
        elif "embed" in name and "patch" not in name:
            nn.init.normal_(parameter, std=0.06)
        else:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
