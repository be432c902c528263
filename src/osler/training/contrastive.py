"""Phase 1: the image and text encoders, joined by the sigmoid loss.

Shapes: N images held, B images, M texts, S image side, L text positions, P patches, D hidden_size.

Source: MedGemma (arXiv 2507.05201), section 2.1; SigLIP (arXiv 2303.15343).
"""

import logging
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from osler.evaluation.naming import findings, study_path
from osler.ingest.image_pack import PackedImage
from osler.models.medsiglip import MedSiglip, sigmoid_loss
from osler.models.siglip import VisionTower
from osler.training.captions import class_key, contrastive_caption, is_true_of
from osler.training.embeddings import sines_and_cosines, whiten
from osler.training.images import augment
from osler.training.optim import (
    adamw,
    cosine,
    load_state,
    save_state,
    set_learning_rate,
    short_sequences,
)

log = logging.getLogger(__name__)

# How often one image may come in an epoch.
_REPEATS_MOST = 12.0

Tokenize = Callable[[Sequence[str]], Tensor]


@dataclass(frozen=True, kw_only=True)
class ContrastiveConfig:
    """Settings of phase 1.

    Attributes:
        steps: optimiser steps.
        batch_size: images a step.
        texts: captions a step: one for each class, the others of images of the batch.
        label_weight: weight of the plain classification beside the sigmoid loss. A tower that
            starts from nothing learns faster when its labels do not pass through a text tower
            that knows nothing either; the classifier is thrown away.
        choice_weight: weight of choosing, among all captions of the step, those that are true of
            an image. The sigmoid loss alone leaves classes of small sets behind the common ones.
        common_class: a class with fewer images comes more often, by the root of what it lacks.
        common_set: the same for sets, so that a small one is learnt at all beside the large.
    """

    steps: int
    batch_size: int = 64
    texts: int = 48
    learning_rate: float = 3e-4
    weight_decay: float = 0.02
    warmup_steps: int = 100
    label_weight: float = 1.0
    choice_weight: float = 1.0
    common_class: int = 1500
    common_set: int = 4000
    save_every_s: float = 120.0
    seed: int = 0


