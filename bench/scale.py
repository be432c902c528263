"""The arithmetic of docs/scale.md: what training takes at the true sizes.

    python -m bench.scale

Prints the tables of that page. Counts of parameters come from the models themselves; what is
assumed has a name here and a line there.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from osler.models.config import (
    FULL,
    MedGemmaConfig,
    MedSiglipConfig,
    VisionConfig,
    medgemma_4b,
    medgemma_27b,
    medsiglip_448,
)
from osler.models.medgemma import MedGemma
from osler.models.medsiglip import MedSiglip
from osler.training.distributed import blocks

# The machine: an H100 SXM. What it reaches of its peak, and what an hour costs, are assumptions.
PEAK_FLOPS, MEMORY_GB, MEMORY_BYTES_S = 989e12, 80, 3.35e12
NETWORK_BYTES_S = 50e9  # a GPU's 400 Gbit/s out of its node of eight
UTILISATION, DECODE_UTILISATION = 0.40, 0.5
PRICE_USD = 2.5

# The data, as the reports tell them.
MEDICAL_PAIRS, MEDICAL_SHARE = 33.2e6, 0.02
DECODER_SHARE, DECODER_EPOCHS = 0.10, 5
# And as they do not: assumptions.
TEXT_TOKENS = 128  # beside an image's 256
DISTILLED_TOKENS = 1e9
STEPS, QUESTIONS, ANSWERS, PROMPT_TOKENS, ANSWER_TOKENS = 2000, 128, 8, 512, 512
TUNED_ROWS, TUNED_EPOCHS = 10_000, 3

# Bytes of a parameter that trains: float32 weight, gradient and AdamW's two moments.
WEIGHT, STATE = 4, 16


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """A decoder's sizes, counted."""

    name: str
    config: MedGemmaConfig
    decoder: int
    vision: int
    largest_block: int
    root: int

    def forward_flops(self, length: int) -> float:
        """Of one token in a sequence: a product is two, and a key is met twice."""
        text = self.config.text_config
        keys = sum(
            length / 2 if kind == FULL else min(length / 2, text.sliding_window)
            for kind in text.layer_types
        )
        return 2 * self.decoder + 4 * keys * text.num_attention_heads * text.head_dim

    @property
    def image_flops(self) -> float:
        """Of one image through the tower."""
        assert self.config.vision_config is not None
        return image_flops(self.config.vision_config, self.vision)


def image_flops(vision: VisionConfig, parameters: int) -> float:
    """Of one image: all patches meet all weights, and one another.

    >>> round(image_flops(VisionConfig(), 413_000_000) / 1e12, 1)
    5.5
    """
    patches = vision.grid**2
    between = 4 * patches**2 * vision.hidden_size * vision.num_hidden_layers
    return 2.0 * patches * parameters + between


def decoder(name: str, config: MedGemmaConfig) -> Decoder:
    """Count a decoder's parameters; nothing is allocated."""
    with torch.device("meta"):
        model = MedGemma(config)
    layers = [_count(block) for block in blocks(model.language_model)]
    text = _count(model.language_model)
    return Decoder(
        name=name,
        config=config,
        decoder=text,
        vision=_count(model.vision_tower),
        largest_block=max(layers),
        root=text - sum(layers),
    )


def encoder_parameters(config: MedSiglipConfig) -> tuple[int, int]:
    """Of the image side, and of the text side."""
    with torch.device("meta"):
        model = MedSiglip(config)
    image = _count(model.vision_model) + _count(model.vision_head)
    return image, _count(model) - image


def pair_flops(side_px: int) -> float:
    """Of one pair of image and text, forward and back, blocks computed twice."""
    image, text = encoder_parameters(medsiglip_448())
    return 4 * (image_flops(VisionConfig(image_size=side_px), image) + 2 * 64 * text)


def memory_gb(one: Decoder, gpus: int, rows: int, length: int) -> dict[str, float]:
    """Of one GPU under FSDP2 with activation checkpointing, the vision tower at rest.

    Kept of every block: its float32 input. Of the one that is computed again, about 24 bytes a
    token for each hidden value, 12 for each of the feed-forward, 12 for each of the heads.
    """
    text, tokens = one.config.text_config, rows * length
    heads = text.num_attention_heads * text.head_dim
    vocabulary = text.vocab_size * text.hidden_size
    parts = {
        "states": one.decoder * STATE / gpus + one.vision * WEIGHT / gpus,
        # Two blocks, and what lies outside them, as float32 and in bfloat16.
        "whole": (2 * one.largest_block + one.root) * (WEIGHT + 2),
        "kept": tokens * text.hidden_size * 4 * text.num_hidden_layers,
        "block": tokens * (24 * text.hidden_size + 12 * text.intermediate_size + 12 * heads),
        # 1,024 positions' scores, and the head's gradient.
        "head": 1024 * text.vocab_size * 10 + vocabulary * 4,
    }
    found = {name: size / 1e9 for name, size in parts.items()}
    return {**found, "total": sum(found.values())}


def gpu_hours(flops: float) -> float:
    """Hours of one GPU."""
    return flops / (PEAK_FLOPS * UTILISATION) / 3600


def pretraining(one: Decoder) -> tuple[float, float]:
    """Tokens, and FLOPs: medical images a tenth of all, five times each."""
    length = one.config.mm_tokens_per_image + TEXT_TOKENS
    images = DECODER_EPOCHS * MEDICAL_PAIRS
    tokens = images * length / DECODER_SHARE
    return tokens, tokens * 4 * one.forward_flops(4096) + images * one.image_flops


