"""Phase 1 of the nano: every image with what its labels say, small classes not drowned.

A network that starts from nothing learns little from captions alone. So beside the sigmoid loss it
is asked for the class by a plain classifier, which is thrown away, and to choose the captions that
are true of an image among all of the step.

Shapes: N images held, B images, M texts, C channels, S image side, L text positions, P patches,
D hidden_size, K classes.

Source: MedGemma (arXiv 2507.05201), section 2.1; SigLIP (arXiv 2303.15343).
"""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from osler.evaluation.naming import findings, study_path
from osler.ingest.image_pack import PackedImage
from osler.models.medsiglip import MedSiglip, sigmoid_loss
from osler.training.captions import class_key, contrastive_caption, is_true_of
from osler.training.contrastive import Tokenize
from osler.training.distributed import Ranks
from osler.training.images import to_model_range
from osler.training.loop import Batches, Size
from osler.training.shown import Show, Shown, see
from osler.training.streams.mixture import Mixture
from osler.training.streams.shards import Row

# How often one image may come in an epoch.
_REPEATS_MOST = 12.0
# Epochs that a source holds: what is left of a repeat (0.4 times more often) is drawn in each.
_EPOCHS = 5
# Scores are divided by it where they are compared with a teacher's.
_SOFTENED = 2.0


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
        names = self.names(items)
        self.classes = sorted(set(names))
        set_of = {name: item.set_name for name, item in zip(names, items, strict=True)}
        self.sets = [set_of[name] for name in self.classes]
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

    @staticmethod
    def names(items: Sequence[PackedImage]) -> list[str]:
        """The class of each image.

        A case is no class: images without a labelled finding are told apart by study only.
        """
        return [class_key(item) if findings(item) else study_path(item) for item in items]

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
    """The encoders with what helps them on their way: a classifier, and eyes for a teacher's maps.

    Args:
        encoders: what is kept in the end.
        classes: that the classifier tells apart.
        guide_channels: of the maps that the tower is held against; 0 for no teacher.
    """

    def __init__(self, encoders: MedSiglip, classes: int, guide_channels: int = 0) -> None:
        super().__init__()
        self.encoders = encoders
        hidden_size = encoders.config.vision_config.hidden_size
        self.classifier = nn.Linear(hidden_size, classes)
        self.follower = nn.Linear(hidden_size, guide_channels) if guide_channels else None

    def scores(self, pixels_BCSS: Tensor) -> Tensor:
        """Of each class, (B, K)."""
        patches_BPD = see(self.encoders, Shown(pixels_BCSS=pixels_BCSS))
        scores: Tensor = self.classifier(self.encoders.vision_head(patches_BPD).float())
        return scores

    def save_helpers(self, path: Path) -> None:
        """Write what is thrown away in the end, so that a later phase may go on with it."""
        save_file(
            {n: t for n, t in self.state_dict().items() if not n.startswith("encoders.")}, path
        )

    def load_helpers(self, path: Path) -> None:
        """Go on with helpers that were saved, as far as this has any."""
        own = self.state_dict()
        known = {n: t for n, t in load_file(path).items() if n in own}
        self.load_state_dict(known, strict=False)


