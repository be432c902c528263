"""The optimiser, its schedule, precision and seeds of a step."""

import math
import random
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from osler.training.distributed import blocks
from osler.training.muon import Muon

OptimizerName = Literal["adamw", "muon"]


def adamw(
    model: nn.Module,
    learning_rate: float,
    weight_decay: float,
    betas: tuple[float, float] = (0.9, 0.999),
) -> torch.optim.AdamW:
    """AdamW that decays matrices and leaves vectors (norms, biases, scales) alone.

    Parameters without `requires_grad` are not its affair.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW(
        _groups(parameters, weight_decay), lr=learning_rate, betas=betas, fused=True
    )


def muon(
    model: nn.Module,
    learning_rate: float,
    weight_decay: float,
    betas: tuple[float, float] = (0.9, 0.999),
) -> Muon:
    """Muon for the matrices of a model's blocks, AdamW for embeddings, heads and vectors."""
    inside = {id(p): p for block in blocks(model) for p in block.parameters() if p.requires_grad}
    matrices = {key: p for key, p in inside.items() if p.ndim == 2}
    others = [p for p in model.parameters() if p.requires_grad and id(p) not in matrices]
    return Muon(
        matrices.values(),
        _groups(others, weight_decay),
        lr=learning_rate,
        weight_decay=weight_decay,
        betas=betas,
    )


def _groups(parameters: Sequence[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def attention(device: torch.device) -> AbstractContextManager[object]:
    """Plain attention on CPUs.

    For up to some hundred positions the CPU's flash attention is several times slower backwards.
    """
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()


@contextmanager
def precision(device: torch.device, bf16: bool) -> Iterator[None]:
    """Where `bf16`, and where `has_bf16`, matrix products in bfloat16; and fitting `attention`."""
    fast = bf16 and has_bf16(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=fast), attention(device):
        yield


@cache
def has_bf16(device: torch.device) -> bool:
    """Whether the device multiplies in bfloat16 itself.

    Processors without such instructions are far slower in it than in float32 (docs/training.md).
    """
    return device.type != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()


def seed_everything(*parts: int) -> None:
    """Seed Python, NumPy and torch from some numbers, as those of run, step and rank.

    A step that begins from its own seed leaves no generator's state to be saved, and what an
    evaluation draws in between changes nothing.
    """
    seed = random.Random(repr(parts)).getrandbits(32)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def cosine(step: int, steps: int, warmup: int) -> float:
    """Share of the peak learning rate: a linear rise, then half a cosine down to 2 %.

    >>> [round(cosine(s, 100, 10), 2) for s in (0, 9, 55, 99)]
    [0.1, 1.0, 0.51, 0.02]
    """
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return 0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * progress))


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Give every parameter group this learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