def initialise(model: MedSiglip, squares_N3SS: Tensor) -> None:
    """Weights to start from: small normals, biases zero, scale 10 and bias -4.

    A batch holds several images of each class, so fewer of its pairs are negative than in SigLIP,
    which starts from a bias of -10. Patches start whitened and places as sines and cosines: from
    random ones this tower needs several times as many images before it tells any two findings
    apart (bench/LOG.md).

    Args:
        model: overwritten.
        squares_N3SS: uint8 images to learn the whitening from.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5 * 0.7)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
    for name, parameter in model.named_parameters():
        if name.endswith(("self_attn.out_proj.weight", "mlp.fc2.weight")):
            nn.init.normal_(parameter, std=0.02)
    nn.init.normal_(model.vision_head.probe, std=0.1)
    nn.init.constant_(model.logit_scale, 2.3026)
    nn.init.constant_(model.logit_bias, -4.0)
    embeddings = model.vision_model.embeddings
    whiten(embeddings.patch_embedding, squares_N3SS)
    grid = model.config.vision_config.grid
    with torch.no_grad():
        places = sines_and_cosines(grid, embeddings.position_embedding.embedding_dim)
        embeddings.position_embedding.weight.copy_(places * 0.5)


class Lessons:
    """The images with what is said of them, drawn so that small classes are not drowned."""

    def __init__(
        self,
        items: Sequence[PackedImage],
        rng: random.Random,
        common_class: int = 1500,
        common_set: int = 4000,
    ) -> None:
        self.items = items
        self.keys = [class_key(item) for item in items]
        # A case is no class: images without a labelled finding are told apart by study only.
        names = [
            key if findings(item) else study_path(item)
            for item, key in zip(items, self.keys, strict=True)
        ]
        self.classes = sorted(set(names))
        self.labels = torch.tensor([self.classes.index(name) for name in names])
        self._members: dict[str, list[int]] = defaultdict(list)
        for index, (item, name) in enumerate(zip(items, names, strict=True)):
            if findings(item):
                self._members[name].append(index)
        in_class, in_set = Counter(names), Counter(item.set_name for item in items)
        self._repeats = [
            min(
                _REPEATS_MOST,
                max(1.0, (common_class / in_class[name]) ** 0.5)
                * max(1.0, (common_set / in_set[item.set_name]) ** 0.5),
            )
            for item, name in zip(items, names, strict=True)
        ]
        self._rng = rng
        self._order: list[int] = []

    def images(self, count: int) -> list[int]:
        """Indices of the next images; a rare one comes up to twelve times an epoch."""
        while len(self._order) < count:
            epoch = []
            for index, repeats in enumerate(self._repeats):
                epoch += [index] * (int(repeats) + (self._rng.random() < repeats % 1))
            self._rng.shuffle(epoch)
            self._order += epoch
        chosen, self._order = self._order[:count], self._order[count:]
        return chosen

    def captions(self, images: Sequence[int], count: int) -> tuple[list[str], Tensor]:
        """Captions for a batch: of as many classes as fill two thirds, then of its own images.

        Returns:
            `count` texts, and bool (B, M): which are true of which image.
        """
        classes = list(self._members.values())
        chosen = self._rng.sample(classes, min(len(classes), count * 2 // 3))
        described = [self._rng.choice(members) for members in chosen]
        described += self._rng.sample(list(images), len(images))
        told = [contrastive_caption(self.items[i], self._rng) for i in described[:count]]
        match = [[is_true_of(key, self.keys[i]) for _, key in told] for i in images]
        return [text for text, _ in told], torch.tensor(match)


class VariedImages:
    """The patches of images that are varied anew each time, by a tower that learns.

    Whitened patches rest: their gradient alone, a convolution's, would take a third of the time.

    Args:
        tower: what encodes.
        items: of which sets the images are.
        squares_N3SS: uint8 images.
        kept_patches: how many patches, chosen at random, the tower's blocks see of each image;
            all where None. A third of them teach nearly as much in a third of the time
            (FLIP, arXiv 2212.00794).
        seed: of the variation and the choice.
    """

    def __init__(
        self,
        tower: VisionTower,
        items: Sequence[PackedImage],
        squares_N3SS: Tensor,
        kept_patches: int | None = None,
        seed: int = 0,
    ) -> None:
        tower.embeddings.patch_embedding.requires_grad_(False)
        self._tower = tower
        self._items = items
        self._squares_N3SS = squares_N3SS
        self._kept_patches = kept_patches
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, chosen: Sequence[int]) -> Tensor:
        """Encode images: (B, P or kept_patches, D)."""
        sets = [self._items[i].set_name for i in chosen]
        pixels = augment(self._squares_N3SS[list(chosen)], sets, self._generator)
        x_BPD = self._tower.embeddings(pixels)
        if self._kept_patches is not None:
            scores = torch.rand(x_BPD.shape[:2], generator=self._generator)
            kept = scores.topk(self._kept_patches).indices
            x_BPD = x_BPD.gather(1, kept[..., None].expand(-1, -1, x_BPD.shape[-1]))
        patches: Tensor = self._tower.post_layernorm(self._tower.encoder(x_BPD))
        return patches


def train_contrastive(
    model: MedSiglip,
    items: Sequence[PackedImage],
    patches_of: Callable[[Sequence[int]], Tensor],
    tokenize: Tokenize,
    config: ContrastiveConfig,
    state_path: Path,
) -> None:
    """Train encoders in place; a later call continues from `state_path`.

    Args:
        model: the encoder pair, with the weights to start from; what needs no gradient rests.
        items: labels and captions.
        patches_of: indices into `items` to the vision tower's output (B, P, D).
        tokenize: texts to int64 ids (M, L).
        config: settings.
        state_path: where the training state is kept.
    """
    state = load_state(state_path)
    first = state["step"] if state else 0
    rng = random.Random(config.seed + first)
    torch.manual_seed(config.seed)
    lessons = Lessons(items, rng, config.common_class, config.common_set)
    size = model.config.vision_config.hidden_size
    classifier = nn.Linear(size, len(lessons.classes))
    optimizer = adamw([model, classifier], config.learning_rate, config.weight_decay)
    if state:
        model.load_state_dict(state["model"])
        classifier.load_state_dict(state["classifier"])
        optimizer.load_state_dict(state["optimizer"])
        log.info("continuing at step %d", first)
    saved = started = time.monotonic()
    model.train()
    for step in range(first, config.steps):
        set_learning_rate(
            optimizer, config.learning_rate * cosine(step, config.steps, config.warmup_steps)
        )
        chosen = lessons.images(config.batch_size)
        texts, match = lessons.captions(chosen, config.texts)
        with short_sequences():
            pooled = model.vision_head(patches_of(chosen)).float()
            told = model.text_model(tokenize(texts)).float()
        logits = model.logits(F.normalize(pooled, dim=-1), F.normalize(told, dim=-1))
        label_loss = F.cross_entropy(classifier(pooled), lessons.labels[chosen])
        pair_loss = sigmoid_loss(logits, match)
        choice_loss = torch.where(
            match.any(dim=1),
            logits.logsumexp(dim=1) - logits.masked_fill(~match, -1e4).logsumexp(dim=1),
            0.0,
        ).mean()
        optimizer.zero_grad()
        loss = pair_loss + config.label_weight * label_loss + config.choice_weight * choice_loss
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 20 == 0:
            rate = (step - first + 1) * config.batch_size / (time.monotonic() - started)
            log.info(
                "step %d pairs %.3f labels %.3f choice %.3f, %.1f images/s",
                step,
                pair_loss,
                label_loss,
                choice_loss,
                rate,
            )
        if time.monotonic() - saved > config.save_every_s or step == config.steps - 1:
            save_state(
                state_path,
                {
                    "model": model.state_dict(),
                    "classifier": classifier.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "step": step + 1,
                },
            )
            saved = time.monotonic()
    model.eval()
