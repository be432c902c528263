"""What teaches the nano's vision tower: a convolutional network that learnt the same labels first.

It begins with what everyday images taught it, so it tells classes apart that a transformer from
random weights would want many times the images for. The tower learns from it about the very view
that it is shown: how likely the teacher finds each class, and what it sees in each place.

Shapes: B images, C channels, S image or map side, K classes.

Source: distillation through varied views (arXiv 2106.05237); guidance by maps (arXiv 2207.10026).
"""

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from osler.training.convolutional import (
    MAP_CHANNELS,
    POOLED,
    EfficientNetLite,
    everyday_network,
    fold_norms,
)
from osler.training.images import resized
from osler.training.lessons import LessonBatch
from osler.training.loop import Batches, Size

# Edges and textures, which are the same in all images, are left as they are.
_RESTING_STAGES = 3
# The largest images that it learns from, and is asked about.
TEACHER_PX = 160


class VisionTeacher(nn.Module):
    """The network with a classifier of the labels. Its norms keep their statistics.

    Args:
        network: to begin with.
        classes: that are told apart.
    """

    map_mean: Tensor
    map_deviation: Tensor

    def __init__(self, network: EfficientNetLite, classes: int) -> None:
        super().__init__()
        self.network = network.eval()
        self.classifier = nn.Linear(POOLED, classes)
        self.register_buffer("map_mean", torch.zeros(MAP_CHANNELS, 1, 1))
        self.register_buffer("map_deviation", torch.ones(MAP_CHANNELS, 1, 1))
        for module in network.stages(_RESTING_STAGES):
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> "VisionTeacher":
        """The network stays as it is when it is asked."""
        super().train(mode)
        self.network.eval()
        return self

    def forward(self, pixels_BCSS: Tensor) -> tuple[Tensor, Tensor]:
        """See.

        Args:
            pixels_BCSS: float32, -1 to 1; larger images are made smaller.

        Returns:
            The map (B, 320, S / 32, S / 32), of mean 0 and deviation 1 after `standardise`, and
            scores of the classes (B, K).
        """
        side_px = min(TEACHER_PX, pixels_BCSS.shape[-1])
        maps: Tensor = self.network(resized(pixels_BCSS, side_px))
        scores: Tensor = self.classifier(self.network.pooled(maps))
        return (maps - self.map_mean) / self.map_deviation, scores

    @torch.no_grad()
    def standardise(self, pixels_BCSS: Tensor) -> None:
        """Let each channel of the map have mean 0 and deviation 1 over some images."""
        maps = self.network(pixels_BCSS)
        self.map_mean.copy_(maps.mean(dim=(0, 2, 3))[:, None, None])
        self.map_deviation.copy_(maps.std(dim=(0, 2, 3))[:, None, None] + 1e-6)

    def save(self, path: Path) -> None:
        """Write its weights."""
        save_file({name: t.contiguous() for name, t in self.state_dict().items()}, path)


def untrained_teacher(classes: int) -> VisionTeacher:
    """One that knows everyday images only."""
    return VisionTeacher(everyday_network(), classes)


def load_teacher(path: Path) -> VisionTeacher:
    """One that was saved, ready to be asked."""
    weights = load_file(path)
    model = VisionTeacher(EfficientNetLite(), len(weights["classifier.bias"]))
    model.load_state_dict(weights)
    fold_norms(model.network)
    return model.eval().requires_grad_(False)


class VisionTeacherTask:
    """The teacher learns the labels.

    Args:
        model: with the weights to start from.
        batches: of this rank; captions are left unread.
        evaluate: validation figures of the teacher.
    """

    unit = "images"

    def __init__(
        self,
        model: VisionTeacher,
        batches: Batches[LessonBatch],
        evaluate: Callable[[], dict[str, float]] = dict,
    ) -> None:
        self.model, self.batches, self._evaluate = model, batches, evaluate

    def size(self, batch: LessonBatch) -> Size:
        """Images, by both counts."""
        return Size(weight=len(batch.labels_B), units=len(batch.labels_B))

    def loss(self, batch: LessonBatch) -> tuple[Tensor, dict[str, float]]:
        """Of the plain classification."""
        assert batch.shown.pixels_BCSS is not None
        _, scores_BK = self.model(batch.shown.pixels_BCSS)
        loss = F.cross_entropy(scores_BK.float(), batch.labels_B)
        right = (scores_BK.argmax(dim=1) == batch.labels_B).float().mean()
        return loss, {"labels": loss.item(), "right": right.item()}

    def evaluate(self) -> dict[str, float]:
        """As was asked for."""
        return self._evaluate()