def distillation(one: Decoder, teacher: Decoder) -> tuple[float, float]:
    """Tokens, and FLOPs of the student and of asking the teacher once."""
    learnt = DISTILLED_TOKENS * (4 * one.forward_flops(2048) + teacher.forward_flops(2048))
    return DISTILLED_TOKENS, learnt


def reinforcement_hours(one: Decoder) -> tuple[float, float]:
    """Answer tokens, and GPU hours: drawing is bound by memory, 64 answers to a pass."""
    answers = STEPS * QUESTIONS * ANSWERS
    drawn = answers * ANSWER_TOKENS
    pass_s = 2 * one.decoder / (MEMORY_BYTES_S * DECODE_UTILISATION)
    drawing = drawn / 64 * pass_s / 3600
    read = answers * (PROMPT_TOKENS + ANSWER_TOKENS)
    # Learnt from (4), scored by the start (1).
    learning = gpu_hours(read * 5 * one.forward_flops(PROMPT_TOKENS + ANSWER_TOKENS))
    return drawn, drawing + learning


def tuning(one: Decoder) -> tuple[float, float]:
    """Tokens, and FLOPs of learning a hospital's rows, each with an image."""
    rows = TUNED_ROWS * TUNED_EPOCHS
    tokens = rows * (one.config.mm_tokens_per_image + TEXT_TOKENS)
    return tokens, tokens * 4 * one.forward_flops(512) + rows * one.image_flops


def least_tokens(one: Decoder) -> float:
    """Tokens a GPU must read in a micro-batch, that the network be no slower than the products."""
    traffic_s = 3 * WEIGHT * one.decoder / NETWORK_BYTES_S
    return traffic_s * PEAK_FLOPS * UTILISATION / (4 * one.forward_flops(4096))


def tables() -> str:
    """All tables of docs/scale.md."""
    small, large = decoder("4B", medgemma_4b()), decoder("27B", medgemma_27b())
    image, text = encoder_parameters(medsiglip_448())
    parts = [
        _table(
            ("model", "decoder", "vision", "largest block", "outside blocks", "states, GB"),
            [
                (
                    one.name,
                    _billions(one.decoder),
                    _billions(one.vision),
                    _billions(one.largest_block),
                    _billions(one.root),
                    f"{one.decoder * STATE / 1e9:.0f}",
                )
                for one in (small, large)
            ]
            + [
                (
                    "encoder",
                    _billions(text),
                    _billions(image),
                    "",
                    "",
                    f"{(image + text) * STATE / 1e9:.0f}",
                )
            ],
        ),
        _table(
            (
                "model",
                "H100",
                "rows x tokens",
                "states",
                "gathered",
                "kept",
                "block",
                "head",
                "GB a GPU",
            ),
            [
                (
                    one.name,
                    str(gpus),
                    f"{rows} x {length:,}",
                    *(f"{part:.1f}" for part in memory_gb(one, gpus, rows, length).values()),
                )
                for one, gpus, rows, length in (
                    (small, 1, 1, 4096),
                    (small, 8, 4, 4096),
                    (small, 64, 8, 4096),
                    (large, 8, 1, 4096),
                    (large, 16, 1, 4096),
                    (large, 64, 2, 4096),
                )
            ],
        ),
        _table(
            ("phase", "amount", "FLOPs", "H100 hours", "8: days", "64: days", "USD"),
            list(_phases(small, large)),
        ),
        _table(
            ("model", "tokens a GPU and micro-batch"),
            [(one.name, f"{least_tokens(one):,.0f}") for one in (small, large)],
        ),
    ]
    return "\n".join(parts)


def _phases(small: Decoder, large: Decoder) -> Iterator[tuple[str, ...]]:
    mixed = MEDICAL_PAIRS / MEDICAL_SHARE
    for name, pairs, side_px in (
        ("encoder, medical pairs alone, 448 px", MEDICAL_PAIRS, 448),
        ("encoder, medical pairs alone, 896 px", MEDICAL_PAIRS, 896),
        ("encoder, at 2 % of a mixture, 896 px", mixed, 896),
    ):
        flops = pairs * pair_flops(side_px)
        yield _phase(name, f"{pairs:.3g} pairs", gpu_hours(flops), flops)
    for one in (small, large):
        for name, (tokens, flops) in (
            ("pretraining", pretraining(one)),
            ("distillation", distillation(one, large)),
            ("full fine-tuning", tuning(one)),
        ):
            yield _phase(f"{one.name} {name}", f"{tokens:.3g} tokens", gpu_hours(flops), flops)
        tokens, hours = reinforcement_hours(one)
        yield _phase(f"{one.name} reinforcement", f"{tokens:.3g} answer tokens", hours, None)


def _phase(name: str, amount: str, hours: float, flops: float | None) -> tuple[str, ...]:
    days = (_plain(hours / 24 / gpus) for gpus in (8, 64))
    shown = "" if flops is None else f"{flops:.2g}"
    return name, amount, shown, _plain(hours), *days, _plain(hours * PRICE_USD)


def _plain(number: float) -> str:
    """Two digits, or all before the point."""
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _billions(parameters: int) -> str:
    return f"{parameters / 1e9:.3g} B"


if __name__ == "__main__":
    sys.stdout.write(tables())
