"""Phase 1: the image and text encoders, joined by the sigmoid loss.

Shapes: B batch, C channels, S image side, P patches kept, L text positions, D embedding size.

Source: MedGemma (arXiv 2507.05201), section 2.1; SigLIP (arXiv 2303.15343); dropping patches while
training follows FLIP (arXiv 2212.00794): it costs little accuracy and most of the time.
"""

import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from osler.ingest.image_pack import PackedImage
from osler.models.medsiglip import MedSiglip, sigmoid_loss
from osler.models.siglip import VisionTower
from osler.training.captions import class_key, contrastive_caption, is_true_of
from osler.training.images import augment
from osler.training.optim import adamw, cosine, load_state, save_state, set_learning_rate

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ContrastiveConfig:
    """Settings of phase 1; the last `full_share` of the steps see all patches."""

    steps: int
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup_steps: int = 100
    patches_kept: int = 64
    full_share: float = 0.12
    save_every_s: float = 120.0
    seed: int = 0


def initialise(model: MedSiglip) -> None:
    """Random weights to start from: small normals, biases zero, scale 10 and bias -4.

    A batch holds several images of each class, so fewer of its pairs are negative than in SigLIP,
    which starts from a bias of -10.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5 * 0.7)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
    nn.init.constant_(model.logit_scale, 2.3026)
    nn.init.constant_(model.logit_bias, -4.0)


def encode_some_patches(
    tower: VisionTower, pixels_BCSS: Tensor, kept: int | None, generator: torch.Generator
) -> Tensor:
    """Run a vision tower on `kept` random patches of each image (None: all of them)."""
    patches_BPD: Tensor = tower.embeddings(pixels_BCSS)
    if kept is not None:
        order = torch.rand(patches_BPD.shape[:2], generator=generator).argsort(dim=1)[:, :kept]
        patches_BPD = patches_BPD.gather(1, order[..., None].expand(-1, -1, patches_BPD.shape[2]))
    out: Tensor = tower.post_layernorm(tower.encoder(patches_BPD))
    return out


def balanced_order(items: Sequence[PackedImage], rng: random.Random) -> list[int]:
    """One epoch's order, in which small sets and rare classes come up to four times as often.

    Without it the 576 ultrasound images drown among the thousands of the large sets.
    """
    counts: dict[str, int] = {}
    for item in items:
        counts[class_key(item)] = counts.get(class_key(item), 0) + 1
    order = []
    for index, item in enumerate(items):
        repeats = min(4.0, max(1.0, (400 / counts[class_key(item)]) ** 0.5))
        order += [index] * (int(repeats) + (rng.random() < repeats % 1))
    rng.shuffle(order)
    return order


def train_contrastive(
    model: MedSiglip,
    items: Sequence[PackedImage],
    squares_N3SS: Tensor,
    tokenize: Callable[[Sequence[str]], Tensor],
    config: ContrastiveConfig,
    state_path: Path,
) -> None:
    """Train both encoders in place; a later call continues from `state_path`.

    Args:
        model: the encoder pair; fresh weights are drawn when there is no state.
        items: labels and captions.
        squares_N3SS: uint8 images in the order of `items`.
        tokenize: texts to int64 ids (B, L).
        config: settings.
        state_path: where the training state is kept.
    """
    torch.manual_seed(config.seed)
    initialise(model)
    optimizer = adamw([model], config.learning_rate, config.weight_decay)
    first = 0
    if state := load_state(state_path):
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
        log.info("continuing at step %d", first)
    rng = random.Random(config.seed + first)
    generator = torch.Generator().manual_seed(config.seed + first)
    keys = [class_key(item) for item in items]
    order: list[int] = []
    saved = started = time.monotonic()
    model.train()
    for step in range(first, config.steps):
        if len(order) < config.batch_size:
            order += balanced_order(items, rng)
        chosen, order = order[: config.batch_size], order[config.batch_size :]
        set_learning_rate(
            optimizer, config.learning_rate * cosine(step, config.steps, config.warmup_steps)
        )
        pixels = augment(squares_N3SS[chosen], [items[i].set_name for i in chosen], generator)
        captions = [contrastive_caption(items[i], rng) for i in chosen]
        ids = tokenize([text for text, _ in captions])
        match = torch.tensor([[is_true_of(key, keys[i]) for _, key in captions] for i in chosen])
        kept = config.patches_kept if step < config.steps * (1 - config.full_share) else None
        with torch.autocast("cpu", torch.bfloat16):
            patches = encode_some_patches(model.vision_model, pixels, kept, generator)
            pooled = model.vision_head(patches)
            texts = model.text_model(ids)
        images = F.normalize(pooled.float(), dim=-1)
        loss = sigmoid_loss(model.logits(images, F.normalize(texts.float(), dim=-1)), match)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 20 == 0:
            rate = (step - first + 1) * config.batch_size / (time.monotonic() - started)
            log.info("step %d loss %.3f, %.1f images/s", step, loss.item(), rate)
        if time.monotonic() - saved > config.save_every_s or step == config.steps - 1:
            save_state(
                state_path,
                {
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "step": step + 1,
                },
            )
            saved = time.monotonic()
    model.eval()