class LessonTask:
    """Encoders that learn from labelled images.

    Args:
        model: encoders, with the weights to start from; what needs no gradient rests.
        batches: of this rank.
        pair_weight: weight of the sigmoid loss, beside 1 for the plain classification: a tower that
            starts from nothing learns faster when its labels do not pass through a text tower that
            knows nothing either. Where this and the next are 0, neither is computed, and what
            serves them alone must rest.
        choice_weight: weight of choosing, among all captions of the step, those that are true of
            an image. The sigmoid loss alone leaves classes of small sets behind the common ones.
        teacher_weight: weight of a teacher's scores of the classes, and of its maps, where the
            batches bring them and the model has a follower: a tower that starts from nothing learns
            in every place of an image at once, and what convolutions know of near pixels.
        evaluate: validation figures of the encoders.
    """

    unit = "images"

    def __init__(
        self,
        model: WithClasses,
        batches: Batches[LessonBatch],
        *,
        pair_weight: float = 1.0,
        choice_weight: float = 1.0,
        teacher_weight: float = 1.0,
        evaluate: Callable[[], dict[str, float]] = dict,
    ) -> None:
        self.model = model
        self.batches = batches
        self._weights = {
            "pairs": pair_weight,
            "labels": 1.0,
            "choice": choice_weight,
            "taught": teacher_weight,
            "guide": teacher_weight,
        }
        self._evaluate = evaluate

    def size(self, batch: LessonBatch) -> Size:
        """Images, by both counts."""
        return Size(weight=len(batch.labels_B), units=len(batch.labels_B))

    def loss(self, batch: LessonBatch) -> tuple[Tensor, dict[str, float]]:
        """Sigmoid loss, classification, choice and what the teacher says, weighed."""
        encoders, weights = self.model.encoders, self._weights
        patches_BPD = see(encoders, batch.shown)
        pooled = encoders.vision_head(patches_BPD).float()
        parts: dict[str, Tensor] = {}
        if weights["pairs"] or weights["choice"]:
            told = encoders.text_model(batch.ids_ML).float()
            logits = encoders.logits(F.normalize(pooled, dim=-1), F.normalize(told, dim=-1))
            parts["pairs"] = sigmoid_loss(logits, batch.match_BM)
            parts["choice"] = choice_loss(logits, batch.match_BM)
        scores_BK = self.model.classifier(pooled).float()
        parts["labels"] = F.cross_entropy(scores_BK, batch.labels_B)
        if self.model.follower is not None and batch.shown.guide_BPC is not None:
            assert batch.shown.taught_BK is not None
            followed_BPC = self.model.follower(patches_BPD).float()
            parts["guide"] = guide_loss(followed_BPC, batch.shown.guide_BPC)
            parts["taught"] = taught_loss(scores_BK, batch.shown.taught_BK)
        loss = sum((weights[name] * part for name, part in parts.items()), start=torch.zeros(()))
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


def guide_loss(followed_BPC: Tensor, guide_BPC: Tensor) -> Tensor:
    """How far from a guide's directions a tower is: 0 for none, 1 for anywhere, 2 for opposite."""
    return (1.0 - F.cosine_similarity(followed_BPC, guide_BPC, dim=-1)).mean()


def taught_loss(scores_BK: Tensor, taught_BK: Tensor) -> Tensor:
    """How far scores of classes are from a teacher's: the divergence of what both find likely.

    Both are softened, so that what the teacher finds less likely counts as well.

    Source: arXiv 1503.02531, section 2.
    """
    learnt, wanted = (F.log_softmax(s / _SOFTENED, dim=-1) for s in (scores_BK, taught_BK))
    return F.kl_div(learnt, wanted, reduction="batchmean", log_target=True) * _SOFTENED**2


def right_in_sets(
    scores: Callable[[Tensor], Tensor],
    lessons: Lessons,
    items: Sequence[PackedImage],
    squares_N3SS: Tensor,
) -> dict[str, float]:
    """The share of a set's images whose class has the highest score among the set's classes.

    Args:
        scores: pixels (B, C, S, S) to scores (B, K) of the lessons' classes.
        lessons: what was learnt.
        items: images held back.
        squares_N3SS: uint8, of these images.
    """
    names = lessons.names(items)
    found: dict[str, float] = {}
    for set_name in sorted({item.set_name for item in items}):
        rows = torch.tensor([i for i, item in enumerate(items) if item.set_name == set_name])
        of_set = {k for k, of in enumerate(lessons.sets) if of == set_name}
        other = torch.tensor([k not in of_set for k in range(len(lessons.classes))])
        guessed = torch.cat(
            [
                scores(to_model_range(squares_N3SS[some])).masked_fill(other, -torch.inf).argmax(1)
                for some in rows.split(64)
            ]
        ).tolist()
        right = [
            lessons.classes[g] == names[i] for g, i in zip(guessed, rows.tolist(), strict=True)
        ]
        found[f"right, {set_name}"] = sum(right) / len(right)
    return found
