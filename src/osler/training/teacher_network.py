"""A convolutional network that learns the labels, to teach a vision tower that starts from nothing.

On some ten thousand images convolutions, which know from the start that near pixels belong
together, learn findings several times as fast as a transformer does. Its soft answers then show the
tower what is alike, on every view of every image.

Shapes: B images, C channels, S image side, K classes.

Source: residual networks (arXiv 1512.03385); convolutional teachers of transformers (DeiT, arXiv
2012.12877); a teacher that sees the pupil's own view (arXiv 2106.05237).
"""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from osler.training.images import resized
from osler.training.lessons import LessonBatch
from osler.training.loop import Batches, Size

_FILE = "teacher.safetensors"


@dataclass(frozen=True, kw_only=True)
class TeacherSizes:
    """How large the network is.

    Attributes:
        classes: it tells apart.
        channels: of each stage, whose images have half the side of the stage before.
        blocks: of each stage.
        patch_size: side of the first convolution's patches, which do not overlap.
        image_size: side of the images it was last shown, px.
    """

    classes: int
    channels: tuple[int, ...] = (32, 64, 128, 256)
    blocks: int = 2
    patch_size: int = 4
    image_size: int = 160


class ResidualBlock(nn.Module):
    """Two convolutions beside a short cut."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outside)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1:
            self.shortcut = nn.Sequential(
                nn.AvgPool2d(stride),
                nn.Conv2d(inside, outside, 1, bias=False),
                nn.BatchNorm2d(outside),
            )

    def forward(self, x_BCSS: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x_BCSS)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x_BCSS))


class TeacherNetwork(nn.Module):
    """Pixels to a score for each class; images of any side that its strides divide."""

    def __init__(self, sizes: TeacherSizes) -> None:
        super().__init__()
        self.sizes = sizes
        first = sizes.channels[0]
        self.embed = nn.Sequential(
            nn.Conv2d(3, first, sizes.patch_size, sizes.patch_size, bias=False),
            nn.BatchNorm2d(first),
            nn.ReLU(),
        )
        stages: list[nn.Module] = []
        inside = first
        for outside in sizes.channels:
            stages.append(ResidualBlock(inside, outside, 1 if outside == inside else 2))
            stages += [ResidualBlock(outside, outside, 1) for _ in range(sizes.blocks - 1)]
            inside = outside
        self.stages = nn.Sequential(*stages)
        self.classifier = nn.Linear(sizes.channels[-1], sizes.classes)
        for parameter in self.parameters():  # as the convolutions are quickest on CPUs
            if parameter.dim() == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)

    def forward(self, pixels_BCSS: Tensor) -> Tensor:
        """Score.

        Args:
            pixels_BCSS: -1 to 1.

        Returns:
            (B, K) float32.
        """
        x = pixels_BCSS.contiguous(memory_format=torch.channels_last)
        pooled = self.stages(self.embed(x)).mean(dim=(2, 3))
        scores: Tensor = self.classifier(pooled).float()
        return scores


class LabelTask:
    """A network that learns the labels of images.

    Args:
        model: with the weights to start from.
        batches: of this rank.
        evaluate: validation figures of the network.
    """

    unit = "images"

    def __init__(
        self,
        model: TeacherNetwork,
        batches: Batches[LessonBatch],
        evaluate: Callable[[], dict[str, float]] = dict,
    ) -> None:
        self.model = model
        self.batches = batches
        self._evaluate = evaluate

    def size(self, batch: LessonBatch) -> Size:
        """Images, by both counts."""
        return Size(weight=len(batch.labels_B), units=len(batch.labels_B))

    def loss(self, batch: LessonBatch) -> tuple[Tensor, dict[str, float]]:
        """How surprising the labels are."""
        assert batch.shown.pixels_BCSS is not None
        scores_BK = self.model(batch.shown.pixels_BCSS)
        right = (scores_BK.argmax(dim=1) == batch.labels_B).float().mean()
        return F.cross_entropy(scores_BK, batch.labels_B), {"right": right.item()}

    def evaluate(self) -> dict[str, float]:
        """As was asked for."""
        return self._evaluate()


@torch.no_grad()
def judged(teacher: TeacherNetwork, pixels_BCSS: Tensor) -> Tensor:
    """The teacher's scores (B, K) of images of any size."""
    scores: Tensor = teacher(resized(pixels_BCSS, teacher.sizes.image_size))
    return scores


def save_teacher(model: TeacherNetwork, folder: Path) -> None:
    """Leave the network in a folder, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{_FILE}.partial"
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(weights, partial, metadata={"sizes": json.dumps(asdict(model.sizes))})
    os.replace(partial, folder / _FILE)


def load_teacher(folder: Path) -> TeacherNetwork:
    """Read a network that `save_teacher` left, ready to be asked."""
    with safe_open(folder / _FILE, framework="pt") as file:
        sizes = json.loads(file.metadata()["sizes"])
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    model = TeacherNetwork(TeacherSizes(**{**sizes, "channels": tuple(sizes["channels"])}))
    model.load_state_dict(weights)
    return model.eval().requires_grad_(False)
