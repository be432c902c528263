"""Phases 2 and 3 in their first, simple form: the decoder learns text, then to speak of images.

The vision tower stays as phase 1 left it, so patches are computed once and kept.

Shapes: B batch, L positions, N images, T tokens an image, D vision hidden_size.

Source: MedGemma (arXiv 2507.05201), section 2.2.
"""

import logging
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from osler.models.gemma3 import RMSNorm
from osler.models.medgemma import MedGemma
from osler.training.conversation import TrainingSequence
from osler.training.optim import (
    adamw,
    cosine,
    load_state,
    save_state,
    set_learning_rate,
    short_sequences,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Settings of one phase of the decoder."""

    steps: int
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warmup_steps: int = 100
    save_every_s: float = 120.0


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Padded sequences with the pooled patches (N, T, D) of their images, in order."""

    ids_BL: Tensor
    learn_BL: Tensor
    pooled_NTD: Tensor | None = None


def initialise(model: MedGemma) -> None:
    """Random weights to start from: small normals, norms at one."""
    for module in model.language_model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5 * 0.7)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        elif isinstance(module, RMSNorm):
            nn.init.zeros_(module.weight)


def packed_batches(
    sequences: Iterator[TrainingSequence], batch_size: int, length: int
) -> Iterator[Batch]:
    """Lay text sequences end to end and cut them into full rows of `length` + 1 tokens."""
    ids: list[int] = []
    learn: list[bool] = []
    size = batch_size * (length + 1)
    for sequence in sequences:
        ids += sequence.ids
        learn += sequence.learn
        while len(ids) >= size:
            yield Batch(
                ids_BL=torch.tensor(ids[:size]).view(batch_size, -1),
                learn_BL=torch.tensor(learn[:size]).view(batch_size, -1),
            )
            ids, learn = ids[size:], learn[size:]


def padded_batch(
    sequences: Sequence[TrainingSequence],
    pooled_of: Callable[[list[int]], Tensor],
    *,
    pad: int,
    length: int,
) -> Batch:
    """Pad or cut sequences on the right; causal attention never looks at the padding.

    Args:
        sequences: some with an image.
        pooled_of: the images' numbers to their pooled patches (N, T, D).
        pad: id that fills up.
        length: of every row.
    """
    ids = torch.full((len(sequences), length), pad)
    learn = torch.zeros((len(sequences), length), dtype=torch.bool)
    for row, sequence in enumerate(sequences):
        taken = min(length, len(sequence.ids))
        ids[row, :taken] = torch.tensor(sequence.ids[:taken])
        learn[row, :taken] = torch.tensor(sequence.learn[:taken])
    images = [sequence.image for sequence in sequences if sequence.image is not None]
    return Batch(ids_BL=ids, learn_BL=learn, pooled_NTD=pooled_of(images) if images else None)


def next_token_loss(model: MedGemma, batch: Batch) -> Tensor:
    """Mean cross-entropy over the tokens to be learnt; only these meet the vocabulary."""
    soft_NTD = None
    if batch.pooled_NTD is not None:
        soft_NTD = model.multi_modal_projector.project(batch.pooled_NTD)
    x_BLD = model.hidden(batch.ids_BL[:, :-1], soft_NTD=soft_NTD)
    learn_BL = batch.learn_BL[:, 1:]
    logits = model.language_model.logits(x_BLD[learn_BL])
    return F.cross_entropy(logits, batch.ids_BL[:, 1:][learn_BL])


def train_decoder(
    model: MedGemma, batches: Iterator[Batch], config: DecoderConfig, state_path: Path
) -> None:
    """Train decoder and projector in place; a later call continues from `state_path`.

    Args:
        model: its vision tower is left alone.
        batches: as many as `config.steps` at least; their order is the caller's.
        config: settings.
        state_path: where the training state is kept.
    """
    trained = [model.language_model, model.multi_modal_projector]
    optimizer = adamw(trained, config.learning_rate, config.weight_decay)
    first = 0
    if state := load_state(state_path):
        for module, weights in zip(trained, state["modules"], strict=True):
            module.load_state_dict(weights)
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
        log.info("continuing at step %d", first)
    started = saved = time.monotonic()
    tokens, mean_loss = 0, 0.0
    model.train()
    for step in range(first, config.steps):
        batch = next(batches)
        set_learning_rate(
            optimizer, config.learning_rate * cosine(step, config.steps, config.warmup_steps)
        )
        with short_sequences():
            loss = next_token_loss(model, batch)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([p for module in trained for p in module.parameters()], 1.0)
        optimizer.step()
        tokens += batch.ids_BL.numel()
        mean_loss = loss.item() if step == first else 0.95 * mean_loss + 0.05 * loss.item()
        if step % 20 == 0:
            rate = tokens / (time.monotonic() - started)
            log.info("step %d loss %.3f, %.0f tokens/s", step, mean_loss, rate)
        if time.monotonic() - saved > config.save_every_s or step == config.steps - 1:
            weights = [module.state_dict() for module in trained]
            done = {"modules": weights, "optimizer": optimizer.state_dict(), "step": step + 1}
            save_state(state_path, done)
            saved = time.monotonic()
    model.eval()


def shuffled_forever(count: int, rng: random.Random) -> Iterator[int]:
    """Indices 0 to count - 1 in a new random order each epoch, without end."""
    while True:
        order = list(range(count))
        rng.shuffle(order)
        yield from order
