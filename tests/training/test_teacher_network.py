"""The convolutional teacher of the nano's tower."""

from pathlib import Path
from typing import Any

import torch

from osler.training.lessons import LessonBatch, Shown
from osler.training.loop import LoopConfig, train
from osler.training.teacher_network import (
    LabelTask,
    TeacherNetwork,
    TeacherSizes,
    judged,
    load_teacher,
    save_teacher,
)

SIZES = TeacherSizes(classes=3, channels=(8, 16), blocks=1, patch_size=2, image_size=16)


def stripes() -> LessonBatch:
    """Upright, level and no stripes."""
    wave = torch.arange(16).div(2, rounding_mode="floor").remainder(2) * 2.0 - 1.0
    across = wave.expand(3, 16, 16)
    images = torch.stack([across, across.transpose(1, 2), torch.zeros(3, 16, 16)])
    return LessonBatch(
        shown=Shown(pixels_BCSS=images),
        labels_B=torch.arange(3),
        ids_ML=torch.zeros(0, 0, dtype=torch.int64),
        match_BM=torch.zeros(3, 0, dtype=torch.bool),
    )


class Repeated:
    """The same batch again and again."""

    def __next__(self) -> LessonBatch:
        return stripes()

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        assert not state


def test_it_learns_and_is_read_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = TeacherNetwork(SIZES)
    task = LabelTask(model, Repeated())
    result = train(task, LoopConfig(steps=30, learning_rate=1e-2), tmp_path / "run")
    assert result.loss is not None
    assert result.loss < 0.1
    save_teacher(model, tmp_path / "model")
    read = load_teacher(tmp_path / "model")
    assert read.sizes == SIZES
    pixels = stripes().shown.pixels_BCSS
    assert pixels is not None
    torch.testing.assert_close(judged(read, pixels), judged(model, pixels))
    assert not any(p.requires_grad for p in read.parameters())


def test_images_of_another_size_are_made_to_its_own() -> None:
    model = TeacherNetwork(SIZES).eval()
    small = torch.rand(2, 3, 16, 16)
    large = small.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(judged(model, large), judged(model, small), atol=0.2, rtol=0.2)
    assert judged(model, large).shape == (2, 3)
