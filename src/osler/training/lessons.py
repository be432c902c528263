"""Phase 1 of the nano: every image with what its labels say, small classes not drowned.

A network that starts from nothing learns little from captions alone. So beside the sigmoid loss it
is asked for the class by a plain classifier, which is thrown away, and to choose the captions that
are true of an image among all of the step.

Shapes: N images held, B images, M texts, C channels, S image side, L text positions, P patches,
K patches kept, D hidden_size.

Source: MedGemma (arXiv 2507.05201), section 2.1; SigLIP (arXiv 2303.15343).
"""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from osler.evaluation.naming import findings, study_path
from osler.ingest.image_pack import PackedImage
from osler.models.medsiglip import MedSiglip, sigmoid_loss
from osler.models.siglip import VisionTower
from osler.training.captions import class_key, contrastive_caption, is_true_of
from osler.training.contrastive import Tokenize
from osler.training.distributed import Ranks
from osler.training.image_rows import pixels
from osler.training.loop import Batches, Size
from osler.training.streams.mixture import Mixture
from osler.training.streams.shards import Row

# How often one image may come in an epoch.
_REPEATS_MOST = 12.0
# Epochs that a source holds: what is left of a repeat (0.4 times more often) is drawn in each.
_EPOCHS = 5


class Lessons:
    """The images with what is said of them, drawn so that small classes are not drowned.

    Args:
        items: images of the pack.
        common_class: a class with fewer images comes more often, by the root of what it lacks.
        common_set: the same for sets, so that a small one is learnt at all beside the large.
    """

    def __init__(
        self,
        items: Sequence[PackedImage],
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

    def epochs(self, seed: int) -> list["LessonRows"]:
        """The images as a source; a rare one comes up to twelve times an epoch."""
        return [LessonRows(self._epoch(random.Random(f"{seed}/{i}"))) for i in range(_EPOCHS)]

    def _epoch(self, rng: random.Random) -> list[int]:
        epoch = []
        for index, repeats in enumerate(self._repeats):
            epoch += [index] * (int(repeats) + (rng.random() < repeats % 1))
        return epoch

    def captions(
        self, images: Sequence[int], count: int, rng: random.Random
    ) -> tuple[list[str], Tensor]:
        """Captions for a batch: of as many classes as fill two thirds, then of its own images.

        Returns:
            `count` texts, and bool (B, M): which are true of which image.
        """
        classes = list(self._members.values())
        chosen = rng.sample(classes, min(len(classes), count * 2 // 3))
        described = [rng.choice(members) for members in chosen]
        described += rng.sample(list(images), len(images))
        told = [contrastive_caption(self.items[i], rng) for i in described[:count]]
        match = [[is_true_of(key, self.keys[i]) for _, key in told] for i in images]
        return [text for text, _ in told], torch.tensor(match)


class LessonRows:
    """Numbers of images as a shard, so that a `Mixture` can draw from it."""

    def __init__(self, images: Sequence[int]) -> None:
        self._images = images

    def open(self) -> "LessonRows":
        """It is in memory."""
        return self

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Row:
        image = self._images[index]
        return Row(where=f"image {image}", fields={"image": image})


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Images as a batch shows them: pixels and the patches that are kept of each, or patches.

    Attributes:
        pixels_BCSS: -1 to 1.
        kept_BK: numbers of the patches that the tower's blocks see; None for all.
        patches_BPD: what a resting tower gave, instead.
    """

    pixels_BCSS: Tensor | None = None
    kept_BK: Tensor | None = None
    patches_BPD: Tensor | None = None


Show = Callable[[Sequence[tuple[int, random.Random]]], Shown]


def varied_images(
    items: Sequence[PackedImage], squares_N3SS: Tensor, patches: int, kept_patches: int | None
) -> Show:
    """Show images varied anew each time.

    Args:
        items: of which sets the images are.
        squares_N3SS: uint8 images.
        patches: of an image.
        kept_patches: how many of them, chosen at random, the tower's blocks see; all where None.
            A third of them teach nearly as much in a third of the time (FLIP, arXiv 2212.00794).
    """

    def show(chosen: Sequence[tuple[int, random.Random]]) -> Shown:
        kept = None
        if kept_patches is not None:
            kept = torch.tensor([rng.sample(range(patches), kept_patches) for _, rng in chosen])
        varied = [pixels(squares_N3SS[i], items[i].set_name, rng) for i, rng in chosen]
        return Shown(pixels_BCSS=torch.stack(varied), kept_BK=kept)

    return show


def kept_views(patches_NPD: Tensor, rows: Sequence[Sequence[int]]) -> Show:
    """Show one of the views of each image whose patches were computed before.

    Args:
        patches_NPD: of all views.
        rows: the views of each image.
    """

    def show(chosen: Sequence[tuple[int, random.Random]]) -> Shown:
        views = [rng.choice(rows[image]) for image, rng in chosen]
        return Shown(patches_BPD=patches_NPD[views].float())

    return show


def see(tower: VisionTower, shown: Shown) -> Tensor:
    """The tower's output (B, P or K, D) for images as they are shown."""
    if shown.patches_BPD is not None:
        return shown.patches_BPD
    assert shown.pixels_BCSS is not None
    x_BPD = tower.embeddings(shown.pixels_BCSS)
    if shown.kept_BK is not None:
        x_BPD = x_BPD.gather(1, shown.kept_BK[..., None].expand(-1, -1, x_BPD.shape[-1]))
    patches: Tensor = tower.post_layernorm(tower.encoder(x_BPD))
    return patches


@dataclass(frozen=True, kw_only=True)
class LessonBatch:
    """This rank's images, all captions of the step, and which are true of which."""

    shown: Shown
    labels_B: Tensor
    ids_ML: Tensor
    match_BM: Tensor


class LessonBatches:
    """Images in the order of `Lessons`, with captions of the whole step on every rank.

    Args:
        lessons: images and captions.
        show: numbers of images to what the model is shown.
        tokenize: texts to int64 ids (M, L).
        batch_size: images a step over all ranks.
        texts: captions a step: one for each class, the others of images of the batch.
        ranks: who shares the images.
        seed: of order, captions and variation.
    """

    def __init__(
        self,
        lessons: Lessons,
        show: Show,
        tokenize: Tokenize,
        *,
        batch_size: int,
        texts: int,
        ranks: Ranks,
        seed: int,
    ) -> None:
        self._lessons, self._show, self._tokenize = lessons, show, tokenize
        self._batch_size, self._texts = batch_size, texts
        self._mine = ranks.share(batch_size)
        self._order = Mixture({"lessons": lessons.epochs(seed)}, seed=seed)

    def __next__(self) -> LessonBatch:
        drawn = [next(self._order) for _ in range(self._batch_size)]
        images = [d.read().fields["image"] for d in drawn]
        rng = random.Random(f"{drawn[0].place}/captions")
        texts, match = self._lessons.captions(images, self._texts, rng)
        mine = images[self._mine]
        return LessonBatch(
            shown=self._show([(d.read().fields["image"], d.rng()) for d in drawn[self._mine]]),
            labels_B=self._lessons.labels[mine],
            ids_ML=self._tokenize(texts),
            match_BM=match[self._mine],
        )

    def state_dict(self) -> dict[str, Any]:
        """The order's."""
        return self._order.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The order's."""
        self._order.load_state_dict(state)


class WithClasses(nn.Module):
    """The encoders with the classifier that helps them on their way."""

    def __init__(self, encoders: MedSiglip, classes: int) -> None:
        super().__init__()
        self.encoders = encoders
        self.classifier = nn.Linear(encoders.config.vision_config.hidden_size, classes)


class LessonTask:
    """Encoders that learn from labelled images.

    Args:
        model: encoders, with the weights to start from; what needs no gradient rests.
        batches: of this rank.
        label_weight: weight of the plain classification beside the sigmoid loss. A tower that
            starts from nothing learns faster when its labels do not pass through a text tower
            that knows nothing either.
        choice_weight: weight of choosing, among all captions of the step, those that are true of
            an image. The sigmoid loss alone leaves classes of small sets behind the common ones.
        evaluate: validation figures of the encoders.
    """

    unit = "images"

    def __init__(
        self,
        model: WithClasses,
        batches: Batches[LessonBatch],
        *,
        label_weight: float = 1.0,
        choice_weight: float = 1.0,
        evaluate: Callable[[], dict[str, float]] = dict,
    ) -> None:
        self.model = model
        self.batches = batches
        self._label_weight, self._choice_weight = label_weight, choice_weight
        self._evaluate = evaluate

    def size(self, batch: LessonBatch) -> Size:
        """Images, by both counts."""
        return Size(weight=len(batch.labels_B), units=len(batch.labels_B))

    def loss(self, batch: LessonBatch) -> tuple[Tensor, dict[str, float]]:
        """Sigmoid loss, classification and choice, weighed."""
        encoders = self.model.encoders
        pooled = encoders.vision_head(see(encoders.vision_model, batch.shown)).float()
        told = encoders.text_model(batch.ids_ML).float()
        logits = encoders.logits(F.normalize(pooled, dim=-1), F.normalize(told, dim=-1))
        parts = {
            "pairs": sigmoid_loss(logits, batch.match_BM),
            "labels": F.cross_entropy(self.model.classifier(pooled), batch.labels_B),
            "choice": choice_loss(logits, batch.match_BM),
        }
        loss = (
            parts["pairs"]
            + self._label_weight * parts["labels"]
            + self._choice_weight * parts["choice"]
        )
        return loss, {name: part.item() for name, part in parts.items()}

    def evaluate(self) -> dict[str, float]:
        """As was asked for."""
        return self._evaluate()


def choice_loss(logits_BM: Tensor, match_BM: Tensor) -> Tensor:
    """How surprising it is that a text chosen for an image is one that is true of it.

    An image of which none is true asks nothing.
    """
    surprise_B = logits_BM.logsumexp(dim=1) - logits_BM.masked_fill(~match_BM, -1e4).logsumexp(
        dim=1
    )
    return torch.where(match_BM.any(dim=1), surprise_B, 0.0).mean()
