"""Phase 1 of the nano on a tiny encoder pair."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from osler.models.medsiglip import MedSiglip
from osler.testing.models import tiny_medsiglip
from osler.testing.packs import one_of_each_class
from osler.training.captions import class_key
from osler.training.distributed import Ranks
from osler.training.lessons import (
    LessonBatches,
    Lessons,
    LessonTask,
    WithClasses,
    choice_loss,
    guide_loss,
    taught_loss,
)
from osler.training.loop import LoopConfig, train
from osler.training.shown import Shown, kept_views, see, taught, varied_images
from tests.training.test_contrastive import stripes, tiny_encoders, tokenize


def there(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    return tensor


def test_a_caption_is_matched_with_every_image_that_it_is_true_of() -> None:
    items = [item for item in one_of_each_class() if item.set_name == "cxr_kermany"] * 2
    texts, match = Lessons(items).captions(range(len(items)), 8, random.Random(0))
    assert len(texts) == 8
    assert match.shape == (len(items), 8)
    # Two records a class: a caption true of one is true of the other, and none is true of nothing.
    assert torch.equal(match[:3], match[3:])
    assert match.any(dim=0).all()


def images_of_epochs(lessons: Lessons) -> list[list[int]]:
    return [[e[i].fields["image"] for i in range(len(e))] for e in lessons.epochs(seed=0)]


def test_rare_classes_come_more_often_and_none_is_left_out() -> None:
    normal, bacterial, *_ = one_of_each_class()
    items = [normal] * 1600 + [bacterial] * 25
    for drawn in images_of_epochs(Lessons(items, common_class=400, common_set=1)):
        assert sum(index >= 1600 for index in drawn) == 4 * 25
        assert set(drawn) == set(range(len(items)))


def test_a_small_set_comes_more_often() -> None:
    by_set = {item.set_name: item for item in one_of_each_class()}
    items = [by_set["cxr_kermany"]] * 400 + [by_set["us_busi"]] * 25
    for drawn in images_of_epochs(Lessons(items, common_class=1, common_set=400)):
        assert sum(index >= 400 for index in drawn) == 4 * 25


def test_what_is_left_of_a_repeat_comes_now_and_then() -> None:
    items = one_of_each_class()[:1] * 400
    counts = [len(drawn) for drawn in images_of_epochs(Lessons(items, 900, common_set=1))]
    assert len(set(counts)) > 1
    assert sum(counts) / len(counts) == pytest.approx(600, rel=0.05)


def test_the_classes_are_those_of_the_labels() -> None:
    items = one_of_each_class()
    lessons = Lessons(items)
    labelled = {class_key(item) for item in items if item.set_name == "derm_ham10000"}
    assert labelled <= set(lessons.classes)
    assert len(lessons.labels) == len(items)


def test_images_are_varied_anew_and_made_to_the_towers_size() -> None:
    items = one_of_each_class()[:2]
    encoders = MedSiglip(tiny_medsiglip())
    grid = encoders.config.vision_config.grid
    show = varied_images(items, stripes(2), side_px=20)
    first, again, other = (show([(i, random.Random(seed)) for i in (0, 1)]) for seed in (0, 0, 1))
    assert there(first.pixels_BCSS).shape == (2, 3, 20, 20)
    assert torch.equal(there(first.pixels_BCSS), there(again.pixels_BCSS))
    assert not torch.equal(there(first.pixels_BCSS), there(other.pixels_BCSS))
    assert see(encoders, first).shape[:2] == (2, grid**2)


def test_a_resting_tower_shows_one_of_its_views() -> None:
    patches = torch.randn(5, 3, 2).bfloat16()
    show = kept_views(patches, [[0, 3], [1, 4], [2]])
    shown = there(show([(0, random.Random(seed)) for seed in range(20)]).patches_BPD)
    assert {int(view[0, 0] == patches[3, 0, 0]) for view in shown} == {0, 1}
    assert see(MedSiglip(tiny_medsiglip()), Shown(patches_BPD=shown)) is shown


def test_choosing_asks_for_any_of_the_true_captions() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0], [0.5, 0.0, 1.0]])
    match = torch.tensor([[True, False, True], [False, False, False]])
    probabilities = logits[0].softmax(dim=0)
    wanted = -(probabilities[0] + probabilities[2]).log() / 2
    torch.testing.assert_close(choice_loss(logits, match), wanted)


def three_sets(ranks: Ranks, batch_size: int = 12) -> LessonBatches:
    by_set = {item.set_name: item for item in one_of_each_class()}
    items = [by_set[name] for name in ("cxr_kermany", "mri_brain_tumor", "us_busi")]
    show = varied_images(items, stripes(3))
    lessons = Lessons(items, common_class=1, common_set=1)
    return LessonBatches(
        lessons, show, tokenize, batch_size=batch_size, texts=12, ranks=ranks, seed=0
    )


def test_ranks_share_the_images_and_read_all_captions() -> None:
    whole = next(three_sets(Ranks()))
    parts = [next(three_sets(Ranks(rank=rank, world=2))) for rank in (0, 1)]
    for name in ("labels_B", "match_BM"):
        shared = torch.cat([getattr(part, name) for part in parts])
        assert torch.equal(shared, getattr(whole, name))
    pixels = torch.cat([there(part.shown.pixels_BCSS) for part in parts])
    assert torch.equal(pixels, there(whole.shown.pixels_BCSS))
    assert all(torch.equal(part.ids_ML, whole.ids_ML) for part in parts)


def test_the_lessons_go_on_where_they_stopped() -> None:
    first, again = three_sets(Ranks()), three_sets(Ranks())
    for _ in range(3):
        next(first)
    again.load_state_dict(json.loads(json.dumps(first.state_dict())))
    one, other = next(first), next(again)
    assert torch.equal(there(one.shown.pixels_BCSS), there(other.shown.pixels_BCSS))
    assert torch.equal(one.ids_ML, other.ids_ML)


def test_training_learns(tmp_path: Path) -> None:
    batches = three_sets(Ranks())
    model = tiny_encoders()

    def separation() -> dict[str, float]:
        # How far the scores of true pairs lie above those of the others.
        texts, match = batches._lessons.captions(range(3), 12, random.Random(1))
        logits = model(stripes(3).float() / 127.5 - 1, tokenize(texts))
        return {"separation": float(logits[match].mean() - logits[~match].mean())}

    with torch.no_grad():
        before = separation()["separation"]
    task = LessonTask(WithClasses(model, 3), batches, evaluate=separation)
    config = LoopConfig(steps=60, learning_rate=2e-3, warmup_steps=3, weight_decay=0.02, bf16=True)
    result = train(task, config, tmp_path)
    assert result.evaluation["separation"] > before + 2


def test_a_part_without_weight_is_not_computed() -> None:
    batches = three_sets(Ranks())
    whole, alone = (WithClasses(tiny_encoders(), 3) for _ in range(2))
    batch = next(batches)
    loss, figures = LessonTask(whole, batches).loss(batch)
    assert figures.keys() == {"pairs", "labels", "choice"}
    assert float(loss.detach()) == pytest.approx(sum(figures.values()), rel=1e-5)
    loss, figures = LessonTask(alone, batches, pair_weight=0.0, choice_weight=0.0).loss(batch)
    assert figures.keys() == {"labels"}
    loss.backward()
    assert all(p.grad is None for p in alone.encoders.text_model.parameters())
    assert alone.classifier.weight.grad is not None


def test_a_teacher_is_asked_about_the_very_pixels_that_are_shown() -> None:
    items = one_of_each_class()[:2]
    bright = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    bright[:, :, :, 20:] = 255

    def teacher(pixels_BCSS: Tensor) -> tuple[Tensor, Tensor]:
        return F.avg_pool2d(pixels_BCSS[:, :1], 4), pixels_BCSS.mean(dim=(2, 3))

    show = taught(varied_images(items, bright), teacher, grid=8)
    shown = show([(i, random.Random(seed)) for i in (0, 1) for seed in range(8)])
    pixels = there(shown.pixels_BCSS)
    seen = F.avg_pool2d(pixels[:, :1], 4).flatten(1)
    torch.testing.assert_close(there(shown.guide_BPC)[..., 0], seen)
    torch.testing.assert_close(there(shown.taught_BK), pixels.mean(dim=(2, 3)))


def test_a_teachers_map_is_fitted_to_the_patches() -> None:
    items = one_of_each_class()[:1]
    squares = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)

    def teacher(pixels_BCSS: Tensor) -> tuple[Tensor, Tensor]:
        across = torch.tensor([0.0, 1.0]).expand(len(pixels_BCSS), 1, 2, 2)
        return across, torch.zeros(len(pixels_BCSS), 3)

    shown = taught(varied_images(items, squares), teacher, grid=4)([(0, random.Random(0))])
    rows = there(shown.guide_BPC).view(4, 4)
    torch.testing.assert_close(rows, torch.tensor([0.0, 0.25, 0.75, 1.0]).expand(4, 4))


def test_a_tower_follows_its_teacher() -> None:
    batches = three_sets(Ranks())
    batch = next(batches)
    model = WithClasses(tiny_encoders(), 3, guide_channels=5)
    side = model.encoders.config.vision_config.grid
    guide = torch.randn(12, side**2, 5)
    scores = torch.randn(12, 3)
    batch = replace(batch, shown=replace(batch.shown, guide_BPC=guide, taught_BK=scores))
    loss, figures = LessonTask(model, batches, teacher_weight=2.0).loss(batch)
    rest = sum(figures[name] for name in ("pairs", "labels", "choice"))
    of_teacher = figures["guide"] + figures["taught"]
    assert float(loss.detach()) == pytest.approx(rest + 2 * of_teacher, rel=1e-5)
    loss.backward()
    assert model.follower is not None
    assert model.follower.weight.grad is not None
    torch.testing.assert_close(guide_loss(guide, 3 * guide), torch.tensor(0.0), atol=1e-6, rtol=0)
    torch.testing.assert_close(guide_loss(guide, -guide), torch.tensor(2.0))
    torch.testing.assert_close(taught_loss(scores, scores + 1.0), torch.tensor(0.0))
    softened = [F.softmax(s / 2.0, dim=1) for s in (scores, -scores)]
    wanted = (softened[0] * (softened[0] / softened[1]).log()).sum(dim=1).mean() * 4.0
    torch.testing.assert_close(taught_loss(-scores, scores), wanted)


def test_helpers_go_on_as_far_as_they_are_wanted(tmp_path: Path) -> None:
    first, follows = (WithClasses(tiny_encoders(), 3, guide_channels=5) for _ in range(2))
    rests = WithClasses(tiny_encoders(), 3)
    first.save_helpers(tmp_path / "helpers.safetensors")
    for model in (follows, rests):
        tower = {n: t.clone() for n, t in model.encoders.state_dict().items()}
        model.load_helpers(tmp_path / "helpers.safetensors")
        torch.testing.assert_close(model.classifier.weight, first.classifier.weight)
        assert all(torch.equal(t, tower[n]) for n, t in model.encoders.state_dict().items())
    assert first.follower is not None
    assert follows.follower is not None
    torch.testing.assert_close(follows.follower.weight, first.follower.weight)
