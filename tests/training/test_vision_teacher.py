"""The network that teaches the nano's tower."""

from pathlib import Path

import pytest
import torch

from osler.training.convolutional import everyday_network
from osler.training.distributed import Ranks
from osler.training.loop import LoopConfig, train
from osler.training.vision_teacher import VisionTeacher, VisionTeacherTask, load_teacher
from tests.training.test_lessons import three_sets


@pytest.fixture
def teacher() -> VisionTeacher:
    torch.manual_seed(0)
    return VisionTeacher(everyday_network(), classes=3)


def test_it_learns_the_labels_and_its_first_stages_rest(
    teacher: VisionTeacher, tmp_path: Path
) -> None:
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    task = VisionTeacherTask(teacher, three_sets(Ranks()), evaluate=lambda: {"right": 0.5})
    batch = next(task.batches)
    first, figures = task.loss(batch)
    assert figures.keys() == {"labels", "right"}
    train(task, LoopConfig(steps=8, learning_rate=1e-3), tmp_path)
    assert float(task.loss(batch)[0].detach()) < float(first.detach())
    moved = {n for n, value in teacher.state_dict().items() if not torch.equal(value, before[n])}
    assert "classifier.weight" in moved
    assert "network._blocks.5._expand_conv.weight" in moved
    assert not any(name.startswith(("network._conv_stem", "network._blocks.4.")) for name in moved)
    assert not any("running" in name for name in moved)


def test_what_is_saved_answers_the_same(teacher: VisionTeacher, tmp_path: Path) -> None:
    pixels = torch.rand(8, 3, 64, 64) * 2 - 1
    teacher.eval().standardise(pixels)
    teacher.save(tmp_path / "model.safetensors")
    again = load_teacher(tmp_path / "model.safetensors")
    assert not any(p.requires_grad for p in again.parameters())
    with torch.no_grad():
        for one, other in zip(teacher(pixels), again(pixels), strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_maps_are_standardised_over_images(teacher: VisionTeacher) -> None:
    pixels = torch.rand(8, 3, 64, 64) * 2 - 1
    teacher.eval().standardise(pixels)
    with torch.no_grad():
        maps, scores = teacher(pixels)
    assert maps.shape == (8, 320, 2, 2)
    assert scores.shape == (8, 3)
    torch.testing.assert_close(maps.mean(dim=(0, 2, 3)), torch.zeros(320), atol=1e-3, rtol=0)
    torch.testing.assert_close(maps.std(dim=(0, 2, 3)), torch.ones(320), atol=0.05, rtol=0)


def test_larger_images_are_made_smaller(teacher: VisionTeacher) -> None:
    with torch.no_grad():
        maps, _ = teacher.eval()(torch.zeros(1, 3, 224, 224))
    assert maps.shape[-1] == 5
